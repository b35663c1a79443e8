"""The decimal delay ladder: how a delay becomes a path through queues with a TTL.

A delay is counted in units of 100 ms; each non-zero decimal digit is one rung, a
queue that holds messages for digit x 10^k units and then dead-letters them one
decade down. RabbitMQ keeps all routing keys of a dead-lettered message when the queue
sets none, and tries those of its `CC` header ("sender-selected distribution") too: so
the target queue travels as routing key and the rungs in `CC`, and at each ladder
exchange at most one key matches. Where none does, the alternate exchange passes the
message on, at last to `due`, where the target's own key matches. It enters at an
exchange that has no alternate one: what has no first rung comes back to who sent it.

Rounding up, and what passes until a message is written, would make it late. So it may
leave its first rung a little sooner than the others there: by its `expiration`. A queue
looks at its first message only, so it may stand behind some; then it is as late as
without.

Where the broker has the delayed-message plugin, a delay may be a header instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from rmqarq.when import wall_clock

if TYPE_CHECKING:
    from rmqarq.wire.names import Names

UNIT = 0.1
DECADES = 9
LONGEST = (10**DECADES - 1) * UNIT
"""The longest delay of one trip: 3.17 years. Longer ones are cut and sent on."""
MOST_EARLIER = 1000
"""Milliseconds by which a message may leave its first rung sooner than others there: it
may have to stand behind them for as long."""
LONGEST_TIMER = 2**32 - 1
"""The plugin's own limit in milliseconds, 49.7 days: what is beyond it, or no positive
integer, it delivers at once (its source, `rabbit_exchange_type_delayed_message`)."""


class Rung(Struct, frozen=True, order=True):
    """One queue of the ladder: `digit` x 10^`decade` units of 100 ms."""

    decade: int
    digit: int

    @property
    def ttl_ms(self) -> int:
        """How long it holds a message, in milliseconds."""
        return self.digit * int(10**self.decade) * 100

    @property
    def label(self) -> str:
        """Its time as people write it: `500ms`, `30s`, `2000s`."""
        ms = self.ttl_ms
        return f"{ms // 1000}s" if ms >= 1000 else f"{ms}ms"


class Wait(Struct, frozen=True, gc=False):
    """How long a message shall wait.

    Args:
        seconds: So long.
        since: From when; `None` for when it is sent.
        clock: Gives the time.
    """

    seconds: float
    since: float | None = None
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def from_now(cls, seconds: float, clock: Callable[[], float]) -> Wait:
        """Make one that begins now.

        Args:
            seconds: So long.
            clock: The clock of the App. That of the wall may be set while the message
                is on its way to the broker, so another counts in its place.
        """
        steady = time.monotonic if clock is wall_clock else clock
        return cls(seconds, steady(), steady)

    @property
    def left(self) -> float:
        """The seconds that are left by now."""
        if self.since is None:
            return self.seconds
        return self.since + self.seconds - self.clock()


class DelayPlan(Struct, frozen=True):
    """Where to publish a delayed message.

    Args:
        exchange: Where the highest decade is entered.
        cc: The names of the rungs, for the `CC` header.
        rungs: The rungs themselves, highest first.
        delay: The seconds they hold the message together.
    """

    exchange: str
    cc: list[str]
    rungs: tuple[Rung, ...]
    delay: float


def rungs_for(delay: float) -> tuple[Rung, ...]:
    """Split a delay in seconds into rungs, highest first; at least one unit.

    Rounds up to the next 100 ms, so that nothing is early; a delay above `LONGEST`
    is cut to it.

    Example:
        >>> [rung.label for rung in rungs_for(3600)]
        ['3000s', '600s']
    """
    units = max(1, math.ceil(round(min(delay, LONGEST) / UNIT, 6)))
    digits = enumerate(reversed(str(units)))
    found = [Rung(decade, int(digit)) for decade, digit in digits if digit != "0"]
    return tuple(reversed(found))


def plan(delay: float, names: Names) -> DelayPlan:
    """Compute the way of a message that shall wait `delay` seconds."""
    rungs = rungs_for(delay)
    return DelayPlan(
        exchange=names.entry(rungs[0].decade),
        cc=[names.rung(rung.label) for rung in rungs],
        rungs=rungs,
        delay=sum(rung.ttl_ms for rung in rungs) / 1000,
    )


def expiration(rungs: tuple[Rung, ...], left: float) -> int | None:
    """Say when a message must leave its first rung to be in time.

    Args:
        rungs: Its way, highest first.
        left: The seconds until it is due.

    Returns:
        After how many milliseconds; `None` if the time of the rung is right. Less than
        one if the others hold it too long by themselves.

    Example:
        >>> expiration(rungs_for(5.25), left=5.24)  # 5 s and 300 ms
        4940
    """
    first, *others = rungs
    ms = milliseconds(left) - sum(rung.ttl_ms for rung in others)
    return ms if ms < first.ttl_ms else None


def milliseconds(delay: float) -> int:
    """Count a delay in whole milliseconds; rounds up, so that nothing is early."""
    return math.ceil(round(delay * 1000, 3))


def timer(delay: float) -> int | None:
    """Give the plugin's `x-delay` in milliseconds; `None` if it can't wait so long."""
    ms = max(1, milliseconds(delay))
    return ms if ms <= LONGEST_TIMER else None


def every_rung() -> list[Rung]:
    """Give all 81 rungs of the ladder, lowest first."""
    return [Rung(decade, digit) for decade in range(DECADES) for digit in range(1, 10)]
