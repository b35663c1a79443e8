"""The AMQP 0-9-1 frames that carry content, as bytes and back; no I/O.

The layouts are those of the AMQP 0-9-1 specification, section 4.2, with RabbitMQ's
`basic.nack`, `connection.blocked` and `connection.unblocked`.
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

METHOD, HEADER, BODY = 1, 2, 3
OVERHEAD = 8  # type, channel and size before the payload, one end octet after it
END = 0xCE
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CONNECTION_CLOSE = 10 << 16 | 50
CONNECTION_BLOCKED = 10 << 16 | 60
CONNECTION_UNBLOCKED = 10 << 16 | 61
CHANNEL_CLOSE = 20 << 16 | 40
CHANNEL_CLOSE_OK = 20 << 16 | 41
BASIC_PUBLISH = 60 << 16 | 40
BASIC_CANCEL = 60 << 16 | 30
BASIC_RETURN = 60 << 16 | 50
BASIC_DELIVER = 60 << 16 | 60
BASIC_ACK = 60 << 16 | 80
BASIC_NACK = 60 << 16 | 120

_DELIVER = BASIC_DELIVER.to_bytes(4, "big")

_HEAD = Struct(">BHI")
_METHOD = Struct(">I")
_METHOD_HEAD = Struct(">BHIIH")  # frame head, class and method, reserved-1
_CONTENT_HEAD = Struct(">BHIHHQ")  # frame head, class, weight, body size
_SIZE = Struct(">Q")
_TAG_BITS = Struct(">QB")
_CODE = Struct(">H")
_SETTLE = Struct(">BHIIQBB")


class FrameError(Exception):
    """The peer broke the protocol; the connection can't be used any further."""


class Deliver(NamedTuple):
    """A message from a queue (`basic.deliver` with its content)."""

    tag: int
    redelivered: bool
    exchange: bytes
    routing_key: bytes
    properties: bytes
    body: bytes


class Returned(NamedTuple):
    """A message that could not be routed (`basic.return` with its content)."""

    code: int
    text: str
    exchange: str
    routing_key: str
    properties: bytes


class Confirm(NamedTuple):
    """The broker's word on publishes (`basic.ack` or `basic.nack`)."""

    tag: int
    multiple: bool
    accepted: bool


class Closed(NamedTuple):
    """The end of a channel or connection, with the broker's reason if it gave one."""

    code: int
    text: str


class Cancelled(NamedTuple):
    """The broker ended a consumer (`basic.cancel`), e.g. its queue was deleted."""

    consumer_tag: str


class Blocked(NamedTuple):
    """The broker stopped reading this connection; `None` when it reads again."""

    reason: str | None


Frame: TypeAlias = tuple[int, int, int, int]
"""Type, channel, and where the payload starts and ends in its buffer."""
Event: TypeAlias = Deliver | Returned | Confirm | Closed | Cancelled | Blocked


def publish_method(
    channel: int, exchange: str, routing_key: str, *, mandatory: bool
) -> bytes:
    """Encode the method frame of `basic.publish`."""
    names = _short(exchange) + _short(routing_key)
    size = 4 + 2 + len(names) + 1
    head = _METHOD_HEAD.pack(METHOD, channel, size, BASIC_PUBLISH, 0)
    return head + names + (b"\x01\xce" if mandatory else b"\x00\xce")


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Encode the header frame and the body frames that follow a method.

    Args:
        channel: The channel's number.
        properties: Property flags and property list, as `wire.properties` makes them.
        body: The payload, of any size.
        frame_max: The negotiated largest frame in bytes; 0 means no limit.
    """
    size = len(body)
    head = _CONTENT_HEAD.pack(HEADER, channel, 12 + len(properties), 60, 0, size)
    limit = (frame_max or size + OVERHEAD) - OVERHEAD
    if size == 0:
        return head + properties + b"\xce"
    if size <= limit:
        body_head = _HEAD.pack(BODY, channel, size)
        return b"".join((head, properties, b"\xce", body_head, body, b"\xce"))
    parts = [head, properties, b"\xce"]
    for at in range(0, size, limit):
        part = body[at : at + limit]
        parts += (_HEAD.pack(BODY, channel, len(part)), part, b"\xce")
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Encode `basic.ack`."""
    return _SETTLE.pack(METHOD, channel, 13, BASIC_ACK, tag, multiple, END)


