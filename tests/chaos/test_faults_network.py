"""The network fails: half-open, mute, slow, corrupt. The link heals, no job is lost."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from rmqarq import App, ConnectionFailed
from tests.broker.kit import running, until, wait_for_count
from tests.chaos.tools import Counted, dripping, silent_server

if TYPE_CHECKING:
    from tests.harness.broker import Broker
    from tests.harness.proxy import Direction, Proxy

HEARTBEAT = int(os.environ.get("RMQARQ_CHAOS_HEARTBEAT", "1"))


@pytest.mark.timeout(120)
async def test_a_half_open_link_is_noticed_after_three_heartbeats(
    broker: Broker, proxy: Proxy, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(proxy.url(broker), queue=queue, heartbeat=HEARTBEAT, connect_timeout=1.0)
    tasks = Counted(app)
    async with running(app, url=broker.url) as worker:
        await tasks.wait.enqueue()
        await until(lambda: tasks.entered == 1)
        proxy.blackhole()
        began = time.monotonic()
        bound = 3 * HEARTBEAT + 2
        await until(lambda: app.transport.broker == "-", timeout=bound)
        publishing = time.monotonic() - began
        await until(lambda: "the consumer of" in caplog.text, timeout=bound)
        consuming = time.monotonic() - began
        assert proxy.swallowing  # nobody told it: the link is half open all the time
        print(
            f"half-open link, heartbeat {HEARTBEAT} s: publisher noticed after"
            f" {publishing:.1f} s, consumer after {consuming:.1f} s"
        )
        assert max(publishing, consuming) <= bound
        proxy.resume()
        await tasks.count.enqueue(1)
        await until(lambda: tasks.runs == {1: 1})
        await until(lambda: worker.stats.duplicates == 1, timeout=4 * bound)
        tasks.open.set()
        await until(lambda: worker.stats.completed == 2)
    assert (tasks.entered, tasks.left, tasks.cancelled) == (1, 1, 0)
    assert worker.stats.reconnects >= 2
    await wait_for_count(broker.url, queue, ready=0)


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_link_that_stalls_one_way_costs_no_job_and_hangs_no_call(
    broker: Broker, proxy: Proxy, queue: str, way: Direction
) -> None:
    app = App(
        proxy.url(broker),
        queue=queue,
        heartbeat=1,
        connect_timeout=0.5,
        publish_deadline=20,
    )
    tasks = Counted(app)
    confirmed: set[int] = set()
    slowest = 0.0
    stop = asyncio.Event()

    async def produce(start: int) -> None:
        nonlocal slowest
        for number in range(start, start + 1_000_000):
            if stop.is_set():
                return
            began = time.monotonic()
            await tasks.count.enqueue(number)
            confirmed.add(number)
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.01)

    async with running(app, url=broker.url) as worker:
        await tasks.wait.enqueue()
        producers = [asyncio.create_task(produce(n * 1_000_000)) for n in range(3)]
        await until(lambda: tasks.entered == 1 and len(confirmed) > 30)
        before = worker.app.transport.reconnects
        proxy.pause(way)
        # the broker takes the workers for dead, and drops their consumers
        await wait_for_count(broker.url, queue, consumers=0)
        await asyncio.sleep(2)  # and, two heartbeats later at the latest, the producer
        proxy.resume()
        await until(lambda: worker.app.transport.reconnects >= before + 2)
        mark = max(confirmed)
        await until(lambda: max(tasks.runs) > mark + 20)
        stop.set()
        await asyncio.gather(*producers)
        await until(lambda: confirmed <= tasks.runs.keys())
        tasks.open.set()
        await until(lambda: tasks.left == 1)
    assert (tasks.entered, tasks.cancelled) == (1, 0)
    assert slowest < 20
    # what was under way may run twice, and no more
    assert max(tasks.runs.values()) <= 2
    await wait_for_count(broker.url, queue, ready=0)


async def test_a_server_that_says_nothing_is_given_up_for_the_next_url(
    broker: Broker, queue: str
) -> None:
    async with silent_server() as (mute, heard):
        app = App((mute, broker.url, mute), queue=queue, connect_timeout=0.4)
        tasks = Counted(app)
        began = time.monotonic()
        async with running(app, url=broker.url):
            await tasks.count.enqueue(1)
            await until(lambda: tasks.runs == {1: 1})
        while not heard:  # by chance the good one may have been the first, twice
            async with App(app.settings.url, queue=queue, connect_timeout=0.4) as more:
                await more.ref("count").enqueue(2)
        assert time.monotonic() - began < 20
        alone = App(mute, queue=queue, connect_timeout=0.4, publish_deadline=1.0)
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"did not answer within 0\.4 s"):
            await alone.ref("count").enqueue(1)
        assert 0.9 <= time.monotonic() - began < 2
        await alone.close()
    assert set(heard) == {b"AMQP\x00\x00\x09\x01"}


@pytest.mark.parametrize(
    ("way", "size"), [("down", 1), ("down", 64), ("down", 100_000), ("up", 64)]
)
async def test_random_bytes_in_the_stream_cost_the_link_and_nothing_else(
    broker: Broker, proxy: Proxy, queue: str, way: str, size: int
) -> None:
    app = App(proxy.url(broker), queue=queue, heartbeat=1, connect_timeout=1.0)
    tasks = Counted(app)
    async with running(app, url=broker.url) as worker:
        await tasks.wait.enqueue()
        await until(lambda: tasks.entered == 1)
        before = worker.app.transport.reconnects
        began = time.monotonic()
        for link in list(proxy.links):
            (link.client if way == "down" else link.server).write(os.urandom(size))
        await asyncio.gather(*(tasks.count.enqueue(number) for number in range(20)))
        await until(lambda: tasks.runs.keys() == set(range(20)))
        print(f"{size} random bytes {way}: {time.monotonic() - began:.2f} s")
        # each link was replaced: the one that publishes and the one that consumes
        await until(lambda: worker.app.transport.reconnects == before + 2, timeout=10)
        tasks.open.set()
        await until(lambda: tasks.left == 1)
    # what was on its way in the broken stream may have been stored, and come twice
    assert max(tasks.runs.values()) <= 2
    assert (tasks.entered, tasks.cancelled) == (1, 0)
    await wait_for_count(broker.url, queue, ready=0)


async def test_a_distant_broker_is_slow_and_nothing_more(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue)
    tasks = Counted(app)
    async with running(app, url=broker.url) as worker:
        await tasks.count.enqueue(-1)
        proxy.latency = 0.1  # each way: 200 ms for an answer
        began = time.monotonic()
        await tasks.count.enqueue(0)
        assert time.monotonic() - began >= 0.2
        await asyncio.gather(*(tasks.count.enqueue(number) for number in range(1, 500)))
        await until(lambda: len(tasks.runs) == 501)
        assert time.monotonic() - began < 10
    assert set(tasks.runs.values()) == {1}
    assert worker.stats.reconnects == 0
    await wait_for_count(broker.url, queue, ready=0)


@pytest.mark.parametrize("size", [1, 13])
async def test_a_stream_that_comes_in_drops_is_read_all_the_same(
    broker: Broker, queue: str, size: int
) -> None:
    async with dripping(broker.port, size) as port:
        url = broker.url.replace(f":{broker.port}/", f":{port}/")
        app = App(url, queue=queue)
        tasks = Counted(app)
        async with running(app, url=broker.url) as worker:
            await asyncio.gather(*(tasks.count.enqueue(n) for n in range(30)))
            await until(lambda: len(tasks.runs) == 30)
    assert set(tasks.runs.values()) == {1}
    assert worker.stats.reconnects == 0
    await wait_for_count(broker.url, queue, ready=0)
