"""What happens to a message that dies: its `x-death`, and cycles that end it.

As `rabbit_dead_letter` of RabbitMQ 3.10 does it. Nothing is decoded that needs not be:
a rung of a delay ladder does this to every job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.fields import Malformed, RawTable, raw_array, raw_table, raw_text
from rmqarq.devbroker.message import Message
from rmqarq.devbroker.properties import EXPIRATION, HEADERS, Properties

if TYPE_CHECKING:
    from collections.abc import Sequence

REJECTED = "rejected"
EXPIRED = "expired"
MAXLEN = "maxlen"
DELIVERY_LIMIT = "delivery_limit"

_REJECTED = raw_text(REJECTED)
_FIRST = b"l" + fields.longlong(1)
_DEATHS = b"x-death"


class Letter(NamedTuple):
    """A message that died, ready to be sent on.

    Args:
        message: With its death in the headers.
        deaths: All its deaths, the newest first.
    """

    message: Message
    deaths: list[RawTable]


def dead(
    message: Message, reason: str, queue: str, exchange: str, key: str | None, date: int
) -> Letter:
    """Make the message that is dead-lettered.

    Args:
        message: That died.
        reason: Why.
        queue: Where.
        exchange: The dead-letter exchange.
        key: The dead-letter routing key; `None` keeps all its keys.
        date: Seconds since 1970.
    """
    properties = Properties(message.header)
    headers = properties.raw_table(HEADERS)
    keys = [raw_text(each) for each in (message.key, *message.copies)]
    death = {
        b"reason": raw_text(reason),
        b"queue": raw_text(queue),
        b"time": b"T" + fields.longlong(date),
        b"exchange": raw_text(message.exchange),
        b"routing-keys": b"A" + fields.longstr(b"".join(keys)),
    }
    expiration = properties.text(EXPIRATION)
    if expiration is not None:
        death[b"original-expiration"] = raw_text(expiration)
    deaths = _enter(headers, death)
    if key is not None:
        headers.pop(b"CC", None)
    changes = {HEADERS: fields.joined(headers), EXPIRATION: None}
    letter = Message(
        exchange,
        message.key if key is None else key,
        properties.changed(changes),
        message.body,
        keys=message.keys if key is None else (),
        priority=message.priority,
    )
    letter.copies = message.copies if key is None else ()
    return Letter(letter, deaths)


def _enter(headers: RawTable, death: RawTable) -> list[RawTable]:
    """Put a death into the headers; give all deaths, the newest first."""
    known = headers.get(_DEATHS)
    if known is None:
        headers[b"x-first-death-reason"] = death[b"reason"]
        headers[b"x-first-death-queue"] = death[b"queue"]
        headers[b"x-first-death-exchange"] = death[b"exchange"]
    deaths = _grouped(_read(known))
    newest = {b"count": _FIRST, **death}
    which = _which(death)
    for each in deaths:
        if _which(each) == which:
            # only the count changes: the time stays that of the first such death
            deaths.remove(each)
            newest = {**each, b"count": _one_more(each.get(b"count"))}
            break
    deaths.insert(0, newest)
    tables = b"".join([b"F" + fields.joined(each) for each in deaths])
    headers[_DEATHS] = b"A" + fields.longstr(tables)
    return deaths


def _which(death: RawTable) -> tuple[bytes | None, bytes | None]:
    return death.get(b"queue"), death.get(b"reason")


def _grouped(deaths: list[RawTable]) -> list[RawTable]:
    """Keep one death of each queue and reason; as RabbitMQ does, the last one first."""
    if len(deaths) < 2:
        return deaths
    groups: dict[tuple[bytes | None, bytes | None], list[RawTable]] = {}
    for each in deaths:
        groups.setdefault(_which(each), []).append(each)
    return [
        {b"count": _integer(len(found)), **found[0]}
        for found in reversed(groups.values())
    ]


def _read(raw: bytes | None) -> list[RawTable]:
    if raw is None or raw[:1] != b"A":
        return []
    try:
        tables = [each for each in raw_array(raw[5:]) if each[:1] == b"F"]
        return [raw_table(each[5:]) for each in tables]
    except Malformed:  # whatever a client has put there
        return []


def _one_more(count: bytes | None) -> bytes:
    if count is None or chr(count[0]) not in fields.INTEGERS:
        return _FIRST
    signed = chr(count[0]) in fields.SIGNED
    return _integer(int.from_bytes(count[1:], "big", signed=signed) + 1)


def _integer(value: int) -> bytes:
    # modulo 2 ** 64, as Erlang does it: a client may have put any count there
    return b"l" + fields.longlong(value % (1 << 64))


def without_cycles(
    reason: str, deaths: list[RawTable], queues: Sequence[str]
) -> list[str]:
    """Leave out the queues in which the message has died before, with no rejection.

    Args:
        reason: Why it died now.
        deaths: All its deaths, this one first.
        queues: Where it would go.
    """
    if reason == REJECTED:
        return list(queues)
    return [queue for queue in queues if not _is_cycle(raw_text(queue), deaths)]


def _is_cycle(queue: bytes, deaths: list[RawTable]) -> bool:
    for number, death in enumerate(deaths):
        if death.get(b"queue") == queue:
            round_trip = deaths[: number + 1]
            return all(each.get(b"reason") != _REJECTED for each in round_trip)
    return False
