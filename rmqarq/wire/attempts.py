"""What has been tried for a batch of publications, and what its errors mean at last."""

from __future__ import annotations

import asyncio

from rmqarq.errors import (
    ConfigurationError,
    ConnectionLost,
    OutcomeUnknown,
    QueueFull,
    RmqarqError,
    Unroutable,
)


class Attempts:
    """What has been tried for the publications of one batch."""

    def __init__(self) -> None:
        self._rounds = 0
        self._lost: set[int] = set()
        self.unroutable: set[int] = set()

    def worth_another(self, at: int, error: RmqarqError) -> bool:
        """Take note of an error; tell whether the publication is tried again."""
        if isinstance(error, ConnectionLost):
            if not error.unsent:
                self._lost.add(at)
            return True
        if isinstance(error, Unroutable) and at not in self.unroutable:
            self.unroutable.add(at)
            return True
        return False

    def judged(self, at: int, error: RmqarqError) -> RmqarqError:
        """Give the final error: what was sent once may be stored, whatever came."""
        certain = QueueFull | Unroutable | OutcomeUnknown | ConfigurationError
        if at not in self._lost or isinstance(error, certain):
            return error
        doubt = OutcomeUnknown(
            "the link broke before the broker confirmed, and the job could not be sent"
            " again before the deadline ({cause}); it may have been stored or not",
            cause=str(error),
        )
        doubt.__cause__ = error
        return doubt

    async def pause(self) -> None:
        """Wait a little before the second repetition, and longer before the next."""
        if self._rounds:
            await asyncio.sleep(min(1.0, 0.05 * 2 ** min(self._rounds, 5)))
        self._rounds += 1
