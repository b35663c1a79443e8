"""What an operator asks of a broker: look into queues, purge and read them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from rmqarq.errors import NotFound, TransportError
from rmqarq.url import parse_urls
from rmqarq.wire import declare
from rmqarq.wire.delay import every_rung
from rmqarq.wire.link import Link
from rmqarq.wire.names import Names, suspect_lane
from rmqarq.wire.reading import Reading
from rmqarq.wire.topology import dead_letter_queue
from rmqarq.wire.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from types import TracebackType

    from rmqarq.errors import RmqarqError
    from rmqarq.settings import Settings
    from rmqarq.wire.connection import Connection
    from rmqarq.wire.publication import Publication

log = logging.getLogger(__name__)


class QueueInfo(Struct, frozen=True):
    """A queue of jobs with what belongs to it; `None` where there is no such queue.

    Args:
        queue: Its name.
        ready: Jobs that wait for a worker.
        consumers: Workers that consume it.
        suspects: Jobs that wait to be run in isolation.
        dead: Dead letters.
        dead_letter_queue: Where they are.
    """

    queue: str
    ready: int | None
    consumers: int | None
    suspects: int | None
    dead: int | None
    dead_letter_queue: str


class Overview(Struct, frozen=True):
    """Some queues, and what all Apps under a prefix share.

    Args:
        broker: Who was asked.
        prefix: The prefix.
        queues: The queues.
        delayed: Jobs that wait for their time on the ladder.
        plugin: Whether the delayed-message plugin may hold more, uncounted.
        lost: Messages that were due for a queue that is gone.
    """

    broker: str
    prefix: str
    queues: tuple[QueueInfo, ...]
    delayed: int
    plugin: bool
    lost: int


class Admin:
    """A connection of an operator. It declares nothing.

    Args:
        settings: The broker, the prefix and the names of dead-letter queues.

    Example:
        >>> async with Admin(settings) as admin:
        ...     print(await admin.overview(["mails"]))
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = Names(settings.prefix)
        self._link = Link(parse_urls(settings.url), settings, "admin")
        self._transport = Transport(settings)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectionFailed: No broker could be reached within `connect_timeout`.
            ConfigurationError: A broker was reached and refuses us.
        """
        await self._connection()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self._link.close()
        await self._transport.close()

    async def overview(self, queues: Sequence[str]) -> Overview:
        """Count what is in queues and what is on its way to them.

        Raises:
            TransportError: The link broke.
            AccessRefused: The user may not look.
        """
        connection = await self._connection()
        # rungs before queues: messages flow from the one to the other
        rungs = (self._names.rung(rung.label) for rung in every_rung())
        found = await declare.depths(connection, rungs)
        counts = [0 if each is None else each.ready for each in found.values()]
        version = ".".join(map(str, connection.server_version))
        return Overview(
            broker=f"RabbitMQ {version} at {connection.endpoint}",
            prefix=self._settings.prefix,
            queues=tuple([await self._info(connection, each) for each in queues]),
            delayed=sum(counts),
            plugin=await declare.has_exchange(connection, self._names.delayed),
            lost=await declare.count(connection, self._names.lost) or 0,
        )

    async def ready(self, queue: str) -> int:
        """Count the ready messages of a queue.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke.
            AccessRefused: The user may not look.
        """
        return _known(queue, await declare.count(await self._connection(), queue))

    async def consumers(self, queue: str) -> int:
        """Count the consumers of a queue; one that does not exist has none.

        Raises:
            TransportError: The link broke.
            AccessRefused: The user may not look.
        """
        depth = await declare.depth(await self._connection(), queue)
        return 0 if depth is None else depth.consumers

    async def purge(self, queue: str) -> int:
        """Delete the ready messages of a queue for good.

        Returns:
            How many were deleted.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke; they may be gone or not.
            AccessRefused: The user may not read the queue.
        """
        return _known(queue, await declare.purge(await self._connection(), queue))

    @asynccontextmanager
    async def reading(self, queue: str) -> AsyncGenerator[tuple[Reading, int]]:
        """Look at what is in a queue now; what is not acked is there afterwards.

        Yields:
            The messages, and how many there are.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke.
            AccessRefused: The user may not read the queue.
        """
        connection = await self._connection()
        depth = await declare.depth(connection, queue)
        there = _known(queue, None if depth is None else depth.ready)
        if depth is not None and depth.consumers:
            log.warning(
                "%(queue)s has %(count)d consumers; what they hold is not seen",
                {"queue": queue, "count": depth.consumers},
            )
        reading = Reading(connection, queue, there)
        try:
            yield reading, there
        finally:
            await _close(reading, queue)

    async def publish(
        self, publications: Sequence[Publication]
    ) -> dict[int, RmqarqError]:
        """Publish messages to queues that are there.

        Returns:
            By position, the error of each that was not stored for certain.
        """
        patience = self._settings.publish_deadline
        return await self._transport.publish_many(publications, patience)

    async def _connection(self) -> Connection:
        now = asyncio.get_running_loop().time()
        return await self._link.connection(now + self._settings.connect_timeout)

    async def _info(self, connection: Connection, queue: str) -> QueueInfo:
        depth = await declare.depth(connection, queue)
        dead = dead_letter_queue(queue, self._settings)
        return QueueInfo(
            queue=queue,
            ready=None if depth is None else depth.ready,
            consumers=None if depth is None else depth.consumers,
            suspects=await declare.count(connection, suspect_lane(queue)),
            dead=await declare.count(connection, dead),
            dead_letter_queue=dead,
        )


def _known(queue: str, count: int | None) -> int:
    if count is None:
        raise NotFound("there is no queue {queue}", queue=repr(queue))
    return count


async def _close(reading: Reading, queue: str) -> None:
    try:
        await reading.close()
    except TransportError as error:
        log.warning(
            "the link broke at the end, so what was taken out of %(queue)s last may"
            " still be there: %(problem)s",
            {"queue": queue, "problem": error},
        )
