"""Reading what lies in a queue and leaving it there, but for what is acked.

RabbitMQ shows a message only to who holds it. So all that is read is held until the
end, and then goes back to the front of the queue in its order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from rmqarq.errors import ConnectionFailed, TransportError
from rmqarq.wire import declare
from rmqarq.wire.connection import ChannelRefused
from rmqarq.wire.consumer import Consumer, Source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rmqarq.wire.connection import Connection
    from rmqarq.wire.consumer import Delivery

WINDOW = 2000
"""What one channel holds; the broker has room for some 2000 channels."""
BATCH = 100
UNREAD = 32 * 1024 * 1024
"""Bytes that may lie here unread before the socket has to wait."""
QUIET, PATIENCE = 0.25, 20.0
BACK = 1.0
LINGER = 0.2
"""Acks reach a quorum queue a little after the broker has read them."""
PER_ACK = 1 / 20_000


class Reading:
    """A look at each message that is in a queue when this begins, once.

    What comes later is not waited for, and what another consumer holds is not seen.

    Args:
        connection: Used for nothing else meanwhile.
        queue: The queue.
        there: How many messages it holds.
    """

    def __init__(self, connection: Connection, queue: str, there: int) -> None:
        self._connection = connection
        self._queue = queue
        self._left = there
        self._came: deque[Delivery] = deque()
        self._unread = 0
        self._paused = False
        self._news = asyncio.Event()
        self._consumers: list[Consumer] = []
        self._acks = 0

    async def batches(self) -> AsyncGenerator[list[Delivery]]:
        """Give the messages, oldest first, up to 100 at a time.

        Raises:
            TransportError: The link broke, or the broker does not give them out.
            AccessRefused: The user may not read the queue.
        """
        while self._left > 0:
            if not self._came and not await self._wait():
                return
            size = min(BATCH, len(self._came), self._left)
            self._left -= size
            yield self._take(size)

    def ack(self, delivery: Delivery) -> None:
        """Take a message out of the queue for good."""
        self._acks += 1
        delivery.ack()

    async def close(self) -> None:
        """Give back what was not acked, in its order.

        Raises:
            TransportError: The link broke; acks of the last moment may be undone.
        """
        self._resume()
        for consumer in self._consumers:  # before any gives back what it holds
            await self._cancel(consumer)
        if self._acks and self._connection.alive:
            await asyncio.sleep(LINGER + self._acks * PER_ACK)
        held = sum(consumer.unsettled for consumer in self._consumers)
        for consumer in self._consumers:
            await consumer.close()
        await self._see_it_back(held)

    async def _see_it_back(self, held: int) -> None:
        """Wait a moment until the queue has again what was held: so it can be counted.

        A quorum queue takes it back some time after the channel is closed.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + BACK
        while self._connection.alive and loop.time() < end:
            if (await declare.count(self._connection, self._queue) or 0) >= held:
                return
            await asyncio.sleep(QUIET)

    def _take(self, size: int) -> list[Delivery]:
        batch = [self._came.popleft() for _ in range(size)]
        self._unread -= sum(len(each.body) for each in batch)
        if self._unread < UNREAD // 2:
            self._resume()
        return batch

    async def _wait(self) -> bool:
        """Wait until something has come; tell whether there is anything left."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        empty = 0
        while not self._came:
            self._news.clear()
            await self._make_room()
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    await self._news.wait()
                continue
            ready = await declare.count(self._connection, self._queue)
            empty = 0 if ready or self._came else empty + 1
            if empty > 1:  # another consumer has taken the rest, or dropped it
                return False
            if loop.time() > end:
                raise ConnectionFailed(
                    "the broker gives out nothing of {queue}, though {count} messages"
                    " wait there; perhaps another consumer has it for itself",
                    queue=repr(self._queue),
                    count=ready or 0,
                )
        return True

    async def _make_room(self) -> None:
        """Open a channel, and a further one when those before hold all they may."""
        if not self._connection.alive:
            raise self._connection.lost()
        await asyncio.sleep(0)  # for acks on their way
        last = self._consumers[-1] if self._consumers else None
        if last is not None:
            if last.ended.done():
                raise TransportError(
                    "the reading of {queue} was ended: {cause}",
                    queue=repr(self._queue),
                    cause=last.ended.result(),
                )
            if self._came or last.unsettled < last.source.prefetch:
                return
        source = Source(self._queue, self._queue, min(self._left, WINDOW))
        channel = await self._connection.channel()
        consumer = Consumer(self._connection, channel, source, self._on_delivery)
        self._consumers.append(consumer)
        try:
            await consumer.start()
        except ChannelRefused as error:
            raise declare.explained(error, self._queue) from error

    def _on_delivery(self, delivery: Delivery) -> None:
        self._came.append(delivery)
        self._unread += len(delivery.body)
        if self._unread > UNREAD and not self._paused:
            self._paused = True
            self._connection.tap.transport.pause_reading()
        self._news.set()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._connection.tap.transport.resume_reading()

    async def _cancel(self, consumer: Consumer) -> None:
        with suppress(ChannelRefused):
            await consumer.cancel()
