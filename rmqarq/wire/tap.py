"""The content tap: takes content frames out of the byte stream as it arrives.

aiormq runs the connection; this protocol stands before its reader. Frames of tapped
channels that carry content or confirms go straight to our own hands, all others go on
to aiormq unchanged and in order. Closes are seen in the very call that brings them,
because a frame written to a closing channel costs the whole connection (504).
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeAlias, cast

from rmqarq.wire.frames import (
    HEARTBEAT_FRAME,
    METHOD,
    Assembler,
    Blocked,
    Closed,
    Confirm,
    Deliver,
    Event,
    Frame,
    FrameError,
    Returned,
    Splitter,
    decode_method,
    whole_delivery,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Sink: TypeAlias = "Callable[[Event], None]"

FIRST_FRAME_MAX = 1024 * 1024  # before tuning; a handshake frame is far smaller
HEARTBEAT_PAUSE = 1.0
UNBOUNDED = 2**30  # aiormq drains its reader at once; pausing would stop confirms


class TapProtocol(asyncio.StreamReaderProtocol):
    """The protocol of one connection.

    Attributes:
        transport: The socket.
        closed: What the broker said when it closed the connection, if it did.
        blocked: Why the broker does not read us at present, or `None`.
        paused: True while the socket takes no more bytes.
        heard_at: When the last bytes came, by the clock of the loop.
        longest_stall: Seconds that this process may stand still; after more, what
            lies in the socket has been given to others.
    """

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = asyncio.StreamReader(limit=UNBOUNDED, loop=loop)
        super().__init__(self.reader, loop=loop)
        self.closed: Closed | None = None
        self.blocked: str | None = None
        self.paused = False
        self.on_change: Callable[[], None] = _nothing
        self.on_lost: Callable[[BaseException | None], None] = _nothing
        self._splitter = Splitter(FIRST_FRAME_MAX)
        self._taps: dict[int, tuple[Assembler, Sink]] = {}
        self._clock = loop.time
        self.heard_at = self._turned_at = loop.time()
        self.longest_stall = math.inf
        self._passed_on_at = 0.0
        self._tapped = False
        self._fault: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport: content is written to it directly."""
        self.transport = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def limit_frames(self, frame_max: int) -> None:
        """Refuse frames above the negotiated `frame_max` from now on (0: no limit)."""
        self._splitter.frame_max = frame_max or 2**32

    def register(self, channel: int, sink: Sink) -> None:
        """Send the content events of `channel` to `sink` from now on."""
        self._tapped = True
        self._taps[channel] = (Assembler(), sink)

    def forget(self, channel: int, sink: Sink) -> None:
        """Stop tapping; numbers are used again, so only for the sink that has it."""
        if (tap := self._taps.get(channel)) is not None and tap[1] == sink:
            del self._taps[channel]

    def data_received(self, data: bytes) -> None:
        """Cut into frames, hand out what is tapped, pass on the rest.

        What is no frame ends the connection; `connection_lost` tells the reason.
        """
        self.heard_at = self._clock()
        if self._fault is None and not self._stood_still():
            try:
                self._take(data)
            except FrameError as error:
                self._give_up(error)

    def turn(self) -> None:
        """Take note that the event loop turns; to be called from time to time."""
        if not self._stood_still():
            self._turned_at = self._clock()

    def _stood_still(self) -> bool:
        """Give up the link when the broker has given us up long ago.

        A process that was frozen, or busy for long, would else run what still lies in
        its socket, though it runs elsewhere by now.
        """
        if self._clock() - self._turned_at <= self.longest_stall:
            return False
        self._give_up(ConnectionError("this process stood still for too long"))
        return True

    def _give_up(self, fault: Exception) -> None:
        self._fault = self._fault or fault
        self.transport.abort()

    def _take(self, data: bytes) -> None:
        buffer, frames = self._splitter.feed(data)
        taps = self._taps
        passed_on: list[bytes] = []
        skip = 0
        for at, (kind, channel, start, stop) in enumerate(frames):
            if skip:
                skip -= 1
                continue
            tap = taps.get(channel)
            if tap is None:
                if channel == 0 and kind == METHOD:
                    self._observe(buffer, start, stop)
                passed_on.append(buffer[start - 7 : stop + 1])
            elif (
                kind == METHOD
                and tap[0].idle
                and ((whole := whole_delivery(buffer, frames, at)) is not None)
            ):
                skip = 2
                tap[1](whole)
            elif not self._take_piece(buffer, frames[at], tap):
                passed_on.append(buffer[start - 7 : stop + 1])
        self._pass_on(passed_on)

    def _take_piece(
        self, buffer: bytes, frame: Frame, tap: tuple[Assembler, Sink]
    ) -> bool:
        """Take one frame of a tapped channel; tell whether it ends here."""
        kind, channel, start, stop = frame
        if kind == METHOD:
            method = decode_method(buffer, start, stop)
            return self._take_method(channel, tap, method)
        event = tap[0].feed(kind, buffer, start, stop)
        if event is not None:
            tap[1](event)
        return True

    def _take_method(
        self, channel: int, tap: tuple[Assembler, Sink], event: Event | None
    ) -> bool:
        """Tell whether the frame ends here; the others go on to aiormq."""
        if isinstance(event, Deliver | Returned):
            tap[0].begin(event)
            return True
        if event is None:
            return False
        if isinstance(event, Closed):
            self.forget(channel, tap[1])
        tap[1](event)
        return isinstance(event, Confirm)

    def _pass_on(self, frames: list[bytes]) -> None:
        now = self.heard_at
        if frames:
            super().data_received(b"".join(frames))
        elif self._tapped and now - self._passed_on_at >= HEARTBEAT_PAUSE:
            # RabbitMQ sends no heartbeats while it sends content, and aiormq, which
            # sees none of that, would declare the link dead
            super().data_received(HEARTBEAT_FRAME)
        else:
            return
        self._passed_on_at = now

    def _observe(self, buffer: bytes, start: int, stop: int) -> None:
        event = decode_method(buffer, start, stop)
        if isinstance(event, Closed):
            self.closed = event
            self._end_taps(event)
        elif isinstance(event, Blocked):
            self.blocked = event.reason
            self.on_change()

    def _end_taps(self, event: Closed) -> None:
        taps, self._taps = self._taps, {}
        for _, sink in taps.values():
            sink(event)

    def pause_writing(self) -> None:
        """Note that the socket takes no more bytes."""
        super().pause_writing()
        self.paused = True

    def resume_writing(self) -> None:
        """Note that the socket takes bytes again."""
        super().resume_writing()
        self.paused = False
        self.on_change()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all taps at once: this is the first and best sign of a lost link."""
        exc = exc or self._fault
        text = str(exc) if exc else "the link was closed"
        self._end_taps(self.closed or Closed(0, text))
        self.on_lost(exc)
        super().connection_lost(exc)


def _nothing(*_: object) -> None:
    """Stand in for a callback that nobody has set."""