def nack(channel: int, tag: int, *, multiple: bool = False, requeue: bool) -> bytes:
    """Encode `basic.nack`."""
    bits = multiple | requeue << 1
    return _SETTLE.pack(METHOD, channel, 13, BASIC_NACK, tag, bits, END)


class Splitter:
    """Cuts a stream of bytes into whole frames, however it was chopped up.

    Args:
        frame_max: The longest frame accepted, in bytes.
    """

    def __init__(self, frame_max: int) -> None:
        self.frame_max = frame_max
        self._rest = b""

    def feed(self, data: bytes) -> tuple[bytes, list[Frame]]:
        """Take the next bytes of the stream.

        Returns:
            A buffer and the whole frames in it, as (type, channel, start and end of
            the payload in the buffer).

        Raises:
            FrameError: A frame without its end octet, or longer than allowed.
        """
        buffer = self._rest + data if self._rest else data
        frames: list[Frame] = []
        at, length = 0, len(buffer)
        unpack = _HEAD.unpack_from
        while length - at >= OVERHEAD:
            kind, channel, size = unpack(buffer, at)
            start = at + 7
            stop = start + size
            if size + OVERHEAD > self.frame_max:
                msg = f"a frame of {size + OVERHEAD} bytes, more than {self.frame_max}"
                raise FrameError(msg)
            if stop >= length:
                break
            if buffer[stop] != END:
                msg = "a frame without its end octet"
                raise FrameError(msg)
            frames.append((kind, channel, start, stop))
            at = stop + 1
        self._rest = buffer[at:] if at < length else b""
        return buffer, frames


class Assembler:
    """Puts the header and body frames of one channel behind their method."""

    def __init__(self) -> None:
        self._method: Deliver | Returned | None = None
        self._properties = b""
        self._missing = 0
        self._parts: list[bytes] = []

    @property
    def idle(self) -> bool:
        """Whether no content is under way."""
        return self._method is None

    def begin(self, method: Deliver | Returned) -> None:
        """Take a content method.

        Raises:
            FrameError: The content before it is not complete.
        """
        if self._method is not None:
            msg = "a method frame inside a content"
            raise FrameError(msg)
        self._method = method

    def feed(
        self, kind: int, buffer: bytes, start: int, stop: int
    ) -> Deliver | Returned | None:
        """Take a header or body frame; give the content that it completes.

        Raises:
            FrameError: The frame is out of place.
        """
        if kind == BODY:
            return self._take_body(buffer[start:stop])
        if kind != HEADER or self._method is None or self._missing:
            msg = f"a frame of type {kind} out of place"
            raise FrameError(msg)
        if stop - start < 14:
            msg = "a content header cut short"
            raise FrameError(msg)
        (self._missing,) = _SIZE.unpack_from(buffer, start + 4)
        self._properties = buffer[start + 12 : stop]
        return None if self._missing else self._complete(b"")

    def _take_body(self, part: bytes) -> Deliver | Returned | None:
        if not 0 < len(part) <= self._missing:
            msg = "a content body out of place"
            raise FrameError(msg)
        self._missing -= len(part)
        if self._missing:
            self._parts.append(part)
            return None
        if self._parts:
            self._parts.append(part)
            part = b"".join(self._parts)
            self._parts = []
        return self._complete(part)

    def _complete(self, body: bytes) -> Deliver | Returned:
        method, self._method = self._method, None
        if isinstance(method, Deliver):
            tag, redelivered, exchange, routing_key, _, _ = method
            return Deliver(
                tag, redelivered, exchange, routing_key, self._properties, body
            )
        if method is None:
            msg = "a content without its method"
            raise FrameError(msg)
        return method._replace(properties=self._properties)


def whole_delivery(buffer: bytes, frames: Sequence[Frame], at: int) -> Deliver | None:
    """Decode a message whose three frames follow each other, as most do, in one go.

    Args:
        buffer: Where they are.
        frames: As `Splitter.feed` gives them.
        at: The place of the first of the three, a method.

    Returns:
        The message; `None` if it must be put together piece by piece, or is wrong.
    """
    if at + 2 >= len(frames):
        return None
    _, channel, start, stop = frames[at]
    header, channel_of_header, header_start, header_stop = frames[at + 1]
    body, channel_of_body, body_start, body_stop = frames[at + 2]
    middle = start + 5 + buffer[start + 4]  # behind the consumer tag, which is ours
    if (
        buffer[start : start + 4] != _DELIVER
        or (header, body) != (HEADER, BODY)
        or not channel == channel_of_header == channel_of_body
        or header_stop - header_start < 14
        or _SIZE.unpack_from(buffer, header_start + 4)[0] != body_stop - body_start
        or middle + 9 >= stop
        or (after := middle + 10 + buffer[middle + 9]) >= stop
        or (end := after + 1 + buffer[after]) > stop
    ):
        return None
    tag, redelivered = _TAG_BITS.unpack_from(buffer, middle)
    return Deliver(
        tag,
        redelivered & 1 == 1,
        buffer[middle + 10 : after],
        buffer[after + 1 : end],
        buffer[header_start + 12 : header_stop],
        buffer[body_start:body_stop],
    )


