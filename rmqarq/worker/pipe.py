"""What a worker and its isolated process say to each other, as frames on a socket."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from rmqarq.outcome import (
    Aborted,
    DeadLettered,
    Released,
    Retried,
    Succeeded,
)
from rmqarq.settings import Settings
from rmqarq.worker.roster import Interruption

LENGTH = 4
Ending: TypeAlias = Succeeded | Retried | DeadLettered | Aborted | Released


class Start(Struct, frozen=True, tag=True):
    """The first word of the worker: what to load.

    Args:
        path: MODULE:APP.
        settings: The worker's.
        number: Of the worker's process, when there are several: for the log.
    """

    path: str
    settings: Settings
    number: int | None = None


class Order(Struct, frozen=True, tag=True):
    """Run one job.

    Args:
        home: The work queue it came from.
        exchange: Where it was published.
        routing_key: Under which key.
        properties: Its encoded properties.
        body: Its payload.
    """

    home: str
    exchange: bytes
    routing_key: bytes
    properties: bytes
    body: bytes


class Interrupt(Struct, frozen=True, tag=True):
    """Cancel the job.

    Args:
        why: `timeout` or `shutdown`.
    """

    why: Interruption


class Leave(Struct, frozen=True, tag=True):
    """No more jobs: end in good order."""


class Ready(Struct, frozen=True, tag=True):
    """The App is loaded and its lifespan entered.

    Args:
        tasks: The names of those that it knows.
    """

    tasks: frozenset[str]


class Refused(Struct, frozen=True, tag=True):
    """The App can't be loaded, or something of ours has failed.

    Args:
        problem: Why, as a sentence.
    """

    problem: str


class Ended(Struct, frozen=True, tag=True):
    """The job has ended.

    Args:
        outcome: How.
    """

    outcome: Ending


ToChild: TypeAlias = Start | Order | Interrupt | Leave
ToWorker: TypeAlias = Ready | Refused | Ended


def pack(word: Struct) -> bytes:
    """Encode one frame, its length first."""
    body = msgspec.msgpack.encode(word)
    return len(body).to_bytes(LENGTH, "big") + body


def to_child(body: bytes) -> ToChild:
    """Decode a frame that the worker sent."""
    word: ToChild = unpacked(ToChild, body)
    return word


def to_worker(body: bytes) -> ToWorker:
    """Decode a frame that the isolated process sent."""
    word: ToWorker = unpacked(ToWorker, body)
    return word


def unpacked(kind: Any, body: bytes) -> Any:
    """Decode a frame as one of the words of a side.

    Args:
        kind: The union of these words.
        body: The frame without its length.

    Raises:
        msgspec.DecodeError: It is none of them.
    """
    return _decoder(kind).decode(body)


@cache
def _decoder(kind: Any) -> Any:
    return msgspec.msgpack.Decoder(kind)
