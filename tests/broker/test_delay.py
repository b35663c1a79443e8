"""Delays are exact, never early, and hold up nobody."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, Message, Middleware
from rmqarq.errors import ConfigurationError, Unroutable
from rmqarq.wire.delay import every_rung
from rmqarq.wire.names import Names
from tests.broker.kit import channel_to, running, take_all, until, wait_for_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rmqarq import Task, Worker
    from tests.broker.kit import Letter
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy


class Clock:
    """A task that notes when each of its jobs began."""

    def __init__(self, app: App) -> None:
        self.began: dict[int, float] = {}
        self.repeated = 0
        self.task: Task[[int], None] = app.task(name="clock")(self._run)

    async def _run(self, number: int) -> None:
        self.repeated += number in self.began
        self.began[number] = time.time()


def held(waiting: Letter, prefix: str) -> float:
    """How many seconds a message in its first rung is held there, and in the others."""
    labels = [name.removeprefix(f"{prefix}.delay.") for name in waiting.headers["CC"]]
    times = {rung.label: rung.ttl_ms for rung in every_rung()}
    assert waiting.properties.expiration is not None
    own = int(waiting.properties.expiration)
    return (own + sum(times[label] for label in labels[1:])) / 1000


@asynccontextmanager
async def producing(broker: Broker, queue: str, prefix: str) -> AsyncIterator[App]:
    """An App for the producer; the worker has another, on other connections."""
    async with App(broker.url, queue=queue, prefix=prefix) as app:
        yield app


class Slow(Middleware):
    """Takes its time for each message."""

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        await asyncio.sleep(0.3)
        await call_next(message)


async def test_delays_are_exact_to_their_unit_and_a_long_one_holds_up_nobody(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    clock = Clock(app)
    late: list[float] = []
    async with producing(broker, queue, prefix) as producer, running(app):
        task = producer.ref("clock")
        await task.defer(30, -1)
        # what else this machine does may spoil a round, but not three in a row
        while len(late) < 3 and (not late or late[-1] >= 0.15):
            late.append(await lateness(clock, task))
        async with channel_to(broker.url) as channel:
            await wait_for_count(broker.url, f"{prefix}.delay.30s", ready=1)
            await channel.queue_purge(f"{prefix}.delay.30s")
    assert min(late) < 0.15, late


async def lateness(clock: Clock, task: Task[[int], None]) -> float:
    """Defer 300 jobs by random times; give the 99th percentile of their lateness."""
    clock.began.clear()
    delays = [random.uniform(0.1, 5) for _ in range(300)]
    promised: dict[int, float] = {}
    earliest: dict[int, float] = {}
    for number, delay in enumerate(delays):
        earliest[number] = time.time() + delay
        await task.defer(delay, number)
        promised[number] = time.time() + delay
    await until(lambda: len(clock.began) == 300, what="all but the long one")
    assert clock.began.keys() == set(range(300))
    assert not clock.repeated
    assert not [n for n, began in clock.began.items() if began < earliest[n]]
    return sorted(began - promised[n] for n, began in clock.began.items())[296]


async def drain(worker: Worker, count: int) -> None:
    await until(lambda: worker.stats.completed == count, what=f"{count} jobs")


async def test_five_thousand_jobs_due_at_once_start_about_as_soon_as_undelayed_ones(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    clock = Clock(app)
    excess: list[float] = []
    async with producing(broker, queue, prefix) as producer, running(app) as worker:
        task = producer.ref("clock")
        # what else this machine does may spoil a round, but not three in a row
        while len(excess) < 3 and (not excess or excess[-1] >= 2):
            done = worker.stats.completed
            clock.began.clear()
            began = time.time()
            await producer.enqueue_many([task.job(n) for n in range(5000)])
            await drain(worker, done + 5000)
            immediate = max(clock.began.values()) - began
            clock.began.clear()
            moment = datetime.fromtimestamp(time.time() + 5, UTC)
            await producer.enqueue_many(
                [task.job(n).defer(moment) for n in range(5000)]
            )
            assert time.time() < moment.timestamp(), "enqueueing took too long"
            assert not clock.began
            await drain(worker, done + 10_000)
            assert min(clock.began.values()) >= moment.timestamp()
            late = max(clock.began.values()) - moment.timestamp()
            excess.append(late - immediate)
    assert not clock.repeated
    assert min(excess) < 2, excess


async def test_what_passes_before_it_is_sent_is_no_part_of_the_wait(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(
        broker.url, queue=queue, prefix=prefix, delays="ladder", middleware=[Slow()]
    )
    async with app:
        task = app.ref("clock")
        began = time.time()
        await task.defer(5.25, 0)
        passed = time.time() - began
        await task.defer(0.2, 1)
        (waiting,) = await take_all(broker.url, f"{prefix}.delay.5s")
        (ready,) = await take_all(broker.url, queue)
    assert 5.25 - passed <= held(waiting, prefix) < 4.96
    assert ready.headers.keys().isdisjoint({"CC", "x-death"})


async def test_nor_is_the_time_without_a_link(
    broker: Broker, proxy: Proxy, queue: str, prefix: str
) -> None:
    url = proxy.url(broker)
    async with App(url, queue=queue, prefix=prefix, delays="ladder") as app:
        await app.ref("clock").enqueue(0)
        proxy.refusing = True
        proxy.cut()
        began = time.time()
        tries = [app.ref("clock").defer(delay, 1) for delay in (1, 12.3)]
        waiting = asyncio.gather(*tries)
        await asyncio.sleep(1.2)
        proxy.refusing = False
        await waiting
        passed = time.time() - began
        letters = await take_all(broker.url, queue)
        (later,) = await take_all(broker.url, f"{prefix}.delay.10s")
    assert len(letters) == 2
    assert not any("x-death" in each.headers for each in letters)
    assert 12.3 - passed <= held(later, prefix) <= 11.1


async def test_nor_is_the_declaration_of_its_rungs(
    broker: Broker, queue: str, prefix: str
) -> None:
    async with App(broker.url, queue=queue, prefix=prefix, delays="ladder") as app:
        await app.ref("clock").enqueue(0)
        began = time.time()
        await app.ref("clock").defer(12.3, 1)  # 10 s, 2 s and 300 ms
        passed = time.time() - began
        (waiting,) = await take_all(broker.url, f"{prefix}.delay.10s")
    assert 12.3 - passed <= held(waiting, prefix) < 12.298


async def test_a_job_waits_although_its_rung_and_its_queue_were_deleted(
    broker: Broker, queue: str, prefix: str
) -> None:
    rung = f"{prefix}.delay.1000s"
    async with App(broker.url, queue=queue, prefix=prefix, delays="ladder") as app:
        await app.ref("clock").defer(1000, 0)
        async with channel_to(broker.url) as channel:
            for name in (rung, queue):
                await channel.queue_delete(name)
        await app.ref("clock").defer(1000, 1)
        (waiting,) = await take_all(broker.url, rung)
        assert not await take_all(broker.url, queue)
    assert json.loads(waiting.body)["args"] == [1]


async def test_who_may_not_declare_is_told_what_is_missing(
    broker: Broker, queue: str, prefix: str
) -> None:
    names = Names(prefix)
    rung, entry = names.rung("1000s"), names.entry(4)
    settings: dict[str, Any] = {"queue": queue, "prefix": prefix, "delays": "ladder"}
    async with App(broker.url, **settings) as owner:
        await owner.ref("clock").defer(1000, 0)
    async with App(broker.url, declare="passive", **settings) as app:
        await app.ref("clock").defer(1000, 1)
        async with channel_to(broker.url) as channel:
            await channel.queue_unbind(rung, entry, rung)
        with pytest.raises(Unroutable, match=f"'{entry}' has no queue for '{queue}'"):
            await app.ref("clock").defer(1000, 2)
        async with channel_to(broker.url) as channel:
            await channel.exchange_delete(entry)
    async with App(broker.url, declare="passive", **settings) as app:
        with pytest.raises(ConfigurationError, match=f"'{entry}' does not exist"):
            await app.ref("clock").defer(1000, 3)
    assert len(await take_all(broker.url, rung)) == 2


async def test_a_delay_may_be_seconds_a_timedelta_or_any_datetime(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    clock = Clock(app)
    async with running(app), producing(broker, queue, prefix) as producer:
        task = producer.ref("clock")
        now = time.time()
        tokyo = timezone(timedelta(hours=9))
        await task.defer(1, 0)
        await task.defer(1.0, 1)
        await task.defer(timedelta(seconds=1), 2)
        await task.defer(datetime.fromtimestamp(now + 1, UTC), 3)
        await task.defer(datetime.fromtimestamp(now + 1, tokyo), 4)
        naive = datetime.fromtimestamp(now + 1)
        await task.defer(naive, 5)
        await producer.enqueue_many([task.job(6).defer(1)])
        await until(lambda: len(clock.began) == 7)
    for number, began in clock.began.items():
        assert now + 1 <= began < now + 1.6, (number, began - now)


async def test_a_naive_datetime_is_local_time(
    broker: Broker,
    queue: str,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    clock = Clock(app)
    async with running(app):
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "Asia/Shanghai")
            time.tzset()
            try:
                now = time.time()
                shanghai = timezone(timedelta(hours=8))
                moment = datetime.fromtimestamp(now, shanghai) + timedelta(seconds=0.5)
                await clock.task.defer(moment.replace(tzinfo=None), 0)
            finally:
                patch.undo()
                time.tzset()
        await until(lambda: clock.began)
    assert now + 0.5 <= clock.began[0] < now + 1.5


@pytest.mark.parametrize(
    "when",
    [
        0,
        -5.0,
        timedelta(days=-1),
        datetime(2001, 1, 1, tzinfo=UTC),
        datetime(2001, 1, 1),
    ],
    ids=["zero", "seconds", "timedelta", "aware", "naive"],
)
async def test_a_moment_in_the_past_means_at_once(
    broker: Broker, queue: str, when: float | timedelta | datetime
) -> None:
    app = App(broker.url, queue=queue)
    clock = Clock(app)
    async with running(app):
        began = time.time()
        await clock.task.defer(when, 0)
        await until(lambda: clock.began)
    assert clock.began[0] - began < 0.5


async def test_delayed_jobs_of_a_stopped_worker_wait_in_the_broker(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    clock = Clock(app)
    async with producing(broker, queue, prefix) as producer:
        await producer.ref("clock").defer(0.7, 0)
        async with running(app) as worker:
            pass
        assert worker.stats.returned == 0  # a delay costs a worker no memory
        assert not clock.began
        await wait_for_count(broker.url, queue, ready=1)
    async with running(app):
        await until(lambda: clock.began)
