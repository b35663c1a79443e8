"""Declares a topology on a throw-away channel, and says what stands against it."""

from __future__ import annotations

import re
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from rmqarq.errors import (
    AccessRefused,
    ConfigurationError,
    ConnectionLost,
    QueueMissing,
    RmqarqError,
    TopologyMismatch,
    Unroutable,
)
from rmqarq.wire.connection import ChannelRefused

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from aiormq.abc import AbstractChannel

    from rmqarq.wire.connection import Connection
    from rmqarq.wire.topology import Topology

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>.*)' in vhost"
    r" .*: received (?P<ours>.+) but current is (?P<theirs>.+)$",
    re.DOTALL,
)


_AWAY = "down or inaccessible"
"""RabbitMQ's words for a classic queue whose node is down; its code is 404, too."""


async def declare(connection: Connection, topology: Topology) -> None:
    """Declare exchanges, queues and bindings that are not there yet.

    Raises:
        TopologyMismatch: One exists with other arguments.
        AccessRefused: The user may not declare it.
        ConnectionLost: The link broke.
    """
    name = ""
    try:
        async with throw_away(connection) as channel:
            for exchange in topology.exchanges:
                name = exchange.name
                await connection.call(
                    channel.exchange_declare(
                        name,
                        exchange_type=exchange.type,
                        durable=True,
                        arguments=dict(exchange.arguments),
                    )
                )
            for queue in topology.queues:
                name = queue.name
                await connection.call(
                    channel.queue_declare(
                        name, durable=True, arguments=dict(queue.arguments)
                    )
                )
            for binding in topology.bindings:
                name = binding.queue
                await connection.call(
                    channel.queue_bind(name, binding.exchange, binding.key)
                )
    except ChannelRefused as error:
        raise explained(error, name) from error


class Depth(Struct, frozen=True):
    """What the broker tells of a queue.

    Args:
        ready: Messages that wait; those that a consumer holds are not counted.
        consumers: Who consumes it.
    """

    ready: int
    consumers: int


async def depth(connection: Connection, queue: str) -> Depth | None:
    """Look at a queue and change nothing; `None` if there is no such queue.

    Raises:
        AccessRefused: The user may not look at it.
        ConnectionLost: The link broke.
    """
    return (await depths(connection, (queue,)))[queue]


async def depths(
    connection: Connection, queues: Iterable[str]
) -> dict[str, Depth | None]:
    """Look at queues and change nothing; `None` for each that is not there.

    All share a channel, but RabbitMQ closes it at each queue that is missing (404).

    Of a quorum queue whose leader does not answer, RabbitMQ says that it is empty and
    has no consumers (`rabbit_quorum_queue`).

    Raises:
        AccessRefused: The user may not look at one.
        ConnectionLost: The link broke, or one did not answer.
        Unroutable: The node that holds one is down.
    """
    found: dict[str, Depth | None] = {}
    left = deque(queues)
    while left:
        try:
            async with throw_away(connection) as channel:
                while left:
                    declared = channel.queue_declare(left[0], passive=True)
                    answer = await connection.call(declared, vital=False)
                    shown = Depth(answer.message_count or 0, answer.consumer_count or 0)
                    found[left.popleft()] = shown
        except ChannelRefused as error:
            if not left:
                raise
            missing = left.popleft()
            if error.code != 404 or _AWAY in error.text:
                raise explained(error, missing) from error
            found[missing] = None
    return found


async def has_exchange(connection: Connection, exchange: str) -> bool:
    """Look whether there is an exchange, of whatever type, and change nothing.

    Raises:
        AccessRefused: The user may not look at it.
        ConnectionLost: The link broke.
    """
    try:
        async with throw_away(connection) as channel:
            await connection.call(channel.exchange_declare(exchange, passive=True))
    except ChannelRefused as error:
        if error.code == 404:
            return False
        raise explained(error, exchange) from error
    return True


async def count(connection: Connection, queue: str) -> int | None:
    """Give the number of ready messages in a queue; `None` if there is no such queue.

    Raises:
        AccessRefused: The user may not look at it.
        ConnectionLost: The link broke.
    """
    found = await depth(connection, queue)
    return None if found is None else found.ready


async def purge(connection: Connection, queue: str) -> int | None:
    """Delete the ready messages of a queue; `None` if there is no such queue.

    Returns:
        How many were deleted.

    Raises:
        AccessRefused: The user may not read it.
        ConnectionLost: The link broke; the messages may be gone or not.
    """
    try:
        async with throw_away(connection) as channel:
            answer = await connection.call(channel.queue_purge(queue))
    except ChannelRefused as error:
        if error.code == 404:
            return None
        raise explained(error, queue) from error
    return answer.message_count or 0


async def require(connection: Connection, queue: str) -> None:
    """Check that a queue exists, and change nothing.

    Raises:
        QueueMissing: It does not exist.
        AccessRefused: The user may not look at it.
        ConnectionLost: The link broke.
    """
    if await count(connection, queue) is None:
        raise QueueMissing(
            "the queue {queue} does not exist, and declare='passive' makes none",
            queue=repr(queue),
        )


async def require_foreign(connection: Connection, queue: str) -> None:
    """Check that a queue of somebody else exists, whatever its arguments.

    Raises:
        QueueMissing: It does not exist.
        AccessRefused: The user may not look at it.
        ConnectionLost: The link broke.
    """
    if await count(connection, queue) is None:
        raise QueueMissing(
            "the queue {queue} does not exist: create it, or let its producer do so;"
            " app.consume takes a queue as it is",
            queue=repr(queue),
        )


def explained(error: ChannelRefused, name: str) -> RmqarqError:
    """Say in our words why the broker closed a channel."""
    if error.code == 403:
        return AccessRefused(
            "the broker refuses access to {name}: {text}",
            name=repr(name),
            text=error.text,
        )
    if error.code == 404 and _AWAY in error.text:
        return Unroutable(
            "the node that holds {name} is down: {text}",
            name=repr(name),
            text=error.text,
        )
    if error.code == 404:
        return Unroutable(
            "the broker does not know {name}: {text}", name=repr(name), text=error.text
        )
    found = _INEQUIVALENT.search(error.text)
    if found is not None:
        return TopologyMismatch(
            "{kind} {name} exists with {argument} = {theirs}, and we want {ours};"
            " use the same arguments, another name, or declare='passive'",
            kind=found["kind"],
            name=repr(found["name"]),
            argument=found["argument"],
            ours=_plain(found["ours"]),
            theirs=_plain(found["theirs"]),
        )
    if error.code in (405, 406):
        return ConfigurationError(
            "the broker refuses {name}: {text}", name=repr(name), text=error.text
        )
    return ConnectionLost(
        "the connection to the broker was lost: {cause}", cause=error.text
    )


def _plain(value: str) -> str:
    """Take an argument's value out of the broker's way to write it."""
    return re.sub(r"^the value (.+) of type '\w+'$", r"\1", value)


@asynccontextmanager
async def throw_away(connection: Connection) -> AsyncGenerator[AbstractChannel]:
    """Open a channel that is closed again, whatever happens meanwhile.

    One after the other: aiormq may forget to confirm a close when several come at
    once, and then uses the number again, which costs the connection (504).
    """
    async with connection.throwing_away:
        channel = await connection.channel()
        try:
            yield channel
        except ChannelRefused:
            raise  # the broker has closed it
        except BaseException:
            if connection.alive:
                connection.later(channel.close())
            raise
        await connection.call(channel.close())
