"""Thousands of messages and streams with changed bytes: refused or run, never worse.

RMQARQ_CHAOS_SEED gives other bytes; the seed is printed when a test fails.
"""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pytest
from anyio import to_thread
from pamqp import commands, frame

from rmqarq import App
from rmqarq.errors import DecodeError
from rmqarq.settings import Settings
from rmqarq.wire.codec import Codec
from rmqarq.wire.tap import TapProtocol
from tests.broker.kit import dead_letters, declared, until, wait_for_count
from tests.broker.raw import FLAGS, long, properties
from tests.broker.test_dead_letter import table
from tests.chaos.apps.quiet_app import Colour, Person, make
from tests.chaos.offering import SEED, Mutator, offering
from tests.chaos.quiet import quiet_worker, runs
from tests.chaos.tools import resident
from tests.wire.test_frames import content, deliver

if TYPE_CHECKING:
    from rmqarq import Task
    from tests.broker.kit import Node

IN_PROCESS = 10_000
BODIES, PROPERTIES = 500, 250
STREAMS = 3_000
FRAME_MAX = 1024
JSON, MSGPACK = b"application/json", b"application/msgpack"


class Place(msgspec.Struct):
    """Something with a shape."""

    name: str
    at: tuple[float, float] = (0.0, 0.0)


def everything(app: App) -> Task[..., Any]:
    """A task with arguments of many types."""

    @app.task
    async def typed(
        text: str,
        when: datetime,
        amount: Decimal,
        who: UUID,
        raw: bytes,
        places: list[Place],
        more: dict[str, Any] | None = None,
        *rest: float | str,
        last: bool = False,
        person: Person | None = None,
        colour: Colour = Colour.RED,
    ) -> None: ...

    return typed


ARGUMENTS = [
    "täxt",
    datetime(2024, 2, 29, 12, tzinfo=UTC),
    Decimal("12.50"),
    UUID("0190a0c4-7d1e-7c3e-8000-000000000001"),
    b"\x00\x01\x02",
    [{"name": "here", "at": [1.5, -2e300]}, {"name": "there"}],
    {"a": [None, True, {"b": {}}], "": -1},
    0.5,
    "end",
]
MESSAGE = {
    "v": 1,
    "id": "0190a0c4-7d1e-7c3e-8000-000000000000",
    "task": "typed",
    "args": ARGUMENTS,
    "kwargs": {"last": True, "person": {"name": "A", "age": 7}, "colour": "red"},
    "try": 2,
    "enqueued_at": 1723900000.5,
    "eta": 1723900100.0,
    "expires": 60.0,
    "max_retries": 3,
    "generation": 1,
    "headers": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-01"},
}


