"""How far time goes in a world: amounts, checked and added up, and moments."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmqarq.when import Duration

SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}


def seconds_in(seconds: Duration, **others: float) -> float:
    """Add up what `advance` is given.

    Args:
        seconds: Seconds, or a timedelta.
        **others: Numbers of minutes, hours and days.

    Raises:
        TypeError: One is no number.
        ValueError: One is not finite.
    """
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    amounts = {"seconds": seconds, **others}
    return sum(_checked(name, each) * SECONDS[name] for name, each in amounts.items())


def epoch_of(when: object) -> float:
    """Give a moment in seconds since the epoch; a naive datetime is local time.

    Raises:
        TypeError: It is no datetime.
    """
    if not isinstance(when, datetime):
        raise TypeError(
            f"advance_to() takes a datetime, not {type(when).__name__}; advance() takes"
            " seconds or a timedelta"
        )
    return when.timestamp()


def _checked(name: str, amount: object) -> float:
    if isinstance(amount, timedelta):
        raise TypeError(
            f"{name} must be a number; a timedelta comes first: advance(...)"
        )
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        kind = type(amount).__name__
        raise TypeError(f"advance() takes a number of {name}, not {kind}")
    if not math.isfinite(amount):
        raise ValueError(f"advance() takes a finite number of {name}, not {amount}")
    return amount
