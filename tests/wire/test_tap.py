"""The content tap on a real socket, with a small peer that speaks through pamqp."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from pamqp import body, commands, frame, header

from rmqarq.wire.frames import (
    HEARTBEAT_FRAME,
    Cancelled,
    Closed,
    Confirm,
    Deliver,
    FrameError,
    Returned,
)
from rmqarq.wire.tap import TapProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rmqarq.wire.frames import Event

PROPERTIES = b"\x10\x00\x02"


def content(channel: int, payload: bytes) -> bytes:
    properties = commands.Basic.Properties(delivery_mode=2)
    head = frame.marshal(header.ContentHeader(0, len(payload), properties), channel)
    return head + frame.marshal(body.ContentBody(payload), channel)


def deliver(channel: int, tag: int, payload: bytes = b"body") -> bytes:
    method = commands.Basic.Deliver("ctag", tag, False, "", "q")
    return frame.marshal(method, channel) + content(channel, payload)


def control(channel: int, number: int) -> bytes:
    """A frame that is aiormq's business."""
    return frame.marshal(commands.Queue.DeclareOk(f"q{number}", 0, 0), channel)


class Peer:
    """The other end of the socket, and what the tap made of its bytes."""

    def __init__(self, protocol: TapProtocol, server: asyncio.StreamWriter) -> None:
        self.protocol = protocol
        self.server = server
        self.events: list[tuple[int, Event]] = []
        self.sinks: dict[int, Any] = {}

    def tap(self, channel: int) -> None:
        self.sinks[channel] = lambda event: self.events.append((channel, event))
        self.protocol.register(channel, self.sinks[channel])

    async def send(self, data: bytes) -> None:
        """Send, and wait until the tap has seen it all."""
        self.server.write(data)
        await self.server.drain()
        for _ in range(10):
            await asyncio.sleep(0.001)

    async def passed_on(self) -> bytes:
        """Read what aiormq would read by now."""
        try:
            async with asyncio.timeout(0.02):
                return await self.protocol.reader.read(2**20)
        except TimeoutError:
            return b""


@asynccontextmanager
async def connected(protocol: TapProtocol | None = None) -> AsyncIterator[Peer]:
    loop = asyncio.get_running_loop()
    protocol = protocol or TapProtocol(loop)
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    _, server = await asyncio.open_connection(sock=theirs)
    try:
        yield Peer(protocol, server)
    finally:
        transport.abort()
        server.transport.abort()
        await asyncio.sleep(0)


async def test_frames_of_untapped_channels_pass_unchanged_and_in_order() -> None:
    async with connected() as peer:
        peer.tap(2)
        ours = [deliver(1, 1), control(1, 1), control(0, 2), HEARTBEAT_FRAME]
        ours += [control(2, 3), deliver(3, 9, b"x" * 5000), control(1, 4)]
        theirs = [deliver(2, tag) for tag in range(1, 8)]
        stream = b"".join(
            part for pair in zip(theirs, ours, strict=True) for part in pair
        )
        await peer.send(stream)
        assert await peer.passed_on() == b"".join(ours)
        tags = [event.tag for _, event in peer.events if isinstance(event, Deliver)]
        assert tags == [1, 2, 3, 4, 5, 6, 7]


async def test_the_stream_may_come_byte_by_byte() -> None:
    async with connected() as peer:
        peer.tap(1)
        for byte in control(1, 1) + deliver(1, 1) + control(1, 2):
            peer.protocol.data_received(bytes((byte,)))
        assert (await peer.passed_on()).replace(HEARTBEAT_FRAME, b"") == (
            control(1, 1) + control(1, 2)
        )
        expected = Deliver(1, False, b"", b"q", PROPERTIES, b"body")
        assert peer.events == [(1, expected)]


async def test_content_and_confirms_end_in_the_sink() -> None:
    async with connected() as peer:
        peer.tap(1)
        returned = commands.Basic.Return(312, "NO_ROUTE", "", "gone")
        await peer.send(
            frame.marshal(commands.Basic.Ack(3, True), 1)
            + frame.marshal(commands.Basic.Nack(4), 1)
            + frame.marshal(returned, 1)
            + content(1, b"body")
        )
        assert [event for _, event in peer.events] == [
            Confirm(3, True, True),
            Confirm(4, False, False),
            Returned(312, "NO_ROUTE", "", "gone", PROPERTIES),
        ]
        assert await peer.passed_on() in (b"", HEARTBEAT_FRAME)


