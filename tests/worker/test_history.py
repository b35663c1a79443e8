"""What the headers of a message tell about its returns and crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq.wire.properties import decode_head, template
from rmqarq.worker.history import MOST_RETURNS, NEW, Detour, History, detour, history_in

QUORUM, ACQUIRED = "x-delivery-count", "x-acquired-count"
RETURNS, CRASHES = "x-rmqarq-returns", "x-rmqarq-crashes"
NONSENSE: list[Any] = [None, "3", "", b"3", 3.0, -1, True, [3], {"a": 3}, 2**31, 2**63]


@pytest.mark.parametrize(
    ("headers", "history"),
    [
        # RabbitMQ 3.10 to 4.2: every return of a quorum queue raises the count
        ({QUORUM: 1}, History(1)),
        ({QUORUM: 3}, History(3)),
        ({QUORUM: 0}, History(0)),
        # 4.3 counts failures there, and everything that came back elsewhere
        ({ACQUIRED: 7}, History(0)),
        ({ACQUIRED: 7, QUORUM: 2}, History(2)),
        ({ACQUIRED: 0}, History(0)),
        # a classic queue tells only that there was a delivery before
        ({}, History(1, counted=False)),
        ({"x-death": []}, History(1, counted=False)),
        # what the message carries itself is added
        ({RETURNS: 1}, History(2, counted=False)),
        ({RETURNS: 2, QUORUM: 1}, History(3)),
        ({RETURNS: 3, CRASHES: 1, QUORUM: 0}, History(3, 1)),
        ({CRASHES: 1}, History(1, 1, counted=False)),
    ],
)
def test_a_redelivery_adds_what_the_queue_counts_to_what_the_message_carries(
    headers: dict[str, Any], history: History
) -> None:
    assert history_in(headers, redelivered=True) == history


@pytest.mark.parametrize("counts", [{}, {QUORUM: 5}, {ACQUIRED: 5}])
def test_a_first_delivery_has_come_back_only_as_often_as_the_message_says(
    counts: dict[str, int],
) -> None:
    fresh = history_in(counts, redelivered=False)
    assert (fresh.returns, fresh.crashes) == (0, 0)
    carried = history_in({RETURNS: 2, CRASHES: 1, **counts}, redelivered=False)
    assert (carried.returns, carried.crashes) == (2, 1)


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize("name", [QUORUM, RETURNS, CRASHES])
def test_nonsense_counts_nothing(name: str, value: Any) -> None:
    headers = {QUORUM: 0, RETURNS: 0, CRASHES: 0, name: value}
    assert history_in(headers, redelivered=True) == History()


@pytest.mark.parametrize("value", NONSENSE)
def test_an_odd_count_of_a_queue_still_tells_that_it_counts(value: Any) -> None:
    assert history_in({QUORUM: value}, redelivered=True).counted
    assert history_in({ACQUIRED: value}, redelivered=True).counted


@pytest.mark.parametrize(
    ("history", "way"),
    [
        (NEW, None),
        (History(1), None),
        (History(2), None),
        (History(2, 1), None),
        (History(3), "lane"),
        (History(10_000), "lane"),
        (History(1, counted=False), "again"),
        (History(2, counted=False), "again"),
        (History(3, counted=False), "lane"),
    ],
)
def test_the_third_return_leads_to_the_lane_and_none_before(
    history: History, way: str | None
) -> None:
    found = detour(history)
    if way is None:
        assert found is None
    else:
        assert found == Detour(history, suspect=way == "lane")


def test_a_killer_ends_three_workers_of_a_counting_queue() -> None:
    counts = (1, 2, 3)  # after the first death, which nothing comes before
    ways = [detour(history_in({QUORUM: each}, redelivered=True)) for each in counts]
    assert ways == [None, None, Detour(History(3), suspect=True)]


def test_a_killer_ends_three_workers_of_a_queue_that_does_not_count() -> None:
    headers: dict[str, Any] = {}
    deaths = 0
    while True:
        deaths += 1  # it has run; the broker delivers it again, as it was
        way = detour(history_in(headers, redelivered=True))
        assert way is not None
        assert way.history.returns == deaths
        headers = dict(way.history.headers())
        if way.suspect:
            break
    assert deaths == MOST_RETURNS == 3


@given(st.integers(0, 2**30), st.integers(0, 2**30))
def test_what_is_written_down_is_read_again(returns: int, crashes: int) -> None:
    headers = History(returns, crashes, counted=False).headers()
    encoded = template(
        content_type=None, correlation_id="j", type="t", headers=headers
    ).fill(b"1.1")
    read = history_in(decode_head(encoded)[2], redelivered=False)
    assert (read.returns, read.crashes) == (returns, crashes)


def test_nothing_is_written_down_about_a_message_without_a_past() -> None:
    assert NEW.headers() == {}
    assert History(0, 1).headers() == {CRASHES: 1}
    assert History(3).headers() == {RETURNS: 3}
