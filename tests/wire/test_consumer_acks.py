"""Acks packed together, judged by a model of the broker's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq.wire.consumer import OpenTags

if TYPE_CHECKING:
    from collections.abc import Sequence


class Channel:
    """What the broker knows of one channel: which deliveries are not settled.

    RabbitMQ closes the channel (406, unknown delivery tag) when an ack names a tag
    that is not open, and a `multiple` ack settles every open tag up to the named one.
    """

    def __init__(self, delivered: int) -> None:
        self.open = set(range(1, delivered + 1))
        self.acked: list[int] = []
        self.nacked: list[int] = []

    def ack(self, tag: int, *, multiple: bool) -> None:
        assert tag in self.open, f"unknown delivery tag {tag}"
        settled = {each for each in self.open if each <= tag} if multiple else {tag}
        self.open -= settled
        self.acked += sorted(settled)

    def nack(self, tag: int) -> None:
        assert tag in self.open, f"unknown delivery tag {tag}"
        self.open.remove(tag)
        self.nacked.append(tag)


def settle(turns: Sequence[tuple[list[int], list[int]]]) -> tuple[Channel, int]:
    """Settle in turns, as a consumer writes it: nacks, then multiple, then singles."""
    delivered = sum(len(acks) + len(nacks) for acks, nacks in turns)
    channel, tags, frames = Channel(delivered + 3), OpenTags(), 0
    for tag in range(1, delivered + 4):
        tags.add(tag)
    for acks, nacks in turns:
        still_running = channel.open - {*acks, *nacks}
        through, singles = tags.settle(list(acks), list(nacks))
        for tag in nacks:
            channel.nack(tag)
        if through:
            channel.ack(through, multiple=True)
        for tag in singles:
            channel.ack(tag, multiple=False)
        frames += len(nacks) + bool(through) + len(singles)
        assert still_running <= channel.open, "an open delivery was settled"
        assert not channel.open & {*acks, *nacks}, "a delivery stayed open"
    return channel, frames


@st.composite
def turns(draw: st.DrawFn) -> list[tuple[list[int], list[int]]]:
    """Every tag settled once, in any order, in turns of any size."""
    count = draw(st.integers(1, 60))
    order = draw(st.permutations(range(1, count + 1)))
    if draw(st.booleans()):  # nearly in order, as jobs of equal length end
        order = sorted(order, key=lambda tag: tag + order[tag - 1] % 5)
    refused = draw(st.sets(st.sampled_from(order), max_size=5))
    found: list[tuple[list[int], list[int]]] = []
    at = 0
    while at < count:
        size = draw(st.integers(1, 12))
        turn = order[at : at + size]
        at += size
        acks = [tag for tag in turn if tag not in refused]
        found.append((acks, [tag for tag in turn if tag in refused]))
    return found


@given(turns())
def test_every_delivery_is_settled_once_and_none_that_still_runs(
    given: list[tuple[list[int], list[int]]],
) -> None:
    channel, _ = settle(given)
    acked = [tag for acks, _ in given for tag in acks]
    nacked = [tag for _, nacks in given for tag in nacks]
    assert sorted(channel.acked) == sorted(acked)
    assert sorted(channel.nacked) == sorted(nacked)


def test_what_ends_in_order_is_acked_by_one_frame_a_turn() -> None:
    in_order = [(list(range(at, at + 100)), []) for at in range(1, 1001, 100)]
    _, frames = settle(in_order)
    assert frames == 10


def test_what_ends_out_of_order_within_a_turn_is_still_one_frame() -> None:
    _, frames = settle([([3, 1, 2], []), ([6, 5, 4], [])])
    assert frames == 2


def test_one_long_job_does_not_hold_back_the_acks_of_the_others() -> None:
    channel, frames = settle([([2, 3], []), ([4, 5], []), ([1], []), ([6, 7], [])])
    assert sorted(channel.acked) == [1, 2, 3, 4, 5, 6, 7]
    assert frames == 4 + 1 + 1  # singles while 1 runs, then one each


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([([1], [])], [(0, [1])]),
        ([([1, 2], [])], [(2, [])]),
        ([([2], []), ([1], [])], [(0, [2]), (0, [1])]),
        ([([2, 4], []), ([1, 3], [])], [(0, [2, 4]), (3, [])]),
        ([([1, 3], [2])], [(3, [])]),
        ([([], [1]), ([2, 3], [])], [(0, []), (3, [])]),
        ([([1, 2, 4], [])], [(2, [4])]),
    ],
)
def test_multiple_ends_at_a_tag_that_ended_in_this_very_turn(
    given: list[tuple[list[int], list[int]]], expected: list[tuple[int, list[int]]]
) -> None:
    tags = OpenTags()
    for tag in range(1, 6):
        tags.add(tag)
    assert [tags.settle(list(acks), list(nacks)) for acks, nacks in given] == expected
