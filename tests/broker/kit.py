"""Tools of the tests on a broker: look into queues, start workers, read the ledger."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiormq
from pamqp import commands

from rmqarq import Worker
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from aiormq.abc import AbstractChannel, AbstractConnection

    from rmqarq import App
    from tests.harness.broker import Broker

ROOT = Path(__file__).parents[2]
LEDGER_APP = "tests.broker.apps.ledger_app:app"


class Row(NamedTuple):
    """One line of the ledger."""

    job_id: str
    kind: str
    job_try: int
    at: float


class Ledger:
    """What the tasks of the ledger app have written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, kind: str | None = None) -> list[Row]:
        """Read the whole lines, of one kind or all."""
        if not self.path.exists():
            return []
        text = self.path.read_text()
        found = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        rows = [Row(a, b, int(c), float(d)) for a, b, c, d in found]
        return [row for row in rows if kind is None or row.kind == kind]

    def tries(self) -> dict[str, list[int]]:
        """Give for each job id the tries that ran, in order; none for unknown ids."""
        tries: dict[str, list[int]] = defaultdict(list)
        for row in self.rows():
            tries[row.job_id].append(row.job_try)
        return tries

    def count(self, kind: str) -> int:
        return len(self.rows(kind))


class Letter(NamedTuple):
    """One message as it lay in a queue."""

    body: bytes
    headers: Mapping[str, Any]
    properties: Any


class Node:
    """A broker, one queue on it, and a ledger: where a test with processes happens."""

    def __init__(self, broker: Broker, queue: str, directory: Path) -> None:
        self.broker = broker
        self.queue = queue
        self.ledger = Ledger(directory / "ledger")

    def worker(self, *args: str, url: str | None = None, **env: str) -> WorkerProcess:
        """Make a worker process of the ledger app; settings may be variables."""
        given = {f"RMQARQ_{name.upper()}": value for name, value in env.items()}
        return WorkerProcess(
            LEDGER_APP,
            args,
            cwd=ROOT,
            env={
                "RMQARQ_URL": url or self.broker.url,
                "RMQARQ_QUEUE": self.queue,
                "RMQARQ_TEST_LEDGER": str(self.ledger.path),
                **given,
            },
        )


async def until(
    condition: Callable[[], object], timeout: float = 15.0, what: str = ""
) -> None:
    """Poll a condition; fail when it does not become true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'a condition'}: not within {timeout} s")
        await asyncio.sleep(0.01)


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[AbstractChannel]:
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def wait_for_count(
    url: str,
    queue: str,
    *,
    ready: int | None = None,
    consumers: int | None = None,
    timeout: float = 15.0,
) -> None:
    """Wait until a queue holds so many ready messages, or has so many consumers."""
    wanted = (ready, consumers)
    deadline = time.monotonic() + timeout
    connection = await aiormq.connect(url)
    try:
        while True:
            counts = await _counts(connection, queue)
            pairs = zip(wanted, counts, strict=True)
            if all(want in (None, count) for want, count in pairs):
                return
            assert time.monotonic() < deadline, f"{queue}: {counts}, not {wanted}"
            await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def declared(url: str, queue: str) -> tuple[int | None, int | None]:
    """Count the ready messages and consumers of a queue, `None` if there is none."""
    connection = await aiormq.connect(url)
    try:
        return await _counts(connection, queue)
    finally:
        await connection.close()


async def _counts(
    connection: AbstractConnection, queue: str
) -> tuple[int | None, int | None]:
    channel = await connection.channel()
    try:
        found = await channel.queue_declare(queue, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None, None
    await channel.close()
    return found.message_count, found.consumer_count


async def take_all(url: str, queue: str) -> list[Letter]:
    """Take every message out of a queue."""
    letters: list[Letter] = []
    async with channel_to(url) as channel:
        while True:
            got = await channel.basic_get(queue, no_ack=True)
            if isinstance(got.delivery, commands.Basic.GetEmpty):
                return letters
            properties = got.header.properties
            letters.append(Letter(got.body, properties.headers or {}, properties))


async def dead_letters(url: str, queue: str, count: int) -> list[Letter]:
    """Wait until so many dead letters of a queue are there, and take all."""
    await wait_for_count(url, f"{queue}_dlq", ready=count)
    return await take_all(url, f"{queue}_dlq")


async def delete_queues(url: str, names: Iterable[str]) -> None:
    async with channel_to(url) as channel:
        for name in names:
            await channel.queue_delete(name)


@asynccontextmanager
async def running(
    app: App[Any], *, url: str | None = None, **arguments: Any
) -> AsyncIterator[Worker]:
    """Run a worker beside the test, from when it consumes till it has stopped.

    Args:
        app: Whose tasks to run.
        url: Where to look for its consumers, if its own URL leads there by detours.
        **arguments: Further ones for the worker.
    """
    worker = Worker(app, **arguments)
    task = asyncio.create_task(worker.run(signals=False))
    consuming = asyncio.create_task(_consuming(worker, url))
    try:
        await asyncio.wait((task, consuming), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            raise AssertionError("the worker ended at once")
        await consuming
        yield worker
        worker.stop()
        async with asyncio.timeout(40):
            await task
    finally:
        for each in (task, consuming):
            each.cancel()
        await asyncio.wait((task, consuming))


async def _consuming(worker: Worker, url: str | None) -> None:
    """Wait until the broker knows a consumer on each queue."""
    where = url or worker.settings.url
    assert isinstance(where, str)
    for queue in worker.queues:
        await wait_for_count(where, queue, consumers=1)
