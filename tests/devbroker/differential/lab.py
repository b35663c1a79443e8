"""Where a scenario is played: a channel whose names are its own, and plain results."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pamqp import commands

from tests.devbroker.differential.client import (
    PATIENCE,
    Closed,
    Connection,
    Content,
    RawChannel,
    connect,
    message,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

B, C = commands.Basic, commands.Channel
Q, X = commands.Queue, commands.Exchange
MADE_UP = re.compile(r"(amq\.(?:gen|ctag|rabbitmq\.reply-to))[-.][-\w+/=.]+")
NAMES = ("x-dead-letter-exchange", "x-dead-letter-routing-key", "alternate-exchange")


class Lab:
    """A broker for one scenario.

    Args:
        port: Of the broker.
        connection: That the scenario shares with others.
        prefix: Of all its names.
    """

    def __init__(self, port: int, connection: Connection, prefix: str) -> None:
        self.port = port
        self.connection = connection
        self.prefix = prefix
        self.queues: set[str] = set()
        self.exchanges: set[str] = set()
        self._connections: list[Connection] = []

    async def open(self, connection: Connection | None = None) -> Channel:
        """Open a channel in confirm mode."""
        raw = await (connection or self.connection).channel()
        await raw.call(commands.Confirm.Select())
        return Channel(self, raw)

    async def dial(self) -> Channel:
        """Open a channel on a connection of its own."""
        connection = await connect(self.port)
        self._connections.append(connection)
        return await self.open(connection)

    async def hang_up(self, connection: Connection) -> None:
        """Close a connection that was dialled."""
        self._connections.remove(connection)
        await connection.close()

    async def renew(self) -> None:
        """Connect anew if the broker has closed the connection."""
        if self.connection.over:
            await self.connection.close()
            self.connection = await connect(self.port)

    async def clean(self) -> None:
        """Delete all that was made, and close all connections whatever happens."""
        try:
            for connection in list(self._connections):
                await self.hang_up(connection)
            await self.renew()
            raw = await self.connection.channel()
            for queue in self.queues:
                await raw.call(Q.Delete(queue=queue))
            for exchange in self.exchanges:
                await raw.call(X.Delete(exchange=exchange))
        finally:
            for connection in (*self._connections, self.connection):
                await connection.close()

    def name(self, name: str) -> str:
        """Give the name under which the broker knows something."""
        return name if not name or name.startswith("amq.") else self.prefix + name

    def plain(self, found: Any) -> Any:
        """Take out of a result what is of this run alone."""
        if isinstance(found, str):
            return MADE_UP.sub(r"\1-*", found.replace(self.prefix, ""))
        if isinstance(found, bytes):
            return self.plain(found.decode())
        if isinstance(found, datetime):
            return "some time"
        if isinstance(found, dict):
            return {self.plain(key): self.plain(each) for key, each in found.items()}
        if isinstance(found, list | tuple):
            return [self.plain(each) for each in found]
        return found


class Channel:
    """A channel as scenarios use it.

    Args:
        lab: Where it stands.
        raw: The channel.
    """

    def __init__(self, lab: Lab, raw: RawChannel) -> None:
        self.lab = lab
        self.raw = raw
        self.name = lab.name
        self._published = 0
        self._tags: list[int] = []

    # --- channels ---

    async def another(self) -> Channel:
        """Open another channel of the same connection."""
        own = self.raw.connection
        return await self.lab.open(None if own.over else own)

    async def dial(self) -> Channel:
        """Open a channel on a connection of its own."""
        return await self.lab.dial()

    async def hang_up(self) -> None:
        """Close the connection, which must be this channel's own."""
        assert self.raw.connection is not self.lab.connection
        await self.lab.hang_up(self.raw.connection)
        self.raw.closed = Closed(C.Close(200, "done", 0, 0))

    async def leave(self) -> None:
        """Close the channel."""
        if self.raw.closed is None:
            await self.call(C.Close(200, "done", 0, 0))
            self.raw.closed = Closed(C.Close(200, "done", 0, 0))

    async def call(self, method: Any) -> Any:
        """Make a call."""
        return await self.raw.call(method)

    async def refused(self, awaitable: Awaitable[Any]) -> Any:
        """See how a call is refused, and open the channel anew."""
        try:
            return ["fine", await awaitable]
        except Closed as closed:
            if self.raw.connection is self.lab.connection:
                await self.lab.renew()
            fresh = await self.another()
            self.raw, self._published = fresh.raw, 0
            return [closed.code, closed.text, closed.method]

    # --- what there is ---

    async def queue(
        self,
        name: str = "q",
        *,
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        durable: bool | None = None,
        **arguments: Any,
    ) -> list[Any]:
        """Declare a queue, `max_length=1` for `x-max-length`; its name and counts."""
        given = self._arguments(arguments, "x-")
        if durable is None:
            durable = given.get("x-queue-type") == "quorum"
        flags = passive, durable, exclusive, auto_delete
        if name and not exclusive and not passive:
            self.lab.queues.add(self.name(name))
        declared = await self.call(Q.Declare(0, self.name(name), *flags, False, given))
        return [declared.queue, declared.message_count, declared.consumer_count]

    async def exchange(
        self,
        name: str = "x",
        kind: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        **arguments: Any,
    ) -> None:
        """Declare an exchange, `alternate_exchange="y"` for `alternate-exchange`."""
        given = self._arguments(arguments, "")
        if name and not name.startswith("amq."):
            self.lab.exchanges.add(self.name(name))
        flags = passive, durable, auto_delete, internal
        await self.call(X.Declare(0, self.name(name), kind, *flags, False, given))

    def _arguments(self, given: dict[str, Any], prefix: str) -> dict[str, Any]:
        named = {f"{prefix}{each.replace('_', '-')}": given[each] for each in given}
        return {
            each: self.name(value)
            if each in NAMES and isinstance(value, str)
            else value
            for each, value in named.items()
        }

    async def bind(
        self, queue: str, exchange: str = "x", key: str = "", **arguments: Any
    ) -> None:
        """Bind a queue."""
        names = self.name(queue), self.name(exchange), key
        await self.call(Q.Bind(0, *names, False, _dashed(arguments)))

    async def unbind(
        self, queue: str, exchange: str = "x", key: str = "", **arguments: Any
    ) -> None:
        """Remove a binding of a queue."""
        names = self.name(queue), self.name(exchange), key
        await self.call(Q.Unbind(0, *names, _dashed(arguments)))

    async def join(
        self, destination: str, source: str, key: str = "", **arguments: Any
    ) -> None:
        """Bind an exchange to another."""
        names = self.name(destination), self.name(source), key
        await self.call(X.Bind(0, *names, False, _dashed(arguments)))

    async def part(self, destination: str, source: str, key: str = "") -> None:
        """Remove a binding between exchanges."""
        names = self.name(destination), self.name(source), key
        await self.call(X.Unbind(0, *names, False, {}))

    async def delete(
        self, queue: str = "q", *, unused: bool = False, empty: bool = False
    ) -> int:
        """Delete a queue; how many messages were ready in it."""
        call = Q.Delete(0, self.name(queue), unused, empty)
        count: int = (await self.call(call)).message_count
        return count

    async def delete_exchange(self, name: str = "x", *, unused: bool = False) -> None:
        """Delete an exchange."""
        await self.call(X.Delete(0, self.name(name), unused))

    async def purge(self, queue: str = "q") -> int:
        """Purge a queue; how many messages were ready in it."""
        count: int = (await self.call(Q.Purge(0, self.name(queue)))).message_count
        return count

    async def counts(self, queue: str = "q") -> list[int] | None:
        """Look at ready messages and consumers; `None` if there is no such queue."""
        peek = await self.lab.connection.channel()
        try:
            found = await peek.call(Q.Declare(0, self.name(queue), passive=True))
        except Closed as closed:
            return [-closed.code] if closed.code != 404 else None
        await peek.call(C.Close(200, "done", 0, 0))
        return [found.message_count, found.consumer_count]

    async def ready(self, count: int, queue: str = "q") -> Any:
        """Wait until so many messages are ready; give what there is at last."""
        return await self._settles(queue, lambda found: found and found[0] == count)

    async def settles(self, count: int, consumers: int, queue: str = "q") -> Any:
        """Wait until there are so many messages and consumers; what there is at last.

        What holds a message of a quorum queue counts as a consumer, so this also waits
        for what was acknowledged or given back.
        """
        wanted = [count, consumers]
        return await self._settles(queue, lambda found: found == wanted)

    async def gone(self, queue: str = "q") -> Any:
        """Wait until a queue is deleted; give what there is at last."""
        return await self._settles(queue, lambda found: found is None)

    async def gone_by_itself(self, queue: str = "q") -> bool:
        """Wait until a queue is deleted that counting would keep alive."""
        deadline = time.monotonic() + PATIENCE / 2
        while time.monotonic() < deadline:
            await asyncio.sleep(0.25)
            if await self.counts(queue) is None:
                return True
        return False

    async def rest(self, seconds: float) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    async def _settles(self, queue: str, settled: Any) -> Any:
        deadline = time.monotonic() + PATIENCE / 2
        while not settled(found := await self.counts(queue)):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.01)
        return found

    # --- in ---

    async def put(
        self,
        key: str,
        *bodies: str,
        exchange: str = "",
        mandatory: bool = False,
        **properties: Any,
    ) -> list[str]:
        """Publish, one after the other; what the confirms say."""
        said: list[str] = []
        for body in bodies:
            said += await self.burst(
                key, body, exchange=exchange, mandatory=mandatory, **properties
            )
        return said

    def publish(
        self,
        key: str,
        body: str,
        *,
        exchange: str = "",
        mandatory: bool = False,
        **properties: Any,
    ) -> None:
        """Publish, and wait for nothing."""
        to = key if exchange else self.name(key)
        where = self.name(exchange), to, mandatory
        self.raw.send(*message(body.encode(), *where, **properties))
        self._published += 1

    async def burst(
        self,
        key: str,
        *bodies: str,
        exchange: str = "",
        mandatory: bool = False,
        **properties: Any,
    ) -> list[str]:
        """Publish all at once; what the confirms say."""
        first = self._published + 1
        for body in bodies:
            self.publish(
                key, body, exchange=exchange, mandatory=mandatory, **properties
            )
        wanted = range(first, self._published + 1)
        await self.raw.until(
            lambda: self.raw.closed or all(each in self.confirms() for each in wanted)
        )
        if self.raw.closed:
            raise self.raw.closed
        confirms = self.confirms()
        return [confirms.get(each, "nothing") for each in wanted]

    def confirms(self) -> dict[int, str]:
        """What the broker has said about each message."""
        found: dict[int, str] = {}
        for event in self.raw.events:
            if isinstance(event, B.Ack | B.Nack):
                tag = event.delivery_tag or 0
                tags = range(1, tag + 1) if event.multiple else [tag]
                word = "ack" if isinstance(event, B.Ack) else "nack"
                for each in tags:
                    found.setdefault(each, word)
        return found

    def story(self) -> list[str]:
        """Returns and confirms in their order, each confirm by itself."""
        told: list[str] = []
        known: set[int] = set()
        for event in self.raw.events:
            if isinstance(event, Content) and isinstance(event.method, B.Return):
                told.append(f"return {event.body.decode()}")
            elif isinstance(event, B.Ack | B.Nack):
                tag = event.delivery_tag or 0
                tags = range(1, tag + 1) if event.multiple else [tag]
                told += [f"{event.name} {each}" for each in tags if each not in known]
                known.update(tags)
        return told

    def returns(self) -> list[Any]:
        """What was returned."""
        contents = [each for each in self.raw.events if isinstance(each, Content)]
        return [
            [each.method.reply_code, each.method.reply_text, *seen(each)]
            for each in contents
            if isinstance(each.method, B.Return)
        ]

    # --- out ---

    async def take(self, queue: str = "q", *, no_ack: bool = False) -> Content | None:
        """Take a message."""
        got = await self.call(B.Get(0, self.name(queue), no_ack))
        return got if isinstance(got, Content) else None

    async def get(self, queue: str = "q", *, no_ack: bool = False) -> list[Any] | None:
        """Take a message; what is seen of it, and how many more there are."""
        got = await self.take(queue, no_ack=no_ack)
        return None if got is None else [*seen(got), got.method.message_count]

    async def drain(self, queue: str = "q") -> list[str]:
        """Take all bodies."""
        found: list[str] = []
        while (got := await self.take(queue, no_ack=True)) is not None:
            found.append(got.body.decode() + "*" * got.method.redelivered)
        return found

    async def headers(self, queue: str = "q") -> Any:
        """Take a message; its headers, or `None`."""
        got = await self.take(queue, no_ack=True)
        return None if got is None else got.properties.headers

    async def keys(self, queue: str = "q") -> list[str]:
        """Take all messages; their routing keys."""
        found: list[str] = []
        while (got := await self.take(queue, no_ack=True)) is not None:
            found.append(got.method.routing_key)
        return found

    async def consume(self, queue: str = "q", tag: str = "c", **options: Any) -> str:
        """Consume; give the tag."""
        no_ack, exclusive = (options.pop(each, False) for each in FLAGS)
        given = self._arguments(options, "x-")
        call = B.Consume(0, self.name(queue), tag, False, no_ack, exclusive)
        call.arguments = given
        found: str = (await self.call(call)).consumer_tag
        return found

    async def cancel(self, tag: str = "c") -> None:
        """Consume no longer."""
        await self.call(B.Cancel(tag))

    async def prefetch(self, count: int, *, everybody: bool = False) -> None:
        """Limit what the client holds."""
        await self.call(B.Qos(0, count, everybody))

    def deliveries(self) -> list[Content]:
        """What was delivered."""
        contents = [each for each in self.raw.events if isinstance(each, Content)]
        return [each for each in contents if isinstance(each.method, B.Deliver)]

    async def delivered(self, count: int) -> list[str]:
        """Wait for so many deliveries; tags and bodies of all."""
        await self.raw.until(lambda: len(self.deliveries()) >= count)
        return [
            f"{each.method.consumer_tag}:{each.body.decode()}"
            + "*" * each.method.redelivered
            for each in self.deliveries()
        ]

    async def cancelled(self, count: int = 1) -> list[str]:
        """Wait for so many cancels by the broker; their tags."""
        found = self.raw.events

        def tags() -> list[str]:
            return [each.consumer_tag for each in found if isinstance(each, B.Cancel)]

        await self.raw.until(lambda: len(tags()) >= count)
        return sorted(tags())

    # --- what became of them ---

    async def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge, and wait until it is done."""
        self.raw.send(B.Ack(tag, multiple))
        await self.sync()

    async def nack(
        self, tag: int, *, multiple: bool = False, requeue: bool = True
    ) -> None:
        """Give back, and wait until it is done."""
        self.raw.send(B.Nack(tag, multiple, requeue))
        await self.sync()

    async def reject(self, tag: int, *, requeue: bool = False) -> None:
        """Reject, and wait until it is done."""
        self.raw.send(B.Reject(tag, requeue))
        await self.sync()

    async def recover(self) -> None:
        """Give everything back."""
        await self.call(B.Recover(True))

    async def end(self, awaitable: Awaitable[Any]) -> Any:
        """See how a call ends the connection, which must be this channel's own."""
        try:
            return ["fine", await awaitable]
        except Closed as closed:
            return [closed.code, closed.text, self.raw.connection.over]

    async def sync(self) -> None:
        """Wait until the channel has done all that it was told."""
        await self.call(commands.Confirm.Select())


FLAGS = ("no_ack", "exclusive")


def _dashed(arguments: dict[str, Any]) -> dict[str, Any]:
    return {each.replace("_", "-"): value for each, value in arguments.items()}


def seen(content: Content) -> list[Any]:
    """What a client sees of a message."""
    method = content.method
    properties = {
        name: value
        for name in B.Properties.attributes()
        if (value := getattr(content.properties, name)) not in (None, "", {})
    }
    again = getattr(method, "redelivered", False)
    return [content.body, method.exchange, method.routing_key, again, properties]
