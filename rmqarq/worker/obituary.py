"""Why a job is dead, as headers that can be read without its body."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmqarq.message import Message
    from rmqarq.outcome import DeadLettered
    from rmqarq.wire.properties import Header

TURNED_AWAY = ("expired", "undecodable", "unknown task")


def obituary(
    message: Message | None,
    outcome: DeadLettered,
    home: str,
    worker: str,
    moment: float,
) -> dict[str, Header]:
    """Write down why a job is dead.

    Args:
        message: The job; `None` if it can't be read.
        outcome: How it ended.
        home: The work queue that it belongs to.
        worker: Who writes this.
        moment: Now, in seconds since the epoch.
    """
    now = int(moment * 1000)
    headers: dict[str, Header] = {
        "x-rmqarq-reason": outcome.reason,
        "x-rmqarq-queue": home,
        "x-rmqarq-worker": worker,
        "x-rmqarq-last-at": now,
    }
    if message is not None:
        first = message.first_failed_at
        headers["x-rmqarq-attempts"] = attempts(message, outcome)
        headers["x-rmqarq-first-at"] = int(first * 1000) if first else now
        headers["x-rmqarq-enqueued-at"] = int(message.enqueued_at * 1000)
    if outcome.failure is not None:
        headers["x-rmqarq-error"] = outcome.failure.kind
        headers["x-rmqarq-message"] = outcome.failure.message
        headers["x-rmqarq-traceback"] = outcome.failure.traceback
    return headers


def attempts(message: Message | None, outcome: DeadLettered) -> int:
    """Count the runs: a job that was turned away had none in this attempt."""
    if message is None:
        return 0
    return message.job_try - (outcome.reason in TURNED_AWAY)
