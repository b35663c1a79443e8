"""What follows from the end of a worker process."""

from __future__ import annotations

import pytest

from rmqarq.worker import Ending
from rmqarq.worker.ending import worst
from rmqarq.worker.restarts import (
    Again,
    Done,
    End,
    Hopeless,
    Restarts,
    UntilChange,
    Verdict,
)

CRASH = End(-9, None, 1.0)


def judged(end: End, *, burst: bool = False, reload: bool = False) -> Verdict:
    return Restarts(reload=reload).judge(end, burst=burst)


def test_the_pauses_double_up_to_half_a_minute() -> None:
    restarts = Restarts(reload=False)
    pauses = [restarts.judge(CRASH, burst=False) for _ in range(9)]
    assert pauses == [Again(each) for each in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]


def test_a_healthy_minute_makes_the_next_pause_short_again() -> None:
    restarts = Restarts(reload=False)
    for _ in range(5):
        restarts.judge(CRASH, burst=False)
    assert restarts.judge(End(1, None, 59.9), burst=False) == Again(16)
    assert restarts.judge(End(1, None, 60.0), burst=False) == Again(0.5)
    assert restarts.judge(CRASH, burst=False) == Again(1)


@pytest.mark.parametrize("code", [2, 3])
def test_a_set_up_that_never_worked_is_hopeless_and_one_that_did_is_not(
    code: int,
) -> None:
    assert judged(End(code)) == Hopeless()
    restarts = Restarts(reload=False)
    restarts.judge(CRASH, burst=False)
    assert restarts.judge(End(code), burst=False) == Again(1)


@pytest.mark.parametrize("code", [0, 1, -9, -11, 70])
def test_other_ends_before_the_first_job_are_tried_again(code: int) -> None:
    assert judged(End(code)) == Again(0.5)


@pytest.mark.parametrize("code", [1, 2, 3, -11])
def test_who_works_on_the_code_is_waited_for(code: int) -> None:
    assert judged(End(code), reload=True) == UntilChange()
    assert judged(End(code, None, 0.1), reload=True) == Again(0.5)


def test_enough_jobs_are_no_reason_to_wait_and_end_a_burst() -> None:
    enough = End(0, Ending("enough jobs"), 1.0)
    assert judged(enough) == Again(0)
    assert judged(enough, burst=True) == Done()


@pytest.mark.parametrize("why", ["queues empty", "burst timeout", "asked to stop"])
def test_a_burst_has_ended_when_its_worker_has(why: str) -> None:
    assert judged(End(0, Ending(why), 1.0), burst=True) == Done()  # type: ignore[arg-type]
    assert judged(CRASH, burst=True) == Again(0.5)


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 5], 5),
        ([5, 4, 0], 4),
        ([4, 1], 1),
        ([0, -9], 1),
        ([0, 77], 1),
        ([1, 3, 2], 3),
    ],
)
def test_the_exit_code_of_all_is_the_worst(codes: list[int], code: int) -> None:
    assert worst(codes) == code
