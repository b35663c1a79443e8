"""Messages as other producers make them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.wire import properties
from rmqarq.wire.codec import encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.wire.properties import Header

BASIC = 60


def payload(body: object) -> bytes:
    """Give a body as bytes: bytes as they are, text as UTF-8, anything else as JSON."""
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    return encoder("json").encode(body)


def content_header(
    size: int,
    content_type: str | None,
    headers: Mapping[str, Header],
    message_id: str | None,
) -> bytes:
    """Encode a content header (AMQP 0-9-1, section 4.2.6.1).

    Args:
        size: Of the body, in bytes.
        content_type: What it is.
        headers: The header table.
        message_id: The id of the message.

    Raises:
        PropertyError: They can't be encoded.
    """
    parts: dict[str, bytes] = {}
    if content_type is not None:
        parts["content_type"] = properties.encode_short(content_type)
    if headers:
        parts["headers"] = properties.encode_table(headers)
    if message_id is not None:
        parts["message_id"] = properties.encode_short(message_id)
    start = BASIC.to_bytes(2, "big") + bytes(2) + size.to_bytes(8, "big")
    return start + properties.join(parts)
