"""Exchanges and what is bound to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.matching import (
    check_headers_binding,
    headers_match,
    topic_matches,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.devbroker.fields import Table
    from rmqarq.devbroker.message import Message

TYPES = ("direct", "fanout", "topic", "headers")
PREDECLARED = {
    "": "direct",
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.rabbitmq.trace": "topic",
}
INTERNAL = ("amq.rabbitmq.trace",)
MOST_CACHED = 1024  # keys of a topic exchange whose way is remembered


class Destination(NamedTuple):
    """A queue or an exchange that something is bound to, by name."""

    kind: str
    name: str


class Binding(NamedTuple):
    """What leads from an exchange to a destination."""

    destination: Destination
    key: str
    arguments: bytes  # encoded: two bindings are the same if these are


class Exchange:
    """An exchange with its bindings.

    Args:
        name: Under which it was declared.
        type: One of `TYPES`.
        durable: As declared; nothing here outlives the broker.
        auto_delete: It goes with its last binding.
        internal: Clients can't publish to it.
        arguments: As they were given.
        alternate: The exchange that gets what this one can't route.
    """

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 - its name in the protocol
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table | None = None,
        alternate: str | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments or {}
        self.alternate = alternate
        self._bindings: dict[Binding, Table] = {}
        self._by_destination: dict[Destination, dict[Binding, None]] = {}
        self._by_key: dict[str, list[Destination]] = {}
        self._ways: dict[str, list[Destination]] = {}

    @property
    def used(self) -> bool:
        """Whether anything is bound to it."""
        return bool(self._bindings)

    def bind(self, destination: Destination, key: str, arguments: Table) -> None:
        """Bind a destination; twice is the same as once.

        Raises:
            Refusal: The arguments make no sense for a headers exchange.
        """
        if self.type == "headers":
            check_headers_binding(arguments)
        binding = Binding(destination, key, fields.table(_sorted(arguments)))
        if binding not in self._bindings:
            self._bindings[binding] = arguments
            self._by_destination.setdefault(destination, {})[binding] = None
            self._by_key.setdefault(key, []).append(destination)
            self._ways.clear()

    def unbind(self, destination: Destination, key: str, arguments: Table) -> bool:
        """Remove a binding; whether it was there."""
        binding = Binding(destination, key, fields.table(_sorted(arguments)))
        return self._remove([binding] if binding in self._bindings else [])

    def forget(self, destination: Destination) -> bool:
        """Remove all bindings to a destination; whether there were any."""
        return self._remove(list(self._by_destination.get(destination, ())))

    def route(self, message: Message) -> Iterable[Destination]:
        """Find where a message goes from here."""
        if self.type == "direct":
            if len(message.keys) == 1:
                return self._by_key.get(message.key, ())
            return [each for key in message.keys for each in self._by_key.get(key, ())]
        if self.type == "fanout":
            return [binding.destination for binding in self._bindings]
        if self.type == "topic":
            return [each for key in message.keys for each in self._topic(key)]
        headers = message.headers()
        return [
            binding.destination
            for binding, arguments in self._bindings.items()
            if headers_match(arguments, headers)
        ]

    def _topic(self, key: str) -> list[Destination]:
        way = self._ways.get(key)
        if way is None:
            words = words_of(key)
            way = [
                destination
                for pattern, found in self._by_key.items()
                if topic_matches(words_of(pattern), words)
                for destination in found
            ]
            if len(self._ways) >= MOST_CACHED:
                self._ways.clear()
            self._ways[key] = way
        return way

    def _remove(self, bindings: list[Binding]) -> bool:
        for binding in bindings:
            destination, key, _ = binding
            del self._bindings[binding]
            leading_there = self._by_destination[destination]
            del leading_there[binding]
            if not leading_there:
                del self._by_destination[destination]
            bound = self._by_key[key]
            bound.remove(destination)
            if not bound:
                del self._by_key[key]
        if bindings:
            self._ways.clear()
        return bool(bindings)


def _sorted(arguments: Table) -> Table:
    return dict(sorted(arguments.items()))
