"""What waits in the delay ladder, as a burst counts it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rmqarq.errors import RmqarqError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from rmqarq.wire.delay import Rung
    from rmqarq.wire.names import Names
    from rmqarq.wire.transport import Transport

log = logging.getLogger(__name__)

STILL = 5.0
"""Seconds past its time in which a rung that nothing leaves is not wondered at."""


class Rungs:
    """Counts rungs, and asks those that stand still.

    In a cluster whose nodes have crashed one after the other, a rung of RabbitMQ 3.10
    may stand still behind its first message (seen with 3.10.8). Whoever consumes from
    it holds that one for a moment, and makes the leader look: the others go on.

    Args:
        transport: Where they are counted.
        names: Their names.
    """

    def __init__(self, transport: Transport, names: Names) -> None:
        self._transport = transport
        self._names = names
        self._seen: dict[str, tuple[int, float]] = {}

    async def count(self, rungs: Iterable[Rung]) -> int:
        """Count the messages in some rungs.

        Raises:
            TransportError: The link broke, or one could not be counted.
            AccessRefused: The user may not look.
        """
        seconds = {self._names.rung(each.label): each.ttl_ms / 1000 for each in rungs}
        depths = await self._transport.depths(seconds)
        found = {q: each.ready for q, each in depths.items() if each and each.ready}
        self.forget(found)
        still = [q for q, n in found.items() if self._stands_still(q, n, seconds[q])]
        for queue in still[:1]:  # the next one in the next round
            found[queue] = await self._asked(queue, found[queue])
        return sum(found.values())

    def forget(self, but: Container[str] = ()) -> None:
        """Begin anew with rungs that are empty, or were not looked at."""
        self._seen = {q: seen for q, seen in self._seen.items() if q in but}

    def _stands_still(self, queue: str, ready: int, ttl: float) -> bool:
        """Tell whether all of it should have gone on since it was first seen."""
        now = asyncio.get_running_loop().time()
        seen, since = self._seen.get(queue, (0, now))
        if seen != ready:
            since = now
        self._seen[queue] = (ready, since)
        return now - since > ttl + STILL

    async def _asked(self, queue: str, ready: int) -> int:
        """Consume from a rung for a moment; give what is to be believed."""
        log.info(
            "%(queue)s tells of %(ready)d jobs that should have gone on; it is asked",
            {"queue": queue, "ready": ready},
        )
        del self._seen[queue]
        try:
            return ready if await self._transport.stir(queue) else 0
        except RmqarqError as error:
            log.warning("the queues can't be counted: %(why)s", {"why": error})
            return ready
