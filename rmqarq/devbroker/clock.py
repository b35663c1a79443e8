"""The broker's clock: all its timers in one heap, and time that a test can skip."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FEW = 64  # timers that are not worth a sweep


class Timer:
    """One call at one time; it may be cancelled."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None] | None) -> None:
        self.due = due
        self.call = call

    def cancel(self) -> None:
        """Don't call any more; more than once is fine."""
        self.call = None


class Clock:
    """Time in seconds, which goes by itself or only when told to.

    Args:
        source: Where it comes from; `None` for a clock that stands still and moves by
            `advance` alone.
        date: Seconds since 1970 at its beginning. Default: the true ones.
    """

    def __init__(
        self,
        source: Callable[[], float] | None = time.monotonic,
        date: float | None = None,
    ) -> None:
        self._source = source
        self._skipped = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._sweep_at = FEW  # timers, so that those cancelled are never most
        self._numbers = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None
        self._born = (time.time() if date is None else date) - self.now()

    def now(self) -> float:
        """Give the time; only differences mean something."""
        source = self._source
        return self._skipped + (source() if source is not None else 0.0)

    def date(self) -> float:
        """Give the time as seconds since 1970."""
        return self._born + self.now()

    @property
    def next_due(self) -> float | None:
        """Seconds until the next timer; `None` when there is none."""
        self._drop_cancelled()
        return max(0.0, self._heap[0][0] - self.now()) if self._heap else None

    def call_at(self, due: float, call: Callable[[], None]) -> Timer:
        """Call when it is so late; those due at the same time in the order given."""
        timer = Timer(due, call)
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        first = not self._heap or due < self._heap[0][0]
        heapq.heappush(self._heap, (due, next(self._numbers), timer))
        if first:
            self._set_alarm()
        return timer

    def run_due(self) -> None:
        """Call what is due."""
        try:
            while (timer := self._take(self.now())) is not None:
                self._call(timer)
        finally:  # one that fails does not stop the others for ever
            self._set_alarm()

    def advance(self, seconds: float) -> None:
        """Skip some time; what falls due in it is called in order, each at its time."""
        until = self.now() + seconds
        while (timer := self._take(until)) is not None:
            self._skipped += max(0.0, timer.due - self.now())
            self._call(timer)
        self._skipped += max(0.0, until - self.now())
        self._set_alarm()

    def close(self) -> None:
        """Forget all timers."""
        self._heap.clear()
        self._set_alarm()

    def _take(self, until: float) -> Timer | None:
        self._drop_cancelled()
        if not self._heap or self._heap[0][0] > until:
            return None
        return heapq.heappop(self._heap)[2]

    def _sweep(self) -> None:
        # a timer that is set anew with each message may be due in a week
        self._heap = [each for each in self._heap if each[2].call is not None]
        heapq.heapify(self._heap)
        self._sweep_at = max(FEW, 2 * len(self._heap))

    def _drop_cancelled(self) -> None:
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)

    @staticmethod
    def _call(timer: Timer) -> None:
        call, timer.call = timer.call, None
        if call is not None:
            call()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = self.next_due
        if due is not None and self._source is not None:
            # a loop may call a hair too early, by the resolution of its own clock
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(due, self.run_due)
