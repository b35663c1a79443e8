"""When the work is done."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rmqarq.worker.burst import (
    AN_ELECTION,
    OWN_RUNGS_WAIT,
    QUICK,
    SLACK,
    Burst,
    Look,
)

IDLE = Look(now=100.0, running=0, delivered=False, ready=0, horizon=0.0, held=0)


def look(**changes: Any) -> Look:
    return msgspec.structs.replace(IDLE, **changes)


def test_two_idle_rounds_in_a_row_end_a_burst() -> None:
    burst = Burst(wait=True, interval=1.0)
    assert not burst.finished(IDLE)
    assert burst.finished(IDLE)


def test_work_between_two_idle_rounds_starts_the_count_anew() -> None:
    burst = Burst(wait=True, interval=1.0)
    rounds = [IDLE, look(ready=1), IDLE, look(delivered=True), IDLE, IDLE]
    assert [burst.finished(each) for each in rounds] == [False] * 5 + [True]


@pytest.mark.parametrize(
    "busy",
    [
        look(running=1),
        look(delivered=True),
        look(ready=1),
        look(delayed=1),
        look(horizon=130.0),
        look(horizon=100.0 - SLACK),
        look(horizon=99.0, held=1),
        look(horizon=100.0 - OWN_RUNGS_WAIT, held=1),
    ],
)
def test_a_round_with_anything_left_is_not_idle(busy: Look) -> None:
    assert not busy.idle(wait=True)


@pytest.mark.parametrize(
    "done",
    [
        IDLE,
        look(horizon=100.0 - SLACK - 0.01),
        look(horizon=100.0 - OWN_RUNGS_WAIT - 0.01, held=5),  # those of others
    ],
)
def test_a_round_with_nothing_left_is_idle(done: Look) -> None:
    assert done.idle(wait=True)


def test_running_jobs_count_only_when_the_burst_waits_for_them() -> None:
    running = look(running=3)
    assert not running.idle(wait=True)
    assert running.idle(wait=False)
    burst = Burst(wait=False, interval=1.0)
    assert [burst.finished(running) for _ in range(2)] == [False, True]


def test_even_a_burst_that_does_not_wait_takes_what_is_ready() -> None:
    assert not look(running=3, ready=1).idle(wait=False)
    assert not look(delivered=True).idle(wait=False)


def test_the_last_round_comes_quickly_and_the_others_at_their_interval() -> None:
    burst = Burst(wait=True, interval=5.0)
    assert burst.pause(busy=True) == 5.0
    assert burst.pause(busy=False) == QUICK
    assert Burst(wait=True, interval=0.05).pause(busy=False) == 0.05
    patient = Burst(wait=True, interval=5.0, rungs=True)
    assert patient.pause(busy=False) == AN_ELECTION


@pytest.mark.parametrize(
    ("seen", "busy"),
    [
        (IDLE, False),
        (look(running=1), True),
        (look(ready=1), True),
        (look(horizon=101.0), True),
        (look(delivered=True), False),
    ],
)
def test_a_busy_round_can_wait_for_a_whole_interval(seen: Look, busy: bool) -> None:
    assert seen.busy == busy


@pytest.mark.parametrize(
    ("seen", "only_waits"),
    [
        (look(horizon=1000.0), True),
        (look(delayed=7), True),
        (look(running=1), False),
        (look(ready=1), False),
        (look(delivered=True), False),
    ],
)
def test_nothing_left_but_the_future_is_known_as_such(
    seen: Look, only_waits: bool
) -> None:
    assert seen.only_waits == only_waits
