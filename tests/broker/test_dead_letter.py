"""Dead letters: why, with what, and never lost; a broken message stops nobody."""

from __future__ import annotations

import gzip
import json
import struct
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from anyio import to_thread

from rmqarq import App, Reject
from tests.broker.kit import (
    channel_to,
    dead_letters,
    delete_queues,
    running,
    take_all,
    until,
    wait_for_count,
)
from tests.broker.raw import long, properties, raw_publisher, short

if TYPE_CHECKING:
    from rmqarq import Task
    from tests.harness.broker import Broker


class Tasks:
    """A task that succeeds and some that do not."""

    def __init__(self, app: App) -> None:
        self.ran: list[int] = []
        self.good: Task[[int], None] = app.task(name="good")(self._good)
        self.reject: Task[[int], None] = app.task(name="reject")(self._reject)
        self.fail: Task[[int], None] = app.task(
            name="fail", max_retries=0, retry_on=(OSError,)
        )(self._fail)

    async def _good(self, number: int) -> None:
        self.ran.append(number)

    async def _reject(self, number: int) -> None:
        raise Reject(f"number {number}")

    async def _fail(self, number: int) -> None:
        raise OSError("no luck") if number else KeyError("no key")


def reasons(letters: list[Any]) -> Counter[str]:
    return Counter(letter.headers["x-rmqarq-reason"] for letter in letters)


async def send(broker: Broker, queue: str, *bodies: bytes) -> None:
    """Send bodies without any property."""
    async with channel_to(broker.url) as channel:
        for body in bodies:
            await channel.basic_publish(body, routing_key=queue)


async def test_every_reason_is_written_on_its_dead_letter(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, unknown_task_wait=0, max_body=10_000)
    tasks = Tasks(app)
    async with running(app) as worker:
        await tasks.reject.enqueue(1)
        await tasks.fail.enqueue(1)
        await tasks.fail.enqueue(0)
        await app.ref("nowhere").enqueue()
        await app.enqueue_many([tasks.good.options(expires=0).job(1).defer(0.1)])
        await send(
            broker, queue, b"{", b'{"task":"good","args":["%s"]}' % (b"x" * 10000)
        )
        await until(lambda: worker.stats.dead_lettered == 7)
    letters = await dead_letters(broker.url, queue, 7)
    found = {letter.headers["x-rmqarq-reason"]: letter for letter in letters}
    assert reasons(letters) == {
        "rejected": 1,
        "retries used up": 1,
        "not retryable": 1,
        "unknown task": 1,
        "expired": 1,
        "undecodable": 2,
    }
    assert found["not retryable"].headers["x-rmqarq-error"] == "KeyError"
    assert found["unknown task"].properties.message_type == "nowhere"
    assert worker.stats.failed == 3
    assert not tasks.ran


UNDECODABLE = {
    "nothing": b"",
    "no json": b"{'task': 'good'}",
    "cut short": b'{"task":"good","args":[1',
    "bad utf-8": b'{"task":"good","args":["\xff\xfe"]}',
    "zero bytes": b"\0" * 100,
    "null": b"null",
    "an array": b'["good",1]',
    "a number": b"7",
    "no task": b'{"args":[1]}',
    "task is a number": b'{"task":7,"args":[1]}',
    "arguments are a number": b'{"task":"good","args":7}',
    "named arguments are a list": b'{"task":"good","kwargs":[1]}',
    "too many arguments": b'{"task":"good","args":[1,2]}',
    "too few arguments": b'{"task":"good"}',
    "no such argument": b'{"task":"good","args":[1],"kwargs":{"x":1}}',
    "an argument twice": b'{"task":"good","args":[1],"kwargs":{"number":1}}',
    "wrong type": b'{"task":"good","args":["one"]}',
    "version 2": b'{"v":2,"task":"good","args":[1]}',
    "version is text": b'{"v":"x","task":"good","args":[1]}',
    "try is text": b'{"task":"good","args":[1],"try":"x"}',
    "headers are no text": b'{"task":"good","args":[1],"headers":{"a":[]}}',
    "deep": b'{"task":"good","args":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
    "deep and open": b'{"task":"good","args":' + b"[" * 500_000,
}


