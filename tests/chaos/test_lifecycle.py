"""Started and stopped again and again: nothing leaks, nothing is lost or left over."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest
from anyio import to_thread

from rmqarq import App, Worker
from tests.broker.apps.ledger_app import make
from tests.broker.kit import running, until, wait_for_count
from tests.chaos.tools import Counted, fault_worker, resident, sockets

if TYPE_CHECKING:
    from tests.broker.kit import Node
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

REPEATS = int(os.environ.get("RMQARQ_CHAOS_REPEATS", "3"))
JOBS = int(os.environ.get("RMQARQ_CHAOS_JOBS", "60000"))
MB = 1024 * 1024


async def test_fifty_apps_and_workers_that_start_and_stop_at_once_leak_nothing(
    broker: Broker, queue: str
) -> None:
    runs: dict[int, int] = {}
    settings: dict[str, Any] = {"queue": queue, "queue_type": "classic"}

    async def cycle(number: int) -> None:
        app = App(broker.url, **settings)
        tasks = Counted(app)
        tasks.runs = runs  # any worker may run any job
        async with app:
            await tasks.count.enqueue(number)
        worker = Worker(app)
        if number % 10 == 0:
            worker.stop()  # before it began
        working = asyncio.create_task(worker.run(signals=False))
        if number % 5:
            await until(lambda: number in runs)
        worker.stop()
        await working
        await app.close()

    async with App(broker.url, **settings) as app:
        await app.ref("count").enqueue(-1)  # threads and such are there now
    before = held()
    began = time.monotonic()
    async with asyncio.timeout(50):
        await asyncio.gather(*map(cycle, range(50)))
    print(f"50 cycles at once: {time.monotonic() - began:.1f} s")
    last = App(broker.url, **settings)
    Counted(last).runs = runs
    async with running(last):
        await until(lambda: runs.keys() == set(range(-1, 50)))
    assert set(runs.values()) == {1}
    await wait_for_count(broker.url, queue, ready=0, consumers=0)
    gc.collect()
    await until(lambda: not more_than(before), timeout=5, what="an end of all")


def held() -> dict[str, int]:
    """Count what this process holds."""
    tasks = len(asyncio.all_tasks())
    return {"sockets": sockets(), "threads": threading.active_count(), "tasks": tasks}


def more_than(before: dict[str, int]) -> dict[str, int]:
    """Give what has grown since."""
    return {name: now for name, now in held().items() if now > before[name]}


@pytest.mark.timeout(60 + 10 * REPEATS)
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_sigterm_under_load_is_clean_every_time(
    node: Node, queue_type: Literal["classic", "quorum"]
) -> None:
    ids: set[str] = set()
    stop = asyncio.Event()
    slowest = 0.0
    flags = ("-c", "50", "--shutdown-grace", "2")
    often = ("--burst-check-interval", "0.2")

    async def produce(app: App) -> None:
        slow = app.tasks["slow"]
        while not stop.is_set():
            ids.add((await slow.enqueue(random.uniform(0, 0.3))).id)
            await asyncio.sleep(0.01)

    async with make(node.broker.url, queue=node.queue, queue_type=queue_type) as app:
        producers = [asyncio.create_task(produce(app)) for _ in range(3)]
        for _ in range(REPEATS):
            mark = node.ledger.count("slow")
            with node.worker(*flags, queue_type=queue_type) as worker:
                await until(lambda mark=mark: node.ledger.count("slow") > mark + 60)
                worker.terminate()
                began = time.monotonic()
                assert await to_thread.run_sync(worker.wait, 10) == 0, worker.output
                slowest = max(slowest, time.monotonic() - began)
        stop.set()
        await asyncio.gather(*producers)
    with node.worker(*flags, "-b", *often, queue_type=queue_type) as worker:
        assert await to_thread.run_sync(worker.wait, 30) == 0, worker.output
    done = [row.job_id for row in node.ledger.rows("slow-done")]
    twice = len(done) - len(set(done))
    print(
        f"{queue_type}: {REPEATS} SIGTERMs under load, slowest end {slowest:.2f} s,"
        f" {len(ids)} jobs, lost {len(ids - set(done))}, twice {twice}"
    )
    assert slowest <= 2 + 2
    assert set(done) == ids
    assert twice <= (0 if queue_type == "classic" else REPEATS)
    assert {row.job_try for row in node.ledger.rows()} == {1}
    await wait_for_count(node.broker.url, node.queue, ready=0)


@pytest.mark.timeout(60 + JOBS // 500)
async def test_memory_stays_level_over_many_jobs_and_reconnects(
    node: Node, proxy: Proxy
) -> None:
    cuts = 5

    async def work_off(worker_pid: int, count: int) -> int:
        """Let so many jobs run, cut the link in between; give the memory held."""
        nothing = app.tasks["nothing"]
        for _ in range(cuts):
            part = count // cuts
            await app.enqueue_many([nothing.job(number) for number in range(part)])
            proxy.cut()
            await wait_for_count(
                node.broker.url, node.queue, ready=0, consumers=1, timeout=60
            )
        return resident(worker_pid)

    app = make(node.broker.url, queue=node.queue)
    app.task(_nothing, name="nothing")
    async with app:
        with fault_worker(node, url=proxy.url(node.broker)) as worker:
            warm = await work_off(worker.pid, 10_000)
            before = proxy.cuts
            after = await work_off(worker.pid, JOBS)
            assert proxy.cuts >= before + cuts
            worker.terminate()
            assert await to_thread.run_sync(worker.wait, 10) == 0, worker.output
    grown = (after - warm) / MB
    print(
        f"{JOBS} jobs, {cuts} reconnects: {warm / MB:.1f} -> {after / MB:.1f} MB,"
        f" {grown * 100_000 / JOBS:+.2f} MB per 100 000"
    )
    assert worker.output.count("it is made anew") >= 2 * cuts
    assert grown < 2


async def _nothing(number: int) -> None: ...
