"""What a dead letter says, and whether a filter wants it: decided without a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from rmqarq import DecodeError, EncodeError, Message, Settings
from rmqarq.cli.showing import on_page
from rmqarq.letters import (
    MOST_GENERATIONS,
    DeadLetter,
    Filter,
    open_up,
    read,
    revived,
    unchanged,
)
from rmqarq.wire.codec import Codec
from rmqarq.wire.properties import template
from tests.broker.raw import long, properties, short

if TYPE_CHECKING:
    from rmqarq.wire.consumer import Delivery

CODEC = Codec(Settings())
NOW = 1_000_000.0
LETTER = DeadLetter(
    id="a-1",
    task="mail.welcome",
    queue="mails",
    reason="retries used up",
    error="smtplib.SMTPError",
    message="No such user",
    died_at=NOW - 3600,
)


class Came:
    """What is read of a delivery."""

    def __init__(self, raw: bytes, body: bytes, key: bytes = b"mails_dlq") -> None:
        self.properties, self.body, self.routing_key = raw, body, key


def delivery(raw: bytes, body: bytes, key: bytes = b"mails_dlq") -> Delivery:
    return cast("Delivery", Came(raw, body, key))


def dead(message: Message, **headers: Any) -> Delivery:
    made = template(
        content_type="application/json",
        correlation_id=message.id,
        type=message.task,
        headers=headers,
        priority=7,
    )
    return delivery(made.fill(b"1"), CODEC.encode(message).body)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Filter(), True),
        (Filter(tasks=("mail.welcome",)), True),
        (Filter(tasks=("other", "mail.*")), True),
        (Filter(tasks=("mail",)), False),
        (Filter(tasks=("MAIL.*",)), False),
        (Filter(reasons=("retries used up",)), True),
        (Filter(reasons=("retries*",)), True),
        (Filter(reasons=("expired",)), False),
        (Filter(errors=("smtperror",)), True),
        (Filter(errors=("no such",)), True),
        (Filter(errors=("timeout",)), False),
        (Filter(ids=("b", "a-1")), True),
        (Filter(ids=("a",)), False),
        (Filter(older_than=3600), True),
        (Filter(older_than=3601), False),
        (Filter(newer_than=3600), True),
        (Filter(newer_than=3599), False),
        (Filter(older_than=60, newer_than=7200), True),
        (Filter(tasks=("mail.*",), reasons=("expired",)), False),
    ],
)
def test_a_letter_must_fit_every_kind_of_condition(wanted: Filter, fits: bool) -> None:
    assert wanted.fits(LETTER, NOW) is fits
    assert wanted.takes_all is (wanted == Filter())


def test_a_letter_without_reason_error_or_time_fits_no_such_condition() -> None:
    bare = DeadLetter(id="a", task="t", queue="q")
    assert Filter(tasks=("*",)).fits(bare, NOW)
    for wanted in (
        Filter(reasons=("expired",)),
        Filter(errors=("x",)),
        Filter(older_than=0),
        Filter(newer_than=10**9),
    ):
        assert not wanted.fits(bare, NOW)


def test_brackets_in_a_name_are_taken_as_they_stand_too() -> None:
    odd = DeadLetter(id="a", task="task[1]", queue="q")
    assert Filter(tasks=("task[1]",)).fits(odd, NOW)


def test_the_headers_tell_all_but_the_contents() -> None:
    found = read(
        dead(
            Message(id="a", task="t"),
            **{
                "x-rmqarq-reason": "rejected",
                "x-rmqarq-queue": "mails",
                "x-rmqarq-attempts": 4,
                "x-rmqarq-error": "E",
                "x-rmqarq-message": "m",
                "x-rmqarq-traceback": "tb",
                "x-rmqarq-worker": "h:1",
                "x-rmqarq-enqueued-at": 1000,
                "x-rmqarq-first-at": 2000,
                "x-rmqarq-last-at": 3500,
            },
        ),
        CODEC,
        "elsewhere",
    )
    assert found == DeadLetter(
        id="a",
        task="t",
        queue="mails",
        reason="rejected",
        attempts=4,
        error="E",
        message="m",
        traceback="tb",
        worker="h:1",
        enqueued_at=1.0,
        first_at=2.0,
        died_at=3.5,
        size=found.size,
    )


def test_a_letter_without_names_outside_is_named_by_its_body() -> None:
    found = read(delivery(properties(), b'{"task":"t","id":"7"}'), CODEC, "mails")
    assert (found.task, found.id, found.queue) == ("t", "7", "mails")
    assert (found.reason, found.died_at) == (None, None)


WRONG = {
    "no flags": b"",
    "cut short": properties(type=b"t")[:-1],
    "unknown header": properties(headers=long(short(b"a") + b"?x"), type=b"t"),
    "numbers for texts": properties(
        headers=long(short(b"x-rmqarq-reason") + b"I\0\0\0\1"), type=b"t"
    ),
    "texts for numbers": properties(
        headers=long(short(b"x-rmqarq-last-at") + b"S" + long(b"soon")), type=b"t"
    ),
    "a time beyond all times": properties(
        headers=long(short(b"x-rmqarq-last-at") + b"l\x7f" + b"\xff" * 7), type=b"t"
    ),
    "a death that is none": properties(
        headers=long(short(b"x-death") + b"S" + long(b"x")), type=b"t"
    ),
    "deaths that are none": properties(
        headers=long(short(b"x-death") + b"A" + long(b"I\0\0\0\1")), type=b"t"
    ),
}


@pytest.mark.parametrize("raw", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 5000, b'{"task":"t"}'])
def test_nothing_that_a_message_holds_can_stop_the_reader(
    raw: bytes, body: bytes
) -> None:
    came = delivery(raw, body)
    found = read(came, CODEC, "mails")
    assert found.queue == "mails"
    assert found.reason is None
    open_up(came, CODEC)
    assert unchanged(came).body == body


def test_the_contents_are_what_json_can_show() -> None:
    came = dead(
        Message(id="a", task="t", args=(1, "x"), kwargs={"k": [None]}, job_try=3)
    )
    found = open_up(came, CODEC)
    assert (found.args, found.kwargs, found.job_try) == ([1, "x"], {"k": [None]}, 3)
    assert found.problem is None


def test_the_contents_of_a_chunk_are_its_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = open_up(dead(Message(task="t", id="c", rows=((1, "x"), (2,)))), CODEC)
    assert (found.rows, found.args) == ([[1, "x"], [2]], [])
    on_page(LETTER, found)
    page = capsys.readouterr().out
    assert '[[1, "x"], [2]]' in page
    assert "arguments" not in page


def test_a_revived_chunk_keeps_its_rows() -> None:
    letter = revived(dead(Message(task="t", id="c", rows=((1,), (2,)))), CODEC)
    again = CODEC.decode(properties(), letter.body).message
    assert [*map(bytes, again.rows)] == [b"[1]", b"[2]"]
    assert (again.id, again.generation) == ("c", 1)


def test_contents_that_can_not_be_read_say_why_and_show_their_beginning() -> None:
    found = open_up(delivery(properties(), b"{\xff" + b"x" * 9000), CODEC)
    assert found.problem is not None
    assert "can't be read" in found.problem
    assert found.body is not None
    assert found.body.startswith("{\\xffxxx")
    assert len(found.body) < 3000


def test_a_revived_job_begins_anew_under_its_id() -> None:
    message = Message(
        id="a",
        task="t",
        args=(1,),
        kwargs={"k": 2},
        job_try=4,
        enqueued_at=5.0,
        eta=6.0,
        expires=1.0,
        max_retries=9,
        generation=2,
        first_failed_at=7.0,
        headers={"trace": "x"},
    )
    letter = revived(dead(message, **{"x-rmqarq-crashes": 2}), CODEC)
    again = CODEC.decode(properties(), letter.body).message
    assert (again.id, again.task, again.job_try, again.generation) == ("a", "t", 1, 3)
    assert (again.eta, again.expires, again.first_failed_at) == (None, None, None)
    assert (again.enqueued_at, again.max_retries) == (5.0, 9)
    assert again.headers == {"trace": "x"}
    assert (bytes(again.args), bytes(again.kwargs)) == (b"[1]", b'{"k":2}')
    assert (letter.task, letter.job_id, letter.priority) == ("t", "a", 7)
    assert letter.headers == {}


def test_the_generation_stays_what_a_worker_can_read() -> None:
    letter = revived(dead(Message(task="t", generation=MOST_GENERATIONS)), CODEC)
    again = CODEC.decode(properties(), letter.body).message
    assert again.generation == MOST_GENERATIONS


def test_what_can_not_be_read_or_is_too_large_is_not_revived() -> None:
    with pytest.raises(DecodeError):
        revived(delivery(properties(), b"{"), CODEC)
    came = dead(Message(id="a", task="t"))
    strict = Codec(Settings(max_body=len(came.body)))
    with pytest.raises(EncodeError):  # by the generation
        revived(came, strict)


def test_unchanged_keeps_the_bytes_and_what_workers_count() -> None:
    came = dead(
        Message(id="a", task="t"),
        **{"x-rmqarq-returns": 2, "x-rmqarq-reason": "expired", "x-death": ["x"]},
    )
    letter = unchanged(came)
    assert letter.body == came.body
    assert (letter.task, letter.job_id, letter.priority) == ("t", "a", 7)
    assert letter.content_type == "application/json"
    assert letter.headers == {"x-rmqarq-returns": 2}
