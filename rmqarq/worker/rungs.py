"""What waits in the delay ladder: counted, and sent on where RabbitMQ forgets to."""

from __future__ import annotations

import asyncio
import logging
import random
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
LOOK = 60.0


class Rungs:
    """Counts rungs, and helps those that stand still.

    A quorum queue of RabbitMQ 3.10 may hold a message that never expires, and all
    behind it (see `Delayed.expiring`). It is known by this: nothing leaves the rung,
    and twice, further apart than its time, it is the first one. Then it is sent on as
    the rung should have done, and the others go by themselves.

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

    async def watch(self) -> None:
        """Look after the rungs that this worker publishes to, for ever."""
        while True:
            await asyncio.sleep(LOOK * random.uniform(0.5, 1.5))
            try:
                await self.count(self._transport.rungs)
            except RmqarqError as error:
                log.debug("the rungs can't be counted: %(why)s", {"why": error})

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
        for queue in still[:1]:  # the next one in the next round
            found[queue] = await self._help(queue, known[queue], found[queue])
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
        """Look at its first message; give the number that is to be believed now."""
        del self._last[queue]
        if self._refused:
            return ready
        try:
            async with self._transport.head(queue) as first:
                if first is None:
                    return 0
                if not self._overdue(queue, first):
                    first.release()
                    return ready
                await self._send_on(first, rung)
        except (RmqarqError, ValueError) as error:  # of its key or its properties
            self._refused = isinstance(error, AccessRefused)
            log.warning(
                "%(queue)s stands still, and can't be helped: %(why)s",
                {"queue": queue, "why": error},
            )
            return ready
        return ready - 1

    def _overdue(self, queue: str, first: Delivery) -> bool:
        """Tell whether it was the first one last time, too: a whole TTL ago or more."""
        mark = number_in(first.properties) or "", hash(first.body)
        before, self._first[queue] = self._first.get(queue), mark
        # without a number, another one may have the same body
        return mark == before and (bool(mark[0]) or first.redelivered)

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
