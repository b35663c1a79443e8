"""Asks a broker what is there and what we may do, and leaves everything as it is.

RabbitMQ looks at permissions before anything else (`rabbit_channel`), and refuses with
403. So a request that it must refuse for another reason, or that changes nothing,
answers whether we may: a declaration or a consumer with an argument of a wrong type, or
the end of a binding that does not exist.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from rmqarq.errors import (
    AccessRefused,
    ConfigurationError,
    ConnectionLost,
    RmqarqError,
)
from rmqarq.wire import declare
from rmqarq.wire.connection import ChannelRefused, retrieve
from rmqarq.wire.names import Names
from rmqarq.wire.opening import connect
from rmqarq.wire.plugin import COMMAND_INVALID
from rmqarq.wire.topology import Exchange, Queue, Topology, delayed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiormq.abc import AbstractChannel

    from rmqarq.settings import Settings
    from rmqarq.url import Endpoint
    from rmqarq.wire.connection import Connection
    from rmqarq.wire.permission import Permission

    Request: TypeAlias = Callable[[AbstractChannel], Coroutine[Any, Any, Any]]

Presence: TypeAlias = Literal["enabled", "missing", "refused"]

REFUSED = 403
# no exchange is called 1, and a word is no priority: RabbitMQ answers with 406
NO_EXCHANGE = 1
NO_PRIORITY = "none"
# "unknown exchange type '..." in `rabbit_exchange:check_type`
UNKNOWN_TYPE = "exchange type '"


class Place(Struct, frozen=True):
    """A queue or an exchange, as it stands on the broker.

    Args:
        name: Its name.
        there: Whether it exists; `None` if that is refused.
        ready: Messages that wait in it.
        consumers: Who consumes it.
        compared: Whether it was compared with what is wanted.
        difference: What an active declaration meets, if they differ.
        queue_type: The type of a queue that differs by its type.
    """

    name: str
    there: bool | None
    ready: int = 0
    consumers: int = 0
    compared: bool = False
    difference: RmqarqError | None = None
    queue_type: str | None = None


class Publishing(Struct, frozen=True):
    """What became of a publish.

    Args:
        blocked: Why the broker takes no messages.
        refused: Why it took this one from nobody like us.
    """

    blocked: str | None = None
    refused: RmqarqError | None = None


async def place(
    connection: Connection, wanted: Queue | Exchange, *, compare: bool
) -> Place:
    """Look at a queue or an exchange; if it is there, compare it with what is wanted.

    To compare is to declare it as it is wanted. What exists is not changed by that;
    if it was deleted in the moment between, it is made as a worker would make it.

    Raises:
        ConnectionLost: The link broke.
    """
    try:
        found = await _found(connection, wanted)
    except ConfigurationError:  # RabbitMQ 4.3 shows only what one may configure
        return Place(wanted.name, None)
    if found is None:
        return Place(wanted.name, there=False)
    seen = Place(wanted.name, True, found.ready, found.consumers)
    if not compare:
        return seen
    try:
        difference = await _difference(connection, wanted)
    except AccessRefused:  # who may not declare it is told of that elsewhere
        return seen
    return replace(seen, compared=True, difference=difference)


async def allowed(
    connection: Connection, permission: Permission, queue: str
) -> bool | None:
    """Tell whether we have a permission on something, whether it exists or not.

    Args:
        connection: To a RabbitMQ; others may not check what this relies on.
        permission: Which.
        queue: One that we may write, if there is any: to learn who may read an
            exchange takes both.

    Returns:
        `None` if it can't be told.

    Raises:
        ConnectionLost: The link broke.
    """
    refused = await _refused(connection, _request(permission, queue))
    if refused is None:
        return True
    return False if f"'{permission.name}'" in refused else _unless_about(permission)


async def plugin(endpoint: Endpoint, settings: Settings) -> Presence:
    """Tell whether the broker has the delayed-message plugin.

    RabbitMQ looks whether it knows the type of an exchange before it looks at
    permissions, and at both before it refuses the arguments of this declaration. Asked
    on a connection of its own, as the answer may close it (see `wire.plugin`).

    Args:
        endpoint: A RabbitMQ; others may not check what this relies on.
        settings: Of the App.

    Returns:
        `refused`: there is one, and we may not declare its exchange.

    Raises:
        TransportError: The link broke before there was an answer.
        ConfigurationError: The broker refuses the connection itself.
    """
    (wanted,) = delayed(Names(settings.prefix)).exchanges
    arguments = {**wanted.arguments, "alternate-exchange": NO_EXCHANGE}
    connection = await connect(endpoint, settings, "doctor")
    try:
        async with declare.throw_away(connection) as channel:
            asked = channel.exchange_declare(
                wanted.name,
                exchange_type=wanted.type,
                durable=True,
                arguments=dict(arguments),
            )
            await connection.call(asked)
    except ChannelRefused as error:
        if error.code == REFUSED:
            return "refused"
        return "missing" if UNKNOWN_TYPE in error.text else "enabled"
    except ConnectionLost:
        closed = connection.tap.closed
        if closed is None or closed.code != COMMAND_INVALID:
            raise
        return "missing"
    finally:
        await connection.close()
    return "enabled"


async def publishing(connection: Connection) -> Publishing:
    """Publish an empty message that no queue gets, and see what becomes of it.

    RabbitMQ tells of an alarm only those who publish. This goes to the default exchange
    under a random key, which is no queue's name, so it is dropped. Afterwards the
    connection is of no more use: a blocked one is cut.

    Raises:
        ConnectionLost: The link broke.
    """
    changed = asyncio.Event()
    connection.watch(changed.set)
    published = asyncio.create_task(_publish(connection))
    published.add_done_callback(retrieve)
    waiting = asyncio.create_task(changed.wait())
    try:
        await asyncio.wait((published, waiting), return_when=asyncio.FIRST_COMPLETED)
        if connection.blocked is not None:
            return Publishing(blocked=connection.blocked)
        await published
    except ChannelRefused as error:
        return Publishing(refused=declare.explained(error, "amq.default"))
    finally:
        waiting.cancel()
        connection.unwatch(changed.set)
        if not published.done():
            connection.abort("the broker does not read us")
    return Publishing(blocked=connection.blocked)


async def _publish(connection: Connection) -> None:
    channel = await connection.channel(confirms=True)
    key = os.urandom(16).hex()
    await connection.call(channel.basic_publish(b"", routing_key=key))
    # after the publish the broker reads us no more under an alarm, this included
    await connection.call(channel.close())


async def _found(
    connection: Connection, wanted: Queue | Exchange
) -> declare.Depth | None:
    if isinstance(wanted, Queue):
        return await declare.depth(connection, wanted.name)
    there = await declare.has_exchange(connection, wanted.name)
    return declare.Depth(0, 0) if there else None


async def _difference(
    connection: Connection, wanted: Queue | Exchange
) -> RmqarqError | None:
    if isinstance(wanted, Queue):
        topology = Topology(queues=(wanted,))
    else:
        topology = Topology(exchanges=(wanted,))
    try:
        await declare.declare(connection, topology)
    except (AccessRefused, ConnectionLost):
        raise
    except RmqarqError as error:
        return error
    return None


async def _refused(connection: Connection, request: Request) -> str | None:
    """Give the broker's words if it refuses a request for want of permission."""
    try:
        async with declare.throw_away(connection) as channel:
            await connection.call(request(channel))
    except ChannelRefused as error:
        return error.text if error.code == REFUSED else None
    return None


