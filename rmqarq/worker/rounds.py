"""The rounds of a burst: looks at the queues again and again until nothing is left."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from rmqarq.errors import TransportError
from rmqarq.worker.burst import Burst, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rmqarq.settings import Settings
    from rmqarq.wire.transport import Transport
    from rmqarq.worker.dispatcher import Dispatcher
    from rmqarq.worker.ending import Why

log = logging.getLogger(__name__)


class Rounds:
    """Ends a worker when its queues are empty, or its time is over.

    Args:
        settings: The worker's.
        transport: Where the queues are counted.
        dispatcher: What is under way, and what this worker deferred.
        consumed: The queues and lanes that count.
        end: Called once, with the reason.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        dispatcher: Dispatcher,
        consumed: Collection[str],
        end: Callable[[Why], None],
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._dispatcher = dispatcher
        self._consumed = consumed
        self._end = end
        self._burst = Burst(
            wait=settings.burst_wait, interval=settings.burst_check_interval
        )

    async def run(self) -> None:
        """Go round until the burst is over."""
        burst = self._burst
        last = self._now() + (self._settings.burst_timeout or math.inf)
        pause = burst.pause(busy=False)
        while True:
            await asyncio.sleep(min(pause, max(0.0, last - self._now())))
            if self._now() >= last:
                self._give_up()
                return
            patience = self._now() + self._settings.publish_deadline
            try:
                async with asyncio.timeout_at(min(last, patience)):
                    look = await self._look()
            except TransportError as error:
                log.warning("the queues can't be counted: %(why)s", {"why": error})
                pause = burst.pause(busy=True)
                continue
            except TimeoutError:
                if self._now() < last:
                    log.error("the broker is gone, and the burst with it")  # noqa: TRY400
                    self._end("broker unreachable")
                    return
                continue
            if burst.finished(look):
                self._end("queues empty")
                return
            if look.only_waits and look.horizon > last:
                self._give_up()
                return
            pause = burst.pause(busy=look.busy)

    async def _look(self) -> Look:
        """Count rungs before queues: messages flow from the one to the other."""
        transport, dispatcher = self._transport, self._dispatcher
        settler = dispatcher.settler
        delayed = held = 0
        if self._settings.wait_delayed:
            delayed = sum((await transport.count(transport.all_rungs())).values())
        if settler.rungs and self._now() > settler.horizon:
            held = sum((await transport.count(settler.rung_names())).values())
            if not held:
                settler.rungs.clear()
        ready = sum((await transport.count(self._consumed)).values())
        delivered, dispatcher.delivered = dispatcher.delivered, False
        return Look(
            now=self._now(),
            running=dispatcher.under_way + dispatcher.expected,
            delivered=delivered,
            ready=ready,
            horizon=settler.horizon,
            held=held,
            delayed=delayed,
        )

    def _give_up(self) -> None:
        log.warning(
            "the burst ends by its timeout of %(seconds)g s: %(running)d jobs are under"
            " way, and retries may still be waiting",
            {
                "seconds": self._settings.burst_timeout or 0,
                "running": self._dispatcher.under_way,
            },
        )
        self._end("burst timeout")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