async def test_what_can_not_be_decoded_is_kept_byte_by_byte(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    tasks = Tasks(app)
    async with running(app) as worker:
        await send(broker, queue, *UNDECODABLE.values())
        await until(lambda: worker.stats.dead_lettered == len(UNDECODABLE))
        await tasks.good.enqueue(1)
        await until(lambda: tasks.ran == [1])
    letters = await dead_letters(broker.url, queue, len(UNDECODABLE))
    assert {each.body for each in letters} == set(UNDECODABLE.values())
    assert reasons(letters) == {"undecodable": len(UNDECODABLE)}
    for letter in letters:
        assert letter.headers["x-rmqarq-error"] == "rmqarq.errors.DecodeError"
        assert letter.headers["x-rmqarq-message"]
    said = {each.body: each.headers["x-rmqarq-message"] for each in letters}
    assert "format version 2" in said[UNDECODABLE["version 2"]]
    assert "names no task" in said[UNDECODABLE["no task"]]
    assert "'number'" in said[UNDECODABLE["wrong type"]]


EXTREME = {
    "enqueued in no time": {"enqueued_at": 1e308},
    "enqueued long before": {"enqueued_at": -1e300},
    "failed in no time": {"first_failed_at": 1e308},
    "failed long before": {"first_failed_at": -1e300},
    "too many tries": {"try": 10**30},
    "negative try": {"try": -(10**30)},
    "huge generation": {"generation": 10**40},
    "negative expiry": {"expires": -1.0},
    "expired and huge": {"expires": -1e308, "enqueued_at": 1e18},
    "negative retries": {"max_retries": -(10**30)},
    "long id": {"id": "é" * 5000},
    "id with zeros": {"id": "\0\0"},
    "id with half a character": {"id": "\ud800"},
    "long task": {"task": "t" * 5000},
    "past": {"eta": -1e308},
}


async def test_extreme_numbers_and_names_end_as_dead_letters(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, unknown_task_wait=0)
    tasks = Tasks(app)
    bodies = [
        json.dumps({"task": "reject", "args": [n], **extreme}).encode()
        for n, extreme in enumerate(EXTREME.values())
    ]
    bodies.append(msgspec.msgpack.encode({"task": "good", "enqueued_at": float("nan")}))
    async with running(app) as worker:
        await send(broker, queue, *bodies[:-1])
        async with raw_publisher(broker) as raw:
            packed = properties(content_type=b"application/msgpack")
            await raw.publish(queue, packed, bodies[-1])
        await tasks.good.enqueue(1)
        await until(lambda: tasks.ran == [1])
        await until(lambda: worker.stats.dead_lettered == len(bodies), timeout=8)
        assert worker.stats.returned == 0
    letters = await dead_letters(broker.url, queue, len(bodies))
    assert {each.body for each in letters} == set(bodies)


def table(*fields: tuple[bytes, bytes]) -> bytes:
    """Encode a header table from names and encoded fields."""
    return long(b"".join(short(name) + field for name, field in fields))


def nested(kind: bytes, depth: int) -> bytes:
    """Encode a table or array that holds itself so many times."""
    raw = b""
    for _ in range(depth):
        raw = (short(b"x") if kind == b"F" else b"") + kind + long(raw)
    return long(raw if kind == b"F" else short(b"x") + b"A" + long(raw))


LATEST, BEYOND = struct.pack(">Q", 2**63 - 1), struct.pack(">Q", 2**64 - 1)
POISON: dict[str, dict[str, bytes]] = {
    "message id": {"message_id": b"\xff" * 255},
    "timestamp": {"timestamp": LATEST},
    "later timestamp": {"timestamp": BEYOND},
    "content type": {"content_type": b"\xff\xfe"},
    "content type of others": {"content_type": b"text/html"},
    "content encoding": {"content_encoding": b"\xc3\x28"},
    "encoding of others": {"content_encoding": b"br"},
    "not gzip": {"content_encoding": b"gzip"},
    "type": {"type": b"reject\xff"},
    "empty type": {"type": b""},
    "correlation id": {"correlation_id": b"\xf0\x28\x8c\x28"},
    "reply to": {"reply_to": b"\xff"},
    "app id": {"app_id": b"\xff"},
    "cluster id": {"cluster_id": b"\xff"},
    "header name": {"headers": table((b"\xff\xfe", b"V"))},
    "empty header name": {"headers": table((b"", b"V"))},
    "header text": {"headers": table((b"a", b"S" + long(b"\xff\xfe")))},
    "same header twice": {"headers": table((b"a", b"t\x01"), (b"a", b"V"))},
    "big header": {"headers": table((b"a", b"S" + long(b"a" * 100_000)))},
    "many headers": {"headers": table(*((b"h%d" % n, b"V") for n in range(5000)))},
    "deep tables": {"headers": nested(b"F", 500)},
    "deep arrays": {"headers": nested(b"A", 500)},
    "header timestamp": {"headers": table((b"a", b"T" + LATEST))},
    "later header timestamp": {"headers": table((b"a", b"T" + BEYOND))},
    "huge number": {"headers": table((b"a", b"d" + struct.pack(">d", 1e308)))},
    "decimal": {"headers": table((b"a", b"D\xff" + struct.pack(">I", 2**32 - 1)))},
    "our headers": {
        "headers": table(
            (b"x-rmqarq-returns", b"S" + long(b"many")),
            (b"x-rmqarq-crashes", b"F" + long(b"")),
            (b"x-rmqarq-suspect", b"V"),
            (b"x-rmqarq-unknown-since", b"A" + long(b"")),
        )
    },
    "headers of the broker": {
        "headers": table(
            (b"x-death", b"S" + long(b"none")),
            (b"x-delivery-count", b"S" + long(b"none")),
        )
    },
}


def ours(broker: Broker) -> dict[str, str]:
    """The connections of Apps and workers: their names and processes."""
    return {
        each.name: each.pid
        for each in broker.connections()
        if "rmqarq:" in each.properties
    }


async def test_poisonous_properties_end_as_dead_letters_and_the_link_stays_up(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    tasks = Tasks(app)
    bodies = {name: b'{"args":[%d]}' % n for n, name in enumerate(POISON)}
    async with running(app) as worker:
        before = await to_thread.run_sync(ours, broker)
        async with raw_publisher(broker) as raw:
            for name, poison in POISON.items():
                given = {"type": b"reject", **poison}
                await raw.publish(queue, properties(**given), bodies[name])
        await tasks.good.enqueue(1)
        await until(lambda: tasks.ran == [1])
        await until(lambda: worker.stats.dead_lettered == len(POISON), timeout=8)
        assert await to_thread.run_sync(ours, broker) == before
        assert len(before) == 2
    assert worker.stats.reconnects == 0
    assert worker.stats.returned == 0
    letters = await dead_letters(broker.url, queue, len(POISON))
    assert sorted(each.body for each in letters) == sorted(bodies.values())
    found = {letter.body: letter.headers["x-rmqarq-reason"] for letter in letters}
    harmless = ("header text", "huge number", "many headers", "our headers")
    for name in harmless:
        assert found[bodies[name]] == "rejected", name
    for name in ("content type", "type", "correlation id", "not gzip", "deep tables"):
        assert found[bodies[name]] == "undecodable", name


async def test_a_small_body_that_unpacks_to_a_huge_one_is_not_unpacked(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    tasks = Tasks(app)
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    async with running(app) as worker, raw_publisher(broker) as raw:
        packed = properties(type=b"good", content_encoding=b"gzip")
        await raw.publish(queue, packed, bomb)
        await until(lambda: worker.stats.dead_lettered == 1)
        await tasks.good.enqueue(1)
        await until(lambda: tasks.ran == [1])
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.body == bomb
    assert letter.properties.content_encoding == "gzip"
    assert "max_body" in letter.headers["x-rmqarq-message"]


async def test_a_long_traceback_or_odd_message_does_not_keep_a_letter_from_its_queue(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text for you")

    errors = [
        ValueError("x" * 1_000_000),
        ValueError("\U0001f600" * 100_000),
        ValueError("half \ud800 a character \0"),
        Odd(),
    ]

    @app.task(max_retries=0)
    async def fail(number: int) -> None:
        raise errors[number]

    async with running(app) as worker:
        for number in range(len(errors)):
            await fail.enqueue(number)
        await until(lambda: worker.stats.dead_lettered == len(errors))
    letters = await dead_letters(broker.url, queue, len(errors))
    assert reasons(letters) == {"retries used up": len(errors)}
    for letter in letters:
        assert len(letter.headers["x-rmqarq-message"]) <= 2000


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_task_that_wants_to_end_the_worker_only_ends_itself(
    broker: Broker, queue: str, kind: type[BaseException]
) -> None:
    app = App(broker.url, queue=queue)
    tasks = Tasks(app)

    @app.task(max_retries=0)
    async def leave() -> None:
        raise kind("enough")

    async with running(app) as worker:
        await leave.enqueue()
        await until(lambda: worker.stats.dead_lettered == 1, timeout=8)
        await tasks.good.enqueue(1)
        await until(lambda: tasks.ran == [1])
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-error"] == kind.__name__


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    broker: Broker, queue: str
) -> None:
    old = App(broker.url, queue=queue, unknown_task_wait=30)
    Tasks(old)
    new = App(broker.url, queue=queue)
    tasks = Tasks(new)
    fresh: list[int] = []

    @new.task
    async def brand_new(number: int) -> None:
        fresh.append(number)

    async with running(old) as worker:
        await brand_new.enqueue(7)
        await until(lambda: worker.stats.deferred == 1)
    assert worker.stats.dead_lettered == 0
    async with running(new) as worker:
        await until(lambda: fresh == [7])
    assert worker.stats.completed == 1
    assert not tasks.ran


async def test_an_unknown_task_is_dead_when_its_time_of_waiting_is_over(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, unknown_task_wait=2.5)
    Tasks(app)
    async with running(app) as worker:
        began = time.monotonic()
        job = await app.ref("nowhere").options(max_retries=0).enqueue(1)
        await until(lambda: worker.stats.dead_lettered == 1)
        assert 2.4 <= time.monotonic() - began < 4
        assert worker.stats.deferred >= 2
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "unknown task"
    assert letter.properties.correlation_id == job.id
    assert json.loads(letter.body)["args"] == [1]


async def test_a_deleted_dead_letter_queue_is_declared_anew_for_the_next_letter(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    tasks = Tasks(app)
    async with running(app) as worker:
        await tasks.reject.enqueue(1)
        await until(lambda: worker.stats.dead_lettered == 1)
        await delete_queues(broker.url, [f"{queue}_dlq"])
        job = await tasks.reject.enqueue(2)
        await until(lambda: worker.stats.dead_lettered == 2, timeout=8)
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.properties.correlation_id == job.id


async def test_dead_letters_of_the_default_queue_go_where_the_settings_say(
    broker: Broker, queue: str
) -> None:
    morgue = f"{queue}-morgue"
    app = App(broker.url, queue=queue, dead_letter_queue=morgue)
    tasks = Tasks(app)
    other = f"{queue}-other"

    @app.task(queue=other)
    async def elsewhere() -> None:
        raise Reject("elsewhere")

    try:
        async with running(app) as worker:
            await tasks.reject.enqueue(1)
            await elsewhere.enqueue()
            await until(lambda: worker.stats.dead_lettered == 2)
        await wait_for_count(broker.url, morgue, ready=1)
        (letter,) = await take_all(broker.url, morgue)
        assert letter.headers["x-rmqarq-message"] == "number 1"
        (letter,) = await dead_letters(broker.url, other, 1)
        assert letter.headers["x-rmqarq-message"] == "elsewhere"
    finally:
        lanes = [other, f"{other}.suspect", f"{other}_dlq"]
        await delete_queues(broker.url, [morgue, *lanes])


async def test_reading_dead_letters_again_and_again_deletes_none(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    tasks = Tasks(app)
    async with running(app) as worker:
        await tasks.reject.enqueue(1)
        await until(lambda: worker.stats.dead_lettered == 1)
    async with channel_to(broker.url) as channel:
        for _ in range(50):
            got = await channel.basic_get(f"{queue}_dlq")
            assert got.delivery_tag
            await channel.basic_nack(got.delivery_tag, requeue=True)
    await wait_for_count(broker.url, f"{queue}_dlq", ready=1)
