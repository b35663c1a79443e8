"""Messages of other producers: taken as they come, and never changed on their way."""

from __future__ import annotations

import asyncio
import gzip
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pika
import pytest
from anyio import to_thread
from pamqp import commands
from pydantic import BaseModel

from rmqarq import (
    App,
    Backoff,
    Context,
    Incoming,
    Middleware,
    QueueMissing,
    Succeeded,
    Unroutable,
    Worker,
)
from rmqarq.admin import Admin
from rmqarq.box import Box
from rmqarq.letters import Filter
from rmqarq.wire.properties import cut, entries
from rmqarq.wire.publication import Forward, Publication
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
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

QUICK = Backoff(base=0.1, jitter=0)


@dataclass
class Followed:
    """What somebody else publishes."""

    user: int
    by: str = ""


class Model(BaseModel):
    """The same, as pydantic has it."""

    user: int


@pytest.fixture
async def queue(queue: str, broker: Broker) -> str:
    """A classic queue that somebody else has declared."""
    async with channel_to(broker.url) as channel:
        await channel.queue_declare(queue, durable=True)
    return queue


async def publish(broker: Broker, queue: str, *bodies: bytes, **given: Any) -> None:
    """Publish as another producer does."""
    made = commands.Basic.Properties(**given)
    async with channel_to(broker.url) as channel:
        for body in bodies:
            await channel.basic_publish(
                body, routing_key=queue, properties=made, mandatory=True
            )


# --- what arrives ---


async def test_what_pika_publishes_arrives_with_all_that_came_along(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, prefix=prefix)
    came: list[tuple[Context, Incoming[Followed]]] = []

    @app.consume(queue)
    async def followed(ctx: Context, event: Incoming[Followed]) -> None:
        came.append((ctx, event))

    exchange = f"{queue}-topics"
    packed = gzip.compress(b'{"user":3}')
    sent = [
        (b'{"user":1,"by":"ada"}', {"content_type": "application/json"}),
        (msgspec.msgpack.encode({"user": 2}), {"content_type": "application/msgpack"}),
        (packed, {"content_encoding": "gzip", "content_type": "text/plain"}),
    ]

    def send() -> None:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.exchange_declare(exchange, "topic", auto_delete=True)
            channel.queue_bind(queue, exchange, "user.#")
            for body, kinds in sent:
                channel.basic_publish(
                    exchange,
                    "user.followed",
                    body,
                    pika.BasicProperties(
                        message_id="m-1",
                        correlation_id="c-1",
                        timestamp=1_700_000_000,
                        reply_to="answers",
                        headers={"trace": "t", "n": 7, "ok": True, "deep": {"a": [1]}},
                        **kinds,
                    ),
                )

    async with running(app) as worker:
        await to_thread.run_sync(send)
        await until(lambda: worker.stats.completed == 3)
    assert [event.body for _, event in came] == [
        Followed(1, "ada"),
        Followed(2),
        Followed(3),
    ]
    raw = [sent[0][0], sent[1][0], b'{"user":3}']
    assert [event.raw for _, event in came] == raw
    for ctx, event in came:
        assert (ctx.job_id, ctx.job_try, ctx.generation) == ("m-1", 1, 0)
        assert (ctx.task, ctx.queue) == ("followed", queue)
        assert ctx.enqueued_at == datetime.fromtimestamp(1_700_000_000, UTC)
        assert ctx.headers == {"trace": "t", "n": "7", "ok": "true"}
        assert (event.exchange, event.routing_key) == (exchange, "user.followed")
        assert event.properties.reply_to == "answers"
        assert event.properties.headers["deep"] == {"a": [1]}


