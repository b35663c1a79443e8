"""What policies do to the queues of rmqarq, as docs/deployment.md warns of it."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from rmqarq import App, QueueFull
from tests.broker.kit import channel_to, dead_letters, declared, take_all
from tests.harness.broker import BrokerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.broker import Broker

PATIENCE = 15


@asynccontextmanager
async def policy(broker: Broker, pattern: str, **keys: object) -> AsyncIterator[None]:
    """Put a policy in force; it takes RabbitMQ a moment to follow it."""
    name = f"policy-{secrets.token_hex(4)}"
    definition = json.dumps({key.replace("_", "-"): keys[key] for key in keys})
    words = ("set_policy", name, pattern, definition, "--apply-to", "queues")
    await to_thread.run_sync(broker.ctl, *words)
    try:
        yield
    finally:
        await to_thread.run_sync(broker.ctl, "clear_policy", name)


async def send(app: App, *numbers: int) -> None:
    for number in numbers:
        await app.ref("job").enqueue(number)


async def test_a_lower_delivery_limit_of_a_policy_beats_the_argument(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        await send(app, 1)
        async with policy(broker, f"^{queue}$", delivery_limit=3):
            returns = await return_until_it_is_gone(broker.url, queue)
        (letter,) = await dead_letters(broker.url, queue, 1)
    assert returns >= 4
    assert "x-rmqarq-reason" not in letter.headers
    assert letter.headers["x-death"][0]["reason"] == "delivery_limit"


async def return_until_it_is_gone(url: str, queue: str) -> int:
    """Take a message and give it back, as often as it comes."""
    returns = 0
    async with channel_to(url) as channel, asyncio.timeout(PATIENCE):
        while True:
            got = await channel.basic_get(queue)
            if got.delivery_tag is not None:
                await channel.basic_nack(got.delivery_tag, requeue=True)
                returns += 1
            elif (await declared(url, f"{queue}_dlq"))[0] == 1:
                return returns


async def test_max_length_makes_an_enqueue_fail(broker: Broker, queue: str) -> None:
    async with App(broker.url, queue=queue) as app:
        await send(app, 1)
        async with policy(broker, f"^{queue}$", max_length=2):
            with pytest.raises(QueueFull):
                await send(app, *range(10_000))


async def test_drop_head_of_a_policy_beats_our_reject_publish(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        await send(app, 1)
        async with policy(broker, f"^{queue}$", max_length=2, overflow="drop-head"):
            async with asyncio.timeout(PATIENCE):
                while not (await declared(broker.url, f"{queue}_dlq"))[0]:
                    await send(app, 2)  # raises nothing
        first, *_ = await take_all(broker.url, f"{queue}_dlq")
    assert first.headers["x-death"][0]["reason"] == "maxlen"
    assert json.loads(first.body)["args"] == [1]


async def test_a_message_ttl_ends_delays_early(
    broker: Broker, queue: str, prefix: str
) -> None:
    async with App(broker.url, queue=queue, prefix=prefix) as app:
        pattern = f"^{re.escape(prefix)}\\.delay\\."
        began = time.monotonic()
        async with policy(broker, pattern, message_ttl=100):
            async with asyncio.timeout(PATIENCE):
                while not (await declared(broker.url, queue))[0]:
                    await app.ref("job").defer(600)
    assert time.monotonic() - began < 600


async def test_a_policy_drops_the_oldest_dead_letters(
    broker: Broker, queue: str
) -> None:
    dead = f"{queue}_dlq"
    async with App(broker.url, queue=queue) as app, channel_to(broker.url) as channel:
        await send(app, 1)
        await channel.basic_publish(b"the oldest", routing_key=dead)
        async with policy(broker, f"^{dead}$", max_length=2):
            async with asyncio.timeout(PATIENCE):
                for _ in range(2):
                    await channel.basic_publish(b"newer", routing_key=dead)
                while (await declared(broker.url, dead))[0] != 2:
                    await channel.basic_publish(b"newer", routing_key=dead)
    assert [each.body for each in await take_all(broker.url, dead)] == [b"newer"] * 2


async def test_the_key_consumer_timeout_is_known_from_3_12_on(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        version = await app.transport.server_version()
    if version >= (3, 12):
        async with policy(broker, f"^{queue}$", consumer_timeout=86_400_000):
            return
    with pytest.raises(BrokerError, match="not recognised policy settings"):
        async with policy(broker, f"^{queue}$", consumer_timeout=86_400_000):
            pass
