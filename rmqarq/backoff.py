"""How long to wait before the next attempt."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Self

from msgspec import Struct
from msgspec.structs import force_setattr

from rmqarq.when import plain_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.when import Duration


LONGEST = 3600.0


class Backoff(Struct, frozen=True):
    """Exponential waiting time with a ceiling and jitter.

    Args:
        base: Seconds, or a timedelta, before the first retry; 5.0 by default.
        factor: What each further wait is multiplied by, 2.0 by default.
        maximum: The longest wait, likewise; 3600.0 by default.
        jitter: The share by which a wait is spread to both sides (0.1 = ±10 %),
            so that jobs that failed together do not come back together.

    Raises:
        ValueError: A negative or no finite number, a base above the maximum, a factor
            below 1 or a jitter above 1.

    Example:
        >>> Backoff(base=1, jitter=0).delay(3)
        4.0
    """

    base: float = 5.0
    factor: float = 2.0
    maximum: float = LONGEST
    jitter: float = 0.1

    if TYPE_CHECKING:  # it takes more than its fields hold

        def __init__(
            self,
            base: Duration = 5.0,
            factor: float = 2.0,
            maximum: Duration = LONGEST,
            jitter: float = 0.1,
        ) -> None: ...

    def __post_init__(self) -> None:
        force_setattr(self, "base", plain_seconds(self.base))
        force_setattr(self, "maximum", plain_seconds(self.maximum))
        numbers = (self.base, self.factor, self.maximum, self.jitter)
        if not all(map(math.isfinite, numbers)):
            msg = f"a backoff is made of finite numbers: {self}"
            raise ValueError(msg)
        if min(numbers) < 0:
            msg = f"a backoff can't be negative: {self}"
            raise ValueError(msg)
        if self.base > self.maximum:
            msg = f"the first wait is longer than the longest, maximum: {self}"
            raise ValueError(msg)
        if self.factor < 1 or self.jitter > 1:
            msg = f"a backoff needs factor >= 1 and jitter <= 1: {self}"
            raise ValueError(msg)

    @classmethod
    def beginning(cls, base: float) -> Self:
        """Make one of its first wait, in seconds: an hour, or that, is the longest."""
        return cls(base=base, maximum=max(base, LONGEST))

    def delay(self, attempt: int, rng: Callable[[], float] = random.random) -> float:
        """Give the wait in seconds after failure number `attempt` (from 1)."""
        exponent = min(attempt - 1, 1000)
        try:
            raw = self.base * self.factor**exponent
        except OverflowError:
            raw = self.maximum
        spread = 1 + self.jitter * (2 * rng() - 1)
        return min(min(raw, self.maximum) * spread, self.maximum)
