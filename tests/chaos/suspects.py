"""Tools of the tests of suspects: their ledger, workers, and what returns a job."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import aiormq
from anyio import to_thread
from pamqp import commands

from tests.broker.kit import channel_to, delete_queues, running, wait_for_count
from tests.chaos.apps.suspect_app import make
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from aiormq.abc import AbstractChannel
    from pamqp.commands import Basic

    from rmqarq import App, Worker
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

QueueType: TypeAlias = Literal["quorum", "classic"]
KINDS: tuple[QueueType, ...] = ("quorum", "classic")
ROOT = Path(__file__).parents[2]
PATH = "tests.chaos.apps.suspect_app:app"


class Lane:
    """A queue with its suspect lane, a ledger, and the workers of the suspect app."""

    def __init__(self, broker: Broker, queue: str, ledger: Path) -> None:
        self.broker = broker
        self.url = broker.url
        self.queue = queue
        self.name = f"{queue}.suspect"
        self.ledger = ledger
        self.kind: QueueType = "quorum"

    def app(self, **settings: Any) -> App[str]:
        """Make an App for this process; the workers' own is a module's."""
        settings = {"queue": self.queue, "queue_type": self.kind, **settings}
        return make(settings.pop("url", self.url), **settings)

    def embedded(
        self, path: str | None = PATH, **settings: Any
    ) -> AbstractAsyncContextManager[Worker]:
        """Run a worker beside the test."""
        return running(self.app(**settings), url=self.url, path=path)

    def worker(self, *args: str, **settings: object) -> WorkerProcess:
        """Make a worker process."""
        given = {f"RMQARQ_{name.upper()}": str(v) for name, v in settings.items()}
        return WorkerProcess(
            PATH,
            args,
            cwd=ROOT,
            env={
                "RMQARQ_URL": self.url,
                "RMQARQ_QUEUE": self.queue,
                "RMQARQ_QUEUE_TYPE": self.kind,
                "RMQARQ_TEST_LEDGER": str(self.ledger),
                **given,
            },
        )

    def burst(self, *args: str, **settings: object) -> WorkerProcess:
        """Make a worker process that ends when nothing is left."""
        return self.worker(
            "--burst", "--burst-check-interval", "0.2", *args, **settings
        )

    async def enqueue(
        self, *calls: tuple[str, *tuple[object, ...]], **settings: Any
    ) -> list[str]:
        """Enqueue jobs of the named tasks; gives their ids."""
        async with self.app(**settings) as app:
            specs = [app.tasks[name].job(*args) for name, *args in calls]
            return [job.id for job in await app.enqueue_many(specs)]

    async def suspect(
        self, *calls: tuple[str, *tuple[object, ...]], **settings: Any
    ) -> list[str]:
        """Put jobs into the suspect lane; gives their ids."""
        ids = await self.enqueue(*calls, **settings)
        async with channel_to(self.url) as channel:
            for _ in ids:
                await move(channel, self.queue, self.name)
        return ids

    async def suspect_later(self, *calls: tuple[str, *tuple[object, ...]]) -> None:
        """Put jobs into the lane while a worker takes whatever is in the queue."""
        aside = f"{self.queue}-aside"
        async with self.app() as app, channel_to(self.url) as channel:
            for name, *args in calls:
                await app.tasks[name].options(queue=aside).enqueue(*args)
                await move(channel, aside, self.name)
        await delete_queues(self.url, [aside, f"{aside}.suspect", f"{aside}_dlq"])

    def notes(self, *kinds: str) -> list[dict[str, Any]]:
        """Read the ledger, the named kinds or all."""
        if not self.ledger.exists():
            return []
        lines = self.ledger.read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return [each for each in found if not kinds or each["kind"] in kinds]

    def pids(self, *kinds: str) -> list[int]:
        """Give the processes that the named lines were written in, in order."""
        return [each["pid"] for each in self.notes(*kinds)]

    async def empty(self) -> None:
        """Wait until neither queue holds a message."""
        await wait_for_count(self.url, self.queue, ready=0)
        await wait_for_count(self.url, self.name, ready=0)


async def move(channel: AbstractChannel, source: str, target: str) -> None:
    """Take one message over to another queue, as it is."""
    got = await channel.basic_get(source)
    assert isinstance(got.delivery, commands.Basic.GetOk), f"{source} is empty"
    await channel.basic_publish(
        got.body, routing_key=target, properties=got.header.properties, mandatory=True
    )
    await channel.basic_ack(_tag(got.delivery))


async def return_in_order(url: str, queue: str, times: int) -> None:
    """Take the only message and give it back, as a stopping worker does."""
    async with channel_to(url) as channel:
        for _ in range(times):
            await channel.basic_nack(await _take(channel, queue), requeue=True)


async def cut_links(url: str, queue: str, times: int, proxy: Proxy) -> None:
    """Take the only message through a proxy and lose the connection."""
    for _ in range(times):
        cuts = proxy.cuts
        connection = await aiormq.connect(url)
        await _take(await connection.channel(), queue)
        proxy.cut()
        assert proxy.cuts == cuts + 1
        with suppress(Exception):
            await connection.close()


async def _take(channel: AbstractChannel, queue: str) -> int:
    """Wait for the message, which may be on its way back."""
    async with asyncio.timeout(10):
        while True:
            got = await channel.basic_get(queue)
            if isinstance(got.delivery, commands.Basic.GetOk):
                return _tag(got.delivery)
            await asyncio.sleep(0.005)


def _tag(delivery: Basic.GetOk) -> int:
    assert delivery.delivery_tag is not None
    return delivery.delivery_tag


async def ended(worker: WorkerProcess, timeout: float = 20) -> int:
    return await to_thread.run_sync(worker.wait, timeout)


async def said(worker: WorkerProcess, text: str, timeout: float = 10) -> None:
    await to_thread.run_sync(worker.wait_for, text, timeout)


def lives(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def children(pid: int | None = None) -> Sequence[int]:
    """Give the isolated processes of a process, and all its dead children."""
    pid = pid or os.getpid()
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
            command = each.with_name("cmdline").read_bytes()
            if int(parent) == pid and (b"worker.isolated" in command or state == "Z"):
                found.append(int(each.parent.name))
    return found
