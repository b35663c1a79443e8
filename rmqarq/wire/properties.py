"""AMQP basic properties and header tables, as bytes and back; no I/O.

Layouts: AMQP 0-9-1, sections 4.2.5.5 and 4.2.6.1, with the field types RabbitMQ uses.
What comes in may be anything: whatever can't be read is a `PropertyError`.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from struct import error as struct_error
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Header: TypeAlias = bool | int | str | list[str]

CONTENT_TYPE, CONTENT_ENCODING, HEADERS = 0x8000, 0x4000, 0x2000
DELIVERY_MODE, PRIORITY, CORRELATION_ID = 0x1000, 0x0800, 0x0400
REPLY_TO, EXPIRATION, MESSAGE_ID = 0x0200, 0x0100, 0x0080
TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID = 0x0040, 0x0020, 0x0010, 0x0008, 0x0004

MAX_DEPTH = 32
WORTH_CACHING = 256
MAX_HEADERS = 64 * 1024
LATEST = 253402300799  # 9999-12-31T23:59:59Z, the last moment a datetime can hold
NO_HEADERS: Mapping[str, Any] = MappingProxyType({})

_SHORT = Struct(">H")
_LONG = Struct(">I")
_TIME = Struct(">Q")
_SIGNED = Struct(">q")


class PropertyError(ValueError):
    """Properties that can't be read or written."""


class Template(msgspec.Struct, frozen=True, gc=False):
    """Encoded properties with a gap where each publish puts its `message_id`."""

    before: bytes
    after: bytes

    def fill(self, message_id: bytes) -> bytes:
        """Close the gap with up to 255 bytes."""
        return b"".join(
            (self.before, bytes((len(message_id),)), message_id, self.after)
        )


