"""Whether a message that arrived shall run now."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq import DeadLettered, Message
from rmqarq.worker.admission import UNKNOWN_SINCE, Postponed, admit, unknown

NOW = 1_700_000_000.0


def message(**fields: Any) -> Message:
    return Message(task="add", id="j", enqueued_at=NOW - 10, **fields)


@pytest.mark.parametrize(
    "ready",
    [
        message(),
        message(eta=NOW),
        message(eta=NOW - 5),
        message(eta=NOW + 0.9),  # the clocks of two machines
        message(expires=60),
        message(eta=NOW - 5, expires=5),
    ],
)
def test_a_message_whose_time_has_come_runs(ready: Message) -> None:
    assert admit(ready, NOW) is None


def test_a_message_that_came_early_waits_for_the_rest_of_its_delay() -> None:
    assert admit(message(eta=NOW + 30), NOW) == Postponed(30.0, "early")


@pytest.mark.parametrize(
    "late", [message(expires=9.9), message(eta=NOW - 5, expires=4.9)]
)
def test_a_message_that_came_too_late_is_dead(late: Message) -> None:
    assert admit(late, NOW) == DeadLettered("expired")


def test_an_unknown_task_waits_for_a_worker_that_knows_it() -> None:
    verdict = unknown({}, NOW, 600)
    assert isinstance(verdict, Postponed)
    assert verdict.why == "unknown task"
    assert verdict.unknown_since == int(NOW * 1000)
    assert 0.5 < verdict.delay < 2


def test_the_waits_for_an_unknown_task_grow_up_to_a_minute() -> None:
    since = int(NOW * 1000)
    delays: list[float] = []
    for waited in (0, 1, 4, 16, 64, 256, 500):
        verdict = unknown({UNKNOWN_SINCE: since}, NOW + waited, 600)
        assert isinstance(verdict, Postponed)
        assert verdict.unknown_since == since
        delays.append(verdict.delay)
    assert delays[0] < delays[2] < delays[4]
    assert max(delays) <= 60 * 1.2


def test_patience_with_an_unknown_task_ends() -> None:
    since = {UNKNOWN_SINCE: int(NOW * 1000)}
    assert isinstance(unknown(since, NOW + 599.9, 600), Postponed)
    assert unknown(since, NOW + 600, 600) == DeadLettered("unknown task")
    assert unknown({}, NOW, 0) == DeadLettered("unknown task")


def test_the_last_wait_ends_when_patience_does() -> None:
    verdict = unknown({UNKNOWN_SINCE: int(NOW * 1000)}, NOW + 599, 600)
    assert isinstance(verdict, Postponed)
    assert verdict.delay == pytest.approx(1.0)


def test_the_whole_wait_takes_few_rounds() -> None:
    """Each round is a publish, for every message of a task that is gone."""
    headers: dict[str, Any] = {}
    now, rounds = NOW, 0
    while isinstance(verdict := unknown(headers, now, 600), Postponed):
        headers = {UNKNOWN_SINCE: verdict.unknown_since}
        now += verdict.delay
        rounds += 1
    assert 10 <= rounds <= 25
    assert now == pytest.approx(NOW + 600, abs=0.1)


@pytest.mark.parametrize("found", ["yesterday", None, [1], 1.5])
def test_a_header_that_says_no_time_counts_as_none(found: Any) -> None:
    verdict = unknown({UNKNOWN_SINCE: found}, NOW, 600)
    assert isinstance(verdict, Postponed)
    assert verdict.unknown_since == int(NOW * 1000)


@given(st.integers(-(2**63), 2**63 - 1), st.floats(0, 1e6))
def test_whatever_the_header_says_there_is_a_verdict(
    since: int, patience: float
) -> None:
    verdict = unknown({UNKNOWN_SINCE: since}, NOW, patience)
    if isinstance(verdict, Postponed):
        assert 0 <= verdict.delay <= 72
