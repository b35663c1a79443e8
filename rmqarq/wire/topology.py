"""Exchanges, queues and bindings as data: what must exist for a job to travel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from rmqarq.errors import ConfigurationError
from rmqarq.wire.delay import DECADES, Rung
from rmqarq.wire.names import SUSPECT, Names, dead_letter_key, suspect_lane

if TYPE_CHECKING:
    from rmqarq.settings import Settings

KEEP = 2**31 - 1
"""A delivery limit no letter ever meets: looking at it must not delete it."""
FAR = 10_000
"""A net far below: RabbitMQ 4 would else drop after 20 returns, deploys included."""

# what RabbitMQ accepts is wider, but the client library refuses other names
_NAME = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]+")


class Exchange(Struct, frozen=True):
    """An exchange to be declared, durable."""

    name: str
    type: str
    arguments: Mapping[str, Any] = {}


class Queue(Struct, frozen=True):
    """A queue to be declared, durable."""

    name: str
    arguments: Mapping[str, Any] = {}


class Binding(Struct, frozen=True):
    """A queue bound to an exchange under a key."""

    queue: str
    exchange: str
    key: str


class Topology(Struct, frozen=True):
    """Things to declare, in order: exchanges, then queues, then bindings."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()


def dead_letter_queue(queue: str, settings: Settings) -> str:
    """The name of the dead-letter queue of `queue`."""
    if queue == settings.queue and settings.dead_letter_queue:
        return settings.dead_letter_queue
    return dead_letter_key(queue)


def check_name(queue: object) -> None:
    """Refuse a queue name that RabbitMQ or the client library would refuse.

    Raises:
        ConfigurationError: The name is empty, too long or has other characters.
    """
    # 255 bytes less the longest suffix of ours
    if (
        not isinstance(queue, str)
        or not _NAME.fullmatch(queue)
        or len(queue) > 240
        or queue.startswith("amq.")
        or queue.endswith(SUSPECT)
    ):
        raise ConfigurationError(
            "the queue name {queue} can't be used: 1 to 240 letters, digits, spaces"
            " or -_.:@#,/+, no 'amq.' at the beginning and no '.suspect' at the end",
            queue=repr(queue),
        )


def check_names(settings: Settings) -> None:
    """Refuse settings whose names can't be used.

    Raises:
        ConfigurationError: As for `check_name`, or the dead letters of the queue would
            go into itself.
    """
    dead = settings.dead_letter_queue
    if dead == settings.queue:
        raise ConfigurationError(
            "{queue} can't be its own dead-letter queue", queue=repr(dead)
        )
    for name in (settings.queue, settings.prefix, dead):
        if name is not None:
            check_name(name)


def foundation(names: Names) -> Topology:
    """What every queue needs: the last hop and the net below it."""
    return Topology(
        exchanges=(
            Exchange(names.lost, "fanout"),
            Exchange(names.due, "direct", {"alternate-exchange": names.lost}),
        ),
        queues=(Queue(names.lost, _kept()),),
        bindings=(Binding(names.lost, names.lost, ""),),
    )


def work(queue: str, settings: Settings) -> Topology:
    """A queue of jobs with its suspect lane and its dead-letter queue."""
    arguments = _work_arguments(queue, Names(settings.prefix), settings)
    around = beside(queue, settings)
    dead, lane = around.queues
    queues = (dead, Queue(queue, arguments), lane)
    return Topology(queues=queues, bindings=around.bindings)


def beside(queue: str, settings: Settings) -> Topology:
    """What belongs to a queue of jobs, or of somebody else: all but the queue itself.

    The binding leads what was delayed back into it.
    """
    names = Names(settings.prefix)
    lane = suspect_lane(queue)
    dead = dead_letter_queue(queue, settings)
    arguments = _work_arguments(queue, names, settings)
    return Topology(
        queues=(Queue(dead, _kept()), Queue(lane, arguments)),
        bindings=(
            Binding(dead, names.due, dead_letter_key(queue)),
            Binding(queue, names.due, queue),
            Binding(lane, names.due, lane),
        ),
    )


def ladder(names: Names) -> Topology:
    """The exchanges before the rungs.

    Those between them fall through to the next lower one. Where a delay begins there is
    no such net: a message whose first rung is gone is returned, and not early.
    """
    between = (
        Exchange(
            names.ladder(decade),
            "direct",
            {"alternate-exchange": names.ladder(decade - 1)},
        )
        for decade in range(DECADES)
    )
    entries = (Exchange(names.entry(decade), "direct") for decade in range(DECADES))
    return Topology(exchanges=(*between, *entries))


def delayed(names: Names) -> Topology:
    """The exchange of the delayed-message plugin; it keeps to no alternate exchange."""
    arguments = {"x-delayed-type": "direct"}
    return Topology(
        exchanges=(Exchange(names.delayed, "x-delayed-message", arguments),)
    )


def delayed_binding(queue: str, names: Names) -> Binding:
    """What leads from the plugin's exchange to a queue."""
    return Binding(queue, names.delayed, queue)


def rung(rung: Rung, names: Names) -> Topology:
    """One rung: no `x-expires` (it would drop jobs), no dead-letter routing key."""
    name = names.rung(rung.label)
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": rung.ttl_ms,
        "x-dead-letter-exchange": names.ladder(rung.decade - 1),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return Topology(
        queues=(Queue(name, arguments),),
        bindings=(
            Binding(name, names.ladder(rung.decade), name),
            Binding(name, names.entry(rung.decade), name),
        ),
    )


def _kept() -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": KEEP}


def _work_arguments(queue: str, names: Names, settings: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "x-queue-type": settings.queue_type,
        "x-dead-letter-exchange": names.due,
        "x-dead-letter-routing-key": dead_letter_key(queue),
    }
    if settings.queue_type == "quorum":
        return arguments | {
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": FAR,
        }
    if settings.max_priority is not None:
        arguments["x-max-priority"] = settings.max_priority
    return arguments
