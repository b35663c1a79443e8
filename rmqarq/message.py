"""The envelope of a job: what crosses the wire, format version 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field

WIRE_VERSION = 1

# what a message from outside may hold: all of it must fit a header of a dead letter
Attempt: TypeAlias = Annotated[int, Meta(ge=1, le=2**31)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31)]
Moment: TypeAlias = Annotated[float, Meta(ge=0, le=253402300799)]  # the year 9999
Span: TypeAlias = Annotated[float, Meta(ge=0, le=253402300799)]


class Message(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    gc=False,  # nothing in it leads back to it, and there are many
    rename={"version": "v", "job_try": "try"},
):
    """One job on its way from a producer to a worker.

    A producer in any language needs only `task` (or the AMQP property `type`);
    everything else has a default. Unknown fields are ignored.

    Args:
        version: The format, on the wire `v`.
        id: The job id, stable through retries.
        task: The registered name of the task.
        args: Positional arguments: Python values when a producer makes the message,
            still encoded (`msgspec.Raw`) when a worker reads it.
        kwargs: Keyword arguments, likewise.
        job_try: Failures so far + 1, on the wire `try`.
        enqueued_at: When it was enqueued, in seconds since the epoch.
        eta: The earliest moment to run, in seconds since the epoch.
        expires: Seconds after `eta` (else `enqueued_at`) past which it is dead.
        max_retries: Overrides the task's own.
        generation: Rises each time it is requeued from the dead-letter queue.
        first_failed_at: When its first attempt failed, in seconds since the epoch.
        headers: The caller's own headers and the trace context.
        rows: For a chunk of jobs, the positional arguments of each, instead of `args`.
        numbers: Of these jobs, where they are not 0, 1, 2, …: some are done already.
    """

    version: int = WIRE_VERSION
    id: str = ""
    task: str = ""
    args: Any = ()
    kwargs: Any = field(default_factory=dict)
    job_try: Attempt = 1
    enqueued_at: Moment = 0.0
    eta: Moment | None = None
    expires: Span | None = None
    max_retries: Count | None = None
    generation: Count = 0
    first_failed_at: Moment | None = None
    headers: Mapping[str, str] = {}
    rows: Any = ()
    numbers: tuple[Count, ...] = ()

    def expired(self, now: float) -> bool:
        """Tell whether its time to run is over at `now` (seconds since the epoch)."""
        if self.expires is None:
            return False
        if self.expires == 0 and self.job_try > 1:
            return True  # it was over before this attempt
        start = self.enqueued_at if self.eta is None else self.eta
        return now > start + self.expires
