"""What a worker has done so far, in numbers."""

from __future__ import annotations

from msgspec import Struct


class Stats(Struct):
    """Counters of one worker, from its start.

    Args:
        completed: Runs that succeeded.
        failed: Jobs that failed for good: retries used up, rejected, not retryable,
            crashed.
        retried: Runs that ended in another attempt.
        dead_lettered: Messages put into a dead-letter queue, whatever the reason.
        deferred: Messages sent on unrun: too early, or an unknown task.
        returned: Messages given back unfinished.
        duplicates: Redeliveries recognised as running or done already.
        suspected: Messages moved to a suspect lane: they had come back three times.
        crashed: Times a suspect ended the process that ran it in isolation.
        stuck: Runs that ignored their cancellation and were left behind.
        reconnects: Times a connection was made anew after a loss.
        pending: Ready messages left in the queues at the end; `None` when not known.
    """

    completed: int = 0
    failed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    deferred: int = 0
    returned: int = 0
    duplicates: int = 0
    suspected: int = 0
    crashed: int = 0
    stuck: int = 0
    reconnects: int = 0
    pending: int | None = None

    def values(self) -> dict[str, int | str]:
        """Give every counter by name, `?` where a number is not known."""
        return {
            name: "?" if (number := getattr(self, name)) is None else number
            for name in self.__struct_fields__
        }

    def add(self, later: Stats) -> None:
        """Count in what another process has done.

        Args:
            later: Its counters; what it saw pending is newer than what we know.
        """
        for name in self.__struct_fields__[:-1]:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        if later.pending is not None:
            self.pending = later.pending
