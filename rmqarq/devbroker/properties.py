"""The content header of a message: what stands where, and the same with changes."""

from __future__ import annotations

import struct

from rmqarq.devbroker import fields
from rmqarq.devbroker.fields import Malformed, RawTable, Reader, Table

CONTENT_TYPE = 0x8000
CONTENT_ENCODING = 0x4000
HEADERS = 0x2000
PRIORITY = 0x0800
REPLY_TO = 0x0200
EXPIRATION = 0x0100
USER_ID = 0x0010

_SIZES = {0x2000: "table", 0x1000: "octet", 0x0800: "octet", 0x0040: "longlong"}
_ALL = tuple(1 << bit for bit in range(15, 1, -1))  # in the order on the wire
_FLAGS = struct.Struct(">H")
_COUNT = fields.shortstr("x-delivery-count") + b"l"
_BEFORE = 14  # class, weight, body size, flags


def flags_of(header: bytes) -> int:
    """Which properties there are."""
    if len(header) < _BEFORE:
        raise Malformed("a content header that ends too early")
    found: int = _FLAGS.unpack_from(header, 12)[0]
    return found


class Properties:
    """The properties of a message, found but not read.

    Args:
        header: The payload of a content header frame.

    Raises:
        Malformed: The bytes are no such header.
    """

    def __init__(self, header: bytes) -> None:
        self._start = header[:12]
        self._parts: dict[int, bytes] = {}
        flags = flags_of(header)
        reader = Reader(header, _BEFORE)
        for flag in _ALL:
            if flags & flag:
                self._parts[flag] = _part(reader, _SIZES.get(flag, "shortstr"))
        if reader.left:
            raise Malformed("a content header that goes on after its end")

    def text(self, flag: int) -> str | None:
        """Read a property that is a short text; `None` if it is not there."""
        part = self._parts.get(flag)
        return None if part is None else part[1:].decode("utf-8", "surrogateescape")

    def octet(self, flag: int) -> int | None:
        """Read a property that is one byte; `None` if it is not there."""
        part = self._parts.get(flag)
        return None if part is None else part[0]

    def table(self, flag: int) -> Table:
        """Read a property that is a table; empty if it is not there."""
        part = self._parts.get(flag)
        return {} if part is None else Reader(part).table()

    def raw_table(self, flag: int) -> RawTable:
        """Find the fields of a property that is a table; none if it is not there."""
        part = self._parts.get(flag)
        return {} if part is None else fields.raw_table(part[4:])

    def changed(self, changes: dict[int, bytes | None]) -> bytes:
        """Give the content header with some properties set, or left out (`None`)."""
        merged = {**self._parts, **changes}
        found = [(flag, part) for flag in _ALL if (part := merged.get(flag))]
        flags = _FLAGS.pack(sum(flag for flag, _ in found))
        return b"".join((self._start, flags, *(part for _, part in found)))


def _part(reader: Reader, kind: str) -> bytes:
    if kind == "table":
        return fields.longstr(reader.longstr())
    if kind == "octet":
        return bytes((reader.octet(),))
    if kind == "longlong":
        return fields.longlong(reader.longlong())
    octets = reader.octets()
    return bytes((len(octets),)) + octets


def with_delivery_count(header: bytes, count: int) -> bytes:
    """Give the content header with `x-delivery-count` among the headers."""
    if b"x-delivery-count" in header:
        properties = Properties(header)
        headers = properties.raw_table(HEADERS)
        headers[b"x-delivery-count"] = b"l" + fields.longlong(count)
        return properties.changed({HEADERS: fields.joined(headers)})
    flags = flags_of(header)
    at = _BEFORE
    for flag in (CONTENT_TYPE, CONTENT_ENCODING):
        if flags & flag:
            at += 1 + header[at]
    old, after = b"", at
    if flags & HEADERS:
        after = at + 4 + int.from_bytes(header[at : at + 4], "big")
        old = header[at + 4 : after]
    new = fields.longstr(old + _COUNT + fields.longlong(count))
    start = header[:12] + _FLAGS.pack(flags | HEADERS) + header[_BEFORE:at]
    return start + new + header[after:]
