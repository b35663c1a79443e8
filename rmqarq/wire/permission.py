"""Permissions as data: what a user must be allowed for a topology to come about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rmqarq.wire.topology import Exchange, Queue, Topology

Kind: TypeAlias = Literal["configure", "write", "read"]
What: TypeAlias = Literal["queue", "exchange"]

DEFAULT_EXCHANGE = "amq.default"
"""The name under which RabbitMQ checks who may publish to the exchange `""`."""


class Permission(Struct, frozen=True):
    """The right to do one kind of thing with one queue or exchange."""

    kind: Kind
    what: What
    name: str


def to_declare(topology: Topology, there: Collection[str]) -> Iterator[Permission]:
    """Give what it takes to declare a topology ("Access Control" of RabbitMQ).

    Args:
        topology: What is declared.
        there: What exists already; only what is missing needs more than `configure`.
    """
    for exchange in topology.exchanges:
        yield Permission("configure", "exchange", exchange.name)
        yield from _passing_on(exchange, "exchange", "alternate-exchange", there)
    for queue in topology.queues:
        yield Permission("configure", "queue", queue.name)
        yield from _passing_on(queue, "queue", "x-dead-letter-exchange", there)
    for binding in topology.bindings:
        yield Permission("write", "queue", binding.queue)
        yield Permission("read", "exchange", binding.exchange)


def _passing_on(
    one: Exchange | Queue, what: What, argument: str, there: Collection[str]
) -> Iterator[Permission]:
    """What passes messages on must be readable, and where they go writable."""
    target = one.arguments.get(argument)
    if target is not None and one.name not in there:
        yield Permission("read", what, one.name)
        yield Permission("write", "exchange", target)
