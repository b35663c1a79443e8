"""Typed background tasks on RabbitMQ: nothing lost, exact delays, visible failures.

What stands here is loaded when it is first asked for (PEP 562), so that `import rmqarq`
costs nothing where it is not used, such as in the test runs of other projects.
"""

from typing import TYPE_CHECKING

from rmqarq.door import opener as _opener

if TYPE_CHECKING:
    from rmqarq.app import App
    from rmqarq.backoff import Backoff
    from rmqarq.context import Context, State
    from rmqarq.errors import (
        AccessRefused,
        AppNotFound,
        BrokerBlocked,
        CodecError,
        ConfigurationError,
        ConnectionFailed,
        ConnectionLost,
        DecodeError,
        EncodeError,
        NotFound,
        OutcomeUnknown,
        PartlyEnqueued,
        PartlyMapped,
        QueueFull,
        QueueMissing,
        Reject,
        Retry,
        RmqarqError,
        TaskAlreadyRegistered,
        TopologyMismatch,
        TransportError,
        Unhealthy,
        Unroutable,
    )
    from rmqarq.handler import Handler
    from rmqarq.incoming import Incoming
    from rmqarq.job import Job, JobSpec
    from rmqarq.message import Message
    from rmqarq.middleware import Middleware
    from rmqarq.outcome import (
        Aborted,
        DeadLettered,
        Outcome,
        Released,
        Retried,
        Succeeded,
    )
    from rmqarq.portal import Portal
    from rmqarq.settings import Settings
    from rmqarq.stats import Stats
    from rmqarq.task import Task
    from rmqarq.version import __version__
    from rmqarq.worker import Worker

_HOMES = {
    "Aborted": "rmqarq.outcome",
    "AccessRefused": "rmqarq.errors",
    "App": "rmqarq.app",
    "AppNotFound": "rmqarq.errors",
    "Backoff": "rmqarq.backoff",
    "BrokerBlocked": "rmqarq.errors",
    "CodecError": "rmqarq.errors",
    "ConfigurationError": "rmqarq.errors",
    "ConnectionFailed": "rmqarq.errors",
    "ConnectionLost": "rmqarq.errors",
    "Context": "rmqarq.context",
    "DeadLettered": "rmqarq.outcome",
    "DecodeError": "rmqarq.errors",
    "EncodeError": "rmqarq.errors",
    "Handler": "rmqarq.handler",
    "Incoming": "rmqarq.incoming",
    "Job": "rmqarq.job",
    "JobSpec": "rmqarq.job",
    "Message": "rmqarq.message",
    "Middleware": "rmqarq.middleware",
    "NotFound": "rmqarq.errors",
    "Outcome": "rmqarq.outcome",
    "OutcomeUnknown": "rmqarq.errors",
    "PartlyEnqueued": "rmqarq.errors",
    "PartlyMapped": "rmqarq.errors",
    "Portal": "rmqarq.portal",
    "QueueFull": "rmqarq.errors",
    "QueueMissing": "rmqarq.errors",
    "Reject": "rmqarq.errors",
    "Released": "rmqarq.outcome",
    "Retried": "rmqarq.outcome",
    "Retry": "rmqarq.errors",
    "RmqarqError": "rmqarq.errors",
    "Settings": "rmqarq.settings",
    "State": "rmqarq.context",
    "Stats": "rmqarq.stats",
    "Succeeded": "rmqarq.outcome",
    "Task": "rmqarq.task",
    "TaskAlreadyRegistered": "rmqarq.errors",
    "TopologyMismatch": "rmqarq.errors",
    "TransportError": "rmqarq.errors",
    "Unhealthy": "rmqarq.errors",
    "Unroutable": "rmqarq.errors",
    "Worker": "rmqarq.worker",
    "__version__": "rmqarq.version",
}

if not TYPE_CHECKING:
    __getattr__ = _opener(globals(), _HOMES)

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Aborted",
    "AccessRefused",
    "App",
    "AppNotFound",
    "Backoff",
    "BrokerBlocked",
    "CodecError",
    "ConfigurationError",
    "ConnectionFailed",
    "ConnectionLost",
    "Context",
    "DeadLettered",
    "DecodeError",
    "EncodeError",
    "Handler",
    "Incoming",
    "Job",
    "JobSpec",
    "Message",
    "Middleware",
    "NotFound",
    "Outcome",
    "OutcomeUnknown",
    "PartlyEnqueued",
    "PartlyMapped",
    "Portal",
    "QueueFull",
    "QueueMissing",
    "Reject",
    "Released",
    "Retried",
    "Retry",
    "RmqarqError",
    "Settings",
    "State",
    "Stats",
    "Succeeded",
    "Task",
    "TaskAlreadyRegistered",
    "TopologyMismatch",
    "TransportError",
    "Unhealthy",
    "Unroutable",
    "Worker",
    "__version__",
]