async def test_a_cancel_by_the_broker_is_seen_and_passed_on() -> None:
    async with connected() as peer:
        peer.tap(1)
        cancel = frame.marshal(commands.Basic.Cancel("ctag", True), 1)
        await peer.send(cancel)
        assert peer.events == [(1, Cancelled("ctag"))]
        assert await peer.passed_on() == cancel


class Watching(TapProtocol):
    """Notes how much had been passed on when a sink was called."""

    passed: list[bytes]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.passed = []
        feed = self.reader.feed_data

        def note(data: bytes) -> None:
            self.passed.append(data)
            feed(data)

        self.reader.feed_data = note  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "method", [commands.Channel.Close(406, "why", 60, 80), commands.Channel.CloseOk()]
)
async def test_a_channel_close_reaches_the_sink_before_the_reader(method: Any) -> None:
    """Else a frame could be written to the closing channel: a 504 for all."""
    protocol = Watching(asyncio.get_running_loop())
    async with connected(protocol) as peer:
        seen: list[tuple[Event, list[bytes]]] = []
        protocol.register(1, lambda event: seen.append((event, protocol.passed[:])))
        close = frame.marshal(method, 1)
        await peer.send(close)
        ((event, passed),) = seen
        assert isinstance(event, Closed)
        assert close not in b"".join(passed)
        assert close in b"".join(protocol.passed)


async def test_a_closed_channel_is_no_longer_tapped() -> None:
    async with connected() as peer:
        peer.tap(1)
        close = frame.marshal(commands.Channel.Close(406, "why", 60, 80), 1)
        later = deliver(1, 1) + control(1, 1)
        await peer.send(close + later)
        assert peer.events == [(1, Closed(406, "why"))]
        assert await peer.passed_on() == close + later


async def test_a_close_of_the_connection_ends_every_tap_and_is_remembered() -> None:
    async with connected() as peer:
        peer.tap(1)
        peer.tap(2)
        close = frame.marshal(commands.Connection.Close(320, "shutdown", 0, 0), 0)
        await peer.send(close)
        expected = Closed(320, "shutdown")
        assert peer.events == [(1, expected), (2, expected)]
        assert peer.protocol.closed == expected
        assert await peer.passed_on() == close


async def test_a_lost_link_ends_all_taps_and_says_why() -> None:
    async with connected() as peer:
        peer.tap(1)
        peer.tap(2)
        lost: list[BaseException | None] = []
        peer.protocol.on_lost = lost.append
        peer.protocol.transport.abort()
        await asyncio.sleep(0.01)
        assert [channel for channel, _ in peer.events] == [1, 2]
        assert all(isinstance(event, Closed) for _, event in peer.events)
        assert len(lost) == 1
        assert peer.protocol.reader.at_eof()


async def test_the_end_of_the_stream_reaches_aiormq_which_closes_the_link() -> None:
    async with connected() as peer:
        peer.tap(1)
        peer.server.transport.abort()
        assert await peer.protocol.reader.read() == b""
        peer.protocol.transport.close()
        await asyncio.sleep(0.01)
        assert peer.events == [(1, Closed(0, "the link was closed"))]


async def test_after_a_close_the_lost_link_repeats_the_brokers_words() -> None:
    async with connected() as peer:
        close = frame.marshal(commands.Connection.Close(320, "shutdown", 0, 0), 0)
        await peer.send(close)
        peer.tap(1)
        peer.protocol.transport.abort()
        await asyncio.sleep(0.01)
        assert peer.events == [(1, Closed(320, "shutdown"))]


async def test_blocked_and_unblocked_are_seen_told_and_passed_on() -> None:
    async with connected() as peer:
        changes: list[str | None] = []
        peer.protocol.on_change = lambda: changes.append(peer.protocol.blocked)
        stream = frame.marshal(commands.Connection.Blocked("low on disk"), 0)
        await peer.send(stream)
        assert peer.protocol.blocked == "low on disk"
        more = frame.marshal(commands.Connection.Unblocked(), 0)
        await peer.send(more)
        assert peer.protocol.blocked is None
        assert changes == ["low on disk", None]
        assert await peer.passed_on() == stream + more


