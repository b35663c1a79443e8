"""A message as it lies in the broker: its bytes untouched, what is needed read once."""

from __future__ import annotations

from rmqarq.devbroker import fields
from rmqarq.devbroker.properties import HEADERS, Properties


class Message:
    """A message; never changed on its way, so many queues may hold the same one.

    Args:
        exchange: Where it was published to.
        key: Its routing key.
        header: The payload of its content header frame.
        body: Its body.
        keys: All keys that it is routed by: its own, then those of CC and BCC.
        priority: As given, 0 if none is.
        expiration: Milliseconds; `None` if it lives for ever.
    """

    __slots__ = (
        "address",
        "body",
        "copies",
        "exchange",
        "expiration",
        "header",
        "key",
        "keys",
        "priority",
    )

    def __init__(
        self,
        exchange: str,
        key: str,
        header: bytes,
        body: bytes,
        *,
        keys: tuple[str, ...] = (),
        priority: int = 0,
        expiration: int | None = None,
    ) -> None:
        self.exchange = exchange
        self.key = key
        self.keys = keys or (key,)
        self.copies: tuple[str, ...] = ()  # those of CC, which its headers show
        self.header = header
        self.body = body
        self.priority = priority
        self.expiration = expiration
        self.address = b""  # exchange and key, encoded when first needed

    def addressed(self) -> bytes:
        """Exchange and key as they stand in a delivery."""
        if not self.address:
            self.address = fields.shortstr(self.exchange) + fields.shortstr(self.key)
        return self.address

    def headers(self) -> fields.Table:
        """Read its headers; none is the same as an empty table."""
        return Properties(self.header).table(HEADERS)


class Entry:
    """A message in one queue.

    Args:
        message: What lies there.
        place: Its number in the queue.
        expires: When it does, by the broker's clock.
    """

    __slots__ = ("expires", "message", "place", "redelivered", "returns")

    def __init__(self, message: Message, place: int, expires: float | None) -> None:
        self.message = message
        self.place = place
        self.expires = expires
        self.redelivered = False
        self.returns = 0
