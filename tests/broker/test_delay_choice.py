"""Which way a delay takes on a broker without the delayed-message plugin.

Where a test needs the plugin's exchange, a plain one stands under its name: it shows
what is published there, and what becomes of jobs when the plugin is not behind it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, ConfigurationError, Worker
from rmqarq.wire.delay import timer
from tests.broker.kit import channel_to, declared, running, take_all, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rmqarq import Task
    from tests.harness.broker import Broker

PROBE_COSTS = 0.25
"""Seconds by which looking for the plugin may hold up the start of a worker."""


class Tries:
    """A task whose every job fails at first, and notes when each run began."""

    def __init__(self, app: App) -> None:
        self.began: dict[int, list[float]] = {}
        given = {"name": "tries", "backoff": 0.1, "max_retries": 1}
        self.task: Task[[int], None] = app.task(**given)(self._run)

    async def _run(self, number: int) -> None:
        runs = self.began.setdefault(number, [])
        runs.append(time.time())
        if len(runs) == 1:
            raise OSError("as the test wants it")

    def all_done(self, count: int) -> bool:
        return [len(runs) for runs in self.began.values()] == [2] * count


@pytest.fixture
async def look_alike(broker: Broker, prefix: str) -> AsyncIterator[str]:
    """An exchange with the name of the plugin's, of a type that delays nothing."""
    name = f"{prefix}.delayed"
    async with channel_to(broker.url) as channel:
        await channel.exchange_declare(name, exchange_type="direct", durable=True)
    yield name
    async with channel_to(broker.url) as channel:
        await channel.exchange_delete(name)


def connections(app: App) -> tuple[int, Any]:
    """Give the number of reconnects and the connection that publishes."""
    transport = app.transport
    return transport.reconnects, transport._publish_link.current


async def test_auto_takes_the_ladder_and_nobody_loses_a_connection_over_it(
    broker: Broker, queue: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = App(broker.url, queue=queue, prefix=prefix)
    tries = Tries(app)
    async with App(broker.url, queue=queue, prefix=prefix) as producer:
        first = connections(producer)
        async with running(app) as worker:
            for number in range(5):
                await producer.ref("tries").defer(0.1, number)
            await until(lambda: tries.all_done(5))
        assert connections(producer) == first
        assert not producer.transport.by_plugin
    assert worker.stats.reconnects == 0
    loud = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert {each.name for each in loud} == {"rmqarq.worker.settle"}, loud  # the retries
    assert "delays take the ladder, not the delayed-message plugin" in caplog.text
    assert (await declared(broker.url, f"{prefix}.delay.100ms"))[0] == 0


async def test_the_look_for_the_plugin_costs_a_start_next_to_nothing(
    broker: Broker, queue: str
) -> None:
    took: list[float] = []
    async with App(broker.url, queue=queue) as app:
        for _ in range(5):
            began = time.monotonic()
            assert not await app.transport.choose_delays()
            took.append(time.monotonic() - began)
    assert min(took) < PROBE_COSTS, took


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, 1),
        ({"delays": "ladder"}, 0),
        ({"declare": "passive"}, 0),
    ],
    ids=["auto", "ladder", "passive"],
)
async def test_only_a_starting_worker_that_may_declare_asks_the_broker(
    broker: Broker, queue: str, settings: dict[str, Any], asked: int
) -> None:
    def asked_for() -> int:
        return broker.log.count("unknown exchange type 'x-delayed-message'")

    async with App(broker.url, queue=queue) as creator:
        await creator.ref("tries").defer(0.1, 0)
        await creator.ref("tries").enqueue(1)
    before = asked_for()
    app = App(broker.url, queue=queue, **settings)
    tries = Tries(app)
    async with running(app), App(broker.url, queue=queue, **settings) as producer:
        await producer.ref("tries").defer(0.1, 2)
        await until(lambda: tries.all_done(3))
    assert asked_for() == before + asked


