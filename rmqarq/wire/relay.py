"""A foreign message sent on: its properties byte for byte, its headers with ours added.

What the broker itself wrote is left out: a copied `x-death` makes RabbitMQ before 4.0.1
drop a message as a cycle, and `CC` would send it to queues of the first publish again.
So are two properties that would do harm on a further publish: `expiration` cuts delays
short, and `user_id` must be the publisher's own (RabbitMQ, "Validated User-ID").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from rmqarq.wire import properties
from rmqarq.wire.properties import PropertyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.wire.properties import Header

OURS = "x-rmqarq-"
NUMBER = "x-rmqarq-publish"
"""Holds the number of the publish, which is elsewhere the `message_id`."""
MOST = 112 * 1024
"""Bytes: all of it must fit one frame, 128 KiB unless the broker is set otherwise."""
SET_ASIDE = ("expiration", "user_id")

_BROKERS = re.compile(
    r"x-death|x-(first|last)-death-.*|x-delivery-count|x-acquired-count|CC|BCC"
)
_NUMBER = bytes((len(NUMBER),)) + NUMBER.encode() + b"S"


class Relay(Struct, frozen=True, gc=False):
    """Encoded properties with a gap in a header of ours, instead of the `message_id`.

    Args:
        parts: The properties, but for the headers.
        entries: The header entries, but for the number.
    """

    parts: Mapping[str, bytes]
    entries: bytes

    def fill(self, number: bytes) -> bytes:
        """Close the gap."""
        entry = _NUMBER + len(number).to_bytes(4, "big") + number
        table = self.entries + entry
        headers = len(table).to_bytes(4, "big") + table
        return properties.join({**self.parts, "headers": headers})


def relay(raw: bytes, headers: Mapping[str, Header]) -> Relay:
    """Take over properties as they came.

    Args:
        raw: The encoded properties.
        headers: Those of ours, instead of all that it carries.

    Raises:
        PropertyError: They can't be read, or are too many with ours.
    """
    ours = properties.encode_table(headers)[4:]
    return _taken_over(raw, _foreign, ours)


def onward(raw: bytes) -> Relay:
    """Take over properties as they came, with what is ours in them, and their way.

    For a message that stays what it is: `CC` names the rungs before it.

    Raises:
        PropertyError: They can't be read, or are too many.
    """
    return _taken_over(raw, _of_the_way)


def _foreign(header: str) -> bool:
    return not (is_brokers(header) or header.startswith(OURS))


def _of_the_way(header: str) -> bool:
    return header == "CC" or not (is_brokers(header) or header == NUMBER)


def _taken_over(raw: bytes, keep: Callable[[str], bool], more: bytes = b"") -> Relay:
    parts = properties.cut(raw)
    table = parts.pop("headers", b"")
    for name in SET_ASIDE:
        parts.pop(name, None)
    kept = [entry for name, entry in properties.entries(table) if keep(name)]
    entries = b"".join((*kept, more))
    size = len(entries) + sum(map(len, parts.values()))
    if size > MOST:
        msg = f"the properties take {size} bytes; {MOST} are allowed"
        raise PropertyError(msg)
    return Relay(parts, entries)


def is_brokers(name: str) -> bool:
    """Tell whether a header is one that the broker reads or writes itself."""
    return _BROKERS.fullmatch(name) is not None


def number_in(raw: bytes) -> str | None:
    """Read the number of a publish of ours from its properties."""
    try:
        found = properties.decode_head(raw)[2].get(NUMBER)
        if isinstance(found, str):
            return found
        return properties.decode(raw).message_id
    except PropertyError:
        return None
