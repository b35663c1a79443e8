"""Whether a worker process that has ended is started again, and after how long."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from rmqarq.worker.ending import Ending

PAUSE, LONGEST_PAUSE = 0.5, 30.0
HEALTHY = 60.0
WRONG_SET_UP = (2, 3)


class End(Struct, frozen=True):
    """The end of one worker process.

    Args:
        code: Its exit code; the negative number of a signal that killed it.
        ending: Why its worker ended; `None` when the process did otherwise.
        served: Seconds for which it took jobs; `None` when it never came to that.
    """

    code: int
    ending: Ending | None = None
    served: float | None = None


class Again(Struct, frozen=True):
    """A new one is started.

    Args:
        after: In so many seconds.
    """

    after: float


class UntilChange(Struct, frozen=True):
    """A new one is started when the code has changed."""


class Done(Struct, frozen=True):
    """It has done all it was there for."""


class Hopeless(Struct, frozen=True):
    """No process will ever start: all is over."""


Verdict: TypeAlias = Again | UntilChange | Done | Hopeless


class Restarts:
    """Judges the ends of the processes that follow each other under one number.

    Args:
        reload: Whether somebody works on the code.
    """

    def __init__(self, *, reload: bool) -> None:
        self._reload = reload
        self._has_served = False
        self._pause = PAUSE

    def judge(self, end: End, *, burst: bool) -> Verdict:
        """Say what follows from an end that nobody asked for.

        Args:
            end: What came to pass.
            burst: Whether it was to end by itself.
        """
        self._has_served = self._has_served or end.served is not None
        if end.ending is not None and burst:
            return Done()
        if end.ending is not None and end.ending.why == "enough jobs":
            self._pause = PAUSE
            return Again(0.0)
        if end.served is None and self._reload:
            return UntilChange()
        if end.code in WRONG_SET_UP and not self._has_served:
            return Hopeless()
        return Again(self._next_pause(end))

    def _next_pause(self, end: End) -> float:
        if end.served is not None and end.served >= HEALTHY:
            self._pause = PAUSE
        pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
        return pause
