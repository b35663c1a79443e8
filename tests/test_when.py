"""When a job shall run, as seconds from now."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq.when import seconds_until

NOON = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (0, 0.0),
        (90, 90.0),
        (0.25, 0.25),
        (timedelta(hours=2, milliseconds=500), 7200.5),
        (NOON + timedelta(seconds=30), 30.0),
    ],
)
def test_numbers_spans_and_moments_become_seconds(when: Any, expected: float) -> None:
    delay = seconds_until(when, NOON.timestamp())
    assert delay == pytest.approx(expected)
    assert type(delay) is float


@pytest.mark.parametrize(
    "when", [-1, -0.001, timedelta(days=-1), NOON - timedelta(microseconds=1)]
)
def test_what_has_passed_is_due_at_once(when: Any) -> None:
    assert seconds_until(when, NOON.timestamp()) == 0.0


def test_one_moment_is_the_same_delay_in_every_time_zone() -> None:
    later = NOON + timedelta(minutes=5)
    shanghai = later.astimezone(timezone(timedelta(hours=8)))
    assert shanghai.hour != later.hour
    assert seconds_until(shanghai, NOON.timestamp()) == 300.0


def test_a_naive_datetime_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-8")  # POSIX: eight hours ahead of UTC
    time.tzset()
    try:
        local = datetime(2030, 6, 1, 20, 0, 10)
        assert seconds_until(local, NOON.timestamp()) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("when", ["60", None, True, Decimal(1), b"1", [1]])
def test_another_type_is_refused_by_name(when: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(when).__name__}$"):
        seconds_until(when, 0.0)


@pytest.mark.parametrize("when", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(when: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        seconds_until(when, 0.0)


def test_a_number_too_large_for_a_float_is_refused_as_a_value_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        seconds_until(10**400, 0.0)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e10))
def test_a_delay_is_never_negative(when: float, now: float) -> None:
    assert seconds_until(when, now) >= 0.0
