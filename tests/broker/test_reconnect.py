"""Links cut, brokers gone, queues deleted: it heals by itself, and no call hangs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from rmqarq import App, BrokerBlocked, TransportError, Worker
from rmqarq.wire.transport import Transport
from rmqarq.worker import intake, roster
from tests.broker.kit import channel_to, running, until, wait_for_count
from tests.harness.broker import Broker, binary, free_ports
from tests.harness.exposition import fetch
from tests.harness.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmqarq import Task
    from rmqarq.wire.consumer import Consumer, Source


@pytest.fixture(scope="module")
def own_broker() -> Iterator[Broker]:
    """A node that the tests of this file may ill-treat."""
    with Broker() as node:
        yield node


class Gate:
    """A task that waits for the test, and notes what happens to its runs."""

    def __init__(self, app: App) -> None:
        self.entered = 0
        self.left = 0
        self.cancelled = 0
        self.open = asyncio.Event()
        self.task: Task[[], None] = app.task(name="gate")(self._run)

    async def _run(self) -> None:
        self.entered += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.left += 1


class Tally:
    """A task that counts its runs by number."""

    def __init__(self, app: App) -> None:
        self.runs: dict[int, int] = {}
        self.task: Task[[int], None] = app.task(name="tally")(self._run)

    async def _run(self, number: int) -> None:
        self.runs[number] = self.runs.get(number, 0) + 1


@pytest.mark.parametrize("how", ["cut", "fin"])
async def test_a_job_whose_link_is_lost_runs_to_its_end_and_not_twice(
    broker: Broker, proxy: Proxy, queue: str, how: str
) -> None:
    app = App(proxy.url(broker), queue=queue)
    gate, tally = Gate(app), Tally(app)
    async with running(app) as worker:
        for _ in range(3):
            await gate.task.enqueue()
        await until(lambda: gate.entered == 3)
        for loss in (1, 2):  # an adopted delivery may be lost again
            (proxy.cut if how == "cut" else proxy.fin)()
            await until(lambda loss=loss: worker.stats.duplicates == 3 * loss)
        gate.open.set()
        await until(lambda: worker.stats.completed == 3)
        await tally.task.enqueue(1)
        await until(lambda: tally.runs == {1: 1})
    assert (gate.entered, gate.left, gate.cancelled) == (3, 3, 0)
    assert worker.stats.completed == 4
    assert worker.stats.returned == 0
    assert worker.stats.reconnects >= 2
    await wait_for_count(broker.url, queue, ready=0)


async def test_jobs_done_while_the_link_is_down_are_not_run_again(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue)
    gate = Gate(app)
    async with running(app) as worker:
        for _ in range(5):
            await gate.task.enqueue()
        await until(lambda: gate.entered == 5)
        proxy.refuse()
        proxy.cut()
        gate.open.set()
        await until(lambda: worker.stats.completed == 5)
        await wait_for_count(broker.url, queue, ready=5, consumers=0)
        proxy.accept()
        await until(lambda: worker.stats.duplicates == 5)
        await wait_for_count(broker.url, queue, ready=0, consumers=1)
    assert gate.entered == 5
    await wait_for_count(broker.url, queue, ready=0, consumers=0)


async def test_a_lost_ack_is_in_doubt_for_as_long_as_the_broker_may_sit_on_it(
    broker: Broker, proxy: Proxy, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a half-open link is noticed by its heartbeat, and what was acked on it comes late
    monkeypatch.setattr(roster, "DOUBT", 0.3)
    app = App(proxy.url(broker), queue=queue)
    tally = Tally(app)
    async with running(app) as worker:
        proxy.pause("up")
        async with App(broker.url, queue=queue) as producer:
            await producer.ref("tally").enqueue(1)
        await until(lambda: worker.stats.completed == 1)  # and its ack is on its way
        proxy.refuse()
        proxy.cut()
        await asyncio.sleep(1)
        proxy.accept()
        proxy.resume()
        await until(lambda: worker.stats.duplicates == 1)
        await wait_for_count(broker.url, queue, ready=0, consumers=1)
    assert tally.runs == {1: 1}


async def test_a_broker_that_restarts_and_crashes_costs_no_confirmed_job(
    own_broker: Broker, queue: str
) -> None:
    app = App(own_broker.url, queue=queue, publish_deadline=20)
    gate, tally = Gate(app), Tally(app)
    confirmed: set[int] = set()
    failed: dict[int, Exception] = {}
    slowest = 0.0
    stop = asyncio.Event()

    async def produce(numbers: Iterator[int]) -> None:
        nonlocal slowest
        while not stop.is_set():
            number = next(numbers)
            began = time.monotonic()
            try:
                await tally.task.enqueue(number)
                confirmed.add(number)
            except TransportError as error:
                failed[number] = error
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.005)

    numbers = iter(range(10**6))
    async with running(app):
        await gate.task.enqueue()
        await until(lambda: gate.entered == 1)
        producers = [asyncio.create_task(produce(numbers)) for _ in range(5)]
        for outage in (own_broker.restart, crash_and_start(own_broker)):
            before = len(tally.runs)
            await until(lambda before=before: len(tally.runs) > before + 50)
            await to_thread.run_sync(outage)
            before = max(confirmed)
            await until(lambda before=before: max(tally.runs) > before + 50)
        stop.set()
        await asyncio.gather(*producers)
        await until(lambda: confirmed <= tally.runs.keys())
        assert (gate.entered, gate.left, gate.cancelled) == (1, 0, 0)
        gate.open.set()
        await until(lambda: gate.left == 1)
        await wait_for_count(own_broker.url, queue, ready=0)
    assert slowest < 20
    assert not failed
    assert gate.entered == 1
    # an outage may repeat what was just being published or acked, and no more
    again = sum(runs - 1 for runs in tally.runs.values())
    assert again <= 2 * (len(producers) + 10)
    assert len(tally.runs) > 200


def crash_and_start(broker: Broker) -> Callable[[], None]:
    def outage() -> None:
        broker.kill()
        broker.start()

    return outage


async def test_a_deleted_queue_is_declared_and_consumed_anew_within_two_seconds(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    gate, tally = Gate(app), Tally(app)
    async with running(app) as worker:
        await gate.task.enqueue()
        await until(lambda: gate.entered == 1)
        async with channel_to(broker.url) as channel:
            await channel.queue_delete(queue)
        await wait_for_count(broker.url, queue, consumers=1, timeout=2)
        await tally.task.enqueue(1)
        await until(lambda: tally.runs == {1: 1})
        gate.open.set()
        await until(lambda: worker.stats.completed == 2)
    assert gate.cancelled == 0
    assert worker.stats.reconnects == 0  # the connections were kept


async def test_an_alarm_raises_at_the_deadline_and_harms_nothing_after(
    own_broker: Broker, queue: str
) -> None:
    (port,) = free_ports(1)
    app = App(own_broker.url, queue=queue, publish_deadline=1.0, health_port=port)
    tally = Tally(app)

    async def readiness() -> tuple[int, str]:
        return await to_thread.run_sync(fetch, port, "/readyz")

    async with running(app):
        await tally.task.enqueue(0)
        await to_thread.run_sync(own_broker.alarm, True)
        try:
            for number in (1, 2):
                began = time.monotonic()
                with pytest.raises(BrokerBlocked, match="stopped reading publishers"):
                    await tally.task.enqueue(number)
                assert 0.9 <= time.monotonic() - began < 1.9
            status, said = await readiness()
            assert status == 503
            assert said == "the broker takes no messages at present: low on memory\n"
        finally:
            await to_thread.run_sync(own_broker.alarm, False)
        await tally.task.enqueue(3)
        await until(lambda: tally.runs.keys() >= {0, 3})
        assert await readiness() == (200, "ok\n")
    assert tally.runs[3] == tally.runs[0] == 1


async def test_an_enqueue_into_a_black_hole_ends_with_its_deadline(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue, publish_deadline=1.0)
    tally = Tally(app)
    fresh = App(proxy.url(broker), queue=queue, publish_deadline=1.0)

    async def take_time(attempt: App) -> float:
        began = time.monotonic()
        with pytest.raises(TransportError):
            async with asyncio.timeout(10):
                await attempt.ref("tally").enqueue(1)
        return time.monotonic() - began

    async with app:
        await tally.task.enqueue(0)
        proxy.blackhole()
        times = await asyncio.gather(take_time(app), take_time(app), take_time(fresh))
        assert all(0.9 <= each < 2 for each in times), times
        proxy.resume()
        proxy.cut()  # no network goes on where it has swallowed bytes
        await app.ref("tally").enqueue(2)
        await fresh.ref("tally").enqueue(3)
    await fresh.close()


async def test_a_worker_notices_a_dead_link_by_its_heartbeat_and_goes_on(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue, heartbeat=1, connect_timeout=1.0)
    gate, tally = Gate(app), Tally(app)
    async with running(app) as worker:
        await gate.task.enqueue()
        await until(lambda: gate.entered == 1)
        proxy.blackhole()
        began = time.monotonic()
        await wait_for_count(broker.url, queue, consumers=0)
        proxy.resume()  # the broker has given up; now the network is back
        await wait_for_count(broker.url, queue, consumers=1)
        assert time.monotonic() - began < 10
        await until(lambda: worker.stats.duplicates == 1)
        gate.open.set()
        await tally.task.enqueue(1)
        await until(lambda: worker.stats.completed == 2)
    assert (gate.entered, gate.cancelled) == (1, 0)


async def test_the_worker_outlives_a_broker_that_is_not_there_at_the_start(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    proxy.refuse()
    app = App(proxy.url(broker), queue=queue)
    tally = Tally(app)
    asyncio.get_running_loop().call_later(1.0, proxy.accept)
    async with running(app, url=broker.url):
        await tally.task.enqueue(1)
        await until(lambda: tally.runs == {1: 1})


async def test_a_consumer_that_the_broker_has_forgotten_is_made_anew(
    broker: Broker, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumers: dict[str, Consumer] = {}
    consume = Transport.consume

    async def kept(self: Transport, source: Source, on_delivery: Any) -> Consumer:
        consumers[source.queue] = await consume(self, source, on_delivery)
        return consumers[source.queue]

    monkeypatch.setattr(Transport, "consume", kept)
    monkeypatch.setattr(intake, "LOOK", 0.3)
    app = App(broker.url, queue=queue)
    tally = Tally(app)
    async with running(app) as worker:
        await consumers[queue].cancel()  # at the broker: nobody tells the worker
        await wait_for_count(broker.url, queue, consumers=0)
        await tally.task.enqueue(1)
        await until(lambda: tally.runs == {1: 1})
        assert worker.stats.reconnects == 0


FORGET = """\
{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, {queue})),
[ra:process_command(
    amqqueue:get_pid(Queue),
    rabbit_fifo:make_checkout({{element(2, Each), element(1, Each)}}, cancel, #{{}})
) || Each <- rabbit_amqqueue:consumers(Queue)], ok.
"""


async def test_a_burst_asks_anew_for_jobs_that_wait_and_do_not_come(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, burst=True, burst_check_interval=0.1)
    gate, tally = Gate(app), Tally(app)
    other = f"{queue}-2"
    async with app:
        await gate.task.options(queue=other).enqueue()
        worker = Worker(app, queues=(queue, other))
        burst = asyncio.create_task(worker.run(signals=False))
        await until(lambda: gate.entered == 1)
        await to_thread.run_sync(broker.eval, FORGET.format(queue=binary(queue)))
        await wait_for_count(broker.url, queue, consumers=0)
        await tally.task.enqueue(1)
        gate.open.set()
        async with asyncio.timeout(15):
            await burst
    assert tally.runs == {1: 1}
    assert worker.stats.reconnects == 0
