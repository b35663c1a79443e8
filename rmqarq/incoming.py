"""A foreign message with all that came along, for functions that ask for more."""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from rmqarq.wire.properties import Properties

BodyT = TypeVar("BodyT")


class Incoming(Struct, Generic[BodyT], frozen=True, kw_only=True):
    """What a consume function gets that annotates its parameter `Incoming[Event]`.

    Args:
        body: The body as the type in the brackets.
        raw: The bytes of the body, unpacked.
        exchange: Where it was published; `""` is the default exchange.
        routing_key: Under which key.
        properties: Its AMQP properties; `properties.headers` holds all headers with
            the types that they came with.

    Example:
        >>> @app.consume("followers")
        ... async def followed(event: Incoming[dict[str, str]]) -> None:
        ...     print(event.routing_key, event.properties.reply_to, event.body)
    """

    body: BodyT
    raw: bytes = b""
    exchange: str = ""
    routing_key: str = ""
    properties: Properties = Properties()
