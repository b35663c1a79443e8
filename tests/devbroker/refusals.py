"""What a broker refuses, as raw calls; the words are those of RabbitMQ 3.10.8.

As a program, it prints the answers of the broker whose port it is given.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import commands, header
from pamqp import frame as frames
from pamqp.body import ContentBody

if TYPE_CHECKING:
    from collections.abc import Sequence

C, X, Q, B = commands.Channel, commands.Exchange, commands.Queue, commands.Basic
T, F = commands.Tx, commands.Confirm
HEADER = b"AMQP\x00\x00\x09\x01"


class Refused(NamedTuple):
    """How a channel or a connection ended.

    Args:
        where: `channel` or `connection`.
        code: The reply code.
        text: The reply text.
        method: Class and method that are to blame.
    """

    where: str
    code: int
    text: str
    method: tuple[int, int]


class Session:
    """One channel, spoken to frame by frame."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, frame: Any, channel: int = 1) -> None:
        self.writer.write(frames.marshal(frame, channel))

    async def receive(self) -> Any:
        head = await self.reader.readexactly(7)
        size = int.from_bytes(head[3:], "big")
        return frames.unmarshal(head + await self.reader.readexactly(size + 1))[2]

    async def open(
        self,
        *,
        password: str = "guest",
        vhost: str = "/",
        frame_max: int = 131_072,
        capabilities: dict[str, Any] | None = None,
    ) -> None:
        self.writer.write(HEADER)
        await self.receive()
        properties = {"capabilities": capabilities or {"consumer_cancel_notify": True}}
        response = f"\0guest\0{password}"
        start_ok = commands.Connection.StartOk(properties, "PLAIN", response, "en_US")
        self.send(start_ok, 0)
        answer = await self.receive()
        if not isinstance(answer, commands.Connection.Tune):
            raise Ended(answer)
        self.send(commands.Connection.TuneOk(2047, frame_max, 0), 0)
        self.send(commands.Connection.Open(vhost), 0)
        answer = await self.receive()
        if not isinstance(answer, commands.Connection.OpenOk):
            raise Ended(answer)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def end(self, calls: Sequence[Any]) -> Refused | None:
        """Make calls one after the other until one is refused."""
        for call in calls:
            parts = call if isinstance(call, tuple) else (call,)
            for part in parts:
                self.writer.write(part) if isinstance(part, bytes) else self.send(part)
            waits = isinstance(call, bytes) or getattr(call, "synchronous", False)
            while waits or call is calls[-1]:
                answer = await self.receive()
                if isinstance(answer, C.Close | commands.Connection.Close):
                    return refused(answer)
                if waits and isinstance(answer, commands.Basic.Deliver):
                    continue
                if waits:
                    break
        return None


class Ended(Exception):
    """The connection was refused."""


def refused(answer: Any) -> Refused:
    where = "channel" if isinstance(answer, C.Close) else "connection"
    method = answer.class_id, answer.method_id
    return Refused(where, answer.reply_code, answer.reply_text, method)


def publish(
    exchange: str = "", key: str = "", immediate: bool = False, **properties: Any
) -> tuple[Any, ...]:
    basic = commands.Basic.Properties(**properties)
    return (
        B.Publish(exchange=exchange, routing_key=key, immediate=immediate),
        header.ContentHeader(body_size=2, properties=basic),
        ContentBody(b"hi"),
    )


def queue(name: str = "q", **arguments: Any) -> Any:
    """Declare a queue; arguments beginning with `x_` are its own."""
    own = {
        each.replace("_", "-"): arguments.pop(each)
        for each in list(arguments)
        if each.startswith("x_")
    }
    return Q.Declare(queue=name, arguments=own, **arguments)


def exchange(name: str = "x", kind: str = "direct", **arguments: Any) -> Any:
    own = {
        each.replace("_", "-"): arguments.pop(each)
        for each in list(arguments)
        if each == "alternate_exchange"
    }
    return X.Declare(exchange=name, exchange_type=kind, arguments=own, **arguments)


OPEN = C.Open()
QUORUM = {"x_queue_type": "quorum", "durable": True}

