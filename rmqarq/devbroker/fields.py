"""AMQP's basic types as bytes and back, with the exact kind of each table field.

The kinds are those of RabbitMQ, whose tables differ from the specification's:
https://www.rabbitmq.com/amqp-0-9-1-errata (section 3).
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias, cast

KIND_NAMES = {
    "S": "longstr",
    "I": "signedint",
    "D": "decimal",
    "T": "timestamp",
    "F": "table",
    "A": "array",
    "l": "long",
    "L": "long",
    "b": "byte",
    "d": "double",
    "f": "float",
    "s": "short",
    "t": "bool",
    "x": "binary",
    "V": "void",
    "B": "unsignedbyte",
    "u": "unsignedshort",
    "i": "unsignedint",
}
"""What RabbitMQ calls them in its sentences."""

INTEGERS = frozenset("IlLbsBui")

_FIXED = {
    "I": struct.Struct(">i"),
    "D": struct.Struct(">5s"),
    "T": struct.Struct(">Q"),
    "l": struct.Struct(">q"),
    "L": struct.Struct(">q"),
    "b": struct.Struct(">b"),
    "d": struct.Struct(">d"),
    "f": struct.Struct(">f"),
    "s": struct.Struct(">h"),
    "t": struct.Struct(">?"),
    "B": struct.Struct(">B"),
    "u": struct.Struct(">H"),
    "i": struct.Struct(">I"),
}
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_LONGLONG = struct.Struct(">Q")


class Field(NamedTuple):
    """A value in a table, with the letter that tells its kind."""

    kind: str
    value: object


Table: TypeAlias = dict[str, Field]


class Malformed(Exception):
    """The bytes are not what they should be."""


class Reader:
    """Reads one after the other what stands in some bytes."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def left(self) -> int:
        """How many bytes are not read yet."""
        return len(self._data) - self._at

    def octet(self) -> int:
        """Read a number of one byte."""
        return self._take(1)[0]

    def short(self) -> int:
        """Read a number of two bytes."""
        value: int = _SHORT.unpack(self._take(2))[0]
        return value

    def long(self) -> int:
        """Read a number of four bytes."""
        value: int = _LONG.unpack(self._take(4))[0]
        return value

    def longlong(self) -> int:
        """Read a number of eight bytes."""
        value: int = _LONGLONG.unpack(self._take(8))[0]
        return value

    def shortstr(self) -> str:
        """Read a text of at most 255 bytes."""
        return self._take(self.octet()).decode("utf-8", "surrogateescape")

    def longstr(self) -> bytes:
        """Read bytes with their length before them."""
        return self._take(self.long())

    def bits(self) -> tuple[bool, bool, bool, bool, bool]:
        """Read up to five flags; those that are not meant are `False`."""
        octet = self.octet()
        return bool(octet & 1), bool(octet & 2), bool(octet & 4), *_high(octet)

    def table(self) -> Table:
        """Read a table."""
        inner = Reader(self.longstr())
        found: Table = {}
        while inner.left:
            name = inner.shortstr()
            found[name] = inner.field()
        return found

    def field(self) -> Field:
        """Read a value with its kind."""
        kind = chr(self.octet())
        layout = _FIXED.get(kind)
        if layout is not None:
            return Field(kind, layout.unpack(self._take(layout.size))[0])
        if kind == "S":
            return Field(kind, self.longstr().decode("utf-8", "surrogateescape"))
        if kind == "x":
            return Field(kind, self.longstr())
        if kind == "F":
            return Field(kind, self.table())
        if kind == "A":
            return Field(kind, self._array())
        if kind == "V":
            return Field(kind, None)
        raise Malformed(f"a table field of kind {kind!r}")

    def _array(self) -> list[Field]:
        inner = Reader(self.longstr())
        found: list[Field] = []
        while inner.left:
            found.append(inner.field())
        return found

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Malformed("the frame ends too early")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _high(octet: int) -> tuple[bool, bool]:
    return bool(octet & 8), bool(octet & 16)


def short(value: int) -> bytes:
    """A number as two bytes."""
    return _SHORT.pack(value)


def long(value: int) -> bytes:
    """A number as four bytes."""
    return _LONG.pack(value)


def longlong(value: int) -> bytes:
    """A number as eight bytes."""
    return _LONGLONG.pack(value)


def shortstr(text: str) -> bytes:
    """A text of at most 255 bytes, its length before it."""
    data = text.encode("utf-8", "surrogateescape")
    return bytes((len(data),)) + data


def longstr(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return _LONG.pack(len(data)) + data


def table(fields: Table) -> bytes:
    """A table as bytes."""
    return longstr(b"".join(shortstr(name) + field(fields[name]) for name in fields))


def field(given: Field) -> bytes:
    """A value with its kind as bytes."""
    kind, value = given
    layout = _FIXED.get(kind)
    if layout is not None:
        data = layout.pack(value)
    elif isinstance(value, str):
        data = longstr(value.encode("utf-8", "surrogateescape"))
    elif isinstance(value, bytes):
        data = longstr(value)
    elif isinstance(value, dict):
        data = table(cast("Table", value))
    elif isinstance(value, list):
        data = longstr(b"".join(map(field, cast("list[Field]", value))))
    else:
        data = b""
    return kind.encode() + data


def text(value: str) -> Field:
    """A text as a table field."""
    return Field("S", value)
