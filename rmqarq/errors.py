"""Every error that rmqarq raises, and the two signals a task may raise.

    RmqarqError
    ├── ConfigurationError         wrong set-up: fix it, a retry will not help
    │   ├── TaskAlreadyRegistered  two functions under one task name
    │   ├── AppNotFound            MODULE:APP leads nowhere
    │   ├── TopologyMismatch       a queue exists with other arguments
    │   ├── QueueMissing           a queue of somebody else does not exist
    │   └── AccessRefused          credentials, virtual host or permissions
    ├── NotFound                   a command names a queue or message that is not there
    ├── Unhealthy                  a worker or its queues are not as they should be
    ├── CodecError
    │   ├── EncodeError            an argument or result that can't travel
    │   └── DecodeError            a message that can't be read
    └── TransportError             also a ConnectionError
        ├── ConnectionFailed       no broker could be reached
        ├── ConnectionLost         the link broke while we waited
        ├── QueueFull              the broker refused the message
        ├── Unroutable             the queue does not exist
        ├── BrokerBlocked          memory or disk alarm on the broker
        ├── OutcomeUnknown         lost before the broker confirmed
        ├── PartlyEnqueued         some jobs of a batch failed
        └── PartlyMapped           some rows of a map failed

    JobSignal                      raised by a task, never seen by callers
    ├── Retry                      run me again later
    └── Reject                     never run me again

An error keeps its sentence as an English template beside its parameters, so that
`str(error)` stays English for grouping while the terminal can show it in Chinese.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rmqarq.when import When


class RmqarqError(Exception):
    """The root of all errors raised by rmqarq.

    Args:
        template: An English sentence with `{name}` placeholders.
        **params: The values for the placeholders.
    """

    def __init__(self, template: str, /, **params: Any) -> None:
        self.template = template
        self.params = params
        super().__init__(template.format(**params) if params else template)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.template, self.params), self.__dict__


class Phrase(str):
    """A part of a sentence that is translated with it; a text like any other else.

    Args:
        template: English words with `{name}` placeholders.
        **params: The values for the placeholders.
    """

    template: str
    params: dict[str, Any]

    def __new__(cls, template: str, /, **params: Any) -> Self:
        """Fill the template."""
        made = super().__new__(cls, template.format(**params) if params else template)
        made.template = template
        made.params = params
        return made


def phrase_of(error: RmqarqError) -> Phrase:
    """Give the sentence of an error as a part of another."""
    return Phrase(error.template, **error.params)


def _rebuild(
    kind: type[RmqarqError], template: str, params: dict[str, Any]
) -> RmqarqError:
    return kind(template, **params)


class ConfigurationError(RmqarqError):
    """The set-up is wrong; trying again without a change will not help."""


class TaskAlreadyRegistered(ConfigurationError):
    """Two functions claim one task name."""


class AppNotFound(ConfigurationError):
    """`MODULE:APP` names no App."""


class TopologyMismatch(ConfigurationError):
    """A queue or exchange exists on the broker with other arguments than ours."""


class QueueMissing(ConfigurationError):
    """A queue is not there, and not ours to create.

    `app.consume` names it, or `declare` is `passive`.
    """


class AccessRefused(ConfigurationError):
    """The broker refused the user, the virtual host or the operation."""


class NotFound(RmqarqError):
    """A queue or a message that a command names is not there."""


class Unhealthy(RmqarqError):
    """A worker can't do its work, or nobody does; why, and since when."""


class CodecError(RmqarqError):
    """A value and its bytes do not fit each other."""


class EncodeError(CodecError):
    """An argument or a result cannot travel as its annotated type.

    Attributes:
        row: Which row it is in, by its position in what `map` or `starmap` was given.
    """

    row: int | None = None


class DecodeError(CodecError):
    """A message cannot be read; the sentence carries the path inside the body."""


class TransportError(RmqarqError, ConnectionError):
    """The broker could not be reached or did not accept a message."""


class ConnectionFailed(TransportError):
    """No broker could be reached before the deadline."""


class ConnectionLost(TransportError):
    """The connection broke while an answer was awaited.

    Attributes:
        refusal: AMQP's reply code when the broker closed the channel because of
            something that was published on it; else 0.
        unsent: True when it broke before anything was sent.
    """

    refusal: int = 0
    unsent: bool = False


class QueueFull(TransportError):
    """The broker refused the message (`basic.nack`), usually a full queue."""


class Unroutable(TransportError):
    """The broker returned the message: there is no such queue, or none is bound."""


class BrokerBlocked(TransportError):
    """The broker stopped reading publishers: a memory or disk alarm."""


class OutcomeUnknown(TransportError):
    """The link broke before the confirm and stayed down until the deadline.

    The job may have been stored or not. Enqueue again under the same job id if the
    task tolerates running twice.
    """


class PartlyEnqueued(TransportError):
    """Some jobs of `enqueue_many` were not confirmed.

    Attributes:
        failures: For each position in the given sequence, the error that met it.
        jobs: The jobs in the given order, `None` where one failed.
    """

    failures: dict[int, Exception]
    jobs: list[Any]


class PartlyMapped(TransportError):
    """Some rows of `map` or `starmap` were not confirmed.

    Attributes:
        failures: For each chunk that was not, its rows by position, and the error.
        sent: How many rows were sent: those from there on were not.
    """

    failures: dict[range, Exception]
    sent: int


class JobSignal(Exception):
    """What a task raises to steer its own fate."""


class Retry(JobSignal):
    """Raise it in a task to run the job again later; counts against `max_retries`.

    Args:
        defer: When to run again (seconds, timedelta or datetime);
            `None` lets the task's `Backoff` decide.

    Example:
        >>> raise Retry(defer=10)
        Traceback (most recent call last):
        ...
        rmqarq.errors.Retry: 10
    """

    def __init__(self, defer: When | None = None) -> None:
        super().__init__(*(() if defer is None else (defer,)))
        self.defer = defer


class Reject(JobSignal):
    """Raise it in a task to put the job into the dead-letter queue at once.

    Args:
        reason: Shown with the dead letter.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(*((reason,) if reason else ()))
        self.reason = reason
