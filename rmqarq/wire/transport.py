"""What an App needs of RabbitMQ: publish, consume, count; declared as it goes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rmqarq.errors import (
    BrokerBlocked,
    ConnectionFailed,
    ConnectionLost,
    OutcomeUnknown,
    Phrase,
    RmqarqError,
    TransportError,
)
from rmqarq.url import parse_urls
from rmqarq.wire import declare
from rmqarq.wire.connection import ChannelRefused
from rmqarq.wire.consumer import Consumer, Delivery, Source
from rmqarq.wire.declarer import Declarer
from rmqarq.wire.link import Link
from rmqarq.wire.names import Names
from rmqarq.wire.sender import Sender
from rmqarq.wire.topology import Binding, delayed_binding

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Callable,
        Container,
        Iterable,
        Iterator,
        Sequence,
    )

    from rmqarq.settings import Settings
    from rmqarq.wire.declare import Depth
    from rmqarq.wire.opening import Dial
    from rmqarq.wire.publication import Publication

CHUNK = 500
GIVEN_UP = (ConnectionFailed, BrokerBlocked, OutcomeUnknown)
"""What a window meets at its deadline: the next one would only meet it, too."""
IN_FLIGHT = 2
HOLD = 1.0
CLOSE_GRACE, POLL = 5.0, 0.01
PROBES, PROBE_PAUSE = 3, 0.3


class Transport:
    """Two connections, one to publish and one to consume, both made when needed.

    They are apart because a broker under alarm stops reading a publishing
    connection, its acks included (RabbitMQ, "Memory and Disk Alarms").

    Args:
        settings: Say where the broker is, and what is declared there.
        foreign: Queues of somebody else, which are consumed as they are.
        dial: Gives a connected socket; by default one is opened.

    Attributes:
        users: How many hold it open.
        linger: Seconds between the last ack and the end of its channel: quorum queues
            may lose one that comes just before (rabbitmq-server#10327).
    """

    linger = 0.2

    def __init__(
        self,
        settings: Settings,
        foreign: Container[str] = (),
        dial: Dial | None = None,
    ) -> None:
        endpoints = parse_urls(settings.url)
        self._settings = settings
        self._foreign = foreign
        self._names = Names(settings.prefix)
        self._publish_link = Link(endpoints, settings, "publish", dial)
        self._consume_link = Link(endpoints, settings, "consume", dial)
        self.users = 0
        self._publishing = 0
        self._declarer = Declarer(settings, foreign)
        self._sender = Sender(self._publish_link, self._declarer)

    @property
    def connected(self) -> bool:
        """Whether one of its connections is up."""
        links = (self._publish_link, self._consume_link)
        return any(link.current is not None for link in links)

    @property
    def reconnects(self) -> int:
        """How often a lost connection was made anew."""
        links = (self._publish_link, self._consume_link)
        return sum(max(0, link.connects - 1) for link in links)

    @property
    def standing(self) -> tuple[bool, float]:
        """Whether we are connected, and for how many seconds that has been so.

        Only the consuming connection counts, once it was there: the other one is made
        anew when something is published.
        """
        consuming = self._consume_link.connects > 0
        return (self._consume_link if consuming else self._publish_link).standing

    @property
    def blocked(self) -> str | None:
        """Which alarm keeps the broker from reading what we publish, or `None`."""
        current = self._publish_link.current
        return current.blocked if current is not None else None

    async def connect(self, deadline: float | None = None) -> None:
        """Open the publishing connection now instead of at the first publish.

        Raises:
            ConnectionFailed: No broker could be reached before the deadline.
            ConfigurationError: A broker was reached and refuses us.
        """
        await self._publish_link.connection(deadline)

    async def choose_delays(self, deadline: float | None = None) -> bool:
        """Find out, as a starting worker, who keeps delayed messages.

        Returns:
            Whether it is the delayed-message plugin, and not the ladder.

        Raises:
            ConnectionFailed: No broker could be reached before the deadline.
            ConfigurationError: The plugin is asked for, and there is none.
        """
        problem: TransportError | None = None
        for _ in range(PROBES):
            connection = await self._publish_link.connection(deadline)
            try:
                return await self._declarer.choose(connection)
            except TransportError as error:
                problem = error
            await asyncio.sleep(PROBE_PAUSE)
        self._declarer.forgo(problem)
        return False

    @property
    def by_plugin(self) -> bool:
        """Whether delays go by the plugin at present, as far as anybody has looked."""
        current = self._publish_link.current
        return current is not None and bool(current.plugin)

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
        return Phrase(
            "{product} {version} at {endpoint}",
            product=current.product or "AMQP",
            version=version,
            endpoint=current.endpoint,
        )

    @property
    def product(self) -> str:
        """What the broker calls itself; nothing while there is no connection."""
        current = self._publish_link.current
        return current.product if current is not None else ""

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
            errors = await self._sender.send(batch, deadline)
        finally:
            self._publishing -= 1
        if errors:
            # out of the dict: else this frame and the error would hold each other, and
            # with them the message, until a garbage collection
            raise errors.pop(0)

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
        """Publish window after window; once a whole one fails, the rest is not sent."""
        loop = asyncio.get_running_loop()
        rest: RmqarqError | None = None
        for start, chunk in chunks:
            if rest is not None:
                failed = dict.fromkeys(range(len(chunk)), rest)
            else:
                deadline = loop.time() + patience
                failed = await self._sender.send(chunk, deadline)
                if len(failed) == len(chunk) and isinstance(failed[0], GIVEN_UP):
                    rest = _unsent(failed[0])
            errors.update({start + at: error for at, error in failed.items()})

    async def consume(
        self, source: Source, on_delivery: Callable[[Delivery], None]
    ) -> Consumer:
        """Start to consume a queue, declared before if need be.

        Raises:
            TransportError: The link broke meanwhile; try again.
            QueueMissing: It belongs to somebody else, and is not there.
            ConfigurationError: The broker refuses; trying again will not help.
        """
        connection = await self._consume_link.connection()
        if source.home in self._foreign:  # made anew by others, it lacks our binding
            connection.ensured.discard(source.home)
        needs: list[str | Binding] = [source.home]
        if await self._declarer.uses_plugin(connection):
            needs.append(delayed_binding(source.queue, self._names))
        await self._declarer.ensure(connection, needs)
        if source.suspect and self._settings.declare == "passive":
            await declare.require(connection, source.queue)
        channel = await connection.channel()
        consumer = Consumer(connection, channel, source, on_delivery)
        try:
            await consumer.start()
        except ConnectionLost:
            consumer.discard(hung=True)
            raise
        except asyncio.CancelledError:
            consumer.discard()
            raise
        except ChannelRefused as error:
            connection.ensured.difference_update(needs)
            raise declare.explained(error, source.queue) from error
        return consumer

    async def depths(self, queues: Iterable[str]) -> dict[str, Depth | None]:
        """Look at queues; `None` for each that is not there.

        Raises:
            TransportError: The link broke, or one could not be asked.
            AccessRefused: The user may not look.
        """
        return await declare.depths(await self._consume_link.connection(), queues)

    async def count(self, queues: Iterable[str]) -> int:
        """Count the ready messages of queues together; a missing one has none.

        Raises:
            TransportError: As for `depths`.
            AccessRefused: As for `depths`.
        """
        found = (await self.depths(queues)).values()
        return sum(each.ready for each in found if each is not None)

    @asynccontextmanager
    async def head(self, queue: str) -> AsyncGenerator[Delivery | None]:
        """Hold the first message of a queue, if there is one, to be settled within.

        Nothing else is taken. What is not acked goes back to its place as the channel
        ends; a quorum queue without a limit would put it last if it were given back.

        Raises:
            TransportError: The link broke, or the queue does not answer.
            AccessRefused: The user may not read it.
        """
        connection = await self._consume_link.connection()
        channel = await connection.channel()
        first: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

        def on_delivery(delivery: Delivery) -> None:
            if not first.done():  # else its leader has changed, and it comes once more
                first.set_result(delivery)

        source = Source(queue, queue, 1)
        consumer = Consumer(connection, channel, source, on_delivery)
        hung = False
        try:
            try:
                await consumer.start()
                await asyncio.wait((first,), timeout=HOLD)
                await consumer.cancel()
            except ConnectionLost:
                hung = True
                raise
            except ChannelRefused as error:
                raise declare.explained(error, queue) from error
            yield first.result() if first.done() else None
            if first.done():
                await asyncio.sleep(self.linger)
        finally:
            consumer.discard(hung=hung)

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


def _chunks(
    publications: Sequence[Publication],
) -> Iterator[tuple[int, Sequence[Publication]]]:
    for start in range(0, len(publications), CHUNK):
        yield start, publications[start : start + CHUNK]


def _unsent(cause: RmqarqError) -> RmqarqError:
    """Make the error of what is not sent any more after a window that failed."""
    if isinstance(cause, ConnectionFailed):
        return cause
    error = ConnectionFailed(
        "the broker did not get to this job before the deadline; it is not sent"
    )
    error.__cause__ = cause
    return error
