"""What a test sees of a job: enqueued, waiting, run, or dead."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from rmqarq.incoming import Incoming
from rmqarq.outcome import Outcome

LONGEST = 200


class Sighting(Struct, frozen=True, kw_only=True):
    """A call, with the job that it is.

    Args:
        task: The name of the task.
        args: Its positional arguments, as the function gets them.
        kwargs: Its named arguments, likewise.
        id: The id of the job.
        queue: The queue that it belongs to.
    """

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    id: str
    queue: str

    @property
    def call(self) -> str:
        """The call as one would write it, shortened."""
        return written(self.task, self.args, self.kwargs)

    def __str__(self) -> str:
        return f"{self.call} on {self.queue}"


class Enqueued(Sighting, frozen=True, kw_only=True):
    """A job that was enqueued, and stored by the broker.

    Args:
        at: When.
        eta: When it is due; `None` means at once.
        headers: The caller's own.
    """

    at: datetime
    eta: datetime | None = None
    headers: dict[str, str] = {}

    @property
    def delay(self) -> float:
        """How many seconds it was deferred by."""
        return 0.0 if self.eta is None else (self.eta - self.at).total_seconds()

    def __str__(self) -> str:
        due = "" if self.eta is None else f", due {self.eta}"
        return f"{Sighting.__str__(self)}{due}"


class Delayed(Sighting, frozen=True, kw_only=True):
    """A job that waits for its time: deferred, or between two attempts.

    Args:
        due: When that is; `None` for one that is put off without a time of its own.
        job_try: The number of the attempt that it waits for.
    """

    due: datetime | None
    job_try: int = 1

    def __str__(self) -> str:
        return f"{Sighting.__str__(self)}, attempt {self.job_try}, due {self.due}"


class Done(Sighting, frozen=True, kw_only=True):
    """A run that has ended, however it did.

    Args:
        at: When.
        job_try: The number of the attempt.
        outcome: How it ended.
        error: The exception that came out of it, `Retry` and `Reject` included.
    """

    at: datetime
    job_try: int
    outcome: Outcome
    error: BaseException | None = None

    def __str__(self) -> str:
        text = f"{self.call}, attempt {self.job_try}: {type(self.outcome).__name__}"
        return text if self.error is None else f"{text}, {self.error!r}"


class Dead(Sighting, frozen=True, kw_only=True):
    """A dead letter.

    Args:
        reason: Why it is dead, such as `retries used up`.
        error: The type of the exception, if there was one.
        message: Its text.
        traceback: The tail of its traceback.
        tries: How many times it was run.
        at: When it died.
    """

    reason: str
    error: str | None = None
    message: str | None = None
    traceback: str | None = None
    tries: int = 0
    at: datetime | None = None

    def __str__(self) -> str:
        error = f", {self.error}: {self.message}" if self.error else ""
        return f"{self.call} of {self.queue}: {self.reason}{error}, tries: {self.tries}"


def moment(seconds: float) -> datetime:
    """Give a moment in seconds since the epoch as a datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def written(task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Write a call down, shortened."""
    shown = [repr(body_of(each)) for each in args]
    shown += [f"{name}={value!r}" for name, value in kwargs.items()]
    text = ", ".join(shown)
    return f"{task}({text if len(text) <= LONGEST else text[:LONGEST] + '…'})"


def body_of(value: Any) -> Any:
    """Give the body of a foreign message, without all that came along."""
    found: Any = value
    return found.body if isinstance(value, Incoming) else found
