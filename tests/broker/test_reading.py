"""Looking at a queue: it ends, whatever happens to the queue or the link meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from rmqarq import Settings, TransportError
from rmqarq.admin import Admin
from rmqarq.errors import NotFound
from rmqarq.wire.reading import UNREAD
from tests.broker.kit import channel_to, delete_queues, until, wait_for_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

QUORUM = {"x-queue-type": "quorum"}


@asynccontextmanager
async def an_admin(url: str) -> AsyncIterator[Admin]:
    async with Admin(Settings(url=url, connect_timeout=2)) as admin:
        yield admin


async def fill(broker: Broker, queue: str, bodies: list[bytes]) -> None:
    async with channel_to(broker.url) as channel:
        await channel.queue_declare(queue, durable=True, arguments=QUORUM)
        for body in bodies:
            await channel.basic_publish(body, routing_key=queue)
    await wait_for_count(broker.url, queue, ready=len(bodies))


async def test_what_somebody_else_takes_is_not_waited_for(
    broker: Broker, queue: str
) -> None:
    await fill(broker, queue, [b"1", b"2", b"3"])
    async with an_admin(broker.url) as admin, admin.reading(queue) as (reading, there):
        assert there == 3
        assert await admin.purge(queue) == 3
        async with asyncio.timeout(5):
            assert [each async for each in reading.batches()] == []


async def test_what_comes_later_is_left_alone(broker: Broker, queue: str) -> None:
    await fill(broker, queue, [b"1"])
    async with an_admin(broker.url) as admin, admin.reading(queue) as (reading, _):
        async with channel_to(broker.url) as channel:
            await channel.basic_publish(b"2", routing_key=queue)
        found = [each.body async for batch in reading.batches() for each in batch]
    assert found == [b"1"]
    await wait_for_count(broker.url, queue, ready=2)


async def test_a_lost_link_ends_the_look_and_everything_is_still_there(
    broker: Broker, queue: str, proxy: Proxy
) -> None:
    count = 2500  # more than what may be here already when the link is cut
    await fill(broker, queue, [b"x"] * count)

    async def look() -> None:
        async with (
            an_admin(proxy.url(broker)) as admin,
            admin.reading(queue) as (reading, _),
        ):
            async for batch in reading.batches():
                if proxy.cuts == 0:
                    reading.ack(batch[0])
                    proxy.cut()

    with pytest.raises(TransportError, match="lost"):
        await look()
    assert proxy.cuts
    await wait_for_count(broker.url, queue, consumers=0)
    async with an_admin(broker.url) as admin:
        assert await admin.ready(queue) in (count - 1, count)


async def test_a_queue_that_is_deleted_ends_the_look(
    broker: Broker, queue: str
) -> None:
    await fill(broker, queue, [b"x"] * 2)

    async def look() -> None:
        async with an_admin(broker.url) as admin, admin.reading(queue) as (reading, _):
            reading._left += 1  # as if one more were on its way
            async for _ in reading.batches():
                await delete_queues(broker.url, [queue])

    with pytest.raises(TransportError, match="cancelled"):
        await look()
    with pytest.raises(NotFound):
        await look()


async def test_a_slow_reader_holds_up_the_broker_not_the_memory(
    broker: Broker, queue: str
) -> None:
    size = 1024 * 1024
    await fill(broker, queue, [bytes(size)] * 50)
    async with an_admin(broker.url) as admin, admin.reading(queue) as (reading, _):
        batches = reading.batches()
        seen = len(await anext(batches))
        transport = reading._connection.tap.transport
        await until(lambda: not transport.is_reading())
        assert reading._unread <= UNREAD + size
        async for batch in batches:
            seen += len(batch)
        assert transport.is_reading()
    assert seen == 50
    await wait_for_count(broker.url, queue, ready=50)
