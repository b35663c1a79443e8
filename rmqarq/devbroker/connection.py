"""A connection: frames in, frames out, and the channels between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from rmqarq.devbroker import consuming, declaring, fields, handshake
from rmqarq.devbroker.channel import Channel
from rmqarq.devbroker.fields import Malformed, Reader
from rmqarq.devbroker.frames import (
    BEAT,
    BODY,
    EMPTY,
    END,
    HEAD,
    HEADER,
    HEARTBEAT,
    METHOD,
    NO_METHOD,
    Method,
    method,
)
from rmqarq.devbroker.handshake import LoginRefused
from rmqarq.devbroker.publishing import PUBLISH
from rmqarq.devbroker.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.devbroker.host import Host

GREETING = b"AMQP\x00\x00\x09\x01"
MUCH = 1 << 20  # bytes that are sent at once, not with the turn of the loop
PATIENCE = 10.0  # seconds for a client to go once it was told why

_PUBLISH = fields.short(PUBLISH.class_id) + fields.short(PUBLISH.method_id)
_CHANNEL_OPEN, _CHANNEL_CLOSE, _CHANNEL_CLOSED = (
    Method(20, 10),
    Method(20, 40),
    Method(20, 41),
)
_CLOSE, _CLOSED = Method(10, 50), Method(10, 51)
_METHODS: dict[Method, Callable[[Channel, Reader], None]] = {
    **declaring.METHODS,
    **consuming.METHODS,
}


class Shared(NamedTuple):
    """What all connections of a broker share.

    Args:
        users: Names with their passwords.
        hosts: The virtual hosts by name.
        connections: Those that are open.
    """

    users: Mapping[str, str]
    hosts: Mapping[str, Host]
    connections: set[Connection]


class Connection(asyncio.Protocol):
    """The broker's side of a connection.

    Args:
        shared: What it shares with the others.
    """

    def __init__(self, shared: Shared) -> None:
        self.frame_max = handshake.FRAME_MAX
        self.writable = True
        self.user = ""
        self.tells_cancels = False
        self.gone = asyncio.get_running_loop().create_future()
        self._shared = shared
        self._transport: asyncio.Transport | None = None
        self._state = "greeting"
        self._rest = b""
        self._out: list[bytes] = []
        self._size = 0
        self._reading = False
        self._flushing = False
        self._unconfirmed: set[int] = set()
        self._channels: dict[int, Channel] = {}
        self._channel_max = handshake.CHANNEL_MAX
        self._host: Host | None = None
        self._client: handshake.Client | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._said = True  # since the last look

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's greeting."""
        self._transport = cast("asyncio.Transport", transport)
        self._shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back everything that the client held."""
        self._state = "closed"
        self._shared.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._drop_channels()
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Deliver no more: the client does not keep up."""
        self.writable = False

    def resume_writing(self) -> None:
        """Deliver again."""
        self.writable = True
        for channel in list(self._channels.values()):
            channel.wake()

    def data_received(self, data: bytes) -> None:
        """Take the whole frames out of what came, and keep the rest."""
        self._heard = self._reading = True
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        if self._state == "greeting":
            at = self._greet(data)
        while end - at >= EMPTY and self._state != "closed":
            kind, number, size = HEAD.unpack_from(data, at)
            stop = at + HEAD.size + size
            if size > self.frame_max or (stop < end and data[stop] != END):
                self._bad_frame(kind, number, size, data[at + HEAD.size :])
                break
            if stop >= end:
                break
            self._frame(kind, number, data[at + HEAD.size : stop])
            at = stop + 1
        self._rest = data[at:] if at < end else b""
        self._reading = False
        self._flush()

    def _greet(self, data: bytes) -> int:
        if len(data) < len(GREETING):
            return len(data) if self._state == "closed" else 0
        if data[: len(GREETING)] != GREETING:
            self.write(GREETING)
            self._leave()
            return len(data)
        self._state = "starting"
        self.write(method(0, Method(10, 10), handshake.start()))
        return len(GREETING)

    # --- frames ---

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        channel = self._channels.get(number)
        which = NO_METHOD
        try:
            if kind == METHOD:
                if payload[:4] == _PUBLISH and channel is not None:
                    which = PUBLISH
                    if not channel.closing:
                        channel.publishing.begin(payload)
                    return
                reader = Reader(payload)
                which = Method(reader.short(), reader.short())
                self._method(number, channel, which, reader)
            elif channel is not None and kind in (HEADER, BODY):
                which = PUBLISH
                if not channel.closing:
                    self._content(channel, kind, payload)
            elif kind != HEARTBEAT or number:
                self._unexpected(kind, number, payload)
        except Refusal as refusal:
            self._refuse(number, refusal, which)
        except (Malformed, IndexError, UnicodeError) as error:
            self._refuse(0, Refusal(502, str(error)), which)

    @staticmethod
    def _content(channel: Channel, kind: int, payload: bytes) -> None:
        if kind == HEADER:
            channel.publishing.header(payload)
        else:
            channel.publishing.body(payload)

    def _method(
        self, number: int, channel: Channel | None, which: Method, reader: Reader
    ) -> None:
        if not number:
            self._connection_method(which, reader)
        elif self._state != "running":
            self._unexpected(METHOD, number, b"")
        elif channel is None:
            self._open_channel(number, which)
        elif channel.closing:
            self._closing_channel(channel, which)
        elif channel.publishing.assembling:
            channel.publishing.begin(b"")  # which refuses
        elif which == _CHANNEL_CLOSE:
            self._channels.pop(number)
            channel.close()
            channel.send(_CHANNEL_CLOSED)
        elif which == _CHANNEL_OPEN:
            raise Refusal(504, "second 'channel.open' seen")
        else:
            handler = _METHODS.get(which)
            if handler is None:
                raise Refusal(503, "unimplemented method")
            handler(channel, reader)

    def _open_channel(self, number: int, which: Method) -> None:
        if len(self._channels) >= self._channel_max:
            raise Refusal(
                530,
                f"number of channels opened ({len(self._channels)}) has reached the"
                f" negotiated channel_max ({self._channel_max})",
            )
        if which != _CHANNEL_OPEN or self._host is None:
            raise Refusal(504, "expected 'channel.open'")
        channel = self._channels[number] = Channel(number, self, self._host)
        channel.send(Method(20, 11), fields.longstr(b""))

    def _closing_channel(self, channel: Channel, which: Method) -> None:
        if which == _CHANNEL_CLOSED:
            del self._channels[channel.number]
        elif which == _CHANNEL_CLOSE:
            channel.send(_CHANNEL_CLOSED)

    # --- channel 0 ---

    def _connection_method(self, which: Method, reader: Reader) -> None:
        if which == _CLOSE:
            self._drop_channels()
            self.write(method(0, _CLOSED))
            self._leave()
        elif self._state == "closing":
            if which == _CLOSED:
                self._leave()
        elif (self._state, which) in _STEPS:
            _STEPS[self._state, which](self, reader)
        else:
            raise Refusal(504, f"unexpected method in connection state {self._state}")

    def _log_in(self, reader: Reader) -> None:
        try:
            client = handshake.log_in(reader, self._shared.users)
        except LoginRefused as refused:
            if refused.told:
                self._refuse(0, refused.refusal, NO_METHOD)
            self._leave()
            return
        self._client, self.user = client, client.user
        self.tells_cancels = handshake.can(
            client.capabilities, "consumer_cancel_notify"
        )
        self._state = "tuning"
        self.write(method(0, Method(10, 30), handshake.tune()))

    def _agree(self, reader: Reader) -> None:
        self._channel_max, self.frame_max, heartbeat = handshake.agree(reader)
        self._state = "opening"
        if heartbeat:
            self._beat(heartbeat / 2, 0)

    def _open(self, reader: Reader) -> None:
        name = reader.shortstr()
        handshake.check_vhost(name, self._shared.hosts)
        self._host = self._shared.hosts[name]
        self._state = "running"
        self.write(method(0, Method(10, 41), fields.shortstr("")))

    def _update_secret(self, _: Reader) -> None:
        self.write(method(0, Method(10, 71)))

    # --- ends ---

    def _refuse(self, number: int, refusal: Refusal, which: Method) -> None:
        arguments = (
            fields.short(refusal.code),
            fields.shortstr(refusal.text),
            fields.short(which.class_id),
            fields.short(which.method_id),
        )
        channel = self._channels.get(number)
        if channel is not None and not refusal.hard:
            channel.closing = True
            channel.close()
            channel.send(_CHANNEL_CLOSE, *arguments)
        elif self._state not in ("closing", "closed"):
            self._drop_channels()
            self._state = "closing"
            self.write(method(0, _CLOSE, *arguments))
            self._leave_after(PATIENCE)

    def _unexpected(self, kind: int, number: int, payload: bytes) -> None:
        if self._state not in ("closing", "closed"):
            refusal = Refusal(505, f"type {kind}, {_snippet(payload)}")
            self._refuse(0, refusal, NO_METHOD)

    def _bad_frame(self, kind: int, number: int, size: int, payload: bytes) -> None:
        problem = f"{{frame_too_large,{size},{self.frame_max - EMPTY}}}"
        if size <= self.frame_max:
            problem = f"{{invalid_frame_end_marker,{payload[size]}}}"
            payload = payload[:size]
        else:
            payload = b""
        text = f"type {kind}, {_snippet(payload)}: {problem}"
        self._refuse(0, Refusal(501, text), NO_METHOD)
        self._leave()

    def _drop_channels(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()
        if self._host is not None:
            self._host.delete_exclusive(self)

    def close(self, text: str) -> None:
        """End the connection in good order: the broker goes."""
        self._refuse(0, Refusal(320, text), NO_METHOD)

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        self._flush()
        self._state = "closed"
        if self._transport is not None:
            self._transport.close()

    def _leave_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self.abort)

    # --- writing, and signs of life ---

    def write(self, data: bytes) -> None:
        """Send bytes with the next flush."""
        self._out.append(data)
        self._size += len(data)
        if self._size > MUCH:
            self._flush()
        else:
            self._flush_soon()

    def flush_later(self, channel: int) -> None:
        """Let a channel send its confirms with the next flush."""
        self._unconfirmed.add(channel)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._reading and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        unconfirmed, self._unconfirmed = self._unconfirmed, set()
        for number in unconfirmed:
            channel = self._channels.get(number)
            if channel is not None:
                channel.publishing.flush()
        out, self._out, self._size = self._out, [], 0
        if out and self._transport is not None and not self._transport.is_closing():
            self._said = True
            self._transport.write(b"".join(out))

    def _beat(self, pause: float, silent: int) -> None:
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
        if self._state != "closing":
            self._timer = loop.call_later(pause, self._beat, pause, silent)


def _snippet(payload: bytes) -> str:
    shown = ",".join(str(each) for each in payload[:16])
    return f"{'all' if len(payload) <= 16 else 'first 16'} octets = <<{shown}>>"


_STEPS: dict[tuple[str, Method], Callable[[Connection, Reader], None]] = {
    ("starting", Method(10, 11)): Connection._log_in,  # noqa: SLF001
    ("tuning", Method(10, 31)): Connection._agree,  # noqa: SLF001
    ("opening", Method(10, 40)): Connection._open,  # noqa: SLF001
    ("running", Method(10, 70)): Connection._update_secret,  # noqa: SLF001
}
