"""Rungs of RabbitMQ 3.10 that stand still, because their first message never expires.

Such a message came before the rung knew its TTL. Here it comes into a queue without
one, which gets its TTL from a policy after that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread
from pamqp import commands

from rmqarq import App, Worker
from rmqarq.wire import declarer
from rmqarq.wire.delay import Rung, Wait
from rmqarq.wire.names import Names
from rmqarq.wire.publication import Letter, delayed
from rmqarq.worker import rungs
from tests.broker.kit import channel_to, take_all, wait_for_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.broker import Broker

TENTH, SECOND = Rung(0, 1), Rung(1, 1)
SENT_ON = "it is sent on"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "STILL", 0.4)


@asynccontextmanager
async def stuck(
    broker: Broker, app: App, rung: Rung, *numbers: int, held: int
) -> AsyncIterator[None]:
    """Have jobs stand in a rung, of which the first ones never expire."""
    names = Names(app.settings.prefix)
    queue, ladder = names.rung(rung.label), names.ladder(rung.decade)
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": names.ladder(rung.decade - 1),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    ttl = json.dumps({"message-ttl": rung.ttl_ms})
    policy = ("set_policy", queue, f"^{queue}$", ttl, "--apply-to", "queues")
    properties = commands.Basic.Properties(
        delivery_mode=2,
        message_id="elsewhere.1",
        headers={"CC": [queue, names.rung("100ms")], "x-rmqarq-crashes": 1},
    )
    for each in (rung, TENTH):  # they come about, with all that belongs to them
        await app.ref("note").defer(each.ttl_ms / 1000, 0)
    await wait_for_count(broker.url, app.settings.queue, ready=2)
    await take_all(broker.url, app.settings.queue)
    async with channel_to(broker.url) as channel:
        await channel.queue_delete(queue)
        await channel.queue_declare(queue, durable=True, arguments=arguments)
        await channel.queue_bind(queue, ladder, queue)
        for number in numbers:
            await channel.basic_publish(
                json.dumps({"task": "note", "args": [number]}).encode(),
                exchange=ladder,
                routing_key=app.settings.queue,
                properties=properties,
            )
            if number == numbers[held - 1]:
                await wait_for_count(broker.url, queue, ready=held)
                await to_thread.run_sync(broker.ctl, *policy)
    try:
        yield
    finally:
        await to_thread.run_sync(broker.ctl, "clear_policy", queue)


def noting(broker: Broker, queue: str, prefix: str, **more: object) -> App:
    app = App(broker.url, queue=queue, prefix=prefix, **more)

    @app.task
    async def note(number: int) -> int:
        return number

    return app


async def test_what_never_expires_is_sent_on_as_its_rung_would_have(
    broker: Broker, queue: str, prefix: str
) -> None:
    numbers = (1, 2, 3, 4)
    app = noting(broker, queue, prefix)
    async with app, stuck(broker, app, SECOND, *numbers, held=2):
        looking = rungs.Rungs(app.transport, app.settings)
        assert await looking.count([SECOND, TENTH]) == 4
        for _ in range(120):
            await looking.count([SECOND, TENTH])
            await asyncio.sleep(0.05)
        await wait_for_count(broker.url, queue, ready=4)
        letters = await take_all(broker.url, queue)
    found = {json.loads(each.body)["args"][0]: each for each in letters}
    assert sorted(found) == [*numbers]
    for number, letter in found.items():
        sent_on = number <= 2  # it did not die in its first rung
        assert [each["queue"] for each in letter.headers["x-death"]] == [
            f"{prefix}.delay.100ms",
            *[f"{prefix}.delay.1s"] * (not sent_on),
        ]
        assert letter.headers["x-rmqarq-crashes"] == 1
        assert letter.properties.message_id == "elsewhere.1"
        assert ("x-rmqarq-publish" in letter.headers) is sent_on


async def test_what_is_not_overdue_is_given_back(
    broker: Broker, queue: str, prefix: str
) -> None:
    async with noting(broker, queue, prefix) as app:
        looking = rungs.Rungs(app.transport, app.settings)
        for number in range(6):  # whenever we look there is one, each time another
            await app.ref("note").defer(1, number)
            await asyncio.sleep(0.3)
            assert await looking.count([SECOND]) == 1
            await asyncio.sleep(0.8)
        await wait_for_count(broker.url, queue, ready=6)
        kept = await take_all(broker.url, queue)
    assert looking._first  # it was wondered at
    assert not any("x-rmqarq-publish" in each.headers for each in kept)
    assert len({each.properties.message_id for each in kept}) == 6


async def test_a_burst_that_waits_for_delays_helps_their_rungs(
    broker: Broker, queue: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"burst": True, "burst_check_interval": 0.1, "wait_delayed": True}
    app = noting(broker, queue, prefix, **settings)
    async with app, stuck(broker, app, TENTH, 1, 2, 3, held=1):
        with caplog.at_level(logging.WARNING, "rmqarq"):
            worker = Worker(app)
            async with asyncio.timeout(20):
                await worker.run(signals=False)
    assert worker.ending is not None
    assert worker.ending.why == "queues empty"
    assert worker.stats.completed == 3
    assert sum(SENT_ON in each.getMessage() for each in caplog.records) == 1


async def test_a_message_expires_by_itself_while_its_rung_is_new(
    broker: Broker, queue: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarer, "FRESH", 0.3)
    letter = Letter(task="note", job_id="j", body=b"{}", content_type=None)
    waiting = delayed(letter, queue, Wait(1000), Names(prefix))
    async with noting(broker, queue, prefix, delays="ladder") as app:
        deadline = asyncio.get_running_loop().time() + 10
        await app.transport.publish(waiting, deadline)
        await app.transport.publish(waiting, deadline)
        await asyncio.sleep(0.4)
        await app.transport.publish(waiting, deadline)
        kept = await take_all(broker.url, f"{prefix}.delay.1000s")
    found = [each.properties.expiration for each in kept]
    assert found == ["1000000", "1000000", None]
