"""AMQP's basic types as bytes and back, with the exact kind of each table field.

The kinds are those of RabbitMQ, whose tables differ from the specification's:
https://www.rabbitmq.com/amqp-0-9-1-errata (section 3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
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
SIGNED = frozenset("IlLbs")
DEEPEST = 100
"""Tables and arrays that may stand within each other: Python recurses no further."""

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


class NoText(Malformed):
    """A name is not in UTF-8."""


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
        try:
            return self.octets().decode()
        except UnicodeDecodeError as error:
            raise NoText("Malformed UTF-8 in shortstr") from error

    def octets(self) -> bytes:
        """Read at most 255 bytes with their length before them, be they text or not."""
        return self._take(self.octet())

    def longstr(self) -> bytes:
        """Read bytes with their length before them."""
        return self._take(self.long())

    def bits(self) -> tuple[bool, bool, bool, bool, bool]:
        """Read up to five flags; those that are not meant are `False`."""
        octet = self.octet()
        return bool(octet & 1), bool(octet & 2), bool(octet & 4), *_high(octet)

    def table(self) -> Table:
        """Read a table."""
        data = self.longstr()
        check(raw_table(data).values())
        return _table(data)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Malformed("the frame ends too early")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _table(data: bytes) -> Table:
    found: Table = {}
    at, end = 0, len(data)
    while at < end:
        begin = at + 1
        at = begin + data[at]
        name = data[begin:at].decode("utf-8", "surrogateescape")
        found[name], at = _field(data, at)
    return found


def _array(data: bytes) -> list[Field]:
    found: list[Field] = []
    at, end = 0, len(data)
    while at < end:
        field, at = _field(data, at)
        found.append(field)
    return found


def _field(data: bytes, at: int) -> tuple[Field, int]:
    """Read a value with its kind; tell where it ends."""
    if at >= len(data):
        raise Malformed("a table ends too early")
    kind = chr(data[at])
    at += 1
    layout = _FIXED.get(kind)
    if layout is not None:
        end = at + layout.size
        if end > len(data):
            raise Malformed("a table ends too early")
        return Field(kind, layout.unpack_from(data, at)[0]), end
    if kind == "V":
        return Field(kind, None), at
    decode = _LONG_KINDS.get(kind)
    if decode is None:
        raise Malformed(f"a table field of kind {kind!r}")
    begin = at + 4
    end = begin + int.from_bytes(data[at:begin], "big")
    if end > len(data):
        raise Malformed("a table ends too early")
    return Field(kind, decode(data[begin:end])), end


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


_LONG_KINDS: dict[str, Callable[[bytes], object]] = {
    "S": _text,
    "x": bytes,
    "F": _table,
    "A": _array,
}


def _high(octet: int) -> tuple[bool, bool]:
    return bool(octet & 8), bool(octet & 16)


# --- tables whose values nobody reads: only checked, moved, compared, left out ---

RawTable: TypeAlias = dict[bytes, bytes]
"""Names, with their values as they stand on the wire, kind included."""

_SIZES = {ord(kind): layout.size for kind, layout in _FIXED.items()} | {ord("V"): 0}


def raw_table(data: bytes) -> RawTable:
    """Find the fields of a table, given without its length."""
    found: RawTable = {}
    at, end = 0, len(data)
    while at < end:
        begin = at + 1
        at = begin + data[at]
        stop = _raw_end(data, at)
        found[data[begin:at]] = data[at:stop]
        at = stop
    return found


def raw_array(data: bytes) -> list[bytes]:
    """Find the fields of an array, given without its length."""
    found: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        stop = _raw_end(data, at)
        found.append(data[at:stop])
        at = stop
    return found


def check(values: Iterable[bytes], depth: int = 0) -> None:
    """See that values are well-formed down to the last one within the last table.

    Args:
        values: As they stand on the wire, kind included.
        depth: How many tables and arrays they stand in.

    Raises:
        Malformed: One is not, or has more within each other than anybody needs.
    """
    if depth > DEEPEST:
        raise Malformed(f"more than {DEEPEST} tables within each other")
    for each in values:
        if each[:1] == b"F":
            check(raw_table(each[5:]).values(), depth + 1)
        elif each[:1] == b"A":
            check(raw_array(each[5:]), depth + 1)


def joined(fields: RawTable) -> bytes:
    """A table as bytes."""
    return longstr(
        b"".join([bytes((len(name),)) + name + fields[name] for name in fields])
    )


def raw_text(value: str) -> bytes:
    """A text as a value in a table."""
    return b"S" + longstr(value.encode("utf-8", "surrogateescape"))


def _raw_end(data: bytes, at: int) -> int:
    if at >= len(data):
        raise Malformed("a table ends too early")
    size = _SIZES.get(data[at])
    if size is not None:
        end = at + 1 + size
    elif chr(data[at]) in _LONG_KINDS:
        end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
    else:
        raise Malformed(f"a table field of kind {chr(data[at])!r}")
    if end > len(data):
        raise Malformed("a table ends too early")
    return end


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
