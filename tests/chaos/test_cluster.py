"""Three nodes, and one after the other crashes: work goes on, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from rmqarq import App, Worker
from tests.broker.kit import delete_queues, wait_for_count
from tests.chaos import engine, faults
from tests.chaos.apps.chaos_app import make
from tests.harness.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.faults import Fault

SEED = int(os.environ.get("RMQARQ_CHAOS_SEED", "20"))
LED = "led"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as nodes:
        yield nodes


def each_node_crashes() -> dict[str, Fault]:
    return {f"kill node {index}": faults.node_killer(index) for index in range(3)}


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_producers_that_come_when_the_leader_dies_are_not_refused(
    cluster: Cluster,
) -> None:
    # RabbitMQ refuses all that a channel publishes which is first used just then
    leader, other = cluster.nodes[:2]
    async with make(leader.url, queue=LED) as app:
        await app.tasks["quick"].enqueue()
    await to_thread.run_sync(cluster.wait_until_whole)

    async def produce(wait: float) -> float:
        await asyncio.sleep(wait)
        async with make(other.url, queue=LED, declare="passive") as app:
            began = time.monotonic()
            await app.tasks["quick"].enqueue()
            return time.monotonic() - began

    await to_thread.run_sync(leader.kill)
    try:
        times = await asyncio.gather(*(produce(each / 100) for each in range(20)))
    finally:
        await to_thread.run_sync(leader.start)
        await to_thread.run_sync(cluster.wait_until_whole)
    assert max(times) < 5
    await wait_for_count(other.url, LED, ready=1 + len(times))
    await delete_queues(other.url, [LED, f"{LED}.suspect", f"{LED}_dlq"])


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_rung_that_several_declare_at_once_keeps_no_job(
    cluster: Cluster,
) -> None:
    # RabbitMQ 3.10 tells all but one of them that it is there, and takes messages,
    # before it knows its TTL: without `expiration` some of these rungs stand still
    urls = [node.url for node in cluster.nodes] * 3
    for number in range(3):
        async with AsyncExitStack() as stack:
            apps = [
                await stack.enter_async_context(
                    App(url, queue=LED, prefix=f"{LED}-{number}", delays="ladder")
                )
                for url in urls
            ]
            for app in apps:
                await app.ref("quick").enqueue()

            async def defer(app: App, digit: int) -> None:
                await asyncio.sleep(random.uniform(0, 0.03))
                await app.ref("quick").defer(digit / 10)

            for digit in range(1, 10):
                await asyncio.gather(*(defer(app, digit) for app in apps))
            await wait_for_count(urls[0], LED, ready=10 * len(apps))
        await delete_queues(urls[0], [LED, f"{LED}.suspect", f"{LED}_dlq"])


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_burst_takes_no_queue_without_a_leader_for_an_empty_one(
    cluster: Cluster,
) -> None:
    # RabbitMQ says of such a queue that it has no messages, and no consumers
    left, *others = cluster.nodes

    def burst(timeout: float) -> Worker:
        app = App(left.url, queue=LED, burst=True, burst_timeout=timeout)

        @app.task
        async def count(number: int) -> None:
            ran.append(number)

        return Worker(app)

    ran: list[int] = []
    async with App(left.url, queue=LED) as app:
        await app.enqueue_many([app.ref("count").job(n) for n in range(20)])
    await to_thread.run_sync(cluster.wait_until_whole)
    for node in others:
        await to_thread.run_sync(node.kill)
    try:
        worker = burst(8)
        await worker.run(signals=False)
        assert not ran
        assert worker.ending is not None
        assert worker.ending.why == "burst timeout"
    finally:
        for node in others:
            await to_thread.run_sync(node.start)
        await to_thread.run_sync(cluster.wait_until_whole)
    await burst(60).run(signals=False)
    assert sorted(ran) == [*range(20)]
    await delete_queues(left.url, [LED, f"{LED}.suspect", f"{LED}_dlq"])


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_node_that_crashes_costs_no_job_and_hardly_any_time(
    cluster: Cluster, tmp_path: Path
) -> None:
    plan = engine.Plan(
        seconds=0,
        rate=200.0,
        workers=2,
        seed=SEED,
        faults=each_node_crashes(),
        delays=(0.3, 1.2, 3.0, 9.0),
    )
    result = await engine.run(cluster, tmp_path, plan)
    print(json.dumps(result.figures()))
    result.assert_nothing_lost()
    assert result.counts == dict.fromkeys(plan.faults, 1)
    assert result.verdict.duplicates <= 0.01
    assert max(result.gaps) <= 3.0
