"""Typed background tasks on RabbitMQ: nothing lost, exact delays, visible failures."""

from importlib.metadata import version as _version

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
from rmqarq.worker import Worker

__version__ = _version("rmqarq")

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
