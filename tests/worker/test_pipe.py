"""The frames between a worker and its isolated process."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rmqarq import Settings
from rmqarq.outcome import (
    Aborted,
    DeadLettered,
    Failure,
    Outcome,
    Released,
    Retried,
    Succeeded,
)
from rmqarq.worker import pipe

FAILURE = Failure("app.Problem", "über alles: 坏了 \0 \x1b[31m", "Traceback\n  …")
SETTINGS = [
    Settings(),
    Settings(url=("amqp://a:b@one/", "amqps://a:b@two/v")),
    Settings(
        queue="x",
        queue_type="classic",
        max_priority=5,
        job_timeout=None,
        prefetch=7,
        burst=True,
        burst_timeout=None,
        language="zh",
    ),
]
TO_CHILD: list[pipe.ToChild] = [
    *(pipe.Start("package.module:app", each) for each in SETTINGS),
    pipe.Order("queue", b"", b"queue", b"\x00\xff\x80", b""),
    pipe.Order("queue", b"\xff", b"\x80", b"", bytes(range(256)) * 4096),
    pipe.Interrupt("timeout"),
    pipe.Interrupt("shutdown"),
    pipe.Leave(),
]
OUTCOMES: list[Any] = [
    Succeeded(),
    Retried(0.0),
    Retried(1e9, FAILURE),
    DeadLettered("expired"),
    DeadLettered("crashed", FAILURE),
    Aborted(),
    Released(),
]
TO_WORKER: list[pipe.ToWorker] = [
    pipe.Ready(frozenset()),
    pipe.Ready(frozenset({"add", "坏", "a.b"})),
    pipe.Refused("there is no module 'nowhere'"),
    *(pipe.Ended(each) for each in OUTCOMES),
]


def body(frame: bytes) -> bytes:
    """Take off the length, which must be right."""
    length, rest = frame[: pipe.LENGTH], frame[pipe.LENGTH :]
    assert int.from_bytes(length, "big") == len(rest)
    return rest


@pytest.mark.parametrize("word", TO_CHILD, ids=lambda each: type(each).__name__)
def test_what_the_worker_says_arrives(word: pipe.ToChild) -> None:
    heard = pipe.to_child(body(pipe.pack(word)))
    assert heard == word
    assert type(heard) is type(word)


@pytest.mark.parametrize("word", TO_WORKER, ids=lambda each: type(each).__name__)
def test_what_the_isolated_process_says_arrives(word: pipe.ToWorker) -> None:
    heard = pipe.to_worker(body(pipe.pack(word)))
    assert heard == word
    assert type(heard) is type(word)
    if isinstance(word, pipe.Ended) and isinstance(heard, pipe.Ended):
        assert type(heard.outcome) is type(word.outcome)


def test_settings_arrive_whole_and_of_their_types() -> None:
    for settings in SETTINGS:
        heard = pipe.to_child(body(pipe.pack(pipe.Start("m:a", settings))))
        assert isinstance(heard, pipe.Start)
        assert heard.settings == settings
        assert type(heard.settings.url) is type(settings.url)


def test_every_outcome_that_a_function_can_have_fits() -> None:
    ours = {type(each).__name__ for each in OUTCOMES}
    known = {each.__name__ for each in Outcome.__subclasses__()}
    assert known - ours == {"Crashed"}  # which nobody is left to tell


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"hello",
        pipe.pack(pipe.Leave())[pipe.LENGTH :],  # a word of the other side
        pipe.pack(pipe.Ready(frozenset()))[pipe.LENGTH : -1],
    ],
)
def test_what_is_no_frame_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        pipe.to_worker(raw)