async def test_plugin_without_the_plugin_is_refused_and_says_what_to_do(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix, delays="plugin")
    Tries(app)
    with pytest.raises(ConfigurationError, match="rabbitmq-plugins enable"):
        await Worker(app).run(signals=False)
    async with app:
        with pytest.raises(ConfigurationError, match="start a worker"):
            await app.tasks["tries"].defer(1, 0)
        with pytest.raises(ConfigurationError, match=rf"'{prefix}\.delayed'"):
            await app.tasks["tries"].defer(1, 0)
        await app.tasks["tries"].enqueue(1)
    assert len(await take_all(broker.url, queue)) == 1
    ended = App(broker.url, queue=queue, declare="passive", delays="plugin")
    with pytest.raises(ConfigurationError, match="no exchange"):
        await Worker(ended).run(signals=False)


async def test_what_goes_to_the_plugin_is_persistent_with_whole_milliseconds(
    broker: Broker, queue: str, prefix: str, look_alike: str
) -> None:
    async with App(broker.url, queue=queue, prefix=prefix) as producer:
        task = producer.ref("tries")
        await task.defer(12.0121, 0)
        await producer.enqueue_many(
            [task.job(1), task.job(2).defer(4_294_967.29), task.job(3).defer(5e6)]
        )
        assert producer.transport.by_plugin
    letters = await take_all(broker.url, queue)
    delays = [each.headers.get("x-delay") for each in letters]
    assert isinstance(delays[0], int)
    assert 9_000 < delays[0] <= 12_013
    assert delays[1] is None
    assert 4_294_967_000 < delays[2] <= 4_294_967_290
    assert len(delays) == 3  # the last one takes the ladder
    assert all(each.properties.delivery_mode == 2 for each in letters)
    assert not any("CC" in each.headers for each in letters)
    assert await declared(broker.url, f"{prefix}.delay.5000000s") != (None, None)
    async with channel_to(broker.url) as channel:
        await channel.queue_purge(f"{prefix}.delay.5000000s")


async def test_an_exchange_that_is_not_the_plugins_makes_no_job_early(
    broker: Broker, queue: str, prefix: str, look_alike: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    tries = Tries(app)
    async with running(app), App(broker.url, queue=queue, prefix=prefix) as producer:
        began = time.time()
        await producer.ref("tries").defer(1.5, 0)
        assert producer.transport.by_plugin  # so it seems from there
        await until(lambda: tries.all_done(1))
    assert tries.began[0][0] >= began + 1.5


async def test_an_exchange_that_goes_away_meanwhile_loses_nothing(
    broker: Broker,
    queue: str,
    prefix: str,
    look_alike: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix)
    tries = Tries(app)
    async with App(broker.url, queue=queue, prefix=prefix) as producer, running(app):
        task = producer.ref("tries")
        await task.defer(0.1, 0)
        assert producer.transport.by_plugin
        async with channel_to(broker.url) as channel:
            await channel.exchange_delete(look_alike)
        sends = [task.defer(0.1, number) for number in range(1, 40)]
        sends += [task.enqueue(number) for number in range(40, 60)]
        await asyncio.gather(*sends)
        assert not producer.transport.by_plugin
        await until(lambda: tries.all_done(60))
    assert caplog.text.count("the delayed-message plugin can't be used") == 1


async def test_a_passive_app_goes_to_the_plugin_only_when_it_is_told_to(
    broker: Broker, queue: str, prefix: str, look_alike: str
) -> None:
    """Nobody can see whether its queue is bound there, and else its jobs were lost."""
    async with App(broker.url, queue=queue, prefix=prefix) as creator:
        await creator.ref("tries").defer(0.1, 0)  # it also binds the queue
    given: dict[str, Any] = {"queue": queue, "prefix": prefix, "declare": "passive"}
    async with App(broker.url, **given) as producer:
        with pytest.raises(ConfigurationError, match=r"delay\.100ms"):
            await producer.ref("tries").defer(0.1, 1)
    async with App(broker.url, delays="plugin", **given) as producer:
        await producer.ref("tries").defer(0.1, 2)
    assert len(await take_all(broker.url, queue)) == 2


@pytest.mark.parametrize(
    ("delay", "ms"),
    [
        (1e-9, 1),
        (0.001, 1),
        (0.001001, 2),
        (0.1 + 0.2, 300),
        (4_294_967.295, 2**32 - 1),
        (4_294_967.2951, None),
        (1e9, None),
    ],
)
def test_the_plugin_counts_whole_milliseconds_up_to_2_32_less_1(
    delay: float, ms: int | None
) -> None:
    assert timer(delay) == ms
