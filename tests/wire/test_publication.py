"""What is published, and how it is written for a rung that is new."""

from __future__ import annotations

import pytest

from rmqarq.wire.delay import Rung
from rmqarq.wire.names import Names
from rmqarq.wire.properties import decode
from rmqarq.wire.publication import Forward, Letter, Post, delayed, released
from rmqarq.wire.relay import number_in
from tests.broker.raw import properties, short

NAMES = Names("p")
LETTER = Letter(task="t", job_id="j", body=b"{}", content_type="application/json")
FORWARD = Forward(
    task="t", job_id="j", body=b"{}", properties=properties(expiration=short(b"9"))
)


@pytest.mark.parametrize("post", [LETTER, FORWARD])
def test_it_expires_with_its_first_rung_while_that_is_new(post: Post) -> None:
    usual = delayed(post, "q", 1.3, NAMES)
    new = usual.expiring({Rung(1, 1): 0.0})
    before, after = (
        decode(usual.template.fill(b"c.1")),
        decode(new.template.fill(b"c.1")),
    )
    assert before.expiration is None
    assert after.expiration == "1000"
    assert after.headers == before.headers
    assert after.timestamp == before.timestamp
    assert number_in(new.template.fill(b"c.1")) == "c.1"
    assert (new.exchange, new.routing_key) == ("p.delay.1", "q")


def test_it_has_a_second_to_reach_a_worker_should_the_rung_be_gone() -> None:
    new = delayed(LETTER, "q", 0.1, NAMES).expiring({Rung(0, 1): 0.0})
    assert decode(new.template.fill(b"c.1")).expiration == "1000"


def test_it_does_not_once_that_has_been_there_for_long() -> None:
    usual = delayed(LETTER, "q", 1.3, NAMES)
    assert usual.expiring({Rung(0, 3): 0.0}) is usual


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