async def test_the_annotation_decides_what_a_function_gets(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url)
    came: list[object] = []
    names = [f"{queue}-{each}" for each in ("bytes", "text", "model", "any")]
    app.consume(names[0], name="raw")(_keep(came, bytes))
    app.consume(names[1], name="text")(_keep(came, str))
    app.consume(names[2], name="model")(_keep(came, Model))
    app.consume(names[3], name="any")(_keep(came, Any))
    async with channel_to(broker.url) as channel:
        for name in names:
            await channel.queue_declare(name)
    bodies = (b"\x00\xff", "grüße".encode("latin-1"), b'{"user": 7}', b"[1, null]")
    try:
        async with running(app) as worker:
            for name, body in zip(names, bodies, strict=True):
                kind = "text/plain; charset=ISO-8859-1" if "text" in name else None
                await publish(broker, name, body, content_type=kind)
                await until(lambda: len(came) == worker.stats.completed > 0)
            await until(lambda: worker.stats.completed == 4)
    finally:
        every = [(each, f"{each}_dlq", f"{each}.suspect") for each in names]
        await delete_queues(broker.url, [each for three in every for each in three])
    assert sorted(map(repr, came)) == sorted(
        map(repr, (b"\x00\xff", "grüße", Model(user=7), [1, None]))
    )


def _keep(came: list[object], kind: Any) -> Callable[[Any], Awaitable[None]]:
    async def keep(body: Any) -> None:
        came.append(body)

    keep.__annotations__["body"] = kind
    return keep


# --- what fails ---

WEIRD = {
    "content_type": b"application/json",
    "content_encoding": b"UTF-8",
    "delivery_mode": b"\x01",
    "priority": b"\x09",
    "correlation_id": b"c\xc3\xa9",
    "reply_to": b"answers.of.theirs",
    "message_id": b"theirs.5",
    "timestamp": struct.pack(">Q", 1_700_000_000_123),  # in milliseconds
    "type": b"Followed.v2",
    "app_id": b"legacy",
    "headers": long(
        short(b"text") + b"S" + long(b"\xff not utf-8")
        + short(b"table") + b"F" + long(short(b"x") + b"I" + struct.pack(">i", -3))
        + short(b"double") + b"d" + struct.pack(">d", 2.5)
        + short(b"decimal") + b"D" + b"\x02" + struct.pack(">i", 314)
        + short(b"bytes") + b"x" + long(b"\x00\x01")
        + short(b"nothing") + b"V"
        + short(b"x-death") + b"A" + long(b"")
        + short(b"x-first-death-queue") + b"S" + long(b"elsewhere")
        + short(b"CC") + b"A" + long(b"S" + long(b"nowhere"))
    ),
}  # fmt: skip
"""Of each kind one, and what a queue of theirs may have added."""


def theirs(raw: bytes) -> dict[str, bytes]:
    """Give what the producer has written of encoded properties."""
    parts = cut(raw)
    kept = [
        entry
        for name, entry in entries(parts["headers"])
        if not name.startswith(
            ("x-rmqarq-", "x-death", "x-first-death", "x-last-death")
        )
        and name not in ("CC", "x-delivery-count")
    ]
    return {**parts, "headers": b"".join(sorted(kept))}


class Seen:
    """What a function has got, run by run; the raw properties beside."""

    def __init__(self) -> None:
        self.runs: list[tuple[Context, Incoming[Followed]]] = []

    @property
    def tries(self) -> list[tuple[int, int]]:
        """The generation and the number of each attempt."""
        return [(ctx.generation, ctx.job_try) for ctx, _ in self.runs]


async def test_what_fails_comes_back_and_is_put_back_as_it_was(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, prefix=prefix)
    seen = Seen()

    @app.consume(queue, max_retries=2, backoff=QUICK)
    async def followed(ctx: Context, event: Incoming[Followed]) -> None:
        seen.runs.append((ctx, event))
        if ctx.generation == 0:
            raise LookupError(f"no user {event.body.user}")

    raw = properties(**WEIRD)
    async with running(app) as worker:
        async with raw_publisher(broker) as publisher:
            await publisher.publish(queue, raw, b'{"user":1}')
        await until(lambda: worker.stats.dead_lettered == 1)
        (letter,) = await letters_in(broker, f"{queue}_dlq")
        assert theirs(letter.properties) == theirs(raw)
        assert letter.body == b'{"user":1}'
        async with Admin(app.settings) as admin:
            box = Box(admin, app.settings, f"{queue}_dlq", queue, lambda _a, _b: None)
            listing = await box.find(Filter(tasks=("followed",)), None)
            tally = await box.requeue(
                Filter(ids=("theirs.5",)), None, to=None, as_is=False
            )
        assert tally.done == 1
        await until(lambda: worker.stats.completed == 1)
    assert seen.tries == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert len({id(ctx) for ctx, _ in seen.runs}) == 4
    for ctx, event in seen.runs:
        assert ctx.job_id == "theirs.5"
        assert ctx.enqueued_at.year == 2023
        assert ctx.headers == {"text": "\ufffd not utf-8", "double": "2.5"}
        assert event.routing_key == queue
        assert event.exchange == ""
        assert event.properties.timestamp == 1_700_000_000
    (dead,) = listing.letters
    assert (dead.reason, dead.attempts) == ("retries used up", 3)
    assert dead.message == "no user 1"
    assert (worker.stats.retried, worker.stats.failed) == (2, 1)


