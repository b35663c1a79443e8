"""What an App needs of RabbitMQ: publish, consume, count; declared as it goes."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from rmqarq.errors import (
    ConnectionFailed,
    ConnectionLost,
    QueueFull,
    RmqarqError,
    TransportError,
)
from rmqarq.url import parse_urls
from rmqarq.wire import declare, topology
from rmqarq.wire.attempts import Attempts
from rmqarq.wire.connection import ChannelRefused
from rmqarq.wire.consumer import Consumer, Delivery, Source
from rmqarq.wire.delay import Rung, every_rung
from rmqarq.wire.link import Link
from rmqarq.wire.names import Names
from rmqarq.wire.publisher import PublishChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rmqarq.settings import Settings
    from rmqarq.wire.connection import Connection
    from rmqarq.wire.publication import Publication

CHUNK = 500
RENEWAL = 0.1
IN_FLIGHT = 2
CLOSE_GRACE, POLL = 5.0, 0.01
FOUNDATION, LADDER = "\0foundation", "\0ladder"


class Transport:
    """Two connections, one to publish and one to consume, both made when needed.

    They are apart because a broker under alarm stops reading a publishing
    connection, its acks included (RabbitMQ, "Memory and Disk Alarms").

    Attributes:
        users: How many hold it open.
    """

    def __init__(self, settings: Settings) -> None:
        endpoints = parse_urls(settings.url)
        self._settings = settings
        self._names = Names(settings.prefix)
        self._publish_link = Link(endpoints, settings, "publish")
        self._consume_link = Link(endpoints, settings, "consume")
        self.users = 0
        self._publishing = 0
        self._channel: PublishChannel | None = None
        self._opening = asyncio.Lock()
        self._declaring = asyncio.Lock()

    @property
    def reconnects(self) -> int:
        """How often a lost connection was made anew."""
        links = (self._publish_link, self._consume_link)
        return sum(max(0, link.connects - 1) for link in links)

    async def connect(self, deadline: float | None = None) -> None:
        """Open the publishing connection now instead of at the first publish.

        Raises:
            ConnectionFailed: No broker could be reached before the deadline.
            ConfigurationError: A broker was reached and refuses us.
        """
        await self._publish_link.connection(deadline)

    async def server_version(self, deadline: float | None = None) -> tuple[int, ...]:
        """Give the version of the broker we publish to, such as `(3, 10, 8)`.

        Raises:
            ConnectionFailed: No broker could be reached before the deadline.
            ConfigurationError: A broker was reached and refuses us.
        """
        connection = await self._publish_link.connection(deadline)
        return connection.server_version

    @property
    def broker(self) -> str:
        """The broker we publish to, for people to read."""
        current = self._publish_link.current
        if current is None:
            return "-"
        version = ".".join(map(str, current.server_version))
        return f"RabbitMQ {version} at {current.endpoint}"

    async def publish(self, publication: Publication, deadline: float) -> None:
        """Publish one message and wait until the broker has stored it.

        Args:
            publication: The message.
            deadline: Time of the event loop.

        Raises:
            TransportError: It was not stored, or nobody knows (`OutcomeUnknown`).
            ConfigurationError: The broker refuses what must be declared before.
        """
        batch = (publication,)
        self._publishing += 1
        try:
            errors = await self._publish_once(batch, deadline)
            if errors:
                errors = await self._repeat(batch, errors, deadline)
        finally:
            self._publishing -= 1
        if errors:
            raise errors[0]

    async def publish_many(
        self, publications: Sequence[Publication], patience: float
    ) -> dict[int, RmqarqError]:
        """Publish any number of messages, in windows.

        Args:
            publications: The messages.
            patience: Seconds that each window may take.

        Returns:
            By position, the error of each that was not stored for certain.
        """
        errors: dict[int, RmqarqError] = {}
        chunks = _chunks(publications)
        lanes = [
            asyncio.create_task(self._drain(chunks, patience, errors))
            for _ in range(IN_FLIGHT)
        ]
        self._publishing += 1
        try:
            await asyncio.gather(*lanes)
        finally:
            self._publishing -= 1
            for lane in lanes:
                lane.cancel()
        return errors

    async def _drain(
        self,
        chunks: Iterator[tuple[int, Sequence[Publication]]],
        patience: float,
        errors: dict[int, RmqarqError],
    ) -> None:
        """Publish window after window; without a broker the rest fails at once."""
        loop = asyncio.get_running_loop()
        gone: RmqarqError | None = None
        for start, chunk in chunks:
            if gone is not None:
                failed = dict.fromkeys(range(len(chunk)), gone)
            else:
                deadline = loop.time() + patience
                failed = await self._publish_once(chunk, deadline)
                if failed:
                    failed = await self._repeat(chunk, failed, deadline)
            errors.update({start + at: error for at, error in failed.items()})
            if len(failed) == len(chunk) and isinstance(failed[0], ConnectionFailed):
                gone = failed[0]

    async def consume(
        self, source: Source, on_delivery: Callable[[Delivery], None]
    ) -> Consumer:
        """Start to consume a queue, declared before if need be.

        Raises:
            TransportError: The link broke meanwhile; try again.
            ConfigurationError: The broker refuses; trying again will not help.
        """
        connection = await self._consume_link.connection()
        await self._ensure(connection, (source.home,))
        if source.suspect and self._settings.declare == "passive":
            await declare.require(connection, source.queue)
        channel = await connection.channel()
        consumer = Consumer(connection, channel, source, on_delivery)
        try:
            await consumer.start()
        except asyncio.CancelledError:
            consumer.discard()
            raise
        except ChannelRefused as error:
            connection.ensured.discard(source.home)
            raise declare.explained(error, source.queue) from error
        return consumer

    async def count(self, queues: Iterable[str]) -> dict[str, int]:
        """Count the ready messages of each queue; a missing one has none.

        Raises:
            TransportError: The link broke.
            AccessRefused: The user may not look.
        """
        connection = await self._consume_link.connection()
        found: dict[str, int] = {}
        for queue in queues:
            found[queue] = await declare.count(connection, queue) or 0
        return found

    def all_rungs(self) -> list[str]:
        """The names of the queues that may hold delayed messages of the prefix."""
        return [self._names.rung(rung.label) for rung in every_rung()]

    async def close_consumers(self) -> None:
        """Close the consuming connection; the next consumer makes it anew."""
        await self._consume_link.drop()

    async def close(self) -> None:
        """Close both connections, after what is being published has been confirmed."""
        end = asyncio.get_running_loop().time() + CLOSE_GRACE
        while self._publishing:
            if asyncio.get_running_loop().time() >= end:
                break
            await asyncio.sleep(POLL)
        await self._consume_link.close()
        await self._publish_link.close()

    async def _publish_once(
        self, batch: Sequence[Publication], deadline: float
    ) -> dict[int, RmqarqError]:
        channel = self._channel
        try:
            if channel is None or not self._ready(channel, batch):
                channel = await self._make_ready(batch, deadline)
        except TransportError as error:
            if isinstance(error, ConnectionLost):
                error.unsent = True
            return dict.fromkeys(range(len(batch)), error)
        receipt = channel.send(batch, deadline)
        await receipt.done
        if receipt.errors:
            self._doubt(channel, receipt.errors)
        return receipt.errors

    def _doubt(self, channel: PublishChannel, errors: dict[int, RmqarqError]) -> None:
        """Open another channel after a nack; its cause may be the channel.

        One that is first used while the node of a quorum queue's leader dies asks that
        node until it is back (RabbitMQ, `rabbit_fifo_client`); a new one does not.
        """
        nacked = any(isinstance(error, QueueFull) for error in errors.values())
        if nacked and self._channel is channel and channel.age > RENEWAL:
            self._channel = None
            channel.retire()

    def _ready(self, channel: PublishChannel, batch: Sequence[Publication]) -> bool:
        if not channel.usable or not channel.has_room(len(batch)):
            return False
        ensured = channel.connection.ensured
        for each in batch:  # noqa: SIM110 - a generator costs more than the rest
            if not ensured.issuperset(each.needs):
                return False
        return True

    async def _make_ready(
        self, batch: Sequence[Publication], deadline: float
    ) -> PublishChannel:
        """Give a channel on which the batch may be sent in this very step."""
        needs = {name for each in batch for name in each.needs}
        while True:
            channel = await self._open_channel(deadline)
            if not channel.connection.ensured >= needs:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._ensure(channel.connection, needs)
                except TimeoutError:
                    raise channel.too_late(sent=False) from None
            await channel.wait_for_room(len(batch), deadline)
            if channel.usable and channel.connection.ensured >= needs:
                return channel

    async def _open_channel(self, deadline: float) -> PublishChannel:
        channel = self._channel
        if channel is not None and not channel.usable:
            # when a channel dies alone, frames of ours may still be on their way to
            # it, which would cost the connection later (504): start afresh
            channel.connection.abort("its channel was closed")
            self._channel = None
        connection = await self._publish_link.connection(deadline)
        try:
            async with asyncio.timeout_at(deadline), self._opening:
                if self._channel is None or not self._channel.usable:
                    opened = await connection.channel(confirms=True)
                    self._channel = PublishChannel(connection, opened)
                return self._channel
        except TimeoutError:
            raise ConnectionFailed(
                "the broker did not open a channel in time"
            ) from None

    async def _ensure(
        self, connection: Connection, needs: Iterable[str | Rung]
    ) -> None:
        """Declare what has not been declared through this connection yet."""
        if connection.ensured.issuperset(needs):
            return
        async with self._declaring:
            for need in needs:
                if need not in connection.ensured:
                    await self._declare(connection, need)
                    connection.ensured.add(need)

    async def _declare(self, connection: Connection, need: str | Rung) -> None:
        if self._settings.declare == "passive":
            queue = need if isinstance(need, str) else self._names.rung(need.label)
            await declare.require(connection, queue)
            return
        if FOUNDATION not in connection.ensured:
            await declare.declare(connection, topology.foundation(self._names))
            connection.ensured.add(FOUNDATION)
        if isinstance(need, str):
            wanted = topology.work(need, self._settings)
        else:
            await self._ensure_ladder(connection)
            wanted = topology.rung(need, self._names)
        await declare.declare(connection, wanted)

    async def _ensure_ladder(self, connection: Connection) -> None:
        if LADDER not in connection.ensured:
            await declare.declare(connection, topology.ladder(self._names))
            connection.ensured.add(LADDER)

    async def _repeat(
        self,
        batch: Sequence[Publication],
        errors: dict[int, RmqarqError],
        deadline: float,
    ) -> dict[int, RmqarqError]:
        """Publish again what was lost or had no queue; give the final errors."""
        final: dict[int, RmqarqError] = {}
        attempts = Attempts(deadline)
        while errors:
            again: list[int] = []
            for at, error in errors.items():
                if not attempts.worth_another(at, error):
                    final[at] = attempts.judged(at, error)
                elif isinstance(error, ConnectionLost) and error.refusal:
                    refused = await self._publish_alone(batch[at], deadline)
                    if refused is not None:
                        final[at] = attempts.judged(at, refused)
                else:
                    again.append(at)
            if not again:
                break
            if attempts.unroutable and self._channel is not None:
                self._channel.connection.ensured.clear()  # a queue was deleted
            await attempts.pause()
            failed = await self._publish_once([batch[at] for at in again], deadline)
            errors = {again[at]: error for at, error in failed.items()}
        return final

    async def _publish_alone(
        self, publication: Publication, deadline: float
    ) -> RmqarqError | None:
        """Publish on a channel of its own what may have cost others theirs.

        Its link may go with the channel of another one; then it is tried again.

        Returns:
            What the broker has against it; `None` when it is stored.
        """
        while True:
            outcome = await self._try_alone(publication, deadline)
            if not isinstance(outcome, ConnectionLost):
                return outcome
            if outcome.refusal:
                text = str(outcome.params["cause"])
                refusal = ChannelRefused(outcome.refusal, text)
                return declare.explained(refusal, publication.routing_key)
            await asyncio.sleep(random.uniform(0.01, 0.1))

    async def _try_alone(
        self, publication: Publication, deadline: float
    ) -> RmqarqError | None:
        try:
            usual = await self._make_ready((publication,), deadline)
            opened = await usual.connection.channel(confirms=True)
        except RmqarqError as error:
            return error
        channel = PublishChannel(usual.connection, opened)
        receipt = channel.send((publication,), deadline)
        await receipt.done
        if channel.usable:
            usual.connection.later(opened.close())
        return receipt.errors.get(0)


def _chunks(
    publications: Sequence[Publication],
) -> Iterator[tuple[int, Sequence[Publication]]]:
    for start in range(0, len(publications), CHUNK):
        yield start, publications[start : start + CHUNK]
