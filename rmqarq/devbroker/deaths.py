"""What happens to a message that dies: its `x-death`, and cycles that end it.

As `rabbit_dead_letter` of RabbitMQ 3.10 does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rmqarq.devbroker import fields
from rmqarq.devbroker.fields import Field, Table, text
from rmqarq.devbroker.message import Message
from rmqarq.devbroker.properties import EXPIRATION, HEADERS, Properties

if TYPE_CHECKING:
    from collections.abc import Sequence

REJECTED = "rejected"
EXPIRED = "expired"
MAXLEN = "maxlen"
DELIVERY_LIMIT = "delivery_limit"


def dead(
    message: Message, reason: str, queue: str, exchange: str, key: str | None, date: int
) -> Message:
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
    headers = properties.table(HEADERS)
    routed_by = [message.key, *carbon_copies(headers)]
    death: Table = {
        "reason": text(reason),
        "queue": text(queue),
        "time": Field("T", date),
        "exchange": text(message.exchange),
        "routing-keys": Field("A", [text(each) for each in routed_by]),
    }
    expiration = properties.text(EXPIRATION)
    if expiration is not None:
        death["original-expiration"] = text(expiration)
    headers = _with_death(headers, death)
    keys = message.keys
    if key is not None:
        headers.pop("CC", None)
        keys = (key,)
    return Message(
        exchange,
        keys[0],
        properties.changed({HEADERS: fields.table(headers), EXPIRATION: None}),
        message.body,
        keys=keys,
        priority=message.priority,
    )


def carbon_copies(headers: Table) -> list[str]:
    """Further routing keys: those of CC, then those of BCC."""
    found: list[str] = []
    for name in ("CC", "BCC"):
        found += [str(each.value) for each in _items(headers.get(name))]
    return found


def _items(field: Field | None, kind: str = "S") -> list[Field]:
    if field is None or not isinstance(field.value, list):
        return []
    items = cast("list[Field]", field.value)
    return [each for each in items if each.kind == kind]


def _tables(headers: Table) -> list[Table]:
    found = _items(headers.get("x-death"), "F")
    return [cast("Table", each.value) for each in found]


def _with_death(headers: Table, death: Table) -> Table:
    known = headers.get("x-death")
    if known is None:
        headers["x-first-death-reason"] = death["reason"]
        headers["x-first-death-queue"] = death["queue"]
        headers["x-first-death-exchange"] = death["exchange"]
    deaths = _tables(headers)
    same = [each for each in deaths if _which(each) == _which(death)]
    others = [each for each in deaths if _which(each) != _which(death)]
    newest: Table = {"count": Field("l", 1), **death}
    if same:
        # only the count changes: the time stays that of the first death of its kind
        count = same[0].get("count", Field("l", 0)).value
        again = Field("l", count + 1 if isinstance(count, int) else 1)
        newest = dict(sorted({**same[0], "count": again}.items()))
    headers["x-death"] = Field("A", [Field("F", each) for each in (newest, *others)])
    return dict(sorted(headers.items()))  # rabbit_misc:set_table_value/4 sorts


def _which(death: Table) -> tuple[Field | None, Field | None]:
    return death.get("queue"), death.get("reason")


def without_cycles(reason: str, message: Message, queues: Sequence[str]) -> list[str]:
    """Leave out the queues in which the message has died before, with no rejection.

    Args:
        reason: Why it died now.
        message: As it is dead-lettered.
        queues: Where it would go.
    """
    if reason == REJECTED:
        return list(queues)
    deaths = _tables(message.headers())
    return [queue for queue in queues if not _is_cycle(queue, deaths)]


def _is_cycle(queue: str, deaths: list[Table]) -> bool:
    for number, death in enumerate(deaths):
        if death.get("queue") == text(queue):
            round_trip = deaths[: number + 1]
            return all(each.get("reason") != text(REJECTED) for each in round_trip)
    return False