async def letters_in(broker: Broker, queue: str) -> list[Any]:
    """Look at what lies in a queue, with the properties as they came."""
    app = App(broker.url)
    async with Admin(app.settings) as admin, admin.reading(queue) as (reading, _):
        return [each async for batch in reading.batches() for each in batch]


async def test_a_retry_can_be_read_by_another_consumer(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, prefix=prefix)

    @app.consume(queue)
    async def followed(event: bytes) -> None:
        raise OSError

    wanted = {
        "message_id": "m",
        "message_type": "T",
        "app_id": "legacy",
        "reply_to": "r",
    }
    async with running(app, url=broker.url) as worker:
        await publish(
            broker,
            queue,
            b"body",
            **wanted,
            headers={"a": 1},
            user_id="guest",
            expiration="60000",
        )
        await until(lambda: worker.stats.retried == 1)
        worker.stop()
    async with channel_to(broker.url) as channel:
        while True:
            got = await channel.basic_get(queue, no_ack=True)
            if isinstance(got.delivery, commands.Basic.GetOk):
                break
            await asyncio.sleep(0.1)
    found = got.header.properties
    assert got.body == b"body"
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.headers["a"] == 1
    assert found.headers["x-rmqarq-try"] == 2
    assert found.headers["x-rmqarq-id"] == "m"
    # these two would do harm on the way
    assert (found.user_id, found.expiration) == (None, None)
    assert found.headers["x-rmqarq-user-id"] == "guest"
    assert found.headers["x-rmqarq-expiration"] == "60000"


async def test_what_cannot_be_read_is_a_dead_letter_with_its_bytes(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, max_body=1000)

    @app.consume(queue)
    async def followed(event: Followed) -> None: ...

    bomb = gzip.compress(bytes(100_000))
    cases: list[tuple[bytes, dict[str, Any], str]] = [
        (b"{", {}, "argument 'event' of followed does not fit"),
        (b'{"user":"x"}', {}, "Expected `int`, got `str` - at `$.user`"),
        (b"\x81", {"content_type": "application/msgpack"}, "does not fit"),
        (b"<a/>", {"content_type": "application/xml"}, "annotate 'event' of followed"),
        (bomb, {"content_encoding": "gzip"}, "larger than max_body"),
        (b"no", {"content_encoding": "gzip"}, "not gzip"),
        (b"{}", {"content_encoding": "br"}, "encoding 'br' is not known"),
        (b"{}", {"content_type": "a; charset=rot13"}, "charset 'rot13' is not known"),
        (
            b"{}",
            {"app_id": "rmqarq", "message_type": "mail"},
            "a job of rmqarq for mail",
        ),
    ]
    async with running(app) as worker:
        for body, given, _ in cases:
            await publish(broker, queue, body, **given)
        deep = b""
        for _ in range(40):  # more than we look into
            deep = short(b"x") + b"F" + long(deep)
        async with raw_publisher(broker) as publisher:
            await publisher.publish(queue, properties(headers=long(deep)), b"deep")
        letters = await dead_letters(broker.url, queue, len(cases) + 1)
    assert sorted(each.body for each in letters) == sorted(
        [b"deep", *(body for body, _, _ in cases)]
    )
    for letter in letters:
        assert letter.headers["x-rmqarq-reason"] == "undecodable"
        assert letter.headers["x-rmqarq-queue"] == queue
        assert letter.headers["x-rmqarq-task"] == "followed"
    for body, given, why in cases:
        texts = [x.headers["x-rmqarq-message"] for x in letters if x.body == body]
        assert any(why in text for text in texts), (body, given, texts)
    assert worker.stats.dead_lettered == len(letters)


