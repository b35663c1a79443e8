"""A publisher that says whatever it is told, well-formed or not."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pamqp import commands, frame
from pamqp.exceptions import UnmarshalingException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.broker import Broker

CHANNEL = 1
FLAGS = {
    "content_type": 0x8000,
    "content_encoding": 0x4000,
    "headers": 0x2000,
    "delivery_mode": 0x1000,
    "priority": 0x0800,
    "correlation_id": 0x0400,
    "reply_to": 0x0200,
    "expiration": 0x0100,
    "message_id": 0x0080,
    "timestamp": 0x0040,
    "type": 0x0020,
    "user_id": 0x0010,
    "app_id": 0x0008,
    "cluster_id": 0x0004,
}


def short(raw: bytes) -> bytes:
    """Encode a short string."""
    return bytes((len(raw),)) + raw


def long(raw: bytes) -> bytes:
    """Encode a long string, or the frame of a table or an array."""
    return struct.pack(">I", len(raw)) + raw


def properties(**given: bytes) -> bytes:
    """Encode a property list; short strings without their length, the rest whole."""
    flags, parts = 0, []
    for name, flag in FLAGS.items():
        if name in given:
            flags |= flag
            whole = name in {"headers", "delivery_mode", "priority", "timestamp"}
            parts.append(given[name] if whole else short(given[name]))
    return struct.pack(">H", flags) + b"".join(parts)


class RawPublisher:
    """One channel of a connection that takes any property list."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    async def publish(self, queue: str, raw_properties: bytes, body: bytes) -> None:
        """Publish, and wait until the broker has stored the message."""
        method = commands.Basic.Publish(routing_key=queue, mandatory=True)
        header = struct.pack(">HHQ", 60, 0, len(body)) + raw_properties
        data = frame.marshal(method, CHANNEL)
        data += struct.pack(">BHI", 2, CHANNEL, len(header)) + header + b"\xce"
        limit = 100_000
        for at in range(0, len(body), limit):
            part = body[at : at + limit]
            data += struct.pack(">BHI", 3, CHANNEL, len(part)) + part + b"\xce"
        self._writer.write(data)
        answer = await self.read()
        assert isinstance(answer, commands.Basic.Ack), answer

    async def send(self, method: object, channel: int = 0) -> None:
        self._writer.write(frame.marshal(method, channel))
        await self._writer.drain()

    async def read(self) -> object:
        """Read the next method."""
        async with asyncio.timeout(10):
            while True:
                try:
                    size, _, method = frame.unmarshal(self._rest)
                except UnmarshalingException:
                    more = await self._reader.read(65536)
                    assert more, "the broker hung up"
                    self._rest += more
                    continue
                self._rest = self._rest[size:]
                return method


@asynccontextmanager
async def raw_publisher(broker: Broker) -> AsyncIterator[RawPublisher]:
    """Open a connection and a channel in confirm mode."""
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    publisher = RawPublisher(reader, writer)
    steps = [
        (commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest"), 0),
        (commands.Connection.TuneOk(100, 131072, 0), 0),
        (commands.Connection.Open("/"), 0),
        (commands.Channel.Open(), CHANNEL),
        (commands.Confirm.Select(), CHANNEL),
    ]
    answers = {"Start", "Tune", "OpenOk", "SelectOk"}
    try:
        writer.write(b"AMQP\x00\x00\x09\x01")
        for method, channel in steps:
            if not isinstance(method, commands.Connection.Open):
                answer = await publisher.read()
                assert type(answer).__name__ in answers, answer
            await publisher.send(method, channel)
        assert isinstance(await publisher.read(), commands.Confirm.SelectOk)
        yield publisher
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
