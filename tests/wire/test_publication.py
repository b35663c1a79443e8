"""What is published, and how it is written when it is sent."""

from __future__ import annotations

import pytest

from rmqarq.wire.delay import Rung, Wait
from rmqarq.wire.names import Names
from rmqarq.wire.properties import decode
from rmqarq.wire.publication import (
    Delayed,
    Forward,
    Letter,
    Post,
    delayed,
    released,
)
from rmqarq.wire.relay import number_in
from tests.broker.raw import properties, short

NAMES = Names("p")
LETTER = Letter(task="t", job_id="j", body=b"{}", content_type="application/json")
FORWARD = Forward(
    task="t", job_id="j", body=b"{}", properties=properties(expiration=short(b"9"))
)


BOTH = pytest.mark.parametrize("post", [LETTER, FORWARD])


def waiting(post: Post, delay: float, left: float) -> Delayed:
    """One that was to wait so long, and has so long to go when it is written."""
    return delayed(post, "q", Wait(delay, 100.0, lambda: 100 + delay - left), NAMES)


@BOTH
def test_it_leaves_its_first_rung_in_time(post: Post) -> None:
    usual = waiting(post, 5.25, 5.24)  # 5 s and 300 ms
    written = usual.by_ladder(())
    before = decode(usual.template.fill(b"c.1"))
    after = decode(written.template.fill(b"c.1"))
    assert before.expiration is None
    assert after.expiration == "4940"
    assert after.headers == before.headers
    assert after.timestamp == before.timestamp
    assert number_in(written.template.fill(b"c.1")) == "c.1"
    assert (written.exchange, written.routing_key) == ("p.delay.1.entry", "q")
    assert written.needs == usual.needs


def test_it_stays_as_it_is_where_the_time_of_the_rung_is_right() -> None:
    usual = waiting(LETTER, 1.3, 1.3)
    assert usual.by_ladder({Rung(0, 3): 0.0}) is usual


@BOTH
@pytest.mark.parametrize(("delay", "ms"), [(0.1, "100"), (1.3, "1000")])
def test_it_expires_by_itself_while_its_first_rung_is_new(
    post: Post, delay: float, ms: str
) -> None:
    usual = waiting(post, delay, delay)
    written = usual.by_ladder({usual.rungs[0]: 0.0})
    assert decode(written.template.fill(b"c.1")).expiration == ms


@BOTH
@pytest.mark.parametrize("left", [-0.01, 0, 1e-7])
def test_it_goes_straight_to_its_queue_when_it_is_due_by_then(
    post: Post, left: float
) -> None:
    written = waiting(post, 5.25, left).by_ladder(())
    assert (written.exchange, written.routing_key) == ("", "q")
    assert written.needs == ("q",)
    found = decode(written.template.fill(b"c.1"))
    assert "CC" not in found.headers
    assert found.expiration is None


@BOTH
@pytest.mark.parametrize("delay", [1999.9, 30, 6.1])
def test_it_takes_another_way_when_its_own_has_become_too_long(
    post: Post, delay: float
) -> None:
    written = waiting(post, delay, 4.95).by_ladder(())
    found = decode(written.template.fill(b"c.1"))
    assert written.exchange == "p.delay.1.entry"
    assert found.headers["CC"] == ["p.delay.5s"]
    assert found.expiration == "4950"
    assert written.needs == ("q", Rung(1, 5))


@BOTH
@pytest.mark.parametrize(("left", "ms"), [(5.2401, 5241), (0, 1), (-3, 1)])
def test_the_plugin_gets_what_is_left_by_then(post: Post, left: float, ms: int) -> None:
    written = waiting(post, 5.25, left).by_plugin()
    assert decode(written.template.fill(b"c.1")).headers["x-delay"] == ms


def test_what_is_sent_on_stays_what_it_is() -> None:
    letter = Letter(
        task="t",
        job_id="j",
        body=b"{}",
        content_type=None,
        headers={"x-rmqarq-crashes": 1, "x-death": "seen", "CC": ["p.delay.300ms"]},
    )
    raw = letter.template(letter.headers).fill(b"c.1")
    onward = released(Rung(1, 1), "q", raw, letter.body, NAMES)
    assert (onward.exchange, onward.routing_key, onward.needs) == ("p.delay.0", "q", ())
    sent = onward.template.fill(b"d.2")
    assert number_in(sent) == "d.2"
    assert decode(sent).message_id == "c.1"
    assert decode(sent).headers == {
        "x-rmqarq-crashes": 1,
        "CC": ["p.delay.300ms"],
        "x-rmqarq-publish": "d.2",
    }
    again = released(Rung(0, 3), "q", sent, letter.body, NAMES)
    assert again.exchange == "p.due"
    assert number_in(again.template.fill(b"e.3")) == "e.3"
