"""One broker as the state machine sees it: what it is told, and all that it shows."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import commands

from tests.devbroker.differential.client import (
    Closed,
    Connection,
    Content,
    RawChannel,
    message,
)
from tests.devbroker.differential.lab import NAMES, seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

B, C = commands.Basic, commands.Channel
Q, X = commands.Queue, commands.Exchange
CLIENTS = 2
MADE_UP = re.compile(r"amq\.ctag-[-\w+/=.]+")


class Held(NamedTuple):
    """A message that a client holds."""

    tag: int
    queue: str
    body: str

    @property
    def what(self) -> tuple[str, str]:
        """What it is, whatever its tag."""
        return self.queue, self.body


class Client:
    """A channel with what it was told.

    Args:
        raw: The channel, in confirm mode.
    """

    def __init__(self, raw: RawChannel) -> None:
        self.raw = raw
        self.held: list[Held] = []
        self.consumers: dict[str, tuple[str, bool]] = {}  # queue, and whether it acks
        self.published: list[str] = []
        self._read = 0

    def look(self) -> None:
        """Take note of what was delivered since."""
        events = self.raw.events
        for event in events[self._read :]:
            if isinstance(event, Content) and isinstance(event.method, B.Deliver):
                tag = event.method.delivery_tag or 0
                queue, acks = self.consumers[event.method.consumer_tag]
                if acks:
                    self.held.append(Held(tag, queue, event.body.decode()))
        self._read = len(events)


class Side:
    """A broker with a few channels to it.

    Args:
        connection: To it; one for many sides, one after the other.
        prefix: Of all names, so that nothing of another run is met.
    """

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection = connection
        self.prefix = prefix
        self.clients: list[Client] = []
        self.queues: set[str] = set()
        self.exchanges: set[str] = set()
        self._peek: RawChannel

    async def open(self) -> None:
        """Open its channels."""
        self._peek = await self.connection.channel()
        self.clients = [await self._client() for _ in range(CLIENTS)]

    async def close(self) -> None:
        """Close the channels and delete what was made."""
        channels = [client.raw for client in self.clients]
        await asyncio.gather(
            *(each.call(C.Close(200, "done", 0, 0)) for each in channels),
            *(self._peek.call(Q.Delete(queue=self.name(q))) for q in self.queues),
            *(self._peek.call(X.Delete(exchange=self.name(x))) for x in self.exchanges),
        )
        await self._peek.call(C.Close(200, "done", 0, 0))

    async def _client(self) -> Client:
        raw = await self.connection.channel()
        await raw.call(commands.Confirm.Select())
        return Client(raw)

    def name(self, name: str) -> str:
        """Give the name under which the broker knows something."""
        return name if not name or name.startswith("amq.") else self.prefix + name

    def plain(self, found: Any) -> Any:
        """Take out of a result what is of this run alone."""
        if isinstance(found, str):
            return MADE_UP.sub("amq.ctag-*", found.replace(self.prefix, ""))
        if isinstance(found, bytes):
            return self.plain(found.decode())
        if isinstance(found, dict):
            return {
                self.plain(key): "some time" if key == "time" else self.plain(each)
                for key, each in found.items()
            }
        if isinstance(found, list | tuple):
            return [self.plain(each) for each in found]
        return found

    # --- what it is told ---

    async def call(self, client: int, method: Any) -> Any:
        """Make a call; the answer, or how it was refused."""
        try:
            return await self.clients[client].raw.call(method)
        except Closed as closed:
            if self.connection.over:
                raise ConnectionError(closed.text) from closed
            self.clients[client] = await self._client()
            return [closed.code, self.plain(closed.text), closed.method]

    async def declare(self, name: str, given: dict[str, Any]) -> Any:
        """Declare a queue."""
        arguments = {
            key: self.name(each) if key in NAMES else each
            for key, each in given.items()
        }
        quorum = given.get("x-queue-type") == "quorum"
        flags = False, quorum, False, False, False
        found = await self.call(0, Q.Declare(0, self.name(name), *flags, arguments))
        if isinstance(found, list):
            return found
        self.queues.add(name)
        return found.message_count

    async def declare_exchange(self, name: str, kind: str, other: str | None) -> Any:
        """Declare an exchange, with an alternate exchange or not."""
        arguments = {} if other is None else {"alternate-exchange": self.name(other)}
        self.exchanges.add(name)
        flags = False, False, False, False, False
        call = X.Declare(0, self.name(name), kind, *flags, arguments)
        return _fine(await self.call(0, call))

    async def bind(
        self, to: str, exchange: str, key: str, given: dict[str, Any]
    ) -> Any:
        """Bind a queue or an exchange."""
        names = self.name(to), self.name(exchange), self.key(key)
        kind = X.Bind if to in EXCHANGES else Q.Bind
        return _fine(await self.call(0, kind(0, *names, False, given)))

    async def unbind(
        self, to: str, exchange: str, key: str, given: dict[str, Any]
    ) -> Any:
        """Remove a binding."""
        names = self.name(to), self.name(exchange), self.key(key)
        call = X.Unbind(0, *names, False, given)
        if to not in EXCHANGES:
            call = Q.Unbind(0, *names, given)
        return _fine(await self.call(0, call))

    def key(self, key: str) -> str:
        """Give a routing key: a queue's name, or as it is."""
        return self.name(key) if key in QUEUES else key

    async def publish(
        self, client: int, bodies: Sequence[str], where: tuple[str, str], **given: Any
    ) -> Any:
        """Publish at once; what the confirms say, and what comes back."""
        channel = self.clients[client]
        headers = given.pop("headers")
        for name in ("CC", "BCC"):
            if name in headers:
                headers = {**headers, name: [self.key(each) for each in headers[name]]}
        exchange, key = self.name(where[0]), self.key(where[1])
        for body in bodies:
            channel.raw.send(
                *message(body.encode(), exchange, key, True, headers=headers, **given)
            )
        before = len(channel.published)
        channel.published += bodies
        last = len(channel.published)

        def done() -> bool:
            return channel.raw.closed is not None or len(confirmed(channel)) >= last

        await channel.raw.until(done)
        if channel.raw.closed is not None:
            closed = channel.raw.closed
            self.clients[client] = await self._client()
            return [closed.code, self.plain(closed.text), closed.method]
        said = confirmed(channel)
        returned = [
            each.body.decode()
            for each in channel.raw.events
            if isinstance(each, Content) and isinstance(each.method, B.Return)
        ]
        return [said.get(each) for each in range(before + 1, last + 1)], returned

    async def get(self, client: int, queue: str, no_ack: bool) -> Any:
        """Take a message."""
        got = await self.call(client, B.Get(0, self.name(queue), no_ack))
        if not isinstance(got, Content):
            return got if isinstance(got, list) else None
        if not no_ack:
            held = Held(got.method.delivery_tag, queue, got.body.decode())
            self.clients[client].held.append(held)
        return self.plain([*seen(got), got.method.message_count])

    async def consume(
        self, client: int, queue: str, tag: str, prefetch: int, **given: Any
    ) -> Any:
        """Consume."""
        channel = self.clients[client]
        no_ack, exclusive = given["no_ack"], given["exclusive"]
        await channel.raw.call(B.Qos(0, prefetch, False))
        channel.consumers[tag] = queue, not no_ack
        call = B.Consume(0, self.name(queue), tag, False, no_ack, exclusive)
        call.arguments = given["arguments"]
        return _fine(await self.call(client, call))

    async def cancel(self, client: int, tag: str) -> Any:
        """Consume no longer."""
        return _fine(await self.call(client, B.Cancel(tag)))

    async def settle(self, client: int, tag: int, verdict: str, multiple: bool) -> Any:
        """Say what became of messages that a client holds."""
        channel = self.clients[client]
        if verdict == "ack":
            channel.raw.send(B.Ack(tag, multiple))
        elif verdict == "reject":
            channel.raw.send(B.Reject(tag, False))
        else:
            channel.raw.send(B.Nack(tag, multiple, verdict == "requeue"))
        channel.held = [
            each
            for each in channel.held
            if not (each.tag <= tag if multiple else each.tag == tag)
        ]
        return _fine(await self.call(client, commands.Confirm.Select()))

    async def recover(self, client: int) -> Any:
        """Give everything back."""
        self.clients[client].held.clear()
        return _fine(await self.call(client, B.Recover(True)))

    async def purge(self, queue: str) -> Any:
        """Purge a queue; how many messages were ready in it."""
        found = await self.call(0, Q.Purge(0, self.name(queue)))
        return found if isinstance(found, list) else found.message_count

    async def delete(self, queue: str) -> Any:
        """Delete a queue; how many messages were ready in it."""
        self.queues.discard(queue)
        found = await self.call(0, Q.Delete(0, self.name(queue)))
        return found if isinstance(found, list) else found.message_count

    async def delete_exchange(self, exchange: str, unused: bool) -> Any:
        """Delete an exchange."""
        return _fine(await self.call(0, X.Delete(0, self.name(exchange), unused)))

    async def reopen(self, client: int) -> None:
        """Close a channel and open another."""
        await self.clients[client].raw.call(C.Close(200, "done", 0, 0))
        self.clients[client] = await self._client()

    # --- what it shows ---

    async def shown(self) -> Any:
        """All that can be seen: counts, deliveries by consumer, cancels."""
        names = sorted(self.queues)
        found = await asyncio.gather(*map(self._counts, names))
        counts = dict(zip(names, found, strict=True))
        delivered: dict[str, list[Any]] = {}
        cancelled: list[str] = []
        for client in self.clients:
            client.look()
            for event in client.raw.events:
                if isinstance(event, B.Cancel):
                    cancelled.append(event.consumer_tag)
                elif isinstance(event, Content) and isinstance(event.method, B.Deliver):
                    found = delivered.setdefault(event.method.consumer_tag, [])
                    found.append(self.plain(seen(event)))
        closed = [client.raw.closed for client in self.clients]
        return counts, delivered, sorted(cancelled), [str(each) for each in closed]

    async def _counts(self, queue: str) -> list[int]:
        call = Q.Declare(0, self.name(queue), passive=True)
        found = await self._peek.call(call)
        return [found.message_count, found.consumer_count]


QUEUES = ("q1", "q2", "q3")
EXCHANGES = ("x1", "x2")


def confirmed(client: Client) -> dict[int, str]:
    """What was said about what a client published."""
    found: dict[int, str] = {}
    for event in client.raw.events:
        if isinstance(event, B.Ack | B.Nack):
            tag = event.delivery_tag or 0
            tags: Iterable[int] = range(1, tag + 1) if event.multiple else [tag]
            for each in tags:
                found.setdefault(each, event.name)
    return found


def _fine(answer: Any) -> Any:
    return answer if isinstance(answer, list) else "fine"


async def pause(seconds: float) -> None:
    """Let time pass."""
    await asyncio.sleep(seconds)
