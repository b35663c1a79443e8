"""Looks at the parts of a worker, and tells how it is: in the log and over HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from rmqarq.worker.endpoint import Endpoint, Page
from rmqarq.worker.health import Facts, Load, deadly, hindrances
from rmqarq.worker.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rmqarq.app import App
    from rmqarq.errors import Unhealthy
    from rmqarq.settings import Settings
    from rmqarq.stats import Stats
    from rmqarq.worker.dispatcher import Dispatcher
    from rmqarq.worker.intake import Intake
    from rmqarq.worker.watchdog import Watchdog

log = logging.getLogger(__name__)

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Monitor:
    """Sees one worker from its start to its end.

    Args:
        app: Whose transport it is.
        settings: The worker's.
        stats: Its counters.
        stop: Set once it stops.
        queues: What it consumes.

    Attributes:
        starting: Some queue has not been consumed yet.
    """

    def __init__(
        self,
        app: App[Any],
        settings: Settings,
        stats: Stats,
        stop: asyncio.Event,
        queues: Collection[str],
    ) -> None:
        self._transport = app.transport
        self._settings = settings
        self._stats = stats
        self._stop = stop
        self._dispatcher: Dispatcher | None = None
        self._intake: Intake | None = None
        self._watchdog: Watchdog | None = None
        self._metrics: Metrics | None = None
        self._endpoint: Endpoint | None = None
        self.starting = True
        if settings.health_port is not None:
            tasks = {name: app.queue_of(task) for name, task in app.tasks.items()}
            handlers = app.registry.handlers.values()
            tasks.update({each.name: each.queue for each in handlers})
            self._metrics = Metrics(tasks, queues, app.clock)
            self._endpoint = Endpoint(
                settings.health_host,
                settings.health_port,
                {"/livez": self._live, "/readyz": self._ready, "/metrics": self._text},
            )

    async def open(self) -> None:
        """Serve the pages, if they are wanted.

        Raises:
            ConfigurationError: The address can't be listened on.
        """
        if self._endpoint is not None:
            await self._endpoint.start()

    async def close(self) -> None:
        """Serve them no longer."""
        if self._endpoint is not None:
            await self._endpoint.close()

    def watch(self, dispatcher: Dispatcher, intake: Intake, watchdog: Watchdog) -> None:
        """Look at these parts from now on."""
        self._dispatcher, self._intake, self._watchdog = dispatcher, intake, watchdog
        if self._metrics is not None:
            dispatcher.measure(self._metrics)

    def facts(self) -> Facts:
        """Look at the worker now."""
        connected, standing = self._transport.standing
        dispatcher, intake, watchdog = self._dispatcher, self._intake, self._watchdog
        slots = self._settings.concurrency
        return Facts(
            starting=self.starting,
            stopping=self._stop.is_set(),
            connected=connected,
            standing=standing,
            blocked=self._transport.blocked,
            unconsumed=intake.unconsumed if intake is not None else {},
            load=dispatcher.load if dispatcher is not None else Load(slots=slots),
            reconnects=self._transport.reconnects,
            blocks=watchdog.blocks if watchdog is not None else 0,
        )

    async def report(self) -> None:
        """Write a line of statistics from time to time, when there is news.

        What keeps the worker from its work is news each time.
        """
        before = self._stats.values()
        while True:
            await asyncio.sleep(self._settings.health_check_interval)
            now = self._stats.values()
            facts = self.facts()
            problems = hindrances(facts)
            if problems or now != before:
                log.info(
                    "%(completed)s completed ◆ %(failed)s failed ◆ %(retried)s retried"
                    " ◆ %(running)s running",
                    {**now, "running": facts.load.running + facts.load.waiting},
                )
            for problem in problems:
                log.warning("not ready: %(problem)s", {"problem": problem})
            before = now

    def _live(self) -> Page:
        return _verdict(deadly(self.facts()))

    def _ready(self) -> Page:
        return _verdict(hindrances(self.facts()))

    def _text(self) -> Page:
        assert self._metrics is not None, "made where there is an endpoint"
        facts = self.facts()
        ready = not hindrances(facts)
        text = self._metrics.text(facts, self._stats, ready=ready)
        return Page(text, kind=EXPOSITION)


def _verdict(problems: Sequence[Unhealthy]) -> Page:
    """Say `ok`, or what is wrong, one problem a line."""
    if not problems:
        return Page("ok\n")
    lines = [" ".join(str(each).split()) + "\n" for each in problems]
    return Page("".join(lines), status=503)
