"""AMQP frames as bytes: methods, and messages on their way to a client."""

from __future__ import annotations

import struct
from typing import NamedTuple

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = (METHOD, HEADER, BODY, HEARTBEAT)
END = 0xCE
EMPTY = 8
"""Bytes of a frame around its payload."""

HEAD = struct.Struct(">BHI")
BEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_END = b"\xce"


class Method(NamedTuple):
    """A method by its numbers."""

    class_id: int
    method_id: int


NO_METHOD = Method(0, 0)
PUBLISH = Method(60, 40)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Put a frame around a payload."""
    return b"".join((HEAD.pack(kind, channel, len(payload)), payload, _END))


def method(channel: int, which: Method, *arguments: bytes) -> bytes:
    """A method with its arguments, encoded one by one."""
    payload = struct.pack(">HH", *which) + b"".join(arguments)
    return frame(METHOD, channel, payload)


def content(
    channel: int, payload: bytes, header: bytes, body: bytes, frame_max: int
) -> bytes:
    """A method with a message: its body in as many frames as it needs.

    Args:
        channel: Where it goes.
        payload: The method, encoded.
        header: The payload of the content header frame.
        body: The body.
        frame_max: Bytes that a whole frame may have.
    """
    size = len(body)
    room = frame_max - EMPTY
    head = (
        HEAD.pack(METHOD, channel, len(payload)),
        payload,
        _END,
        HEAD.pack(HEADER, channel, len(header)),
        header,
        _END,
    )
    if 0 < size <= room:
        return b"".join((*head, HEAD.pack(BODY, channel, size), body, _END))
    pieces = [frame(BODY, channel, body[at : at + room]) for at in range(0, size, room)]
    return b"".join((*head, *pieces))


def blamed(kind: int, payload: bytes) -> Method:
    """Give the method whose frame this is: only messages come in frames of others."""
    if kind != METHOD:
        return PUBLISH
    if len(payload) < 4:
        return NO_METHOD
    numbers = payload[:2], payload[2:4]
    return Method(*(int.from_bytes(each, "big") for each in numbers))


def snippet(payload: bytes) -> str:
    """Show the beginning of a payload as RabbitMQ does."""
    shown = ",".join(str(each) for each in payload[:16])
    return f"{'all' if len(payload) <= 16 else 'first 16'} octets = <<{shown}>>"