async def test_a_message_without_id_keeps_the_one_it_is_given(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, prefix=prefix)
    ids: list[str] = []

    @app.consume(queue, backoff=QUICK)
    def followed(ctx: Context, event: str) -> None:
        ids.append(ctx.job_id)
        if ctx.job_try == 1:
            raise OSError(event)

    async with running(app) as worker:
        async with raw_publisher(broker) as publisher:  # aiormq would make an id
            await publisher.publish(queue, properties(), b"a")
            await publisher.publish(queue, properties(), b"a")
            await publisher.publish(queue, properties(correlation_id=b"c-1"), b"a")
        await until(lambda: worker.stats.completed == 3)
    assert len(ids) == 6
    assert len(set(ids)) == 3
    assert "c-1" in ids


async def test_a_message_that_has_no_queue_any_more_is_known_by_its_number(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url)
    raw = properties(message_id=b"theirs.2", content_type=b"text/plain")
    forward = Forward(task="t", job_id="j", body=b"x", properties=raw)
    there, gone = (
        Publication("", name, forward.template({}), b"x", ())
        for name in (queue, f"{queue}-gone")
    )
    async with app:
        errors = await app.transport.publish_many([there, gone, there], 0.5)
    assert list(errors) == [1]
    assert isinstance(errors[1], Unroutable)
    letters = await take_all(broker.url, queue)
    assert [each.properties.message_id for each in letters] == ["theirs.2"] * 2


# --- queues of others ---


@pytest.mark.parametrize(
    "arguments",
    [
        {"durable": True, "arguments": {"x-queue-type": "quorum"}},
        {
            "durable": True,
            "arguments": {
                "x-max-priority": 3,
                "x-message-ttl": 600_000,
                "x-max-length": 1000,
                "x-dead-letter-exchange": "of-theirs",
            },
        },
        {"durable": False, "auto_delete": False},
    ],
    ids=["quorum", "classic with arguments", "transient"],
)
async def test_a_queue_is_taken_as_it_is(
    broker: Broker, queue: str, prefix: str, arguments: dict[str, Any]
) -> None:
    async with channel_to(broker.url) as channel:
        await channel.queue_delete(queue)
        await channel.queue_declare(queue, **arguments)
    app = App(broker.url, prefix=prefix)
    tries: list[int] = []

    @app.consume(queue, backoff=QUICK)
    async def followed(ctx: Context, event: Followed) -> None:
        tries.append(ctx.job_try)
        if ctx.job_try == 1:
            raise OSError

    async with running(app) as worker:
        await publish(broker, queue, b'{"user":1}')
        await until(lambda: worker.stats.completed == 1)
    assert tries == [1, 2]


async def test_a_missing_queue_is_said_and_one_that_goes_is_waited_for(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, prefix=prefix)
    runs: list[tuple[str, int]] = []

    @app.consume(queue, backoff=QUICK)
    async def followed(ctx: Context, event: str) -> None:
        runs.append((event, ctx.job_try))
        if ctx.job_try == 1:
            raise OSError

    await delete_queues(broker.url, [queue])
    with pytest.raises(QueueMissing, match=f"'{queue}' does not exist: create it"):
        await Worker(app).run(signals=False)
    async with channel_to(broker.url) as channel:
        await channel.queue_declare(queue)
        async with running(app) as worker:
            await channel.queue_delete(queue)
            await channel.queue_declare(queue)  # without our binding
            await publish(broker, queue, b"at once")
            await until(lambda: worker.stats.completed == 1)
            await channel.queue_delete(queue)
            await asyncio.sleep(1)
            await channel.queue_declare(queue, arguments={"x-max-priority": 2})
            await publish(broker, queue, b"later")
            await until(lambda: worker.stats.completed == 2)
    assert runs == [("at once", 1), ("at once", 2), ("later", 1), ("later", 2)]


# --- the worker ---