def seeds(message: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Give a message in all ways it can be written: properties and body."""
    written = []
    for kind, encode in (
        (JSON, msgspec.json.encode),
        (MSGPACK, msgspec.msgpack.encode),
    ):
        body = encode(message)
        plain = properties(content_type=kind)
        packed = properties(content_type=kind, content_encoding=b"gzip")
        written += [(plain, body), (plain, body), (packed, gzip.compress(body, 1))]
    return written


def test_ten_thousand_changed_bodies_are_decoded_or_refused() -> None:
    codec = Codec(Settings())
    signature = everything(App()).signature
    assert signature is not None
    mutate = Mutator()
    written = seeds(MESSAGE)
    for raw, body in written:  # untouched, all are read
        message, serializer, *_ = codec.decode(raw, body)
        signature.decode(serializer, message.args, message.kwargs)
    counts: Counter[str] = Counter()
    memory, longest = resident(), 0.0
    for number in range(IN_PROCESS):
        raw, body = written[number % len(written)]
        body = mutate(body)
        began = time.perf_counter()
        try:
            message, serializer, *_ = codec.decode(raw, body)
            signature.decode(serializer, message.args, message.kwargs)
            counts["decoded"] += 1
        except DecodeError as error:
            counts["refused"] += 1
            counts["longest"] = max(counts["longest"], len(str(error)))
        except BaseException as error:
            msg = f"seed {SEED}, number {number}: {body!r}"
            raise AssertionError(msg) from error
        longest = max(longest, time.perf_counter() - began)
    assert min(counts["decoded"], counts["refused"]) > IN_PROCESS // 20, counts
    assert counts["longest"] < 5000
    assert longest < 1
    assert resident() - memory < 50 * 2**20


@pytest.mark.parametrize(
    "filling",
    [b"{},", b"[],", b'{"a":1},', b"1e9,", b'"",', b"[[[[[[]]]]]],"],
)
def test_a_body_within_the_limit_takes_a_bounded_multiple_of_its_size(
    filling: bytes,
) -> None:
    """What a worker must have for each job of `prefetch`, at worst."""
    app = App()

    @app.task
    async def anything(value: Any) -> None: ...

    limit = app.settings.max_body
    body = b'{"task":"anything","args":[[' + filling * ((limit - 50) // len(filling))
    body += b"0]]}"
    signature = app.tasks["anything"].signature
    assert signature is not None
    codec = Codec(app.settings)
    tracemalloc.start()
    try:
        message, serializer, *_ = codec.decode(properties(), body)
        (value,), _ = signature.decode(serializer, message.args, message.kwargs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(value) > 1000
    assert peak < 64 * limit


# --- through a broker, into a worker process ---

SMALL = {"task": "done", "args": [4711], "id": "fuzz-1", "note": "x" * 150}
ALL_BUT = {"expiration", "user_id"}  # the broker acts on these itself
HEADERS = table(
    (b"text", b"S" + long(b"some text")),
    (b"number", b"l" + bytes(8)),
    (b"list", b"A" + long(b"S" + long(b"a") + b"I" + bytes(4))),
    (b"inside", b"F" + table((b"yes", b"t\x01"), (b"no", b"V"))),
)
FULL = {
    "content_type": JSON,
    "headers": HEADERS,
    "delivery_mode": b"\x02",
    "priority": b"\x05",
    "correlation_id": b"fuzz-2",
    "reply_to": b"somebody",
    "message_id": b"m.1",
    "timestamp": b"\0\0\0\0\x66\xc0\x00\x00",
    "type": b"done",
    "app_id": b"somebody",
    "cluster_id": b"c",
}


def changed(mutate: Mutator) -> list[tuple[bytes, bytes]]:
    """Make the messages: some with changed bodies, some with changed properties."""
    messages = []
    written = seeds(SMALL)
    for number in range(BODIES):
        raw, body = written[number % len(written)]
        messages.append((raw, mutate(body)))
    while len(messages) < BODIES + PROPERTIES:
        raw = mutate(properties(**FULL))
        flags = int.from_bytes(raw[:2], "big")
        if not any(flags & FLAGS[each] for each in ALL_BUT):
            messages.append((raw, b'{"args":[%d]}' % len(messages)))
    return messages


def fate(codec: Codec, app: App, raw: bytes, body: bytes) -> str:
    """Say what must become of a message."""
    now = time.time()
    try:
        message, serializer, *_ = codec.decode(raw, body)
        if message.expired(now) or message.task not in app.tasks:
            return "dead"
        if message.eta is not None and message.eta > now + 1:
            return "deferred"
        signature = app.tasks[message.task].signature
        assert signature is not None
        signature.decode(serializer, message.args, message.kwargs)
    except DecodeError:
        return "dead"
    return "ran"


async def test_changed_messages_pass_through_a_broker_and_hurt_no_worker(
    node: Node, prefix: str
) -> None:
    url, queue = node.broker.url, node.queue
    settings = {"prefix": prefix, "unknown_task_wait": "0", "concurrency": "20"}
    app = make(url, queue=queue)
    codec = Codec(app.settings)
    fates: dict[str, list[bytes]] = {"ran": [], "dead": [], "deferred": []}
    with quiet_worker(node, **settings) as worker:
        await wait_for_count(url, queue, consumers=1)
        async with offering(node.broker) as publisher:
            for raw, body in changed(Mutator()):
                if await publisher.offer(queue, raw, body):
                    fates[fate(codec, app, raw, body)].append(body)
        counts = {kind: len(bodies) for kind, bodies in fates.items()}
        what = f"seed {SEED}: {counts}, {publisher.refused} refused by the broker"
        assert sum(counts.values()) >= 500, what
        assert min(counts["ran"], counts["dead"]) >= 50, what
        await until(lambda: runs(node) == counts["ran"] * ".", what=what)
        await wait_for_count(url, f"{queue}_dlq", ready=counts["dead"])
        assert (await declared(url, queue))[1] == 1  # the same consumer all the time
        worker.terminate()
        assert await to_thread.run_sync(worker.wait, 10) == 0, worker.output
    assert worker.output.count("is put off for") == counts["deferred"]
    for trouble in ("Traceback", "an error inside", "made anew", "connected again"):
        assert trouble not in worker.output, what
    await wait_for_count(url, queue, ready=0)
    letters = await dead_letters(url, queue, counts["dead"])
    assert Counter(each.body for each in letters) == Counter(fates["dead"]), what


# --- the stream of frames ---


def stream() -> bytes:
    """All that the tap reads from a broker."""
    method = commands.Basic
    return b"".join(
        (
            deliver(1, 1, b"x" * 50),
            frame.marshal(method.Ack(3, True), 2),
            deliver(1, 2, b""),
            frame.marshal(commands.Queue.DeclareOk("q", 1, 1), 3),
            frame.marshal(method.Deliver("ctag", 3, True, "e", "k" * 100), 1),
            content(1, b"y" * 6000, FRAME_MAX - 8),
            frame.marshal(method.Return(312, "NO_ROUTE", "", "q"), 2),
            content(2, b"returned", FRAME_MAX - 8),
            b"\x08\x00\x00\x00\x00\x00\x00\xce",
            frame.marshal(method.Nack(4, False, False), 2),
            frame.marshal(commands.Connection.Blocked("low on memory"), 0),
            frame.marshal(method.Cancel("ctag", False), 1),
            frame.marshal(commands.Channel.Close(404, "NOT_FOUND", 0, 0), 2),
            frame.marshal(commands.Connection.Close(320, "bye", 0, 0), 0),
        )
    )


class Loose(asyncio.Transport):
    """The end of a wire that leads nowhere."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_changed_streams_are_read_or_refused_within_bounds() -> None:
    loop = asyncio.get_running_loop()
    mutate = Mutator()
    whole = stream()
    counts: Counter[str] = Counter()
    longest = 0.0
    for number in range(STREAMS):
        events: list[object] = []
        tap = TapProtocol(loop)
        wire = Loose()
        tap.connection_made(wire)
        tap.limit_frames(FRAME_MAX)
        tap.register(1, events.append)
        tap.register(2, events.append)
        data = mutate(whole)
        size = (1 + number % 200) * 4
        began = time.perf_counter()
        try:
            for at in range(0, len(data), size):
                tap.data_received(data[at : at + size])
                assert len(tap._splitter._rest) <= FRAME_MAX + size
        except BaseException as error:
            msg = f"seed {SEED}, number {number}: {data!r}"
            raise AssertionError(msg) from error
        counts["refused" if wire.aborted else "read"] += 1
        counts["events"] += len(events)
        longest = max(longest, time.perf_counter() - began)
        assert len(events) <= len(data)
    assert min(counts["read"], counts["refused"]) > STREAMS // 20, counts
    assert counts["events"] > STREAMS
    assert longest < 1
