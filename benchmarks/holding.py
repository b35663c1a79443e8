"""What a broker holds: memory and disk of jobs that wait, and idle workers."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from benchmarks.devbroker import resident
from benchmarks.processes import Resources
from rmqarq import App, Worker
from tests.harness.broker import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Figures: TypeAlias = dict[str, float]

QUEUE = "held"
BATCH = 10_000
CALM_SECONDS = 20.0
IDLE = 20.0
POLL = 0.1
KIB = 1024
MEMORY = """\
[erlang:garbage_collect(Pid) || Pid <- erlang:processes()],
erlang:memory(total).
"""
# quorum queues share one log, whose messages are in memory, too, until it is full
# (512 MiB by default) or rolled over: what holds for 100 million bytes needs that
ROLL_OVER = "ra_log_wal:force_roll_over({ra_log_wal, node()}), ok."
# Erlang counts a buffer for each connection, as large as the system allows
SMALL_BUFFERS = """\
tcp_listen_options.sndbuf = 65536
tcp_listen_options.recbuf = 65536
"""
CHANNELS = "length(rabbit_channel:list())."


class Weight(NamedTuple):
    """What a node takes, in bytes."""

    memory: float
    resident: float
    disk: float


def pending(jobs: int, *, chunk: int = 0, delay: float | None = None) -> Figures:
    """Let jobs wait, and tell what each takes: at once, and when the log is written."""
    with Broker() as broker:
        asyncio.run(_send(broker.url, 1, chunk, delay))  # queues are there already
        broker.eval(ROLL_OVER)
        before = weigh(broker)
        asyncio.run(_send(broker.url, jobs, chunk, delay))
        fresh = weigh(broker)
        broker.eval(ROLL_OVER)
        settled = weigh(broker)
    return {
        "memory B/job, fresh": (fresh.memory - before.memory) / jobs,
        "memory B/job": (settled.memory - before.memory) / jobs,
        "resident B/job, fresh": (fresh.resident - before.resident) / jobs,
        "disk B/job": (settled.disk - before.disk) / jobs,
    }


def workers(number: int, config: str = "") -> Figures:
    """Let workers without jobs consume one queue, and tell what each costs."""
    with Broker(config=config) as broker:
        return asyncio.run(_idle(broker, number))


def weigh(broker: Broker) -> Weight:
    """Look at what a node takes, once its memory is calm."""
    deadline, last = time.monotonic() + CALM_SECONDS, 0.0
    while abs((memory := float(broker.eval(MEMORY))) - last) > memory / 200:
        last = memory
        time.sleep(1)
        if time.monotonic() > deadline:
            break
    return Weight(memory, resident(broker.pid) * KIB**2, _size(broker.home / "data"))


def consumed(broker: Broker, queue: str, number: int) -> None:
    """Wait until a queue has so many consumers."""
    while broker.queues().get(queue, {}).get("consumers", 0) < number:
        time.sleep(POLL)


async def _send(url: str, jobs: int, chunk: int, delay: float | None) -> None:
    app = App(url, queue=QUEUE)
    task = app.ref("small")
    async with app:
        if chunk:
            await task.map(range(jobs), chunk=chunk)
            return
        for start in range(0, jobs, BATCH):
            calls = [task.job(n) for n in range(start, min(jobs, start + BATCH))]
            if delay is not None:
                calls = [call.defer(delay) for call in calls]
            await app.enqueue_many(calls)


async def _idle(broker: Broker, number: int) -> Figures:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_working(broker.url))  # the queues are there
        await asyncio.to_thread(consumed, broker, QUEUE, 1)
        before = await asyncio.to_thread(weigh, broker)
        connections = len(broker.connections())
        channels = int(broker.eval(CHANNELS))
        alone = await _cpu(broker)
        for _ in range(number):
            await stack.enter_async_context(_working(broker.url))
        await asyncio.to_thread(consumed, broker, QUEUE, number + 1)
        after = await asyncio.to_thread(weigh, broker)
        return {
            "connections": (len(broker.connections()) - connections) / number,
            "channels": (int(broker.eval(CHANNELS)) - channels) / number,
            "memory KiB": (after.memory - before.memory) / number / KIB,
            "resident KiB": (after.resident - before.resident) / number / KIB,
            "broker's CPU ms a second": (await _cpu(broker) - alone) / number * 1e3,
        }


@asynccontextmanager
async def _working(url: str) -> AsyncIterator[None]:
    app = App(url, queue=QUEUE)

    @app.task(name="small")
    async def small(number: int) -> None: ...

    worker = Worker(app)
    running = asyncio.create_task(worker.run(signals=False))
    yield
    worker.stop()
    await running


async def _cpu(broker: Broker) -> float:
    """Seconds of CPU that a node takes in a second."""
    node = Resources(broker.pid)
    before = node.cpu
    await asyncio.sleep(IDLE)
    return (node.cpu - before) / IDLE


def _size(directory: Path) -> float:
    """Bytes that the files below a directory take on the disk."""
    return sum(each.stat().st_blocks * 512 for each in directory.rglob("*"))