def decode_method(buffer: bytes, start: int, stop: int) -> Event | None:
    """Decode a method frame that means something to us; `None` for the others.

    Content methods come without their content, which follows in frames of its own.

    Raises:
        FrameError: The method is cut short.
    """
    try:
        (method,) = _METHOD.unpack_from(buffer, start)
        decode = _DECODERS.get(method)
        return None if decode is None else decode(buffer, start + 4, stop)
    except (struct_error, IndexError, UnicodeDecodeError) as error:
        msg = f"a malformed method frame ({stop - start} bytes)"
        raise FrameError(msg) from error


def _deliver(buffer: bytes, at: int, end: int) -> Deliver:
    at += 1 + buffer[at]  # the consumer tag: one consumer a channel, so not needed
    tag, redelivered = _TAG_BITS.unpack_from(buffer, at)
    middle = at + 10 + buffer[at + 9]
    exchange = buffer[at + 10 : middle]
    stop = middle + 1 + buffer[middle]
    if stop > end:
        raise IndexError(stop)
    routing_key = buffer[middle + 1 : stop]
    return Deliver(tag, redelivered & 1 == 1, exchange, routing_key, b"", b"")


def _returned(buffer: bytes, at: int, end: int) -> Returned:
    (code,) = _CODE.unpack_from(buffer, at)
    text, at = _read_short(buffer, at + 2, end)
    exchange, at = _read_short(buffer, at, end)
    routing_key, at = _read_short(buffer, at, end)
    return Returned(code, text, exchange, routing_key, b"")


def _ack(buffer: bytes, at: int, _end: int) -> Confirm:
    tag, bits = _TAG_BITS.unpack_from(buffer, at)
    return Confirm(tag, bits & 1 == 1, accepted=True)


def _nack(buffer: bytes, at: int, _end: int) -> Confirm:
    tag, bits = _TAG_BITS.unpack_from(buffer, at)
    return Confirm(tag, bits & 1 == 1, accepted=False)


def _closed(buffer: bytes, at: int, end: int) -> Closed:
    (code,) = _CODE.unpack_from(buffer, at)
    text, _ = _read_short(buffer, at + 2, end)
    return Closed(code, text)


def _close_ok(_buffer: bytes, _at: int, _end: int) -> Closed:
    return Closed(0, "closed by us")


def _cancelled(buffer: bytes, at: int, end: int) -> Cancelled:
    return Cancelled(_read_short(buffer, at, end)[0])


def _blocked(buffer: bytes, at: int, end: int) -> Blocked:
    return Blocked(_read_short(buffer, at, end)[0])


def _unblocked(_buffer: bytes, _at: int, _end: int) -> Blocked:
    return Blocked(None)


_DECODERS: dict[int, Callable[[bytes, int, int], Event]] = {
    BASIC_DELIVER: _deliver,
    BASIC_RETURN: _returned,
    BASIC_ACK: _ack,
    BASIC_NACK: _nack,
    BASIC_CANCEL: _cancelled,
    CHANNEL_CLOSE: _closed,
    CHANNEL_CLOSE_OK: _close_ok,
    CONNECTION_CLOSE: _closed,
    CONNECTION_BLOCKED: _blocked,
    CONNECTION_UNBLOCKED: _unblocked,
}


def _short(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 255:
        msg = f"a name of {len(raw)} bytes; AMQP allows 255"
        raise ValueError(msg)
    return bytes((len(raw),)) + raw


def _read_short(buffer: bytes, at: int, end: int) -> tuple[str, int]:
    start = at + 1
    stop = start + buffer[at]
    if stop > end:
        raise IndexError(stop)
    return buffer[start:stop].decode("utf-8", "replace"), stop