REFUSALS: dict[str, list[Any]] = {
    # queues
    "passive queue": [queue(passive=True)],
    "passive queue without a name": [queue("", passive=True)],
    "reserved queue": [queue("amq.mine")],
    "no queue to consume": [B.Consume(queue="q")],
    "no queue to get": [B.Get(queue="q")],
    "no queue to purge": [Q.Purge(queue="q")],
    "no queue declared last": [B.Get(queue="")],
    "no queue declared last to delete": [Q.Delete(queue="")],
    "other durable": [queue(durable=True), queue(durable=False)],
    "other auto_delete": [queue(auto_delete=True), queue()],
    "other exclusive": [queue(exclusive=True), queue()],
    "other ttl": [queue(x_message_ttl=1000), queue(x_message_ttl=2000)],
    "new ttl": [queue(), queue(x_message_ttl=1000)],
    "no ttl any more": [queue(x_message_ttl=70_000), queue()],
    "ttl of another kind": [queue(x_message_ttl=1000), queue(x_message_ttl="1000")],
    "other type": [queue(durable=True), queue(**QUORUM)],
    "no type any more": [queue(**QUORUM), queue(durable=True)],
    "other exchange of the dead": [
        queue(x_dead_letter_exchange="a"),
        queue(x_dead_letter_exchange="b"),
    ],
    "other single active": [
        queue(x_single_active_consumer=True),
        queue(x_single_active_consumer=False),
    ],
    "quorum limit": [queue(**QUORUM, x_delivery_limit=3), queue(**QUORUM)],
    "negative ttl": [queue(x_message_ttl=-1)],
    "huge ttl": [queue(x_message_ttl=315_360_000_001)],
    "ttl as text": [queue(x_message_ttl="1000")],
    "lease of 0": [queue(x_expires=0)],
    "lease as bool": [queue(x_expires=True)],
    "negative length": [queue(x_max_length=-5)],
    "length as text": [queue(x_max_length="5")],
    "many priorities": [queue(x_max_priority=256)],
    "overflow": [queue(x_overflow="explode")],
    "overflow as number": [queue(x_overflow=1)],
    "unknown type": [queue(x_queue_type="heap")],
    "type as number": [queue(x_queue_type=1)],
    "queue mode": [queue(x_queue_mode="busy")],
    "queue version": [queue(x_queue_version=3)],
    "single active as number": [queue(x_single_active_consumer=1)],
    "dead-letter key alone": [queue(x_dead_letter_routing_key="k")],
    "dead-letter key as number": [
        queue(x_dead_letter_exchange="x", x_dead_letter_routing_key=1)
    ],
    "dead-letter exchange as number": [queue(x_dead_letter_exchange=1)],
    "strategy": [queue(**QUORUM, x_dead_letter_strategy="twice")],
    "strategy on classic": [queue(x_dead_letter_strategy="at-least-once")],
    "limit on classic": [queue(x_delivery_limit=5)],
    "priorities on quorum": [queue(**QUORUM, x_max_priority=5)],
    "lazy quorum": [queue(**QUORUM, x_queue_mode="lazy")],
    "quorum not durable": [queue(x_queue_type="quorum")],
    "quorum exclusive": [queue(**QUORUM, exclusive=True)],
    "quorum auto-delete": [queue(**QUORUM, auto_delete=True)],
    "quorum without a name": [queue("", **QUORUM)],
    "quorum if-unused": [queue(**QUORUM), Q.Delete(queue="q", if_unused=True)],
    "quorum if-empty": [queue(**QUORUM), Q.Delete(queue="q", if_empty=True)],
    "not empty": [
        queue(),
        publish(key="q"),
        queue(passive=True),
        Q.Delete(queue="q", if_empty=True),
    ],
    "in use": [
        queue(),
        B.Consume(queue="q"),
        Q.Delete(queue="q", if_unused=True),
    ],
    # exchanges
    "passive exchange": [exchange(passive=True)],
    "passive default exchange": [exchange("", passive=True)],
    "default exchange": [exchange("")],
    "reserved exchange": [exchange("amq.mine")],
    "unknown exchange type": [exchange(kind="x-delayed-message")],
    "other exchange type": [exchange(), exchange(kind="fanout")],
    "exchange durable": [exchange(), exchange(durable=True)],
    "exchange auto_delete": [exchange(), exchange(auto_delete=True)],
    "exchange internal": [exchange(), exchange(internal=True)],
    "other alternate": [
        exchange(alternate_exchange="a"),
        exchange(alternate_exchange="b"),
    ],
    "new alternate": [exchange(), exchange(alternate_exchange="a")],
    "alternate as number": [exchange(alternate_exchange=1)],
    "system exchange": [X.Delete(exchange="amq.direct")],
    "delete default": [X.Delete(exchange="")],
    "exchange in use": [
        exchange(),
        queue(),
        Q.Bind(queue="q", exchange="x"),
        X.Delete(exchange="x", if_unused=True),
    ],
    "bind no exchange": [queue(), Q.Bind(queue="q", exchange="x")],
    "bind no queue": [exchange(), Q.Bind(queue="q", exchange="x")],
    "bind neither": [Q.Bind(queue="q", exchange="x")],
    "bind default": [queue(), Q.Bind(queue="q", exchange="")],
    "unbind default": [queue(), Q.Unbind(queue="q", exchange="")],
    "bind exchange to default": [exchange(), X.Bind(destination="x", source="")],
    "bind exchange to none": [exchange(), X.Bind(destination="x", source="y")],
    "headers match": [
        queue(),
        Q.Bind(queue="q", exchange="amq.headers", arguments={"x-match": "some"}),
    ],
    "headers match as number": [
        queue(),
        Q.Bind(queue="q", exchange="amq.headers", arguments={"x-match": 1}),
    ],
    # messages
    "no exchange": [publish("x")],
    "internal exchange": [exchange(internal=True), publish("x")],
    "trace exchange": [publish("amq.rabbitmq.trace")],
    "immediate": [publish(key="q", immediate=True)],
    "expiration text": [publish(key="q", expiration="abc")],
    "expiration rest": [publish(key="q", expiration="12s")],
    "expiration negative": [publish(key="q", expiration="-1")],
    "expiration huge": [publish(key="q", expiration="315360000001")],
    "other user": [publish(key="q", user_id="somebody")],
    "CC as text": [publish(key="q", headers={"CC": "a"})],
    "reply to nobody": [publish(key="q", reply_to="amq.rabbitmq.reply-to")],
    "unknown tag to ack": [B.Ack(7)],
    "unknown tag to ack, many": [B.Ack(7, True)],
    "unknown tag to nack": [B.Nack(3)],
    "unknown tag to reject": [B.Reject(3)],
    "recover nothing": [B.Recover(False)],
    # consumers
    "tag twice": [
        queue(),
        B.Consume(queue="q", consumer_tag="c"),
        B.Consume(queue="q", consumer_tag="c"),
    ],
    "exclusive use": [
        queue(),
        B.Consume(queue="q", exclusive=True),
        B.Consume(queue="q"),
    ],
    "exclusive too late": [
        queue(),
        B.Consume(queue="q"),
        B.Consume(queue="q", exclusive=True),
    ],
    "exclusive on single active": [
        queue(x_single_active_consumer=True),
        B.Consume(queue="q", exclusive=True),
    ],
    "priority as text": [
        queue(),
        B.Consume(queue="q", arguments={"x-priority": "high"}),
    ],
    "global limit on quorum": [
        queue(**QUORUM),
        B.Qos(prefetch_count=1, global_=True),
        B.Consume(queue="q"),
    ],
    "get from single active quorum": [
        queue(**QUORUM, x_single_active_consumer=True),
        B.Get(queue="q"),
    ],
    "prefetch size": [B.Qos(prefetch_size=100)],
    "replies with acks": [B.Consume(queue="amq.rabbitmq.reply-to")],
    "replies twice": [
        B.Consume(queue="amq.rabbitmq.reply-to", no_ack=True),
        B.Consume(queue="amq.rabbitmq.reply-to", no_ack=True),
    ],
    "no such reply queue": [queue("amq.rabbitmq.reply-to.none", passive=True)],
    # channels
    "opened twice": [C.Open()],
    "flow": [C.Flow(False)],
    "tx on confirms": [F.Select(), T.Select()],
    "confirms on tx": [T.Select(), F.Select()],
    "commit nothing": [T.Commit()],
    "roll nothing back": [T.Rollback()],
    "header alone": [header.ContentHeader(body_size=2)],
    "method instead of header": [B.Publish(routing_key="q"), B.Get(queue="q")],
    "body instead of header": [B.Publish(routing_key="q"), ContentBody(b"hi")],
    "heartbeat on a channel": [b"\x08\x00\x01\x00\x00\x00\x00\xce"],
    "frame of no kind": [b"\x07\x00\x01\x00\x00\x00\x00\xce"],
    "closed channel": [C.Close(200, "bye", 0, 0), B.Ack(1)],
    "channel never opened": [b"\x01\x00\x05\x00\x00\x00\x05\x00\x14\x00\x14\x01\xce"],
}


async def refusal_of(port: int, calls: Sequence[Any]) -> Refused | None:
    """Make calls on a channel of a new connection; tell how it was refused."""
    session = Session(*await asyncio.open_connection("127.0.0.1", port))
    try:
        await session.open()
        async with asyncio.timeout(10):
            return await session.end([OPEN, *calls])
    finally:
        await session.close()


async def clean(port: int) -> None:
    """Delete what a case may have left."""
    session = Session(*await asyncio.open_connection("127.0.0.1", port))
    await session.open()
    await session.end([OPEN])
    session.send(Q.Delete(queue="q"))
    await session.receive()
    session.send(X.Delete(exchange="x"))
    await session.receive()
    await session.close()


async def main(port: int) -> None:
    print("REFUSED: dict[str, Refused | None] = {")
    for name, calls in REFUSALS.items():
        found = await refusal_of(port, calls)
        print(f"    {name!r}: {found!r},")
        await clean(port)
    print("}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
