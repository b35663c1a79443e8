"""An AMQP client that hides nothing: what a channel is sent is kept in its order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import commands, header
from pamqp import frame as frames
from pamqp.body import ContentBody

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

B, C = commands.Basic, commands.Channel
PROTOCOL = b"AMQP\x00\x00\x09\x01"
LARGEST = 100_000  # bytes of a body in one frame
PATIENCE = 5  # seconds, for an answer
TOGETHER = (B.Deliver, B.GetOk, B.Return)  # methods that a content follows


class Content(NamedTuple):
    """A method with its message."""

    method: Any
    properties: Any
    body: bytes


class Closed(Exception):
    """The broker has closed the channel."""

    def __init__(self, close: Any) -> None:
        super().__init__(close.reply_text)
        self.code: int = close.reply_code
        self.text: str = close.reply_text
        self.method: tuple[int, int] = close.class_id, close.method_id


class RawChannel:
    """A channel: calls with their answers, and what comes by itself.

    Args:
        connection: Its connection.
        number: Its number there.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self.events: list[Any] = []  # deliveries, returns, cancels, confirms
        self.closed: Closed | None = None
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._partial: list[Any] = []
        self._missing = 0
        self._news = asyncio.Event()

    def send(self, *parts: Any) -> None:
        """Send frames."""
        self.connection.send(self.number, *parts)

    def send_raw(self, kind: int, payload: bytes) -> None:
        """Send a frame with any payload."""
        self.connection.send_raw(self.number, kind, payload)

    async def call(self, method: Any) -> Any:
        """Send a method and wait for its answer; `Closed` if it is refused."""
        if self.closed is not None:
            raise self.closed
        self.send(method)
        async with asyncio.timeout(PATIENCE):
            answer = await self._answers.get()
        if isinstance(answer, Closed):
            raise answer
        return answer

    async def until(self, condition: Callable[[], object]) -> bool:
        """Wait for what comes by itself; whether the condition came true."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        return bool(condition())

    def take(self, part: Any) -> None:
        """Take a part of what the broker says."""
        if isinstance(part, header.ContentHeader):
            self._partial.append(part.properties)
            self._missing = part.body_size
        elif isinstance(part, ContentBody):
            self._partial.append(part.value)
            self._missing -= len(part.value)
        elif isinstance(part, TOGETHER):
            self._partial = [part]
            return
        else:
            self._take_method(part)
            return
        if not self._missing:
            method, properties, *body = self._partial
            self._take_method(Content(method, properties, b"".join(body)))

    def _take_method(self, part: Any) -> None:
        method = part.method if isinstance(part, Content) else part
        if isinstance(method, C.Close):
            self.send(C.CloseOk())
            self.connection.forget(self.number)
            self.closed = Closed(method)
            self._answers.put_nowait(self.closed)
        elif isinstance(method, (B.Deliver, B.Return, B.Cancel, B.Ack, B.Nack)):
            self.events.append(part)
        else:
            if isinstance(method, C.CloseOk):
                self.connection.forget(self.number)
            self._answers.put_nowait(part)
        self._news.set()


class Connection:
    """A connection with many channels; heartbeats are off."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.properties: dict[str, Any] = {}
        self.over = False  # closed by the broker
        self._reader = reader
        self._writer = writer
        self._channels: dict[int, RawChannel] = {}
        self._ended = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Log in as guest."""
        self._writer.write(PROTOCOL)
        _, start = await self._receive()
        self.properties = start.server_properties
        can = {"consumer_cancel_notify": True, "basic.nack": True}
        properties = {"capabilities": can}
        self.send(0, commands.Connection.StartOk(properties, response="\0guest\0guest"))
        await self._receive()
        self.send(0, commands.Connection.TuneOk(2047, 131_072, 0))
        self.send(0, commands.Connection.Open("/"))
        _, answer = await self._receive()
        assert isinstance(answer, commands.Connection.OpenOk), answer
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Close it; the broker deletes its exclusive queues before it answers."""
        if not self.over:
            self.send(0, commands.Connection.Close(200, "bye", 0, 0))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._ended.wait()
        if self._reading is not None:
            self._reading.cancel()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def channel(self) -> RawChannel:
        """Open a channel."""
        number = next(each for each in count(1) if each not in self._channels)
        channel = self._channels[number] = RawChannel(self, number)
        await channel.call(C.Open())
        return channel

    def forget(self, number: int) -> None:
        """Let the number of a closed channel be used again."""
        self._channels.pop(number, None)

    def send(self, number: int, *parts: Any) -> None:
        """Send frames of a channel, all in one piece."""
        self._writer.write(b"".join(frames.marshal(part, number) for part in parts))

    def send_raw(self, number: int, kind: int, payload: bytes) -> None:
        """Send a frame of a channel with any payload."""
        head = kind.to_bytes(1, "big") + number.to_bytes(2, "big")
        size = len(payload).to_bytes(4, "big")
        self._writer.write(head + size + payload + b"\xce")

    async def _read(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                number, part = await self._receive()
                if number:
                    self._channels[number].take(part)
                elif isinstance(part, commands.Connection.CloseOk):
                    break
                elif isinstance(part, commands.Connection.Close):
                    self.over = True
                    self.send(0, commands.Connection.CloseOk())
                    for channel in list(self._channels.values()):
                        channel.take(C.Close(part.reply_code, part.reply_text, 0, 0))
                    break
        self._ended.set()

    async def _receive(self) -> tuple[int, Any]:
        head = await self._reader.readexactly(7)
        size = int.from_bytes(head[3:], "big")
        raw = head + await self._reader.readexactly(size + 1)
        _, number, part = frames.unmarshal(raw)
        return number, part


async def connect(port: int) -> Connection:
    """Connect to a broker of this machine."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
    await connection.open()
    return connection


def message(
    body: bytes, exchange: str, key: str, mandatory: bool, **properties: Any
) -> Sequence[Any]:
    """Make the frames of a message to be published."""
    basic = B.Properties(**properties)
    return (
        B.Publish(exchange=exchange, routing_key=key, mandatory=mandatory),
        header.ContentHeader(body_size=len(body), properties=basic),
        *(ContentBody(body[at : at + LARGEST]) for at in range(0, len(body), LARGEST)),
    )