def _request(permission: Permission, queue: str) -> Request:
    """Find the request that tells of a permission and does nothing else."""
    kind, what, name = permission.kind, permission.what, permission.name
    nothing = os.urandom(16).hex()
    if (kind, what) == ("read", "queue"):
        arguments = {"x-priority": NO_PRIORITY}
        return lambda channel: channel.basic_consume(
            name, _take_nothing, arguments=dict(arguments)
        )
    if kind == "read":
        return lambda channel: channel.queue_unbind(queue, name, nothing)
    if kind == "write" and what == "queue":
        return lambda channel: channel.queue_unbind(name, nothing, nothing)
    if kind == "write":
        return lambda channel: channel.exchange_unbind(name, nothing, nothing)
    if what == "queue":
        return lambda channel: channel.queue_declare(
            name, durable=True, arguments={"x-dead-letter-exchange": NO_EXCHANGE}
        )
    return lambda channel: channel.exchange_declare(
        name, durable=True, arguments={"alternate-exchange": NO_EXCHANGE}
    )


def _unless_about(permission: Permission) -> bool | None:
    """Judge a refusal that names something else: to write is checked before to read."""
    return True if permission.kind == "write" else None


async def _take_nothing(_: object) -> None:
    """Stand in for a consumer that never starts."""
