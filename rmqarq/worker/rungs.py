"""What waits in the delay ladder: counted, and sent on where RabbitMQ forgets to."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rmqarq.errors import AccessRefused, RmqarqError
from rmqarq.wire.names import Names
from rmqarq.wire.publication import released
from rmqarq.wire.relay import number_in

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from rmqarq.settings import Settings
    from rmqarq.wire.consumer import Delivery
    from rmqarq.wire.delay import Rung
    from rmqarq.wire.transport import Transport

log = logging.getLogger(__name__)

STILL = 5.0
"""Seconds past its time in which a rung that nothing leaves is not wondered at."""


class Rungs:
    """Counts rungs, and helps those that stand still.

    A quorum queue of RabbitMQ 3.10 may hold a message that never expires, and all
    behind it (see `Delayed.by_ladder`). It is known by this: nothing leaves the rung,
    and twice, further apart than its time, it is the first one. Then it is sent on as
    the rung should have done, and the others go by themselves. A healthy rung may be
    looked at for nothing: that costs its first message no time.

    Args:
        transport: Where they are counted.
        settings: The worker's.
    """

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self._transport = transport
        self._names = Names(settings.prefix)
        self._patience = settings.publish_deadline
        self._last: dict[str, tuple[int, float]] = {}
        self._first: dict[str, tuple[str, int]] = {}
        self._refused = False

    async def count(self, rungs: Iterable[Rung]) -> int:
        """Count the messages in some rungs, and help one that stands still.

        Raises:
            TransportError: The link broke, or one could not be counted.
            AccessRefused: The user may not look.
        """
        known = {self._names.rung(each.label): each for each in rungs}
        depths = await self._transport.depths(known)
        found = {q: each.ready for q, each in depths.items() if each and each.ready}
        self.forget(found)
        still = [q for q, n in found.items() if self._stands_still(q, n, known[q])]
        if still:  # the others in the next rounds
            longest = min(still, key=lambda queue: self._last[queue][1])
            found[longest] = await self._help(longest, known[longest], found[longest])
        return sum(found.values())

    def forget(self, but: Container[str] = ()) -> None:
        """Begin anew with rungs that are empty, or were not looked at."""
        self._last = {q: seen for q, seen in self._last.items() if q in but}

    def _stands_still(self, queue: str, ready: int, rung: Rung) -> bool:
        """Tell whether it has not become less for longer than it may hold anything."""
        now = asyncio.get_running_loop().time()
        last, since = self._last.get(queue, (ready, now))
        if ready < last:
            since = now
        self._last[queue] = (ready, since)
        return now - since > rung.ttl_ms / 1000 + STILL

    async def _help(self, queue: str, rung: Rung, ready: int) -> int:
        """Look at what comes first; give the number that is to be believed now."""
        del self._last[queue]
        if self._refused:
            return ready
        try:
            while ready:
                async with self._transport.head(queue) as first:
                    if first is None:
                        return 0
                    if not self._overdue(queue, first):
                        return ready
                    await self._send_on(first, rung)
                ready -= 1
        except (RmqarqError, ValueError) as error:  # of its key or its properties
            self._refused = isinstance(error, AccessRefused)
            log.info(
                "%(queue)s may stand still, and can't be helped: %(why)s",
                {"queue": queue, "why": error},
            )
        return ready

    def _overdue(self, queue: str, first: Delivery) -> bool:
        """Tell whether it was the first one last time, too: a whole TTL ago or more."""
        mark = number_in(first.properties) or "", hash(first.body)
        before, self._first[queue] = self._first.get(queue), mark
        return first.redelivered and mark == before

    async def _send_on(self, first: Delivery, rung: Rung) -> None:
        onward = released(
            rung, first.routing_key.decode(), first.properties, first.body, self._names
        )
        deadline = asyncio.get_running_loop().time() + self._patience
        await self._transport.publish(onward, deadline)
        first.ack()
        log.warning(
            "RabbitMQ held back a message in %(queue)s beyond its time, and all behind"
            " it; it is sent on",
            {"queue": first.queue},
        )
