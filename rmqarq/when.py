"""When a job shall run, and how long something takes: seconds, timedelta, datetime."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta
from typing import Any, TypeAlias

When: TypeAlias = float | timedelta | datetime
"""Seconds from now, a span from now, or a moment. A naive datetime is local time."""
Duration: TypeAlias = float | timedelta
"""Seconds, or a timedelta."""


def wall_clock() -> float:
    """Give the present moment, in seconds since the epoch.

    `time.time` is looked up at each call: tests may put another in its place.
    """
    return time.time()


def seconds_until(when: When, now: float) -> float:
    """Turn `when` into seconds from `now`, never negative.

    Args:
        when: Seconds (`float`), a `timedelta`, or a `datetime`; a naive datetime
            is taken as local time.
        now: The present moment in seconds since the epoch.

    Returns:
        The delay in seconds; 0.0 for a moment that has passed.

    Raises:
        TypeError: `when` is none of the three.
        ValueError: `when` is not a finite number.

    Example:
        >>> seconds_until(timedelta(minutes=1), now=0.0)
        60.0
    """
    if isinstance(when, datetime):
        delay = when.timestamp() - now
    elif isinstance(when, timedelta):
        delay = when.total_seconds()
    else:
        delay = _as_seconds(when)
    return max(0.0, delay)


def plain_seconds(value: Any) -> Any:
    """Give a timedelta as seconds; anything else stays for whoever checks it."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def _as_seconds(when: object) -> float:
    if isinstance(when, bool) or not isinstance(when, int | float):
        msg = (
            "a time must be a number of seconds, a timedelta or a datetime, "
            f"not {type(when).__name__}"
        )
        raise TypeError(msg)
    try:
        seconds = float(when)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        msg = f"a time must be a finite number of seconds, not {when}"
        raise ValueError(msg)
    return seconds
