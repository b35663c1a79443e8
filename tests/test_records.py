"""Log records as JSON: every field in its place, one line whatever was logged."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from rmqarq import Context, Message, State
from rmqarq.errors import ConnectionFailed, Phrase
from rmqarq.logs import JsonFormatter, current_job
from rmqarq.records import MOST

SENTENCE = (
    "%(task)s %(id)s runs again in %(delay).1f s after attempt %(attempt)d%(error)s"
)


def record(
    message: Any, *args: Any, name: str = "rmqarq.worker.settle", **extra: Any
) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, args, None)
    vars(made).update(extra)
    return made


def written(made: logging.LogRecord, language: str = "en") -> dict[str, Any]:
    line = JsonFormatter(language, ascii_only=False).format(made)
    assert len(line.splitlines()) == 1
    line.encode()
    found: dict[str, Any] = json.loads(line)
    return found


@contextmanager
def inside_a_job(job_id: str = "j-1") -> Iterator[None]:
    ctx = Context(Message(task="add", id=job_id, job_try=2), State(), "mail")
    token = current_job.set(ctx)
    try:
        yield
    finally:
        current_job.reset(token)


def test_a_line_of_ours_has_the_sentence_its_event_and_its_job() -> None:
    params = {"task": "add", "id": "j-1", "delay": 5.0, "attempt": 1, "error": ""}
    made = record(SENTENCE, params)
    made.created = 1.5
    assert written(made) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "WARNING",
        "logger": "rmqarq.worker.settle",
        "message": "add j-1 runs again in 5.0 s after attempt 1",
        "event": SENTENCE,
        "task": "add",
        "job_id": "j-1",
        "delay": 5.0,
        "try": 1,
        "error": "",
    }


def test_only_the_message_is_translated() -> None:
    params = {"why": "early", "task": "add", "id": "j", "delay": 1.0}
    made = record("%(task)s %(id)s is put off for %(delay).1f s: %(why)s", params)
    english, chinese = written(made), written(made, "zh")
    assert chinese["message"] == "add j 推迟 1.0 秒：时间未到"
    assert english["message"] == "add j is put off for 1.0 s: early"
    assert {**english, "message": ""} == {**chinese, "message": ""}


def test_an_error_that_is_the_whole_sentence_gives_its_own_event() -> None:
    error = ConnectionFailed("no {x}: {cause}", x=1, cause=Phrase("no answer"))
    found = written(record("%(problem)s", {"problem": error}), "zh")
    assert found["event"] == "no {x}: {cause}"
    assert found["message"] == "no 1: 没有应答"
    assert found["problem"] == "no 1: no answer"


def test_what_user_code_logs_in_a_job_carries_the_job_and_its_extras() -> None:
    made = record("paid %s", 3, name="shop", order=7, level="x", task="mine")
    with inside_a_job():
        found = written(made, "zh")
    del found["time"]
    assert found == {
        "level": "WARNING",
        "logger": "shop",
        "message": "paid 3",
        "event": "paid %s",
        "job_id": "j-1",
        "task": "add",
        "queue": "mail",
        "try": 2,
        "order": 7,
        "level_": "x",
        "task_": "mine",
    }
    assert "job_id" not in written(made)


def test_a_thread_of_a_job_carries_the_job_too() -> None:
    async def logged() -> dict[str, Any]:
        with inside_a_job():
            return await asyncio.to_thread(written, record("x", name="shop"))

    assert asyncio.run(logged())["job_id"] == "j-1"


def test_a_line_about_another_job_is_not_mixed_with_the_running_one() -> None:
    with inside_a_job():
        found = written(record("%(task)s %(id)s", {"task": "other", "id": "j-2"}))
        own = written(record("%(task)s %(id)s", {"task": "add", "id": "j-1"}))
    assert (found["task"], found["job_id"]) == ("other", "j-2")
    assert "queue" not in found
    assert (own["queue"], own["try"]) == ("mail", 2)


class Rude:
    def __str__(self) -> str:
        raise RuntimeError


class RudeMapping(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError


class RudeText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "value",
    [
        Rude(),
        RudeMapping(a=1),
        RudeText("x"),
        ENDLESS,
        {"a": {1, 2}, 3: b"\xff", Rude(): None},
        "\udc80 \x00 \x85 \u2028 \n \x1b[31m",
        math.nan,
        -math.inf,
        10**5000,
        2**63,
        "x" * 1_000_000,
        [["y" * 100] * 100] * 100,
        {str(n): n for n in range(100_000)},
        ValueError(Rude()),
        threading.Lock(),
        Rude,
    ],
    ids=lambda each: type(each).__name__,
)
def test_whatever_is_logged_becomes_one_line_of_bounded_size(value: Any) -> None:
    for made in (
        record("%(x)s", {"x": value}, name="shop"),
        record("%(x)s", {"x": value}),
        record("%s", value, name="shop"),
        record(value, name="shop"),
        record("x", name="shop", more=value),
    ):
        found = written(made)
        assert found["level"] == "WARNING"
        assert len(json.dumps(found)) < 14 * MOST


def test_arguments_that_do_not_fit_the_sentence_are_shown_beside_it() -> None:
    found = written(record("%d of %d", "x", name="shop"))
    assert found["message"] == "%d of %d ('x',)"


def test_an_exception_is_a_field_of_text() -> None:
    made = record("failed", name="shop")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        made.exc_info = sys.exc_info()
    made.stack_info = "Stack:\n  here"
    found = written(made)
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ZeroDivisionError: division by zero")
    assert found["stack"] == "Stack:\n  here"


def test_passwords_in_urls_are_masked_wherever_they_stand() -> None:
    url = "amqp://user:S3CR3T@host/v"
    made = record(f"to {url}", {"x": [url]}, name="shop", more={url: url})
    made.stack_info = url
    made.exc_info = (ValueError, ValueError(url), None)
    line = JsonFormatter("en").format(made)
    assert "S3CR3T" not in line
    assert line.count("user:***@host") == 7


def test_where_standard_error_is_not_utf_8_a_line_is_ascii() -> None:
    made = record("任务 😀", name="shop")
    line = JsonFormatter("zh", ascii_only=True).format(made)
    assert line.isascii()
    assert json.loads(line)["message"] == "任务 😀"


def test_a_mapping_that_is_no_mapping_of_texts_is_kept() -> None:
    class Only(Mapping[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            return {1: 2}[key]

        def __iter__(self) -> Iterator[Any]:
            return iter([1])

        def __len__(self) -> int:
            return 1

    assert written(record("x", name="shop", more=Only()))["more"] == {"1": 2}
