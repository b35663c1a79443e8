"""The message of the next attempt."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq import Message
from rmqarq.worker.settle import next_attempt

NOW = 1_700_000_000.0
FIRST = Message(
    id="j",
    task="add",
    args=[1],
    kwargs={"b": 2},
    enqueued_at=NOW - 60,
    max_retries=5,
    generation=2,
    headers={"trace": "x"},
)


def test_the_next_attempt_counts_and_has_a_time_of_its_own() -> None:
    second = next_attempt(FIRST, 10.0, NOW)
    assert second.job_try == 2
    assert second.eta == NOW + 10
    assert second.first_failed_at == NOW
    third = next_attempt(second, 20.0, NOW + 11)
    assert (third.job_try, third.eta) == (3, NOW + 31)
    assert third.first_failed_at == NOW


def test_everything_else_stays_as_it_is() -> None:
    second = next_attempt(FIRST, 10.0, NOW)
    changed = {"job_try", "eta", "first_failed_at"}
    for name in Message.__struct_fields__:
        if name not in changed:
            assert getattr(second, name) == getattr(FIRST, name), name


@pytest.mark.parametrize("eta", [None, NOW - 30])
def test_the_day_of_expiry_stays_where_it_was(eta: float | None) -> None:
    first = msgspec.structs.replace(FIRST, eta=eta, expires=100.0)
    day = (eta or first.enqueued_at) + 100
    message = first
    now = NOW
    for delay in (5.0, 10.0, 20.0):
        message = next_attempt(message, delay, now)
        now += delay
        assert not message.expired(day - 0.001)
        assert message.expired(day + 0.001)


@given(
    st.floats(0, 1e6),
    st.lists(st.floats(0, 1e4), min_size=1, max_size=6),
    st.booleans(),
)
def test_no_number_of_attempts_moves_the_day_of_expiry(
    expires: float, delays: list[float], deferred: bool
) -> None:
    message = msgspec.structs.replace(
        FIRST, expires=expires, eta=NOW if deferred else None
    )
    day = (NOW if deferred else FIRST.enqueued_at) + expires
    now = NOW
    for delay in delays:
        message = next_attempt(message, delay, now)
        now += delay
        assert message.expires is not None
        assert message.expires >= 0
        if now <= day:
            assert message.eta is not None
            assert message.eta + message.expires == pytest.approx(day, abs=1e-3)
        else:  # its day is over before it comes back
            assert message.expired(now + 0.001)


def test_without_expiry_there_is_none_later_either() -> None:
    assert next_attempt(FIRST, 10.0, NOW).expires is None
