"""Where a foreign message comes from: its properties and its way, kept through retries.

RabbitMQ changes exchange and routing key when a message comes back from a delay, and
two properties can't travel along; all four are kept in headers of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from rmqarq.wire import properties
from rmqarq.wire.properties import LATEST, Properties, PropertyError
from rmqarq.wire.relay import OURS, SET_ASIDE, is_brokers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from rmqarq.message import Message
    from rmqarq.wire.properties import Header

    class Arrival(Protocol):
        """What has come from a queue, in this process or through a pipe."""

        @property
        def home(self) -> str:
            """The work queue that it belongs to."""
            ...

        @property
        def exchange(self) -> bytes:
            """Where it was published."""
            ...

        @property
        def routing_key(self) -> bytes:
            """Under which key."""
            ...

        @property
        def properties(self) -> bytes:
            """Its encoded properties."""
            ...

        @property
        def body(self) -> bytes:
            """Its payload."""
            ...


TASK, ID, TRY = "x-rmqarq-task", "x-rmqarq-id", "x-rmqarq-try"
ENQUEUED_AT, FIRST_AT = "x-rmqarq-enqueued-at", "x-rmqarq-first-at"
ETA, GENERATION = "x-rmqarq-eta", "x-rmqarq-generation"
EXCHANGE, ROUTING_KEY = "x-rmqarq-exchange", "x-rmqarq-routing-key"
USER_ID, EXPIRATION = "x-rmqarq-user-id", "x-rmqarq-expiration"


class Origin(Struct, frozen=True):
    """What a foreign message was published with.

    Args:
        properties: Its properties.
        exchange: Where to.
        routing_key: Under which key.
    """

    properties: Properties
    exchange: str
    routing_key: str

    def bookkeeping(self, message: Message) -> dict[str, Header]:
        """Give the headers that a foreign message needs to be known again."""
        found: dict[str, Header | None] = {
            TASK: message.task,
            ID: message.id,
            TRY: message.job_try,
            ENQUEUED_AT: int(message.enqueued_at * 1000),
            FIRST_AT: _ms(message.first_failed_at),
            ETA: _ms(message.eta),
            GENERATION: message.generation or None,
            EXCHANGE: self.exchange,
            ROUTING_KEY: self.routing_key,
            USER_ID: self.properties.user_id,
            EXPIRATION: self.properties.expiration,
        }
        return {name: value for name, value in found.items() if value is not None}


def origin_of(arrival: Arrival) -> Origin:
    """Read where a message comes from, be it the first time or after a retry.

    Raises:
        PropertyError: Its properties can't be read.
    """
    found = properties_of(arrival.properties)
    headers: Mapping[str, Any] = found.headers
    aside = {name: text_in(headers, _header(name)) for name in SET_ASIDE}
    given = {name: text for name, text in aside.items() if text is not None}
    exchange = text_in(headers, EXCHANGE)
    routing_key = text_in(headers, ROUTING_KEY)
    return Origin(
        msgspec.structs.replace(found, **given),
        _text(arrival.exchange) if exchange is None else exchange,
        _text(arrival.routing_key) if routing_key is None else routing_key,
    )


def properties_of(raw: bytes) -> Properties:
    """Read properties; a time too late for seconds is one in milliseconds.

    Raises:
        PropertyError: Any of them can't be read.
    """
    try:
        return properties.decode(raw)
    except PropertyError:
        parts = properties.cut(raw)
        time = int.from_bytes(parts.pop("timestamp", b""), "big")
        if time <= LATEST:
            raise
    if time // 1000 <= LATEST:
        parts["timestamp"] = (time // 1000).to_bytes(8, "big")
    return properties.decode(properties.join(parts))


def texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """Give the headers that can be told as text, but for those of brokers and ours."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        if is_brokers(name) or name.startswith(OURS):
            continue
        if isinstance(value, bool):
            found[name] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            found[name] = str(value)
    return found


def text_in(headers: Mapping[str, Any], name: str) -> str | None:
    """Read a header of ours that must be a text."""
    found = headers.get(name)
    return found if isinstance(found, str) else None


def number_in(headers: Mapping[str, Any], name: str, most: int) -> int | None:
    """Read a header of ours that must be a number from 1 to `most`."""
    found = headers.get(name)
    return found if type(found) is int and 0 < found <= most else None


def moment_in(headers: Mapping[str, Any], name: str) -> float | None:
    """Read a header of ours that must be milliseconds since the epoch, as seconds."""
    found = number_in(headers, name, LATEST * 1000)
    return None if found is None else found / 1000


def _header(name: str) -> str:
    return USER_ID if name == "user_id" else EXPIRATION


def _ms(moment: float | None) -> int | None:
    return None if moment is None else int(moment * 1000)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
