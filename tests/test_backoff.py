"""How long to wait before the next attempt."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq import App, Backoff

MIDDLE = 0.5


def waits(backoff: Backoff, count: int) -> list[float]:
    return [backoff.delay(attempt, lambda: MIDDLE) for attempt in range(1, count + 1)]


def test_each_wait_is_twice_the_one_before_up_to_an_hour() -> None:
    assert waits(Backoff(), 3) == [5.0, 10.0, 20.0]
    assert waits(Backoff(), 20)[-1] == 3600.0


def test_base_factor_and_maximum_can_be_chosen() -> None:
    backoff = Backoff(base=1, factor=3, maximum=20)
    assert waits(backoff, 5) == [1.0, 3.0, 9.0, 20.0, 20.0]


def test_base_and_maximum_may_be_timedeltas() -> None:
    backoff = Backoff(timedelta(minutes=1), maximum=timedelta(minutes=3))
    assert backoff == Backoff(base=60, maximum=180)
    assert waits(backoff, 3) == [60.0, 120.0, 180.0]
    with pytest.raises(ValueError, match="negative"):
        Backoff(timedelta(seconds=-1))


@pytest.mark.parametrize("name", ["base", "factor", "maximum", "jitter"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_backoff_is_made_of_finite_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Backoff(**{name: value})


def test_a_base_of_0_never_waits() -> None:
    assert waits(Backoff(base=0), 3) == [0.0, 0.0, 0.0]


def test_jitter_spreads_to_both_sides_of_the_wait() -> None:
    backoff = Backoff(base=100, jitter=0.1)
    assert backoff.delay(1, lambda: 0.0) == pytest.approx(90)
    assert backoff.delay(1, lambda: 1.0) == pytest.approx(110)


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    assert len({Backoff().delay(1) for _ in range(50)}) > 40
    assert len({Backoff(jitter=0).delay(1) for _ in range(50)}) == 1


@pytest.mark.parametrize("attempt", [2_000, 10**9, 2**70])
def test_even_an_absurd_attempt_waits_no_longer_than_the_maximum(attempt: int) -> None:
    assert Backoff(jitter=0).delay(attempt) == 3600.0
    assert Backoff(factor=1, jitter=0).delay(attempt) == 5.0


@given(
    st.floats(0, 1e6),
    st.floats(1, 100),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.integers(-(2**63), 2**64),
    st.floats(0, 1),
)
def test_a_wait_is_never_negative_and_never_far_above_the_maximum(
    base: float, factor: float, more: float, jitter: float, attempt: int, roll: float
) -> None:
    maximum = base + more
    backoff = Backoff(base, factor, maximum, jitter)
    assert 0 <= backoff.delay(attempt, lambda: roll) <= maximum * (1 + jitter) + 1e-6


def test_a_first_wait_above_the_longest_is_refused_or_becomes_the_longest() -> None:
    with pytest.raises(ValueError, match="longer than the longest"):
        Backoff(base=7200)
    assert waits(Backoff(base=7200, maximum=7200), 2) == [7200.0, 7200.0]
    assert waits(Backoff.beginning(7200), 2) == [7200.0, 7200.0]
    assert Backoff.beginning(5) == Backoff()

    @App().task(backoff=timedelta(hours=6))
    async def rarely() -> None: ...

    assert rarely.policy.backoff == Backoff(base=6 * 3600, maximum=6 * 3600)


@pytest.mark.parametrize(
    "wrong",
    [{"base": -1}, {"maximum": -1}, {"jitter": -0.1}, {"jitter": 1.1}, {"factor": 0.9}],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a backoff"):
        Backoff(**wrong)
