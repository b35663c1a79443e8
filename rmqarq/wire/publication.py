"""A message ready to be published: where to, as what, and what must exist before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from rmqarq.wire.delay import Rung, plan
from rmqarq.wire.properties import NO_HEADERS, Header, Template, template
from rmqarq.wire.relay import Relay, relay

if TYPE_CHECKING:
    from rmqarq.wire.names import Names


class Publication(Struct, frozen=True, gc=False):
    """One publish, to be repeated as often as need be.

    Args:
        exchange: Where to.
        routing_key: Under which key.
        template: Its properties, but for the number of the publish.
        body: The payload.
        needs: The queues (by name) and rungs that must have been declared before.
    """

    exchange: str
    routing_key: str
    template: Template | Relay
    body: bytes
    needs: tuple[str | Rung, ...]


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
    letter: Post, queue: str, delay: float, names: Names, *, home: str | None = None
) -> Publication:
    """Send through the delay ladder.

    Args:
        letter: What to send.
        queue: Where it shall arrive.
        delay: After how many seconds, rounded up to 100 ms.
        names: The names of the ladder.
        home: The work queue that `queue` belongs to and is declared with.

    Raises:
        PropertyError: As for `Letter.template`.
    """
    way = plan(delay, names)
    ready = letter.template({**letter.headers, "CC": way.cc})
    needs: tuple[str | Rung, ...] = (home or queue, *way.rungs)
    return Publication(way.exchange, queue, ready, letter.body, needs)
