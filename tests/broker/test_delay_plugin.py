"""Delays by the delayed-message plugin, on a broker that has it.

RabbitMQ does not bring the plugin along: RMQARQ_TEST_DELAYED_PLUGIN names a directory
where it is, as an .ez file or unpacked. Without that these tests are skipped, and the
summary says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from rmqarq import App, ConfigurationError, Context, Retry, Worker
from rmqarq.doctor import examine
from rmqarq.wire.delay import every_rung
from tests.broker.kit import channel_to, declared, running, until, wait_for_count
from tests.cli.kit import rmqarq
from tests.harness.admin import add_user, set_permissions
from tests.harness.broker import Broker
from tests.harness.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq import Task

OFFER = "RMQARQ_TEST_DELAYED_PLUGIN"
PLUGIN = "rabbitmq_delayed_message_exchange"


@pytest.fixture(scope="module")
def planner() -> Iterator[Broker]:
    """A node with the plugin, which the tests of this file may ill-treat."""
    if not os.environ.get(OFFER):
        pytest.skip(f"no delayed-message plugin was offered: {OFFER} is not set")
    with Broker(plugins=Path(os.environ[OFFER]), enabled=[PLUGIN]) as node:
        yield node


class Place:
    """A queue and a prefix of one test on the node with the plugin."""

    def __init__(self, broker: Broker, queue: str) -> None:
        self.broker, self.queue = broker, queue
        self.prefix = f"p{secrets.token_hex(4)}"

    def app(self, url: str | None = None, **settings: Any) -> App:
        given = {"queue": self.queue, "prefix": self.prefix, **settings}
        return App(url or self.broker.url, **given)

    def bindings(self) -> set[str]:
        """What is bound to the plugin's exchange."""
        columns = ("source_name", "destination_name")
        text = self.broker.ctl("list_bindings", "-q", "--formatter", "json", *columns)
        exchange = f"{self.prefix}.delayed"
        rows = json.loads(text)
        return {
            row["destination_name"] for row in rows if row["source_name"] == exchange
        }

    async def rungs(self) -> dict[str, int]:
        """The rungs of the ladder that were ever used, with what they hold."""
        found: dict[str, int] = {}
        for rung in every_rung():
            name = f"{self.prefix}.delay.{rung.label}"
            ready, _ = await declared(self.broker.url, name)
            if ready is not None:
                found[rung.label] = ready
        return found


@pytest.fixture
def place(planner: Broker, request: pytest.FixtureRequest) -> Place:
    return Place(planner, f"plugin-{secrets.token_hex(4)}")


class Tally:
    """A task that notes when the runs of each number began; the first one may fail."""

    def __init__(self, app: App) -> None:
        self.began: dict[int, list[float]] = {}
        self.task: Task[[int, float], None] = app.task(name="tally")(self._run)

    async def _run(self, ctx: Context, number: int, again: float = 0) -> None:
        runs = self.began.setdefault(number, [])
        runs.append(time.time())
        if again and ctx.job_try == 1:
            raise Retry(defer=again)

    def count(self) -> int:
        return sum(map(len, self.began.values()))


