"""What has been tried for a batch of publications, and what its errors mean at last."""

from __future__ import annotations

import asyncio
from collections import Counter

from rmqarq.errors import (
    ConfigurationError,
    ConnectionLost,
    OutcomeUnknown,
    QueueFull,
    RmqarqError,
    Unroutable,
)

NACKS = 6
LEAST_TIME = 1.0


class Attempts:
    """What has been tried for the publications of one batch.

    Args:
        deadline: When all must be over, by the clock of the loop.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._rounds = 0
        self._lost: set[int] = set()
        self._nacks: Counter[int] = Counter()
        self.unroutable: set[int] = set()

    def worth_another(self, at: int, error: RmqarqError) -> bool:
        """Take note of an error; tell whether the publication is tried again."""
        if isinstance(error, ConnectionLost):
            if not error.unsent:
                self._lost.add(at)
            return True
        if isinstance(error, QueueFull):
            # a quorum queue that is choosing its leader refuses likewise, for a moment
            self._nacks[at] += 1
            left = self._deadline - asyncio.get_running_loop().time()
            return self._nacks[at] < NACKS and left > LEAST_TIME
        if isinstance(error, Unroutable) and at not in self.unroutable:
            self.unroutable.add(at)
            return True
        return False

    def judged(self, at: int, error: RmqarqError) -> RmqarqError:
        """Give the final error: what was sent once may be stored, whatever came."""
        certain = OutcomeUnknown | ConfigurationError
        if at not in self._lost or isinstance(error, certain):
            return error
        doubt = OutcomeUnknown(
            "the link broke before the broker confirmed, and the job could not be sent"
            " again before the deadline ({cause}); it may have been stored or not",
            cause=error,
        )
        doubt.__cause__ = error
        return doubt

    async def pause(self) -> None:
        """Wait a little before the second repetition, and longer before the next."""
        if self._rounds:
            await asyncio.sleep(min(1.0, 0.05 * 2 ** min(self._rounds, 5)))
        self._rounds += 1
