"""The producer's side of a job: the handle, the call for a batch, and new ids."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct

from rmqarq.errors import ConfigurationError
from rmqarq.message import Count, Span
from rmqarq.when import plain_seconds
from rmqarq.wire.topology import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.home import Home
    from rmqarq.signature import Signature
    from rmqarq.when import Duration, When

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_random = random.SystemRandom()
_source = random.Random(_random.getrandbits(256))


def _reseed() -> None:
    _source.seed(_random.getrandbits(256))


os.register_at_fork(after_in_child=_reseed)


def new_job_id(now: float | None = None) -> str:
    """Make a UUIDv7 (RFC 9562): unique, and sorted by the time it was made.

    Args:
        now: That time in seconds since the epoch; read from the system if not given.
    """
    ms = int((time.time() if now is None else now) * 1000)
    chance = _source.getrandbits
    parts = (ms >> 16, ms & 0xFFFF, chance(12), 0x8000 | chance(14), chance(48))
    return "%08x-%04x-7%03x-%04x-%012x" % parts  # noqa: UP031 - a third faster


class EnqueueOptions(TypedDict, total=False):
    """What `task.options(...)` takes.

    Args:
        queue: Another queue than the task's own.
        priority: 0 to 255; see the page on queues for what the broker makes of it.
        job_id: Instead of a new id.
        expires: How long after its time the job is dead, in seconds or as a timedelta.
        max_retries: Instead of the task's own.
        headers: Text to travel along; the task sees it as `ctx.headers`.
        compression: Whether to pack the body, if it is above the threshold.
    """

    queue: str
    priority: int
    job_id: str
    expires: Duration
    max_retries: int
    headers: Mapping[str, str]
    compression: bool


class JobOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The same as a value; `None` leaves it to the App or the worker."""

    queue: str | None = None
    priority: Annotated[int, Meta(ge=0, le=255)] = 0
    job_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    expires: Span | None = None
    max_retries: Count | None = None
    headers: dict[str, str] = {}
    compression: bool | None = None

    def merged(self, task: str, given: EnqueueOptions) -> JobOptions:
        """Give these options with some replaced.

        Raises:
            TypeError: An option that does not exist.
            ConfigurationError: A value of the wrong type or out of range.
        """
        unknown = given.keys() - set(self.__struct_fields__)
        if unknown:
            msg = f"{task}.options() has no option {', '.join(sorted(unknown))}"
            raise TypeError(msg)
        if "queue" in given:
            check_name(given["queue"])
        values: dict[str, Any] = {**given}
        if "expires" in values:
            values["expires"] = plain_seconds(values["expires"])
        try:
            checked = msgspec.convert(values, JobOptions)
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                "an option of {task} can't be used: {problem}",
                task=task,
                problem=str(error),
            ) from None
        return msgspec.structs.replace(
            self, **{name: getattr(checked, name) for name in given}
        )


class Job(Generic[R_co]):
    """One call that was enqueued.

    Attributes:
        id: Its id, the same through all attempts.
        task: The name of its task.
        queue: Where it was enqueued.
    """

    __slots__ = ("id", "queue", "task")

    def __init__(self, id: str, task: str, queue: str) -> None:  # noqa: A002
        self.id = id
        self.task = task
        self.queue = queue

    def __repr__(self) -> str:
        return f"<Job {self.task} {self.id} on {self.queue}>"


class JobSpec(Generic[R_co]):
    """One call, bound and ready to be enqueued; made by `task.job(...)`.

    Attributes:
        home: The App that the task belongs to.
        task: The name of the task.
        signature: What its function takes; `None` for a task of another codebase.
        args: Bound positional arguments.
        kwargs: Bound keyword arguments.
        options: How to enqueue it.
        when: When to run it; `None` means at once.
    """

    __slots__ = ("args", "home", "kwargs", "options", "signature", "task", "when")

    def __init__(
        self,
        home: Home[Any],
        task: str,
        signature: Signature | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
        when: When | None = None,
    ) -> None:
        self.home = home
        self.task = task
        self.signature = signature
        self.args = args
        self.kwargs = kwargs
        self.options = options
        self.when = when

    def defer(self, when: When, /) -> JobSpec[R_co]:
        """Give the same call with a time of its own.

        Args:
            when: Seconds, a timedelta or a datetime (a naive one is local time).
        """
        return JobSpec(
            self.home,
            self.task,
            self.signature,
            self.args,
            self.kwargs,
            self.options,
            when,
        )

    def __repr__(self) -> str:
        return f"<JobSpec {self.task}>"