async def test_auto_takes_the_plugin_says_once_what_it_lacks_and_uses_no_rung(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = place.app()
    tally = Tally(app)
    async with running(app), place.app() as producer:
        task = producer.ref("tally")
        due: dict[int, float] = {}
        for number in range(100):
            delay = 0.05 + number / 100
            due[number] = time.time() + delay
            await task.defer(delay, number, 0.4)
        assert producer.transport.by_plugin
        await producer.enqueue_many(
            [task.job(200), task.job(201).defer(0.5), task.job(202).defer(0.3)]
        )
        await until(lambda: tally.count() == 203)
    for number in range(100):
        first, second = tally.began[number]
        assert due[number] <= first
        assert second - first >= 0.4
    late = sorted(tally.began[number][0] - due[number] for number in range(100))
    assert late[50] < 0.5, late
    assert await place.rungs() == {}
    assert await to_thread.run_sync(place.bindings) == {
        place.queue,
        f"{place.queue}.suspect",
    }
    assert caplog.text.count("loses confirmed jobs when that node is killed") == 1
    assert "delays='ladder'" in caplog.text
    loud = {each.name for each in caplog.records if each.levelno >= logging.WARNING}
    assert loud == {"rmqarq.worker.reports", "rmqarq.worker.settle"}


async def test_a_delay_beyond_its_limit_takes_the_ladder(place: Place) -> None:
    async with running(place.app()), place.app() as producer:
        task = producer.ref("tally")
        await task.defer(2**32 / 1000 + 1, 1)
        await task.defer(2**32 / 1000 - 60, 2)
    assert (await place.rungs())["4000000s"] == 1
    await asyncio.sleep(0.5)
    await wait_for_count(place.broker.url, place.queue, ready=0)


async def test_a_burst_waits_for_its_own_retries_and_not_for_what_it_cannot_count(
    place: Place,
) -> None:
    app = place.app(burst=True, burst_check_interval=0.2)
    tally = Tally(app)
    await app.enqueue_many([tally.task.job(n, again=1.0 + n / 10) for n in range(10)])
    worker = Worker(app)
    began = time.monotonic()
    async with asyncio.timeout(30):
        await worker.run(signals=False)
    assert time.monotonic() - began < 8
    assert worker.stats.completed == worker.stats.retried == 10
    assert worker.stats.pending == 0
    async with place.app() as producer:
        await producer.ref("tally").defer(60, 11)
    async with asyncio.timeout(10):
        await Worker(app).run(signals=False)
    assert 11 not in tally.began


async def test_wait_delayed_is_refused_with_the_plugin(place: Place) -> None:
    app = place.app(burst=True, wait_delayed=True)
    Tally(app)
    with pytest.raises(ConfigurationError, match="can't be counted"):
        await Worker(app).run(signals=False)
    ladder = place.app(burst=True, wait_delayed=True, delays="ladder")
    tally = Tally(ladder)
    async with ladder:
        await tally.task.defer(0.5, 1)
        async with asyncio.timeout(20):
            await Worker(ladder).run(signals=False)
    assert tally.count() == 1


async def test_early_jobs_and_unknown_tasks_wait_in_the_plugin_too(
    place: Place,
) -> None:
    app = place.app()
    tally = Tally(app)
    async with running(app):
        eta = time.time() + 1.6
        body = json.dumps({"task": "tally", "args": [1], "eta": eta}).encode()
        async with channel_to(place.broker.url) as channel:
            await channel.basic_publish(body, routing_key=place.queue)
        await until(lambda: tally.count() == 1)
    assert eta - 0.001 <= tally.began[1][0] < eta + 1.5
    other = place.app()
    async with place.app() as producer, running(other) as stranger:
        await producer.ref("tally").enqueue(2)
        await until(lambda: stranger.stats.deferred == 1)
    async with running(app):
        await until(lambda: 2 in tally.began)
    assert await place.rungs() == {}


async def test_queue_info_says_that_the_plugin_may_hold_more(
    place: Place, tmp_path: Path
) -> None:
    async with running(place.app()), place.app() as producer:
        await producer.ref("tally").defer(60, 1)
    given = {
        "RMQARQ_URL": place.broker.url,
        "RMQARQ_QUEUE": place.queue,
        "RMQARQ_PREFIX": place.prefix,
    }
    shown = rmqarq("queue", "info", cwd=tmp_path, **given).stdout
    assert "0 delayed" in shown
    assert "can't be counted" in shown


async def test_an_outage_in_between_loses_nothing(place: Place) -> None:
    app = place.app()
    tally = Tally(app)
    async with Proxy(place.broker.port) as proxy, running(app):
        async with place.app(proxy.url(place.broker)) as producer:
            task = producer.ref("tally")
            for start in range(0, 300, 100):
                sends = [task.defer(0.3, n, 0.2) for n in range(start, start + 100)]
                sending = asyncio.gather(*sends)
                await asyncio.sleep(0.01)
                proxy.cut()
                await sending
            assert proxy.cuts >= 3
            assert producer.transport.by_plugin
        await until(lambda: len(tally.began) == 300)
        await until(lambda: all(len(runs) >= 2 for runs in tally.began.values()))


async def test_a_user_without_a_permission_for_the_exchange_gets_the_ladder(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = f"user-{place.queue}"
    url = await to_thread.run_sync(add_user, place.broker, name, "word")
    all_but = rf"^(?!{place.prefix}\.delayed$)"
    await to_thread.run_sync(set_permissions, place.broker, name, all_but)
    app = place.app(url)
    tally = Tally(app)
    async with running(app, url=place.broker.url):
        await tally.task.defer(0.1, 1, 0.1)
        await until(lambda: tally.count() == 2)
    assert f"refuses access to '{place.prefix}.delayed'" in caplog.text
    assert set(await place.rungs()) == {"100ms"}
    strict = place.app(url, delays="plugin")
    with pytest.raises(ConfigurationError, match="refuses access to"):
        await Worker(strict).run(signals=False)


@pytest.mark.slow
@pytest.mark.timeout(240)  # it starts a node twice
@pytest.mark.parametrize("delays", ["auto", "plugin"])
async def test_a_node_that_comes_back_without_its_plugin_loses_and_stops_nothing(
    place: Place, delays: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = place.app(delays=delays)
    tally = Tally(app)
    broker = place.broker
    try:
        async with running(app), place.app(delays=delays) as producer:
            task = producer.ref("tally")
            await task.defer(0.1, 0, 0.1)
            await until(lambda: tally.count() == 2)
            assert producer.transport.by_plugin
            broker.enable()
            await to_thread.run_sync(broker.restart)
            sends = [task.defer(0.2, number, 0.2) for number in range(1, 100)]
            await asyncio.gather(*sends)
            await until(lambda: tally.count() == 200)
            assert not producer.transport.by_plugin
        assert caplog.text.count("the delayed-message plugin can't be used") == 2
    finally:
        broker.enable(PLUGIN)
        await to_thread.run_sync(broker.restart)


async def told_of_plugin(app: App) -> list[tuple[str, str]]:
    """Give what the doctor finds about the plugin's exchange."""
    findings = await examine(app, "jobs:app")
    where = f"{app.settings.prefix}.delayed"
    return [(each.level, str(each.what)) for each in findings if each.where == where]


async def test_the_doctor_tells_of_the_plugin_and_makes_nothing(place: Place) -> None:
    must, may = place.app(delays="plugin"), place.app()
    for _ in range(2):  # the first look has made nothing
        ((level, what),) = await told_of_plugin(must)
        assert level == "error"
        assert "this exchange of the delayed-message plugin is not there" in what
        ((level, what),) = await told_of_plugin(may)
        assert level == "note"
        assert "promises less than the ladder" in what
    async with running(place.app(delays="plugin")):
        pass
    bound = place.bindings()
    assert await told_of_plugin(must) == []
    assert [level for level, _ in await told_of_plugin(may)] == ["note"]
    assert await told_of_plugin(place.app(delays="ladder")) == []
    assert place.bindings() == bound
    async with channel_to(place.broker.url) as channel:
        await channel.exchange_delete(f"{place.prefix}.delayed")
        await channel.exchange_declare(f"{place.prefix}.delayed", durable=True)
    ((level, what),) = [
        each for each in await told_of_plugin(must) if each[0] == "error"
    ]
    assert "this exchange has type = " in what
