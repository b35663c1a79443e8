"""The rounds of a burst: looks at the queues again and again until nothing is left."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from rmqarq.errors import TransportError
from rmqarq.wire.delay import every_rung
from rmqarq.worker.burst import Burst, Look
from rmqarq.worker.rungs import Rungs

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.settings import Settings
    from rmqarq.wire.transport import Transport
    from rmqarq.worker.dispatcher import Dispatcher
    from rmqarq.worker.ending import Why
    from rmqarq.worker.intake import Intake
    from rmqarq.worker.settle import Settler

log = logging.getLogger(__name__)

EACH = 0.1
"""Seconds more that a look may take for each queue."""
STRANDED = 3
"""Rounds in which jobs are ready and none comes, until they are asked for anew."""


class Rounds:
    """Ends a worker when its queues are empty, or its time is over.

    Args:
        settings: The worker's.
        transport: Where the queues are counted.
        dispatcher: What is under way, and what this worker deferred.
        intake: What is consumed: the queues and lanes that count.
        end: Called once, with the reason.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport,
        dispatcher: Dispatcher,
        intake: Intake,
        end: Callable[[Why], None],
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._dispatcher = dispatcher
        self._intake = intake
        self._end = end
        self._burst = Burst(
            wait=settings.burst_wait,
            interval=settings.burst_check_interval,
            rungs=settings.wait_delayed,
        )
        self._rungs = Rungs(transport, settings)
        self._own = Rungs(transport, settings)
        self._stranded = 0
        self._empty_rungs = 0

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
            patience = self._now() + self._patience
            try:
                async with asyncio.timeout_at(min(last, patience)):
                    look = await self._look()
            except TransportError as error:
                log.warning("the queues can't be counted: %(why)s", {"why": error})
                pause = burst.pause(busy=True)
                continue
            except TimeoutError:
                connected, _ = self._transport.standing
                if self._now() < last and not connected:
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
            self._mind(look)
            pause = burst.pause(busy=look.busy)

    async def _look(self) -> Look:
        """Count rungs before queues: messages flow from the one to the other."""
        transport, dispatcher = self._transport, self._dispatcher
        settler = dispatcher.settler
        delayed = 0
        if self._settings.wait_delayed:
            delayed = await self._rungs.count(every_rung())
        held = await self._held(settler)
        depths = await transport.depths(self._intake.queues)
        found = [each for each in depths.values() if each is not None]
        delivered, dispatcher.delivered = dispatcher.delivered, False
        return Look(
            now=self._now(),
            running=dispatcher.under_way + dispatcher.expected,
            delivered=delivered,
            ready=sum(each.ready for each in found),
            horizon=settler.horizon,
            held=held,
            delayed=delayed,
            # we consume it: without any consumer its leader has not been asked
            unseen=sum(not each.consumers for each in found),
        )

    async def _held(self, settler: Settler) -> int:
        """Count what is in the rungs of this worker's own delayed jobs."""
        if not settler.rungs or self._now() <= settler.horizon:
            self._empty_rungs = 0
            self._own.forget()
            return 0
        held = await self._own.count(settler.rungs)
        self._empty_rungs = 0 if held else self._empty_rungs + 1
        if self._empty_rungs > 1:  # a rung without a leader seems to be empty, too
            settler.rungs.clear()
        return held

    @property
    def _patience(self) -> float:
        """The seconds that a look may take, by how many queues there are to look at."""
        queues = len(self._intake.queues)
        if self._settings.wait_delayed:
            queues += len(every_rung())
        return self._settings.publish_deadline + EACH * queues

    def _mind(self, look: Look) -> None:
        """Ask for what waits and does not come: our consumers may be forgotten."""
        self._stranded = self._stranded + 1 if look.stranded else 0
        if self._stranded >= STRANDED:
            self._stranded = 0
            log.info(
                "the burst waits: %(ready)d jobs are ready and do not come; the queues"
                " are consumed anew",
                {"ready": look.ready},
            )
            self._intake.renew()

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