class Properties(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a received message; `None` where one is not set."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Any = NO_HEADERS
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


def template(
    *,
    content_type: str | None,
    correlation_id: str,
    type: str,  # noqa: A002 - the name of the property
    content_encoding: str | None = None,
    headers: Mapping[str, Header] = NO_HEADERS,
    priority: int = 0,
    timestamp: int = 0,
) -> Template:
    """Encode the properties of a persistent message of ours, but for its number.

    Raises:
        PropertyError: A text above 255 bytes, or headers above 64 KiB.
    """
    start = _start(content_type, content_encoding, headers=bool(headers))
    table = encode_table(headers) if headers else b""
    rest = bytes((2, priority)) + encode_short(correlation_id)
    return Template(b"".join((start, table, rest)), _TIME.pack(timestamp) + _end(type))


@lru_cache(maxsize=64)
def _start(
    content_type: str | None, content_encoding: str | None, *, headers: bool
) -> bytes:
    """Encode the flags and what stands before the headers: the same again and again."""
    flags = DELIVERY_MODE | PRIORITY | CORRELATION_ID | MESSAGE_ID | TIMESTAMP
    flags |= TYPE | APP_ID | (HEADERS if headers else 0)
    texts = b""
    if content_type is not None:
        flags |= CONTENT_TYPE
        texts += encode_short(content_type)
    if content_encoding is not None:
        flags |= CONTENT_ENCODING
        texts += encode_short(content_encoding)
    return _SHORT.pack(flags) + texts


@lru_cache(maxsize=1024)
def _end(task: str) -> bytes:
    """Encode `type` and `app_id`."""
    return encode_short(task) + b"\x06rmqarq"


def encode_table(headers: Mapping[str, Header]) -> bytes:
    """Encode a header table.

    Raises:
        PropertyError: Headers above 64 KiB, a key above 128 bytes, or a value that
            is not a bool, an integer of 64 bits, a string or a list of strings.
    """
    parts: list[bytes] = []
    for name, value in headers.items():
        encoded_name = encode_short(name)
        if len(encoded_name) > 1 + 128:
            msg = f"the header name {name[:40]!r}… is longer than 128 bytes"
            raise PropertyError(msg)
        parts += (encoded_name, _encode_field(name, value))
    encoded = b"".join(parts)
    if len(encoded) > MAX_HEADERS:
        msg = f"the headers take {len(encoded)} bytes; {MAX_HEADERS} are allowed"
        raise PropertyError(msg)
    return _LONG.pack(len(encoded)) + encoded


def _encode_field(name: str, value: Header) -> bytes:
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"l" + _SIGNED.pack(value)
    if isinstance(value, str):
        return b"S" + _encode_long(value)
    if isinstance(value, list):
        items = b"".join(b"S" + _encode_long(item) for item in value)
        return b"A" + _LONG.pack(len(items)) + items
    msg = f"the header {name!r} can't be {type(value).__name__}"
    raise PropertyError(msg)


def _encode_long(text: str) -> bytes:
    raw = text.encode("utf-8", "backslashreplace")
    return _LONG.pack(len(raw)) + raw


def encode_short(text: str) -> bytes:
    """Encode a text of up to 255 bytes.

    Raises:
        PropertyError: It is longer, or no text that UTF-8 can write.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise PropertyError(str(error)) from None
    if len(raw) > 255:
        msg = f"{text[:40]!r}… takes {len(raw)} bytes; AMQP allows 255"
        raise PropertyError(msg)
    return bytes((len(raw),)) + raw


def decode_head(raw: bytes) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """Read the first three properties: content type, encoding and headers.

    All that is needed of a message of ours, and cheap: equal tables are read once.

    Raises:
        PropertyError: They can't be read.
    """
    try:
        (flags,) = _SHORT.unpack_from(raw)
        if flags & 1:
            msg = "more property flags than AMQP 0-9-1 defines"
            raise PropertyError(msg)
        content_type = encoding = None
        at, headers = 2, NO_HEADERS
        if flags & CONTENT_TYPE:
            content_type, at = _read_short(raw, at)
        if flags & CONTENT_ENCODING:
            encoding, at = _read_short(raw, at)
        if flags & HEADERS:
            stop = at + 4 + _LONG.unpack_from(raw, at)[0]
            headers = _table(raw[at + 4 : _within(raw, stop)])
    except (struct_error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise PropertyError(str(error)) from error
    return content_type, encoding, headers


def decode(raw: bytes) -> Properties:
    """Read all properties.

    Raises:
        PropertyError: Any of them can't be read, or bytes are left over.
    """
    try:
        return _decode(raw)
    except (struct_error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise PropertyError(str(error)) from error


def cut(raw: bytes) -> dict[str, bytes]:
    """Cut properties apart: each by its name, encoded as it came.

    Raises:
        PropertyError: Where one ends can't be told.
    """
    try:
        (flags,) = _SHORT.unpack_from(raw)
        parts: dict[str, bytes] = {}
        at = 2
        for flag, name, read in _FIELDS:
            if flags & flag:
                stop = at + 8 if flag == TIMESTAMP else read(raw, at)[1]
                parts[name] = raw[at:stop]
                at = stop
    except (struct_error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise PropertyError(str(error)) from error
    _check_end(flags, at, raw)
    return parts


def join(parts: Mapping[str, bytes]) -> bytes:
    """Put properties together that `cut` has taken apart."""
    flags = sum(flag for flag, name, _ in _FIELDS if name in parts)
    encoded = (parts[name] for _, name, _ in _FIELDS if name in parts)
    return b"".join((_SHORT.pack(flags), *encoded))


def entries(table: bytes) -> list[tuple[str, bytes]]:
    """Cut an encoded header table apart: each name, and the entry as it came.

    Raises:
        PropertyError: They can't be read.
    """
    found: list[tuple[str, bytes]] = []
    at = 4
    try:
        while at < len(table):
            name, middle = _read_short(table, at)
            _, stop = _read_field(table, middle, 0)
            found.append((name, table[at:stop]))
            at = stop
    except (struct_error, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise PropertyError(str(error)) from error
    return found


def _decode(raw: bytes) -> Properties:
    (flags,) = _SHORT.unpack_from(raw)
    found: dict[str, Any] = {}
    at = 2
    for flag, name, read in _FIELDS:
        if flags & flag:
            found[name], at = read(raw, at)
    _check_end(flags, at, raw)
    return Properties(**found)


def _check_end(flags: int, at: int, raw: bytes) -> None:
    if flags & 3 or at != len(raw):
        msg = "the property list does not fit its flags"
        raise PropertyError(msg)


def _within(raw: bytes, stop: int) -> int:
    if stop > len(raw):
        msg = "a value is cut short"
        raise PropertyError(msg)
    return stop


def _read_short(raw: bytes, at: int) -> tuple[str, int]:
    start = at + 1
    stop = _within(raw, start + raw[at])
    return raw[start:stop].decode(), stop


def _read_octet(raw: bytes, at: int) -> tuple[int, int]:
    return raw[at], at + 1


def _read_time(raw: bytes, at: int) -> tuple[int, int]:
    (time,) = _TIME.unpack_from(raw, at)
    if time > LATEST:
        msg = f"the timestamp {time} is beyond the year 9999"
        raise PropertyError(msg)
    return time, at + 8


def _read_headers(raw: bytes, at: int) -> tuple[Mapping[str, Any], int]:
    stop = _within(raw, at + 4 + _LONG.unpack_from(raw, at)[0])
    return _table(raw[at + 4 : stop]), stop


def _table(raw: bytes) -> Mapping[str, Any]:
    """Read a table; small ones are the same again and again."""
    if len(raw) > WORTH_CACHING:
        return MappingProxyType(_read_table(raw, 0))
    return _cached_table(raw)


@lru_cache(maxsize=512)
def _cached_table(raw: bytes) -> Mapping[str, Any]:
    return MappingProxyType(_read_table(raw, 0)) if raw else NO_HEADERS


def _read_table(raw: bytes, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        msg = f"headers nested deeper than {MAX_DEPTH}"
        raise PropertyError(msg)
    table: dict[str, Any] = {}
    at = 0
    while at < len(raw):
        name, at = _read_short(raw, at)
        table[name], at = _read_field(raw, at, depth)
    return table


def _read_array(raw: bytes, depth: int) -> list[Any]:
    if depth > MAX_DEPTH:
        msg = f"headers nested deeper than {MAX_DEPTH}"
        raise PropertyError(msg)
    items: list[Any] = []
    at = 0
    while at < len(raw):
        item, at = _read_field(raw, at, depth)
        items.append(item)
    return items


def _read_field(raw: bytes, at: int, depth: int) -> tuple[Any, int]:
    kind = raw[at : at + 1]
    at += 1
    if kind == b"V":
        return None, at
    if kind == b"T":
        return _read_time(raw, at)
    if kind in _LONG_FIELDS:
        stop = _within(raw, at + 4 + _LONG.unpack_from(raw, at)[0])
        return _LONG_FIELDS[kind](raw[at + 4 : stop], depth + 1), stop
    number = _NUMBERS.get(kind)
    if number is None:
        msg = f"a header of the unknown type {kind!r}"
        raise PropertyError(msg)
    (value,) = number.unpack_from(raw, at)
    return (value == 1 if kind == b"t" else value), at + number.size


_NUMBERS = {
    b"t": Struct(">B"),
    b"b": Struct(">b"),
    b"B": Struct(">B"),
    b"s": Struct(">h"),
    b"u": Struct(">H"),
    b"I": Struct(">i"),
    b"i": Struct(">I"),
    b"l": _SIGNED,
    b"L": _SIGNED,
    b"f": Struct(">f"),
    b"d": Struct(">d"),
    b"D": Struct(">x4s"),
}
_LONG_FIELDS: dict[bytes, Callable[[bytes, int], Any]] = {
    b"S": lambda raw, _depth: raw.decode("utf-8", "replace"),
    b"x": lambda raw, _depth: raw,
    b"A": _read_array,
    b"F": _read_table,
}
_FIELDS: tuple[tuple[int, str, Callable[[bytes, int], tuple[Any, int]]], ...] = (
    (CONTENT_TYPE, "content_type", _read_short),
    (CONTENT_ENCODING, "content_encoding", _read_short),
    (HEADERS, "headers", _read_headers),
    (DELIVERY_MODE, "delivery_mode", _read_octet),
    (PRIORITY, "priority", _read_octet),
    (CORRELATION_ID, "correlation_id", _read_short),
    (REPLY_TO, "reply_to", _read_short),
    (EXPIRATION, "expiration", _read_short),
    (MESSAGE_ID, "message_id", _read_short),
    (TIMESTAMP, "timestamp", _read_time),
    (TYPE, "type", _read_short),
    (USER_ID, "user_id", _read_short),
    (APP_ID, "app_id", _read_short),
    (CLUSTER_ID, "cluster_id", _read_short),
)
