"""What a running function sees of its job and its worker."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import TypeVar as DefaultTypeVar

    from rmqarq.message import Message
    from rmqarq.outcome import Outcome


class State(dict[str, Any]):
    """What start-up hooks leave for every job: `state["db"] = ...`."""


if TYPE_CHECKING:
    StateT = DefaultTypeVar("StateT", default=State)
else:  # the default of a type variable is only needed by type checkers
    StateT = TypeVar("StateT")


_NOTHING: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})


class Context(Generic[StateT]):
    """The job a function runs for, and the state of its worker.

    A task takes it as first parameter, by annotation: `ctx: Context`, or
    `ctx: Context[Db]` where the App has a lifespan that yields a `Db`.

    Attributes:
        state: What the lifespan yielded, else the `State` that start-up hooks filled.
        queue: The queue the job came from.
        redelivered: True when the broker had delivered the job before; an earlier
            run may have been cut short.
        outcome: How the run ended; `None` until it has. Hooks of the job's end read it.
        arguments: What the function is called with, by position and by name, the
            context apart. Hooks and middleware may look at them.
    """

    __slots__ = ("_message", "arguments", "outcome", "queue", "redelivered", "state")

    state: StateT
    queue: str
    redelivered: bool
    outcome: Outcome | None
    arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __init__(
        self, message: Message, state: StateT, queue: str, redelivered: bool = False
    ) -> None:
        self._message = message
        self.state = state
        self.queue = queue
        self.redelivered = redelivered
        self.outcome = None
        self.arguments = _NOTHING

    @property
    def job_id(self) -> str:
        """The id of the job; the same through all its attempts."""
        return self._message.id

    @property
    def job_try(self) -> int:
        """The number of this attempt: failures so far + 1."""
        return self._message.job_try

    @property
    def task(self) -> str:
        """The registered name of the task."""
        return self._message.task

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued, an aware datetime in UTC."""
        return datetime.fromtimestamp(self._message.enqueued_at, UTC)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the caller sent along."""
        return self._message.headers

    @property
    def generation(self) -> int:
        """How often the job was requeued from the dead-letter queue."""
        return self._message.generation

    def __repr__(self) -> str:
        return f"<Context {self.task} {self.job_id} try {self.job_try}>"