async def test_hooks_middleware_threads_and_a_burst_are_those_of_tasks(
    broker: Broker, queue: str
) -> None:
    calls: list[str] = []

    class Around(Middleware):
        async def run(
            self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
        ) -> object:
            calls.append("around")
            return await call_next()

    own = f"{queue}-own"
    app = App(broker.url, queue=own, burst=True, middleware=[Around()])

    @app.consume(queue)
    def followed(ctx: Context, event: Followed) -> int:
        calls.append(f"{ctx.task} {event.user}")
        return event.user

    @app.task
    async def mail(user: int) -> None:
        calls.append(f"mail {user}")

    @app.on_job_start
    async def started(ctx: Context) -> None:
        calls.append("start")

    @app.on_job_end
    async def ended(ctx: Context) -> None:
        assert isinstance(ctx.outcome, Succeeded)
        calls.append("end")

    assert await followed(Followed(3)) == 3
    assert calls.pop() == "followed 3"
    assert not hasattr(followed, "enqueue")
    await publish(broker, queue, b'{"user":1}')
    only = await Worker(app, queues=[queue]).run(signals=False)
    assert calls == ["start", "around", "followed 1", "end"]
    async with app:
        await mail.enqueue(2)
        await publish(broker, queue, b'{"user":1}', b"{")
        both = await Worker(app).run(signals=False)
    assert {"mail 2", "followed 1"} < set(calls)
    assert (only.completed, both.completed, both.dead_lettered) == (1, 2, 1)
    await delete_queues(broker.url, [own, f"{own}_dlq", f"{own}.suspect"])


async def test_a_redelivery_is_adopted_by_the_run_that_goes_on(
    broker: Broker, queue: str, proxy: Proxy
) -> None:
    app = App(proxy.url(broker), heartbeat=2)
    runs: list[str] = []
    door = asyncio.Event()

    @app.consume(queue)
    async def followed(ctx: Context, event: str) -> None:
        runs.append(ctx.job_id)
        await door.wait()

    async with running(app, url=broker.url) as worker:
        await publish(broker, queue, b"x", message_id="m-1")
        await until(lambda: runs)
        proxy.cut()
        await until(lambda: worker.stats.duplicates == 1)
        door.set()
        await until(lambda: worker.stats.completed == 1)
        await wait_for_count(broker.url, queue, ready=0)
    assert runs == ["m-1"]


MODULE = """
import asyncio, os, pathlib, signal
from rmqarq import App, Context, Incoming

app = App()

@app.consume(os.environ["TEST_QUEUE"], max_retries=0)
async def followed(ctx: Context, event: Incoming[str]) -> None:
    if event.body == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    line = f"{event.body} {event.routing_key} {ctx.redelivered} {os.getpid()}"
    print("ran", line, flush=True)
    if event.body == "slow" and not ctx.redelivered:
        await asyncio.sleep(60)
"""


async def test_a_killed_worker_loses_nothing_and_suspects_run_apart(
    broker: Broker, queue: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs.py").write_text(MODULE)

    def worker(*args: str) -> WorkerProcess:
        env = {"RMQARQ_URL": broker.url, "TEST_QUEUE": queue, "RMQARQ_LANGUAGE": "en"}
        return WorkerProcess("theirs:app", args, cwd=tmp_path, env=env)

    await publish(broker, queue, b"slow")
    with worker("-q", queue) as first:
        await to_thread.run_sync(first.wait_for, "ran slow", 20)
        first.kill()
        await to_thread.run_sync(first.wait, 10)
    await publish(broker, f"{queue}.suspect", b"killer", b"quiet", message_id="s")
    with worker("--burst", "--burst-check-interval", "0.2") as second:
        assert await to_thread.run_sync(second.wait, 40) == 0, second.output
    ran = [x.split()[1:] for x in second.output.splitlines() if x.startswith("ran ")]
    (slow,) = [each for each in ran if each[0] == "slow"]
    (quiet,) = [each for each in ran if each[0] == "quiet"]
    assert slow[1:] == [queue, "True", str(second.pid)]
    assert quiet[1:3] == [f"{queue}.suspect", "True"]
    assert quiet[3] != str(second.pid)
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "crashed"
    assert letter.headers["x-rmqarq-id"] == "s"
    assert (letter.body, letter.properties.message_id) == (b"killer", "s")
