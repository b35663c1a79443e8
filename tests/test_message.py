"""The envelope: its names on the wire, its defaults, its day of expiry."""

from __future__ import annotations

import msgspec
import pytest

from rmqarq import Message


def test_defaults_are_not_written() -> None:
    assert msgspec.json.encode(Message(task="add")) == b'{"task":"add"}'


def test_the_fields_have_their_names_on_the_wire() -> None:
    message = Message(
        version=2,
        id="j",
        task="add",
        args=(1,),
        kwargs={"b": 2},
        job_try=3,
        enqueued_at=4.5,
        eta=5.5,
        expires=6.5,
        max_retries=0,
        generation=1,
        first_failed_at=7.5,
        headers={"h": "v"},
    )
    assert msgspec.json.decode(msgspec.json.encode(message)) == {
        "v": 2,
        "id": "j",
        "task": "add",
        "args": [1],
        "kwargs": {"b": 2},
        "try": 3,
        "enqueued_at": 4.5,
        "eta": 5.5,
        "expires": 6.5,
        "max_retries": 0,
        "generation": 1,
        "first_failed_at": 7.5,
        "headers": {"h": "v"},
    }


def test_unknown_fields_are_ignored_so_that_newer_producers_can_be_read() -> None:
    read = msgspec.json.decode(b'{"task":"add","colour":"blue"}', type=Message)
    assert read == Message(task="add")


def test_a_message_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Message().task = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("message", "last_moment"),
    [
        (Message(enqueued_at=100.0, expires=10.0), 110.0),
        (Message(enqueued_at=100.0, eta=500.0, expires=10.0), 510.0),
        (Message(enqueued_at=100.0, expires=0.0), 100.0),
    ],
)
def test_a_message_expires_after_its_time_not_after_its_enqueueing(
    message: Message, last_moment: float
) -> None:
    assert not message.expired(last_moment)
    assert message.expired(last_moment + 0.001)


def test_an_attempt_after_the_expiry_has_no_last_moment() -> None:
    again = Message(enqueued_at=100.0, eta=700.0, expires=0.0, job_try=2)
    assert again.expired(700.0)
    assert again.expired(699.9)  # by a clock that is a little behind


def test_a_message_without_expiry_never_expires() -> None:
    assert not Message(enqueued_at=1.0).expired(1e12)
