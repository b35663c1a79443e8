"""A message ready to be published: where to, as what, and what must exist before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct, structs

from rmqarq.wire import properties
from rmqarq.wire.delay import (
    MOST_EARLIER,
    Rung,
    Wait,
    expiration,
    milliseconds,
    plan,
    timer,
)
from rmqarq.wire.names import Names
from rmqarq.wire.properties import NO_HEADERS, Header, Template, template
from rmqarq.wire.relay import Relay, onward, relay
from rmqarq.wire.topology import Binding, delayed_binding

if TYPE_CHECKING:
    from collections.abc import Container


class Publication(Struct, frozen=True, gc=False):
    """One publish, to be repeated as often as need be.

    Args:
        exchange: Where to.
        routing_key: Under which key.
        template: Its properties, but for the number of the publish.
        body: The payload.
        needs: The queues (by name), rungs and bindings that must be there before.
        mandatory: Whether the broker returns it when no queue takes it at once.
    """

    exchange: str
    routing_key: str
    template: Template | Relay
    body: bytes
    needs: tuple[str | Rung | Binding, ...]
    mandatory: bool = True


class Letter(Struct, frozen=True, kw_only=True, gc=False):
    """What is to be sent, without the way it goes.

    Args:
        task: The name of the task (`type`).
        job_id: The id of the job (`correlation_id`).
        body: The payload.
        content_type: How the body is written; `None` when nobody knows.
        content_encoding: `gzip`, or `None`.
        priority: 0 to 255.
        headers: Bookkeeping that must be readable without the body.
        timestamp: When it was made, in seconds since the epoch; now if not given.
    """

    task: str
    job_id: str
    body: bytes
    content_type: str | None
    content_encoding: str | None = None
    priority: int = 0
    headers: Mapping[str, Header] = NO_HEADERS
    timestamp: int | None = None

    def template(self, headers: Mapping[str, Header]) -> Template:
        """Encode its properties.

        Raises:
            PropertyError: Job id or task above 255 bytes, or headers above 64 KiB.
        """
        return template(
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            correlation_id=self.job_id,
            type=self.task,
            headers=headers,
            priority=self.priority,
            timestamp=int(time.time()) if self.timestamp is None else self.timestamp,
        )


class Forward(Struct, frozen=True, kw_only=True, gc=False):
    """A message of somebody else to be sent on, without the way it goes.

    Args:
        task: Who runs for it, for people to read.
        job_id: The id of the job.
        body: The payload, as it came.
        properties: The encoded properties, as they came.
        headers: Bookkeeping of ours, instead of what it carries of that.
    """

    task: str
    job_id: str
    body: bytes
    properties: bytes
    headers: Mapping[str, Header] = NO_HEADERS

    def template(self, headers: Mapping[str, Header]) -> Relay:
        """Take over its properties.

        Raises:
            PropertyError: They can't be read, or are too many with ours.
        """
        return relay(self.properties, headers)


Post: TypeAlias = Letter | Forward


class Delayed(Publication, frozen=True, kw_only=True, gc=False):
    """One that waits: it is written for the ladder, and the plugin may have it.

    Args:
        letter: What to send.
        wait: How long.
        rungs: Its way on the ladder.
        names: The names of the ladder and of the plugin's exchange.
    """

    letter: Post
    wait: Wait
    rungs: tuple[Rung, ...]
    names: Names

    def by_plugin(self) -> Publication:
        """Write it for the plugin, unless it waits longer than that can.

        Not `mandatory`: the plugin answers "no route" to what it has taken.
        """
        ms = timer(self.wait.left)
        if ms is None:
            return self
        binding = delayed_binding(self.routing_key, self.names)
        ready = self.letter.template({**self.letter.headers, "x-delay": ms})
        return Publication(
            self.names.delayed,
            self.routing_key,
            ready,
            self.body,
            (self.needs[0], binding),
            mandatory=False,
        )

    def by_ladder(self, fresh: Container[object]) -> Publication:
        """Write it for the ladder, in the moment in which it is sent.

        What is due by then goes straight to its queue. What would be late says itself
        when it leaves its first rung, or takes another way.

        So does what comes to a rung that was declared a moment ago. A quorum queue of
        RabbitMQ 3.10 takes messages before it knows its own TTL, when two declare it at
        the same time (`rabbit_quorum_queue:start_cluster`). Such a message would never
        leave, and hold up all behind it.

        The broker takes `expiration` off as it dead-letters a message ("Per-message TTL
        and dead lettering").

        Args:
            fresh: The rungs that were declared a moment ago.
        """
        left = self.wait.left
        if milliseconds(left) <= 0:
            ready = self.letter.template(self.letter.headers)
            return Publication("", self.routing_key, ready, self.body, self.needs[:1])
        ms, first = expiration(self.rungs, left), self.rungs[0]
        if ms is None and first in fresh:
            ms = first.ttl_ms
        if ms is None:
            return self
        if ms < 1 or first.ttl_ms - ms > MOST_EARLIER:  # it has waited for the broker
            return self._anew(left).by_ladder(fresh)
        return structs.replace(self, template=_expiring(self.template, ms))

    def _anew(self, left: float) -> Delayed:
        home = self.needs[0]
        assert isinstance(home, str), "a work queue comes first"
        wait = Wait(left)
        return delayed(self.letter, self.routing_key, wait, self.names, home=home)


def _expiring(ready: Template | Relay, ms: int) -> Template | Relay:
    text = properties.encode_short(str(ms))
    if isinstance(ready, Relay):
        return Relay({**ready.parts, "expiration": text}, ready.entries)
    flags = int.from_bytes(ready.before[:2], "big") | properties.EXPIRATION
    before = flags.to_bytes(2, "big") + ready.before[2:] + text
    return Template(before, ready.after)


def immediate(letter: Post, queue: str, *, home: str | None = None) -> Publication:
    """Send straight to a queue through the default exchange.

    Args:
        letter: What to send.
        queue: Where to.
        home: The work queue that `queue` belongs to and is declared with.

    Raises:
        PropertyError: As for `Letter.template`.
    """
    ready = letter.template(letter.headers)
    return Publication("", queue, ready, letter.body, (home or queue,))


def delayed(
    letter: Post, queue: str, wait: Wait, names: Names, *, home: str | None = None
) -> Delayed:
    """Send to wait in the broker: on the delay ladder, or in the plugin.

    Args:
        letter: What to send.
        queue: Where it shall arrive.
        wait: How long.
        names: The names of the ladder and of the plugin's exchange.
        home: The work queue that `queue` belongs to and is declared with.

    Raises:
        PropertyError: As for `Letter.template`.
    """
    way = plan(wait.seconds, names)
    ready = letter.template({**letter.headers, "CC": way.cc})
    return Delayed(
        way.exchange,
        queue,
        ready,
        letter.body,
        (home or queue, *way.rungs),
        letter=letter,
        wait=wait,
        rungs=way.rungs,
        names=names,
    )


def released(
    rung: Rung, routing_key: str, properties: bytes, body: bytes, names: Names
) -> Publication:
    """Send on what its rung should have dead-lettered, as the rung would have.

    Args:
        rung: Where it waits.
        routing_key: Under which key it came there.
        properties: Its encoded properties, as they came.
        body: The payload, as it came.
        names: The names of the ladder.

    Raises:
        PropertyError: The properties can't be read, or are too many.
    """
    exchange = names.ladder(rung.decade - 1)
    return Publication(exchange, routing_key, onward(properties), body, ())


def shortened(text: str) -> str:
    """Cut what a foreign producer made longer than a property may be: 255 bytes."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")
