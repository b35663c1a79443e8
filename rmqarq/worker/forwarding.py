"""A message that is sent on: its bytes as they came, and none of its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.wire import properties
from rmqarq.wire.properties import NO_HEADERS, Header, Properties, PropertyError
from rmqarq.wire.publication import Letter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.message import Message
    from rmqarq.wire.consumer import Delivery


def copied(
    delivery: Delivery, message: Message | None, headers: Mapping[str, Header]
) -> Letter:
    """Take over the body as it came, but none of its headers.

    A copied `x-death` makes RabbitMQ before 4.0.1 drop a message as a cycle.
    """
    found = readable(delivery)
    return Letter(
        task=short(message.task if message is not None else found.type or ""),
        job_id=short(message.id if message is not None else found.correlation_id or ""),
        body=delivery.body,
        content_type=found.content_type,
        content_encoding=found.content_encoding,
        priority=found.priority or 0,
        headers=headers,
        timestamp=found.timestamp,
    )


def short(text: str) -> str:
    """Cut what a foreign producer made longer than a property may be."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")


def readable(delivery: Delivery) -> Properties:
    """Read what can be read; a message with unreadable properties has none."""
    try:
        return properties.decode(delivery.properties)
    except PropertyError:
        return Properties(headers=NO_HEADERS)