async def test_only_the_sink_that_has_a_channel_can_give_it_up() -> None:
    """Channel numbers are used again at once."""
    async with connected() as peer:
        peer.tap(1)
        old = peer.sinks[1]
        peer.tap(1)
        peer.protocol.forget(1, old)
        await peer.send(deliver(1, 1))
        assert len(peer.events) == 1
        peer.protocol.forget(1, peer.sinks[1])
        await peer.send(deliver(1, 2))
        assert len(peer.events) == 1
        assert deliver(1, 2) in await peer.passed_on()


@pytest.mark.parametrize(
    "broken",
    [
        deliver(1, 1)[:-1] + b"\x00",
        b"\x01\x00\x01\x7f\xff\xff\xff" + b"x" * 20,
        content(1, b"content without a method"),
        frame.marshal(commands.Basic.Deliver("c", 1, False, "", "q"), 1) * 2,
    ],
)
async def test_a_broken_protocol_closes_the_link_with_its_reason(broken: bytes) -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        async with connected() as peer:
            peer.tap(1)
            lost: list[BaseException | None] = []
            peer.protocol.on_lost = lost.append
            await peer.send(broken)
            await asyncio.sleep(0.02)
            assert len(lost) == 1
            assert isinstance(lost[0], FrameError)
            assert peer.events == [(1, Closed(0, str(lost[0])))]
    finally:
        loop.set_exception_handler(None)


async def test_a_frame_above_the_agreed_size_closes_the_link() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    try:
        async with connected() as peer:
            lost: list[BaseException | None] = []
            peer.protocol.on_lost = lost.append
            await peer.send(deliver(1, 1, b"x" * 5000))
            assert not lost
            peer.protocol.limit_frames(4096)
            await peer.send(deliver(1, 2, b"x" * 4088))
            assert not lost
            await peer.send(deliver(1, 3, b"x" * 4089))
            await asyncio.sleep(0.02)
            assert isinstance(lost[0], FrameError)
    finally:
        loop.set_exception_handler(None)


async def test_no_limit_means_no_limit() -> None:
    async with connected() as peer:
        peer.protocol.limit_frames(0)
        peer.tap(1)
        await peer.send(deliver(1, 1, bytes(3_000_000)))
        for _ in range(100):
            if peer.events:
                break
            await asyncio.sleep(0.01)
        ((_, event),) = peer.events
        assert isinstance(event, Deliver)
        assert len(event.body) == 3_000_000


# --- heartbeats: aiormq must hear something while only content arrives ---


class Clock:
    """An event loop with a clock that a test can set."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@asynccontextmanager
async def at_a_clock() -> AsyncIterator[tuple[Clock, Watching, Peer]]:
    clock: Any = Clock()
    protocol = Watching(clock)
    async with connected(protocol) as peer:
        yield clock, protocol, peer


async def test_a_heartbeat_is_fed_at_most_once_a_second_while_content_arrives() -> None:
    async with at_a_clock() as (clock, protocol, peer):
        peer.tap(1)
        beats: list[float] = []
        for _ in range(50):
            before = len(protocol.passed)
            protocol.data_received(deliver(1, 1))
            if len(protocol.passed) > before:
                assert protocol.passed[-1] == HEARTBEAT_FRAME
                beats.append(clock.now)
            clock.now += 0.1
        assert len(beats) == 5
        gaps = [late - early for early, late in pairwise(beats)]
        assert all(0.99 < gap < 1.2 for gap in gaps)


async def test_other_frames_are_sign_enough_of_life() -> None:
    async with at_a_clock() as (clock, protocol, peer):
        peer.tap(1)
        for _ in range(30):
            protocol.data_received(control(0, 1))
            protocol.data_received(deliver(1, 1))
            clock.now += 0.9
        assert HEARTBEAT_FRAME not in protocol.passed


async def test_no_heartbeat_is_fed_before_the_first_tap() -> None:
    """During the handshake aiormq expects other frames."""
    async with at_a_clock() as (_, protocol, _):
        protocol.data_received(control(0, 1)[:5])
        assert protocol.passed == []


async def test_a_heartbeat_is_never_fed_inside_a_frame() -> None:
    """Any bytes are a sign of life, half a frame too; the reader sees whole ones."""
    async with at_a_clock() as (clock, protocol, peer):
        peer.tap(1)
        whole = control(2, 1)
        for byte in whole:
            protocol.data_received(bytes((byte,)))
            clock.now += 1.5
        assert protocol.passed == [HEARTBEAT_FRAME] * (len(whole) - 1) + [whole]
