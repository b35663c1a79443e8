"""The worker: consumes, runs so many jobs at a time, and stops without losing one."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from rmqarq.errors import ConfigurationError, ConnectionFailed, RmqarqError
from rmqarq.loader import path_of, refuse_while_importing
from rmqarq.middleware import call_hook, call_hooks
from rmqarq.settings import beaten_by_dev_url
from rmqarq.stats import Stats
from rmqarq.wire.consumer import Source
from rmqarq.wire.names import suspect_lane
from rmqarq.wire.topology import check_name
from rmqarq.worker import reports
from rmqarq.worker.dispatcher import Dispatcher
from rmqarq.worker.ending import Ending, Why
from rmqarq.worker.event_loop import run_to_the_end
from rmqarq.worker.intake import Intake
from rmqarq.worker.lifespan import lifespan_of
from rmqarq.worker.monitor import Monitor
from rmqarq.worker.rounds import Rounds
from rmqarq.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine

    from rmqarq.app import App
    from rmqarq.settings import Settings

log = logging.getLogger(__name__)

SETTLE_GRACE = 5.0
COUNT_TIMEOUT = 2.0
FORCE_GRACE = 1.0


class Worker:
    """Runs the tasks of an App.

    Args:
        app: Whose tasks to run.
        settings: Instead of the App's own; `RMQARQ_DEV_URL` beats their URL, too.
        queues: What to consume; by default the queues of all registered functions.
        path: MODULE:APP, where a process of its own finds the App: jobs that came
            back three times run there. By default it is looked for among the
            imported modules; if it is nowhere, or an empty text is given, such jobs
            run in this process.

    Attributes:
        stats: What was done so far.
        ending: Why the worker ended; `None` while it runs.
        serving: Whether it has begun to take jobs.
        sums_up: Whether it writes a line at its end about what it did.
        patient: Whether a burst goes on, however empty the queues, until `finish()`.

    Raises:
        ConfigurationError: A queue name, or settings, that can't be used.

    Example:
        >>> stats = await Worker(app).run()
    """

    def __init__(
        self,
        app: App[Any],
        settings: Settings | None = None,
        *,
        queues: Collection[str] = (),
        path: str | None = None,
    ) -> None:
        if settings is not None:
            app.configure(beaten_by_dev_url(settings))
        self.app = app
        self.settings = app.settings
        self.stats = Stats()
        self.ending: Ending | None = None
        self.serving = False
        self.sums_up = True
        self.patient = False
        names = (queues,) if isinstance(queues, str) else queues
        self._given_queues = tuple(dict.fromkeys(names))
        for queue in self._given_queues:
            check_name(queue)
        self._path = path
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._finish = asyncio.Event()
        self._dispatcher: Dispatcher | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues it consumes."""
        return self._given_queues or self.app.queues

    @property
    def left_behind(self) -> bool:
        """Whether code that ignored its cancellation is still running."""
        return self._dispatcher is not None and self._dispatcher.left_behind

    def run_sync(self) -> Stats:
        """Run in an event loop of its own; for programs without one.

        Raises:
            ConfigurationError: As for `run`.
        """
        return run_to_the_end(self.run)

    async def run(self, *, signals: bool = True) -> Stats:
        """Work until `stop()`, a signal, enough jobs, or the end of a burst.

        Args:
            signals: Stop in order at SIGTERM and SIGINT, at once at the second one;
                only in the main thread. `False` where the program has its own: after
                the run they would be at their defaults.

        Returns:
            What was done.

        Raises:
            ConfigurationError: An annotation that can't be read, a broker that refuses
                us or a queue, a health port that is taken, or a module that is just
                being imported for its App.
        """
        refuse_while_importing()
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        for each in self.app.registry:
            each.prepare()
        self.app.retain()
        monitor = Monitor(self.app, self.settings, self.stats, self._stop, self.queues)
        watcher: asyncio.Task[None] | None = None
        if signals and threading.current_thread() is threading.main_thread():
            watcher = asyncio.create_task(self._watch_signals())
        try:
            await monitor.open()
            if await self._connect():
                async with lifespan_of(self.app) as state:
                    await self._serve(state, monitor)
        except asyncio.CancelledError:
            if not self._force.is_set():
                raise
        finally:
            if watcher is not None:
                watcher.cancel()
            self._sum_up()
            with anyio.CancelScope(shield=True):
                await self.app.transport.close_consumers()
                await self.app.release()
                await monitor.close()
        return self.stats

    def _sum_up(self) -> None:
        """Tell, now that all is counted, how it was; dead letters may spoil it."""
        if self.ending is not None and self.settings.fail_on_dead:
            dead = self.stats.dead_lettered > 0
            self.ending = msgspec.structs.replace(self.ending, dead_letters=dead)
        self.stats.reconnects = self.app.transport.reconnects
        if self.sums_up:
            reports.farewell(self.ending, self.stats)

    def stop(self) -> None:
        """Stop in order; may be called from any thread, before `run` too."""
        self._soon(self._request, "asked to stop")

    def finish(self) -> None:
        """Let a patient burst end when nothing is left; may be called as `stop`."""
        self._soon(self._finish.set)

    def heed(self, name: str, *, force: bool = False) -> None:
        """Do what a signal asks for; may be called from any thread, before `run` too.

        For programs that receive the signals themselves.

        Args:
            name: The signal, such as `SIGTERM`.
            force: Stop at once: what runs is delivered again. By default in order.
        """
        self._soon(self._force_stop if force else self._stop_in_order, name)

    # --- the life of the worker ---

    async def _connect(self) -> bool:
        """Reach a broker; False when that failed or somebody lost patience."""
        deadline = None
        if self.settings.burst:
            deadline = self._now() + self.settings.publish_deadline
        try:
            await self._unless_stopped(self.app.transport.connect(deadline))
            await self._unless_stopped(self._choose_delays(deadline))
        except ConnectionFailed as error:
            log.error("%(problem)s", {"problem": error})  # noqa: TRY400
            self._request("broker unreachable")
        return not self._stop.is_set()

    async def _choose_delays(self, deadline: float | None) -> None:
        """Find out who keeps delayed messages, and say what the plugin does not."""
        settings = self.settings
        if not await self.app.transport.choose_delays(deadline):
            return
        if settings.burst and settings.wait_delayed:
            raise ConfigurationError(
                "wait_delayed can't wait for what the delayed-message plugin holds: it"
                " can't be counted; choose delays='ladder', or leave wait_delayed out"
            )
        reports.warn_of_plugin(settings)

    async def _serve(self, state: Any, monitor: Monitor) -> None:
        transport = self.app.transport
        self.app.state = state
        dispatcher = self._dispatcher = Dispatcher(
            self.app,
            transport,
            self.settings,
            state,
            self.stats,
            lambda: self._request("enough jobs"),
            path_of(self.app) if self._path is None else self._path,
        )
        intake = Intake(
            transport, self._sources(), dispatcher.take, dispatcher.note_loss
        )
        helpers: list[asyncio.Task[None]] = []
        watchdog = Watchdog(dispatcher.job_of)
        monitor.watch(dispatcher, intake, watchdog)
        watchdog.start()
        try:
            for hook in self.app.hooks.startup:
                await self._unless_stopped(call_hook(hook, state))
            reports.hello(self.app, self.queues, self.settings)
            helpers = [
                asyncio.create_task(each)
                for each in self._helpers(dispatcher, intake, monitor)
            ]
            await self._unless_stopped(intake.start())
            monitor.starting = False
            self.serving = not self._stop.is_set()
            await self._unless_stopped(asyncio.gather(intake.failed(), *helpers))
        finally:
            for helper in helpers:
                helper.cancel()
            try:
                with anyio.CancelScope(shield=True):
                    await self._drain(intake, dispatcher)
                    await call_hooks(self.app.hooks.shutdown, state)
            finally:
                dispatcher.abandon()  # nothing is left, but after a second cancel
                watchdog.stop()
                self.app.state = None

    def _helpers(
        self, dispatcher: Dispatcher, intake: Intake, monitor: Monitor
    ) -> list[Coroutine[Any, Any, None]]:
        helpers: list[Coroutine[Any, Any, None]] = []
        if self.settings.burst:
            rounds = Rounds(
                self.settings, self.app.transport, dispatcher, intake, self._request
            )
            helpers.append(self._burst(rounds))
        if self.settings.health_check_interval:
            helpers.append(monitor.report())
        return helpers

    async def _burst(self, rounds: Rounds) -> None:
        if self.patient:
            await self._finish.wait()
        await rounds.run()

    async def _drain(self, intake: Intake, dispatcher: Dispatcher) -> None:
        """Stop in order: no new jobs, grace for the running ones, acks to the end."""
        dispatcher.hold()
        await self._unless(self._force, intake.cancel())
        dispatcher.give_back()
        settings = self.settings
        in_a_hurry = settings.burst and not settings.burst_wait
        await dispatcher.idle(0 if in_a_hurry else settings.shutdown_grace, self._force)
        dispatcher.interrupt_all()
        await dispatcher.idle(settings.cancel_grace + SETTLE_GRACE, self._force)
        dispatcher.abandon()
        await self._unless(self._force, dispatcher.close())
        await self._unless(self._force, intake.close())
        if not self._force.is_set():
            self.stats.pending = await self._count()

    def _consumed(self) -> list[str]:
        return [source.queue for source in self._sources()]

    def _sources(self) -> list[Source]:
        """What to consume: each queue and, one at a time, its suspects."""
        prefetch = self.settings.prefetch_count
        if self.settings.max_jobs is not None:  # the rest would only come back unrun
            prefetch = min(prefetch, self.settings.max_jobs)
        queues = [Source(queue, queue, prefetch) for queue in self.queues]
        return queues + [Source(suspect_lane(each), each, 1) for each in self.queues]

    async def _count(self) -> int | None:
        """Count what is left in the queues; `None` when the broker can't be asked."""
        with suppress(RmqarqError, TimeoutError):
            async with asyncio.timeout(COUNT_TIMEOUT):
                return await self.app.transport.count(self._consumed())
        return None

    async def _unless_stopped(self, work: Awaitable[Any]) -> None:
        await self._unless(self._stop, work)

    async def _unless(self, event: asyncio.Event, work: Awaitable[Any]) -> None:
        """Do something, but give it up when `event` is set."""
        task = asyncio.ensure_future(work)
        other = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((task, other), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            other.cancel()
            await asyncio.gather(task, other, return_exceptions=True)

    # --- what ends it ---

    def _request(self, why: Why, name: str | None = None) -> None:
        """Stop in order; only the first reason counts."""
        if not self._stop.is_set():
            self.ending = Ending(why, name)
            self._stop.set()

    def _soon(self, act: Callable[..., None], *arguments: str) -> None:
        if self._loop is None:
            act(*arguments)
        else:
            self._loop.call_soon_threadsafe(act, *arguments)

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                name = signal.Signals(number).name
                if self._stop.is_set():
                    self._force_stop(name)
                else:
                    self._stop_in_order(name)

    def _stop_in_order(self, name: str) -> None:
        if not self._stop.is_set():
            log.info("received %(signal)s, stopping", {"signal": name})
            self._request("asked to stop", name)

    def _force_stop(self, name: str) -> None:
        log.warning("received %(signal)s again, stopping now", {"signal": name})
        self.ending = Ending("forced", name)
        self._stop.set()
        self._force.set()
        if self._loop is not None and self._main is not None:
            # whatever still holds it up, a hook say, is cancelled
            self._loop.call_later(FORCE_GRACE, self._main.cancel)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
