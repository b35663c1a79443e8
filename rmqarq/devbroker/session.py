"""A connection's session: the handshake, its channels, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rmqarq.devbroker import (
    consuming,
    exchange_methods,
    fields,
    handshake,
    queue_methods,
)
from rmqarq.devbroker.channel import Channel
from rmqarq.devbroker.fields import Malformed, NoText, Reader
from rmqarq.devbroker.frames import (
    BODY,
    HEADER,
    HEARTBEAT,
    KINDS,
    METHOD,
    NO_METHOD,
    PUBLISH,
    Method,
    blamed,
    method,
    snippet,
)
from rmqarq.devbroker.handshake import LoginRefused
from rmqarq.devbroker.refusal import Refusal

if TYPE_CHECKING:
    from rmqarq.devbroker.host import Host
    from rmqarq.devbroker.realm import Realm, Wire

_PUBLISH = fields.short(PUBLISH.class_id) + fields.short(PUBLISH.method_id)
_CHANNEL_OPEN, _CHANNEL_CLOSE = Method(20, 10), Method(20, 40)
_CHANNEL_CLOSED = Method(20, 41)
_CLOSE, _CLOSED = Method(10, 50), Method(10, 51)
_START_OK, _TUNE_OK, _OPEN = Method(10, 11), Method(10, 31), Method(10, 40)
_UPDATE_SECRET = Method(10, 70)
_METHODS: dict[Method, Callable[[Channel, Reader], None]] = {
    **exchange_methods.METHODS,
    **queue_methods.METHODS,
    **consuming.METHODS,
}


class Session:
    """What is said over one connection.

    Args:
        realm: Who may come, and where to.
        wire: The connection.
    """

    def __init__(self, realm: Realm, wire: Wire) -> None:
        self.write = wire.write
        self.frame_max = handshake.FRAME_MIN  # until both have agreed on more
        self.writable = True
        self.user = ""
        self.tells_cancels = False
        self.state = "starting"
        self._realm = realm
        self._wire = wire
        self._unconfirmed: set[int] = set()
        self._channels: dict[int, Channel] = {}
        self._channel_max = handshake.CHANNEL_MAX
        self._host: Host | None = None
        self._steps: dict[tuple[str, Method], Callable[[Reader], None]] = {
            ("starting", _START_OK): self._log_in,
            ("tuning", _TUNE_OK): self._agree,
            ("opening", _OPEN): self._open,
            ("running", _UPDATE_SECRET): self._update_secret,
        }

    def start(self) -> None:
        """Say who we are."""
        self.write(method(0, Method(10, 10), handshake.start()))

    # --- frames ---

    def frame(self, kind: int, number: int, payload: bytes) -> None:
        """Do what a frame says."""
        channel = self._channels.get(number)
        try:
            if channel is None:
                self._other(kind, number, payload)
            elif kind == METHOD:
                if payload[:4] == _PUBLISH and not channel.closing:
                    channel.publishing.begin(payload)
                else:
                    self._method(number, channel, payload)
            elif not channel.closing:
                self._content(channel, kind, payload)
        except Refusal as refusal:
            which = refusal.blamed or blamed(kind, payload)
            self._refuse(number, refusal, which)
        except (Malformed, IndexError, UnicodeError) as error:
            malformed = _malformed(kind, payload, error)
            self._refuse(0, malformed, malformed.blamed or blamed(kind, payload))

    def _content(self, channel: Channel, kind: int, payload: bytes) -> None:
        if kind == HEADER:
            channel.publishing.header(payload)
        elif kind == BODY:
            channel.publishing.body(payload)
        else:
            self._unexpected(kind, payload)

    def _other(self, kind: int, number: int, payload: bytes) -> None:
        """Take a frame that belongs to no open channel."""
        if kind == METHOD and not number:
            reader = Reader(payload)
            which = Method(reader.short(), reader.short())
            self._connection_method(which, reader)
        elif kind == METHOD and self.state == "running":
            self._open_channel(number, payload)
        elif kind in (HEADER, BODY) and number and self.state == "running":
            raise Refusal(504, "expected 'channel.open'")
        elif kind != HEARTBEAT or number:
            self._unexpected(kind, payload)

    def _method(self, number: int, channel: Channel, payload: bytes) -> None:
        reader = Reader(payload)
        which = Method(reader.short(), reader.short())
        if channel.closing:
            self._closing_channel(channel, which)
        elif channel.publishing.assembling:
            channel.publishing.begin(payload)  # which refuses
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

    def _open_channel(self, number: int, payload: bytes) -> None:
        which = blamed(METHOD, payload)
        if len(self._channels) >= self._channel_max:
            raise Refusal(
                530,
                f"number of channels opened ({len(self._channels)}) has reached the"
                f" negotiated channel_max ({self._channel_max})",
                NO_METHOD,
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
        elif self.state == "closing":
            if which == _CLOSED:
                self._leave()
        elif (self.state, which) in self._steps:
            self._steps[self.state, which](reader)
        else:
            raise Refusal(504, f"unexpected method in connection state {self.state}")

    def _log_in(self, reader: Reader) -> None:
        try:
            client = handshake.log_in(reader, self._realm.users)
        except LoginRefused as refused:
            if refused.told:
                self._refuse(0, refused.refusal, NO_METHOD)
            self._leave()
            return
        self.user = client.user
        self.tells_cancels = handshake.can(
            client.capabilities, "consumer_cancel_notify"
        )
        self.state = "tuning"
        self.write(method(0, Method(10, 30), handshake.tune()))

    def _agree(self, reader: Reader) -> None:
        self._channel_max, self.frame_max, heartbeat = handshake.agree(reader)
        self.state = "opening"
        if heartbeat:
            self._wire.beat(heartbeat)

    def _open(self, reader: Reader) -> None:
        name = reader.shortstr()
        handshake.check_vhost(name, self._realm.hosts)
        self._host = self._realm.hosts[name]
        self.state = "running"
        self.write(method(0, Method(10, 41), fields.shortstr("")))

    def _update_secret(self, _: Reader) -> None:
        self.write(method(0, Method(10, 71)))

    # --- ends ---

    def _leave(self) -> None:
        self.state = "closed"
        self._wire.leave()

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
        elif self.state not in ("closing", "closed"):
            self._drop_channels()
            self.state = "closing"
            self.write(method(0, _CLOSE, *arguments))
            self._wire.leave_later()

    def _unexpected(self, kind: int, payload: bytes) -> None:
        text = f"type {kind}, {snippet(payload)}"
        refusal = Refusal(505, text, NO_METHOD)
        if kind not in KINDS:
            refusal = Refusal(501, f"{text}: unknown_frame", NO_METHOD)
        self._refuse(0, refusal, NO_METHOD)

    def _drop_channels(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()
        if self._host is not None:
            self._host.delete_exclusive(self)

    def bad_frame(self, kind: int, payload: bytes, problem: str) -> None:
        """Refuse bytes that are no frame."""
        text = f"type {kind}, {snippet(payload)}: {problem}"
        self._refuse(0, Refusal(501, text), NO_METHOD)
        self._wire.leave()

    def shut_down(self, text: str) -> None:
        """End the connection in good order: the broker goes."""
        self._refuse(0, Refusal(320, text), NO_METHOD)

    def lost(self) -> None:
        """Give back everything that the client held."""
        self.state = "closed"
        self._drop_channels()

    # --- what channels have to say ---

    def flush_later(self, channel: int) -> None:
        """Let a channel send its confirms with the next flush."""
        self._unconfirmed.add(channel)
        self._wire.flush_soon()

    def flush_confirms(self) -> None:
        """Write the confirms that are due."""
        unconfirmed, self._unconfirmed = self._unconfirmed, set()
        for number in unconfirmed:
            channel = self._channels.get(number)
            if channel is not None:
                channel.publishing.flush()

    def wake(self) -> None:
        """Deliver again: the client keeps up."""
        self.writable = True
        for channel in list(self._channels.values()):
            channel.wake()


def _malformed(kind: int, payload: bytes, error: Exception) -> Refusal:
    """Refuse what can't be read, with RabbitMQ's codes."""
    if kind != METHOD:
        return Refusal(541, str(error), NO_METHOD)  # where RabbitMQ does not say why
    if isinstance(error, NoText):
        return Refusal(501, str(error), NO_METHOD)
    if len(payload) < len(_PUBLISH):
        text = f"type {kind}, {snippet(payload)}: unknown_frame"
        return Refusal(501, text, NO_METHOD)
    shown = ",".join(map(str, payload[4:]))
    return Refusal(501, f"cannot decode <<{shown}>>")
