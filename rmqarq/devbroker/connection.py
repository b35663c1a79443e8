"""A connection: bytes in, frames to its session, bytes out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from rmqarq.devbroker.frames import BEAT, EMPTY, END, HEAD
from rmqarq.devbroker.session import Session

if TYPE_CHECKING:
    from rmqarq.devbroker.realm import Realm

GREETING = b"AMQP\x00\x00\x09\x01"
MUCH = 1 << 20  # bytes that are sent at once, not with the turn of the loop
PATIENCE = 10.0  # seconds for a client to go once it was told why


class Connection(asyncio.Protocol):
    """The broker's side of a connection.

    Args:
        realm: Who may come, and where to.
        all_of_them: The connections that are open; this one puts itself there.
    """

    def __init__(self, realm: Realm, all_of_them: set[Connection]) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        self._all = all_of_them
        self._session = Session(realm, self)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._rest = b""
        self._out: list[bytes] = []
        self._size = 0
        self._reading = False
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._said = True  # since the last look

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's greeting."""
        self._transport = cast("asyncio.Transport", transport)
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back everything that the client held."""
        self._all.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._session.lost()
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Deliver no more: the client does not keep up."""
        self._session.writable = False

    def resume_writing(self) -> None:
        """Deliver again."""
        self._session.wake()

    # --- in ---

    def data_received(self, data: bytes) -> None:
        """Take the whole frames out of what came, and keep the rest."""
        self._heard = self._reading = True
        data = self._rest + data if self._rest else data
        at = 0 if self._greeted else self._greet(data)
        if self._greeted:
            at = self._frames(data, at)
        self._rest = data[at:] if at < len(data) else b""
        self._reading = False
        self._flush()

    def _greet(self, data: bytes) -> int:
        if len(data) < len(GREETING):
            return 0
        if not data.startswith(GREETING):
            self.write(GREETING)
            self.leave()
            return len(data)
        self._greeted = True
        self._session.start()
        return len(GREETING)

    def _frames(self, data: bytes, at: int) -> int:
        session, end = self._session, len(data)
        while end - at >= EMPTY and session.state != "closed":
            kind, number, size = HEAD.unpack_from(data, at)
            begin = at + HEAD.size
            stop = begin + size
            if size > session.frame_max:
                problem = f"{{frame_too_large,{size},{session.frame_max - EMPTY}}}"
                session.bad_frame(kind, b"", problem)
                return end
            if stop >= end:
                break
            if data[stop] != END:
                problem = f"{{invalid_frame_end_marker,{data[stop]}}}"
                session.bad_frame(kind, data[begin:stop], problem)
                return end
            session.frame(kind, number, data[begin:stop])
            at = stop + 1
        return at

    # --- out ---

    def write(self, data: bytes) -> None:
        """Send bytes with the next flush."""
        self._out.append(data)
        self._size += len(data)
        if self._size > MUCH:
            self._flush()
        elif not self._reading and not self._flushing:
            self.flush_soon()

    def flush_soon(self) -> None:
        """Flush in this turn of the event loop."""
        if not self._reading and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._session.flush_confirms()
        out, self._out, self._size = self._out, [], 0
        if out and self._transport is not None and not self._transport.is_closing():
            self._said = True
            self._transport.write(b"".join(out))

    # --- ends, and signs of life ---

    def close(self, text: str) -> None:
        """End the connection in good order: the broker goes."""
        self._session.shut_down(text)

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """Close once all is sent."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def leave_later(self) -> None:
        """Close when the client has had time to read why."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(PATIENCE, self.abort)

    def beat(self, seconds: int) -> None:
        """Send signs of life so often, and expect them."""
        self._look(seconds / 2, 0)

    def _look(self, pause: float, silent: int) -> None:
        # RabbitMQ gives up after two whole intervals without a byte; this looks
        # twice as often
        silent = 0 if self._heard else silent + 1
        if silent >= 4:
            self.abort()
            return
        if not self._said and self._transport is not None:
            self._transport.write(BEAT)
        self._heard = self._said = False
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(pause, self._look, pause, silent)
