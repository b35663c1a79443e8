"""Consuming one queue on one channel: deliveries into our own hands, acks together."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from rmqarq.errors import ConnectionLost, Phrase
from rmqarq.wire import frames, properties
from rmqarq.wire.connection import RPC_TIMEOUT, retrieve

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from aiormq.abc import AbstractChannel

    from rmqarq.wire.connection import Connection
    from rmqarq.wire.frames import Deliver, Event

T = TypeVar("T")

END_TIMEOUT = 3.0


class Source(Struct, frozen=True):
    """What to consume.

    Args:
        queue: The queue.
        home: The work queue that it belongs to and is declared with; often itself.
        prefetch: The most messages the broker may send before we settle.
    """

    queue: str
    home: str
    prefetch: int

    @property
    def suspect(self) -> bool:
        """Whether its jobs must run in isolation."""
        return self.queue != self.home


class Delivery:
    """A received message, with the right to settle it once.

    Attributes:
        queue: The queue it came from.
        home: The work queue that this belongs to: for a suspect, where it came from.
        suspect: Whether it must run in isolation.
        redelivered: The broker had delivered it before.
        exchange: Where it was published, or last dead-lettered to.
        routing_key: The key under which it came into the queue.
        properties: Its encoded properties, as they came.
        body: Its payload, as it came.
    """

    __slots__ = (
        "_consumer",
        "_open",
        "_tag",
        "body",
        "exchange",
        "home",
        "properties",
        "queue",
        "redelivered",
        "routing_key",
        "suspect",
    )

    def __init__(self, consumer: Consumer, content: Deliver) -> None:
        self._consumer = consumer
        self._open = True
        source = consumer.source
        self.queue = source.queue
        self.home = source.home
        self.suspect = source.suspect
        self._tag = content[0]
        self.redelivered = content[1]
        self.exchange = content[2]
        self.routing_key = content[3]
        self.properties = content[4]
        self.body = content[5]

    @property
    def consumer(self) -> Consumer:
        """What received it; it can be settled while that is usable."""
        return self._consumer

    @property
    def settled(self) -> bool:
        """Whether it has been acked or given back, whether or not that arrived."""
        return not self._open

    @property
    def alive(self) -> bool:
        """Whether it can still be settled; else the broker delivers it again."""
        return self._consumer.usable

    @property
    def headers(self) -> Mapping[str, Any]:
        """The AMQP headers.

        Raises:
            PropertyError: They can't be read.
        """
        return properties.decode_head(self.properties)[2]

    # each settles once: a tag named twice would close the channel (406)

    def ack(self) -> None:
        """Tell the broker to forget it; written at the end of this turn."""
        if self._open:
            self._open = False
            self._consumer.settle(self._tag, ack=True)

    def release(self) -> None:
        """Give it back to the queue (`basic.nack` with requeue)."""
        if self._open:
            self._open = False
            self._consumer.settle(self._tag, ack=False)


class Consumer:
    """A consumer on a channel of its own.

    Args:
        connection: The connection it is on.
        channel: A fresh channel, used for nothing else.
        source: What to consume.
        on_delivery: Called for each message, inside the reader: it must not block.

    Attributes:
        ended: Done when no more deliveries will come, with the reason.
        last_tag: The tag of the latest delivery.
    """

    def __init__(
        self,
        connection: Connection,
        channel: AbstractChannel,
        source: Source,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        self.source = source
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._connection = connection
        self._channel = channel
        self._on_delivery = on_delivery
        self._open = True
        self._deaf = False
        self._hung = False
        self._tag: str | None = None
        self._renewal: asyncio.Future[None] | None = None
        self.last_tag = 0
        self._tags = OpenTags()
        self._acks: list[int] = []
        self._nacks: list[int] = []

    @property
    def usable(self) -> bool:
        """Whether deliveries may still be settled."""
        return self._open and self._connection.alive

    @property
    def heartbeat(self) -> int:
        """The heartbeat of its link, in seconds; 0 for none."""
        return self._connection.heartbeat

    @property
    def unsettled(self) -> int:
        """How many deliveries are open: the broker sends them again if this ends."""
        return len(self._tags)

    async def start(self) -> None:
        """Ask the broker for messages.

        Raises:
            ConnectionLost: The link broke.
            ChannelRefused: The broker refuses, e.g. for want of permission.
        """
        self._connection.distrust_stalls()
        self._connection.tap.register(self._channel.number, self._on_event)
        await self._call(self._channel.basic_qos(prefetch_count=self.source.prefetch))
        await self._ask()

    async def renew(self) -> None:
        """Ask the broker once more for messages, in case it has forgotten us.

        Raises:
            ConnectionLost: The link broke, or there was no answer: it ends, then.
            ChannelRefused: The queue is gone.
        """
        # to its end, whoever waits: a consumer that nobody knows can't be cancelled
        self._renewal = asyncio.ensure_future(self._renew())
        self._renewal.add_done_callback(retrieve)
        try:
            await asyncio.shield(self._renewal)
        except ConnectionLost:
            if not self.unsettled:
                self.discard(hung=True)  # another channel may not hang
            raise

    async def _renew(self) -> None:
        self._deaf = False
        former = self._tag
        await self._ask()
        if former is not None:
            await self._call(self._channel.basic_cancel(former))

    async def _ask(self) -> None:
        asked = self._channel.basic_consume(self.source.queue, _unused)
        self._tag = (await self._call(asked)).consumer_tag

    async def _call(
        self, coroutine: Coroutine[Any, Any, T], timeout: float = RPC_TIMEOUT
    ) -> T:
        """Call aiormq; a queue that does not answer is not worth the link of all."""
        return await self._connection.call(coroutine, timeout, vital=False)

    async def cancel(self) -> None:
        """Stop deliveries; when this returns none will come any more.

        Raises:
            ConnectionLost: The link broke.
            ChannelRefused: The channel is gone.
        """
        try:
            if self._renewal is not None:
                await asyncio.wait((self._renewal,), timeout=END_TIMEOUT)
            tag, self._tag = self._tag, None
            if tag is not None and self.usable:
                await self._call(self._channel.basic_cancel(tag), END_TIMEOUT)
        finally:
            # a renewal without an answer may have left a consumer that can't be named
            self._deaf = True

    async def close(self) -> None:
        """Close the channel; the broker has handled every ack when this returns.

        Raises:
            ConnectionLost: The link broke.
        """
        self._flush()
        if not self.usable:
            return
        self._end(Phrase("closed by us"))
        await self._call(self._channel.close(), END_TIMEOUT)

    def discard(self, *, hung: bool = False) -> None:
        """Close the channel in the background: nobody wants its deliveries.

        Args:
            hung: The broker did not answer on it. Should it do so after all, the link
                must go: nothing else gives back what it delivers.
        """
        self._hung = hung
        self._end(Phrase("not wanted any more"))
        if self._connection.alive:
            self._connection.later(self._channel.close())

    def settle(self, tag: int, *, ack: bool) -> None:
        """Ack or give back a delivery; nothing is written to a dead channel."""
        if not self._acks and not self._nacks:
            self._loop.call_soon(self._flush)
        (self._acks if ack else self._nacks).append(tag)

    def _flush(self) -> None:
        acks, self._acks = self._acks, []
        nacks, self._nacks = self._nacks, []
        if not self.usable or not (acks or nacks):
            return
        number = self._channel.number
        through, singles = self._tags.settle(acks, nacks)
        parts = [frames.nack(number, tag, requeue=True) for tag in nacks]
        if through:
            parts.append(frames.ack(number, through, multiple=True))
        parts += [frames.ack(number, tag) for tag in singles]
        self._connection.write(b"".join(parts))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, frames.Deliver):
            if self._hung:
                # aiormq gives up a close without an answer, and never writes it
                self._connection.abort(Phrase("an answer came too late"))
            elif self._open and not self._deaf:
                self.last_tag = event.tag
                self._tags.add(event.tag)
                self._on_delivery(Delivery(self, event))
            # else it comes back when the channel is closed
        elif isinstance(event, frames.Closed):
            self._end(event.text)
        elif isinstance(event, frames.Cancelled):
            # still usable: what was delivered may be settled, but no more will come
            self._finish("the broker cancelled the consumer")

    def _end(self, cause: str) -> None:
        self._open = False
        self._finish(cause)

    def _finish(self, cause: str) -> None:
        if not self.ended.done():
            self.ended.set_result(cause)


class OpenTags:
    """The deliveries of a channel that are not settled, oldest first.

    Finds the acks that one `multiple` ack can say: it must name a tag that is open
    (naming a settled one closes the channel, 406) and must cover no other open one.
    """

    def __init__(self) -> None:
        self._open: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, tag: int) -> None:
        """Take note of a delivery; tags only rise."""
        self._open[tag] = None

    def settle(self, acks: list[int], nacks: list[int]) -> tuple[int, list[int]]:
        """Give the tag to ack with `multiple` (0: none), and those to ack singly."""
        acks.sort()
        still_open = self._open
        for tag in (*acks, *nacks):
            still_open.pop(tag, None)
        lowest = next(iter(still_open), None)
        run = len(acks) if lowest is None else bisect_left(acks, lowest)
        if run < 2:
            return 0, acks
        return acks[run - 1], acks[run:]


async def _unused(_: object) -> None:
    """Stand in for aiormq's callback: the tap takes every delivery before it."""
