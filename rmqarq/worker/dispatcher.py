"""Takes deliveries, runs so many at a time, and has each outcome settled."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from rmqarq.context import Context
from rmqarq.errors import DecodeError
from rmqarq.outcome import DeadLettered
from rmqarq.wire.codec import Codec
from rmqarq.wire.properties import NO_HEADERS, PropertyError
from rmqarq.worker.admission import Postponed, admit, unknown
from rmqarq.worker.executor import Executor, failure_of, timeout_of
from rmqarq.worker.formats import Formats
from rmqarq.worker.health import Load
from rmqarq.worker.history import Detour, came_back, detour, history_of
from rmqarq.worker.isolation import Isolation
from rmqarq.worker.roster import Roster, Run
from rmqarq.worker.settle import Settler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from rmqarq.app import App
    from rmqarq.handler import Runnable
    from rmqarq.outcome import Outcome
    from rmqarq.settings import Settings
    from rmqarq.stats import Stats
    from rmqarq.wire.consumer import Delivery
    from rmqarq.wire.transport import Transport
    from rmqarq.worker.metrics import Execute, Metrics

    Verdict: TypeAlias = DeadLettered | Postponed | Detour

log = logging.getLogger(__name__)

AFTER_INTERNAL_ERROR = 1.0
POLL = 0.02
MOMENT = 0.02
GHOST = 3.5
"""Heartbeats after which the broker has surely given up a link that is dead for us."""


class Dispatcher:
    """The jobs of one worker, from delivery to settlement.

    Args:
        app: Whose tasks to run.
        transport: Where follow-ups are published.
        settings: The worker's.
        state: What the functions see as `ctx.state`.
        stats: The counters to raise.
        on_enough: Called when `max_jobs` have been started.
        path: Where a process of its own finds the App, as MODULE:APP.

    Attributes:
        settler: Performs the outcomes.
        delivered: Set by each delivery; whoever reads it sets it back.
    """

    def __init__(
        self,
        app: App[Any],
        transport: Transport,
        settings: Settings,
        state: Any,
        stats: Stats,
        on_enough: Callable[[], None],
        path: str | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = app.clock
        self._registry = app.registry
        self._settings = settings
        self._state = state
        self._stats = stats
        self._on_enough = on_enough
        self._formats = Formats(Codec(settings, app.clock), app.registry.handlers)
        self._executor = Executor(app, settings)
        self._execute: Execute = self._executor.execute
        self._isolation = Isolation(path, settings, self._executor) if path else None
        self._roster = Roster(settings.cancel_grace, self._leave_behind)
        self.settler = Settler(
            transport, self._formats, settings, stats, self._roster, app.clock
        )
        self.delivered = False
        most = settings.max_jobs or settings.concurrency
        self._concurrency = min(settings.concurrency, most)
        self._waiting: deque[Delivery] = deque()
        self._left: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._apart = 0
        self._started = 0
        self._expected = 0
        self._expected_until = 0.0
        self._starting = True
        self._closed = False
        self._mentioned = False

    @property
    def under_way(self) -> int:
        """How many jobs run or wait for a slot."""
        return len(self._roster) + len(self._waiting)

    @property
    def expected(self) -> int:
        """How many deliveries of a lost consumer may still come again."""
        return self._expected if self._loop.time() < self._expected_until else 0

    @property
    def left_behind(self) -> bool:
        """Whether code that ignored its cancellation is still running."""
        tasks = (*self._left, *self._settling, *self._run_tasks())
        alive = any(not task.done() for task in tasks)
        return alive or self._executor.busy_threads > 0

    @property
    def load(self) -> Load:
        """How busy it is."""
        return Load(
            running=len(self._roster),
            waiting=len(self._waiting),
            slots=self._concurrency,
            left_behind=len(self._left) + self._executor.given_up_threads,
        )

    def measure(self, metrics: Metrics) -> None:
        """Have runs timed and counted from now on; it costs nothing otherwise."""
        self._execute = metrics.timed(self._executor.execute)
        self.settler.metrics = metrics
        if self._isolation is not None:
            self._isolation.timing = metrics.timing

    def job_of(self, task: asyncio.Task[Any] | None) -> str:
        """Say which job an asyncio task runs, for people to read."""
        for run in self._roster:
            if run.task is task and run.decoded is not None:
                return f"{run.decoded.message.task} {run.decoded.message.id}"
        return "code that runs beside the jobs"

    def take(self, delivery: Delivery) -> None:
        """Run a delivery now, or when a slot is free; called inside the reader."""
        self.delivered = True
        if self._expected and delivery.redelivered:
            self._expected -= 1
        if self._closed:
            self._give_back(delivery)
        elif self._starting and (self._runs_apart(delivery) or self._has_slot):
            self._start(delivery)
        else:
            self._waiting.append(delivery)

    def note_loss(self, unsettled: int) -> None:
        """Take note that a consumer ended: its open deliveries come again.

        When only our side of a link has died, they do once the broker has noticed.
        """
        self._roster.note_loss()
        self._waiting = deque(each for each in self._waiting if each.alive)
        self._expected = self.expected + unsettled
        self._expected_until = self._loop.time() + GHOST * self._settings.heartbeat

    def hold(self) -> None:
        """Start no more jobs."""
        self._starting = False

    def give_back(self) -> None:
        """Return to the broker what has not started, and whatever still comes."""
        self._closed = True
        if self._isolation is not None:
            self._isolation.hold()
        while self._waiting:
            self._give_back(self._waiting.popleft())

    def interrupt_all(self) -> None:
        """Cancel what runs: it is given back, no attempt is counted."""
        self.settler.stopping = True
        now = self._loop.time()
        for run in self._roster:
            run.interrupt("shutdown", now)

    async def close(self) -> None:
        """End the isolated process, if there is one."""
        if self._isolation is not None:
            await self._isolation.close()

    def abandon(self) -> None:
        """Let go of what could not even be settled; the broker delivers it again."""
        for run in self._roster:
            run.abandoned = True
            run.task.cancel()

    async def idle(self, seconds: float, unless: asyncio.Event) -> None:
        """Wait until nothing runs, but not longer than `seconds` or past `unless`."""
        end = self._loop.time() + seconds
        while len(self._roster) and not unless.is_set():
            if self._loop.time() >= end:
                return
            await asyncio.sleep(POLL)

    def _give_back(self, delivery: Delivery) -> None:
        self._stats.returned += 1
        delivery.release()

    @property
    def _has_slot(self) -> bool:
        return len(self._roster) - self._apart < self._concurrency

    def _runs_apart(self, delivery: Delivery) -> bool:
        """Tell whether it takes no slot: it runs, or waits, in isolation."""
        return delivery.suspect and self._isolation is not None

    def _run_tasks(self) -> list[asyncio.Task[None]]:
        return [run.task for run in self._roster]

    def _start(self, delivery: Delivery) -> None:
        run = Run(delivery)
        self._apart += self._runs_apart(delivery)
        # not by the loop's task factory: an eager one would run the job in here
        run.task = asyncio.Task(self._run(run), loop=self._loop, name="job")
        self._roster.add(run)

    async def _run(self, run: Run) -> None:
        delivery = run.delivery  # another may take its place
        try:
            await self._process(run)
        except asyncio.CancelledError:
            run.delivery.release()  # does nothing when it is settled
            raise
        except Exception:
            # ours, not the function's: the message must not be lost over it
            log.exception("an error inside rmqarq; the message is given back")
            await asyncio.sleep(AFTER_INTERNAL_ERROR)
            self._give_back(run.delivery)
        finally:
            self._apart -= self._runs_apart(delivery)
            if not run.detached:
                self._roster.remove(run)
                self._fill_slots()

    def _fill_slots(self) -> None:
        while self._starting and self._waiting and self._has_slot:
            delivery = self._waiting.popleft()
            if delivery.alive:  # else the broker delivers it again
                self._start(delivery)

    async def _process(self, run: Run) -> None:
        delivery = run.delivery
        try:
            decoded = self._formats.of(delivery.home).decode(delivery)
        except DecodeError as error:
            run.settling = True
            unreadable = DeadLettered("undecodable", failure_of(error))
            await self.settler.bury(run, unreadable)
            return
        run.decoded = decoded
        message = decoded.message
        if self._roster.recognise(run, message):
            self._stats.duplicates += 1
            return
        task = self._registry.find(delivery.home, message.task)
        verdict = self._verdict(run, task)
        if verdict is not None or task is None:
            await self._turn_away(run, verdict)
            return
        if self._enough():
            self._waiting.append(delivery)  # given back when no more are delivered
            return
        if message.eta is not None:
            await self._wait_out(message.eta - self._clock())
        if delivery.suspect and self._isolation is not None:
            apart = await self._isolation.execute(run, task, message)
            await self._settle_apart(run, apart)
            return
        ctx = Context(message, self._state, delivery.home, came_back(delivery))
        run.deadline = self._deadline(task)
        outcome = await self._execute(run, task, decoded, ctx)
        if not run.detached:
            await self.settler.settle(run, outcome)
            await self._executor.after(ctx)

    async def _settle_apart(self, run: Run, outcome: Outcome | Postponed) -> None:
        run.settling = True
        if isinstance(outcome, Postponed):
            await self.settler.postpone(run, outcome)
        else:
            await self.settler.settle(run, outcome)

    def _deadline(self, task: Runnable) -> float | None:
        timeout = timeout_of(task, self._settings)
        return None if timeout is None else self._loop.time() + timeout

    async def _wait_out(self, early: float) -> None:
        """Make up for the broker's clock, which may be some milliseconds ahead."""
        if 0 < early <= MOMENT:
            await asyncio.sleep(early)

    def _enough(self) -> bool:
        """Count a run against `max_jobs`; True when there have been enough before."""
        most = self._settings.max_jobs
        if most is None:
            return False
        self._started += 1
        if self._started == most:
            self.hold()
            self._on_enough()
        return self._started > most

    def _verdict(self, run: Run, task: Runnable | None) -> Verdict | None:
        """Decide what is not to run; what came back too often is looked at first."""
        assert run.decoded is not None, "read before it is judged"
        message, now = run.decoded.message, self._clock()
        if run.delivery.suspect:
            self._mention_isolation()
        elif run.delivery.redelivered:
            way = detour(history_of(run.delivery))
            if way is not None:
                return way
        if task is not None or message.expired(now):
            return admit(message, now)
        try:
            headers = run.delivery.headers
        except PropertyError:
            headers = NO_HEADERS
        return unknown(headers, now, self._settings.unknown_task_wait)

    def _mention_isolation(self) -> None:
        """Say once what it costs when a process of its own can't find the App."""
        if self._isolation is None and not self._mentioned:
            self._mentioned = True
            log.warning(
                "suspects run in this process, since no module holds the App: one that"
                " kills its process kills this worker, each time; give"
                " Worker(path='MODULE:APP')"
            )

    async def _turn_away(self, run: Run, verdict: Verdict | None) -> None:
        run.settling = True
        if isinstance(verdict, Detour):
            await self.settler.redirect(run, verdict)
        elif isinstance(verdict, Postponed):
            await self.settler.postpone(run, verdict)
        elif verdict is not None:
            await self.settler.bury(run, verdict)

    def _leave_behind(self, run: Run) -> None:
        """Free the slot of a job that ignores its cancellation, and say where it is."""
        assert run.decoded is not None, "only a function can ignore its cancellation"
        message = run.decoded.message
        self._stats.stuck += 1
        self._left.add(run.task)
        run.task.add_done_callback(self._left.discard)
        log.error(
            "%(task)s %(id)s ignores its cancellation and is left behind; it stands at"
            " %(stack)s",
            {"task": message.task, "id": message.id, "stack": _stack_of(run.task)},
        )
        task = self._registry.find(run.delivery.home, message.task)
        assert task is not None, "it has run"
        outcome = self._executor.interrupted(run, task, message)
        settling = self._loop.create_task(self.settler.settle(run, outcome))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        self._fill_slots()


def _stack_of(task: asyncio.Task[None]) -> str:
    """Show where a suspended task stands: the functions that await each other."""
    frames: list[FrameType] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        waiting = getattr(waiting, "cr_await", None) or getattr(
            waiting, "gi_yieldfrom", None
        )
    summary = traceback.StackSummary.extract((each, each.f_lineno) for each in frames)
    return "".join(summary.format()).strip() or "a place that can't be seen"
