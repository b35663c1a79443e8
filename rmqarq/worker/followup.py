"""What follows a run is published again and again, until the broker has stored it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from rmqarq.errors import RmqarqError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.wire.publication import Publication
    from rmqarq.wire.transport import Transport

log = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 1.0, 30.0


class FollowUps:
    """Publishes further attempts, dead letters, and whatever else must not be lost.

    Args:
        transport: Where to.
        patience: Seconds that one attempt to publish may take.
    """

    def __init__(self, transport: Transport, patience: float) -> None:
        self._transport = transport
        self._patience = patience
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Give up what fails from now on; who waits for another try has it at once."""
        self._stopping.set()

    async def store(self, publications: Sequence[Publication]) -> bool:
        """Publish until all are confirmed; `False` when that was given up."""
        pause = PAUSE
        while True:
            error, publications = await self._publish(publications)
            if error is None:
                return True
            log.warning("a follow-up failed: %(problem)s", {"problem": error})
            if self._stopping.is_set():
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _publish(
        self, publications: Sequence[Publication]
    ) -> tuple[RmqarqError | None, Sequence[Publication]]:
        """Publish one or many; give an error, and those that were not stored."""
        if len(publications) > 1:
            errors = await self._transport.publish_many(publications, self._patience)
            left = [publications[at] for at in errors]
            return next(iter(errors.values()), None), left
        deadline = asyncio.get_running_loop().time() + self._patience
        try:
            await self._transport.publish(publications[0], deadline)
        except RmqarqError as error:
            return error, publications
        return None, ()
