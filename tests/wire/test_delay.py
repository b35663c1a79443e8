"""The decimal delay ladder: pure arithmetic."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq.when import wall_clock
from rmqarq.wire.delay import (
    DECADES,
    LONGEST,
    MOST_EARLIER,
    Rung,
    Wait,
    every_rung,
    expiration,
    milliseconds,
    plan,
    rungs_for,
)
from rmqarq.wire.names import Names, dead_letter_key, suspect_lane

HAIR = 1e-6  # what rounding errors of floats may take away: a millionth of a second


def held_ms(rungs: tuple[Rung, ...]) -> int:
    return sum(rung.ttl_ms for rung in rungs)


@given(st.floats(0, LONGEST))
def test_a_delay_is_never_shortened_and_lengthened_by_less_than_a_tenth(
    delay: float,
) -> None:
    held = held_ms(rungs_for(delay)) / 1000
    assert held >= delay - HAIR
    assert held < delay + 0.1 + HAIR or held == 0.1


@given(st.integers(1, 10**DECADES - 1))
def test_a_whole_number_of_tenths_is_held_exactly(units: int) -> None:
    assert held_ms(rungs_for(units / 10)) == units * 100


@given(st.floats(0, 2 * LONGEST))
def test_there_is_at_most_one_rung_a_decade_highest_first(delay: float) -> None:
    rungs = rungs_for(delay)
    decades = [rung.decade for rung in rungs]
    assert decades == sorted(set(decades), reverse=True)
    assert all(0 <= rung.decade < DECADES and 1 <= rung.digit <= 9 for rung in rungs)


@pytest.mark.parametrize(
    ("delay", "labels"),
    [
        (0, ["100ms"]),
        (0.001, ["100ms"]),
        (0.1, ["100ms"]),
        (0.1001, ["200ms"]),
        (0.1 + 0.2, ["300ms"]),
        (0.5, ["500ms"]),
        (1, ["1s"]),
        (1.05, ["1s", "100ms"]),
        (60, ["60s"]),
        (90, ["90s"]),
        (3600, ["3000s", "600s"]),
        (86400, ["80000s", "6000s", "400s"]),
        (12345.6, ["10000s", "2000s", "300s", "40s", "5s", "600ms"]),
    ],
)
def test_the_rungs_are_the_decimal_digits(delay: float, labels: list[str]) -> None:
    assert [rung.label for rung in rungs_for(delay)] == labels


@pytest.mark.parametrize("delay", [LONGEST, LONGEST + 1, 1e300, float("inf")])
def test_a_delay_beyond_the_ladder_is_cut_to_its_longest(delay: float) -> None:
    rungs = rungs_for(delay)
    assert held_ms(rungs) == (10**DECADES - 1) * 100
    assert len(rungs) == DECADES


def test_the_longest_delay_is_three_years() -> None:
    assert 3.1 < LONGEST / 86400 / 365 < 3.2


@given(st.floats(0.001, LONGEST), st.floats(0, 1))
def test_a_message_leaves_its_first_rung_in_time(delay: float, passed: float) -> None:
    rungs = rungs_for(delay)
    left = max(0.0, delay - passed)
    ms = expiration(rungs, left)
    first = rungs[0].ttl_ms
    held = held_ms(rungs) - first + (first if ms is None else ms)
    assert held >= left * 1000 - HAIR * 1000
    assert ms is None or ms < first
    assert held < left * 1000 + 1 + HAIR * 1000


@given(st.floats(5e-324, LONGEST))
def test_a_way_that_is_planned_for_what_is_left_suits_it(left: float) -> None:
    rungs = rungs_for(left)
    ms = expiration(rungs, left)
    if ms is not None and milliseconds(left) > 0:
        assert max(1, rungs[0].ttl_ms - MOST_EARLIER) <= ms


@pytest.mark.parametrize(
    ("delay", "left", "ms"),
    [
        (30, 30, None),
        (30, 29.9995, None),
        (30, 29.999, 29_999),
        (5.25, 5.25, 4950),
        (5.25, 5.24, 4940),
        (5.25, 0.301, 1),
        (5.25, 0.2, -100),
        (0.25, 0.25, 250),
        (0.02, 0.0101, 11),
        (2 * LONGEST, 2 * LONGEST, None),
    ],
)
def test_the_time_in_the_first_rung(delay: float, left: float, ms: int | None) -> None:
    assert expiration(rungs_for(delay), left) == ms


@pytest.mark.parametrize(("since", "left"), [(None, 5.0), (7.0, 2.0), (3.0, -2.0)])
def test_a_wait_counts_from_its_call_or_from_when_it_is_sent(
    since: float | None, left: float
) -> None:
    assert Wait(5.0, since, lambda: 10.0).left == left


def test_a_plan_names_the_way() -> None:
    way = plan(3600.3, Names("p"))
    assert way.exchange == "p.delay.4.entry"
    assert way.cc == ["p.delay.3000s", "p.delay.600s", "p.delay.300ms"]
    assert way.rungs == (Rung(4, 3), Rung(3, 6), Rung(0, 3))
    assert way.delay == pytest.approx(3600.3)


@given(st.floats(0, LONGEST))
def test_a_plan_starts_at_its_highest_rung(delay: float) -> None:
    way = plan(delay, Names())
    assert way.exchange == Names().entry(way.rungs[0].decade)
    assert way.cc == [Names().rung(rung.label) for rung in way.rungs]
    assert way.delay == held_ms(way.rungs) / 1000


def test_there_are_81_rungs_with_81_names() -> None:
    rungs = every_rung()
    assert len(rungs) == 81
    assert len({rung.label for rung in rungs}) == 81
    assert rungs == sorted(rungs)
    assert [rung.ttl_ms for rung in rungs] == sorted(rung.ttl_ms for rung in rungs)
    assert (rungs[0].ttl_ms, rungs[-1].ttl_ms) == (100, 9 * 10**8 * 100)


def test_rungs_and_ladder_exchanges_have_different_names() -> None:
    names = Names()
    exchanges = {names.ladder(decade) for decade in range(DECADES)}
    assert not exchanges & {names.rung(rung.label) for rung in every_rung()}


def test_every_name_begins_with_the_prefix() -> None:
    names = Names("jobs")
    assert (names.due, names.lost) == ("jobs.due", "jobs.lost")
    assert (names.ladder(0), names.ladder(-1)) == ("jobs.delay.0", "jobs.due")
    assert names.rung("30s") == "jobs.delay.30s"
    assert suspect_lane("mail") == "mail.suspect"
    assert dead_letter_key("mail") == "mail_dlq"


def test_a_wait_takes_no_notice_of_a_wall_clock_that_is_set() -> None:
    assert Wait.from_now(5.0, wall_clock).clock is time.monotonic
    still = Wait.from_now(5.0, lambda: 7.0)
    assert (still.since, still.left) == (7.0, 5.0)
