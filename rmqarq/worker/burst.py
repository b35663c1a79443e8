"""When the work is done: the decision of a burst, from what one look at it showed."""

from __future__ import annotations

from msgspec import Struct

QUICK = 0.2
AN_ELECTION = 1.0
"""Seconds in which the queues of a node that is gone find other leaders, and say again
what they hold."""
SLACK = 0.25
OWN_RUNGS_WAIT = 5.0


class Look(Struct, frozen=True):
    """What one round saw.

    Args:
        now: Time of the event loop.
        running: Jobs under way in this worker, waiting ones included.
        delivered: Whether anything was delivered since the last round.
        ready: Ready messages in the consumed queues.
        horizon: When the last message this worker delayed itself is due.
        held: Messages in the rungs that this worker used itself.
        delayed: Messages in all rungs, when the burst waits for them; else 0.
        unseen: Consumed queues that could not be counted.
    """

    now: float
    running: int
    delivered: bool
    ready: int
    horizon: float
    held: int
    delayed: int = 0
    unseen: int = 0

    @property
    def busy(self) -> bool:
        """Whether the next look can wait for a whole interval."""
        waits = self.now <= self.horizon
        return bool(self.running or self.ready or self.unseen or waits)

    @property
    def only_waits(self) -> bool:
        """Whether nothing is left but messages that are due later."""
        return not (self.running or self.ready or self.unseen or self.delivered)

    @property
    def stranded(self) -> bool:
        """Whether messages wait here, and none comes."""
        return bool(self.ready) and not (self.running or self.delivered)

    def idle(self, *, wait: bool) -> bool:
        """Tell whether there is nothing to do.

        Args:
            wait: Whether running jobs count.
        """
        if wait and self.running:
            return False
        if self.delivered or self.ready or self.delayed or self.unseen:
            return False
        if self.now <= self.horizon + SLACK:
            return False
        # others may keep messages in the same rungs, so these are no proof
        return not self.held or self.now > self.horizon + OWN_RUNGS_WAIT


class Burst:
    """Counts idle rounds: two in a row end the burst.

    Two, because a message may be between a rung and its queue, or in our socket.

    Args:
        wait: Whether running jobs count.
        interval: Seconds between two rounds while there is work.
        rungs: Whether all rungs count: nobody consumes them, which would tell one
            without a leader from an empty one.
    """

    def __init__(self, *, wait: bool, interval: float, rungs: bool = False) -> None:
        self._wait = wait
        self._interval = interval
        self._quick = AN_ELECTION if rungs else QUICK
        self._idle_rounds = 0

    def finished(self, look: Look) -> bool:
        """Take in a round; True when the burst is over."""
        self._idle_rounds = self._idle_rounds + 1 if look.idle(wait=self._wait) else 0
        return self._idle_rounds >= 2

    def pause(self, *, busy: bool) -> float:
        """Give the seconds until the next round: short when it may be the last."""
        return self._interval if busy else min(self._quick, self._interval)
