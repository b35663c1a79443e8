"""How a run ended: one value that says what becomes of the job."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

Reason: TypeAlias = Literal[
    "retries used up",
    "rejected",
    "not retryable",
    "expired",
    "undecodable",
    "too large",
    "unknown task",
    "crashed",
]
"""Why a job is dead, as written into its dead letter."""


class Failure(Struct, frozen=True):
    """What went wrong in a run, as text that can travel.

    Args:
        kind: The qualified name of the exception type.
        message: The text of the exception.
        traceback: The tail of the traceback.
    """

    kind: str
    message: str
    traceback: str = ""


class Outcome(Struct, frozen=True, tag=True):
    """How a run ended; one of the six below."""


class Succeeded(Outcome, frozen=True):
    """The function returned; the job is done."""

    result: Any = None


class Retried(Outcome, frozen=True):
    """The run failed and the job runs again after `delay` seconds."""

    delay: float
    failure: Failure | None = None


class DeadLettered(Outcome, frozen=True):
    """The job will not run again; it waits in the dead-letter queue."""

    reason: Reason
    failure: Failure | None = None


class Aborted(Outcome, frozen=True):
    """The job was cancelled on request."""


class Crashed(Outcome, frozen=True):
    """The process that ran the job, and nothing else, died of it.

    Args:
        how: What ended the process, such as `killed by SIGKILL`.
    """

    how: str


class Released(Outcome, frozen=True):
    """The worker stops: the job goes back to its queue, no attempt is counted."""
