"""Takes deliveries, runs so many at a time, and has each outcome settled."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from rmqarq.context import Context
from rmqarq.errors import DecodeError
from rmqarq.outcome import DeadLettered, Succeeded
from rmqarq.wire.codec import Codec
from rmqarq.worker.admission import Postponed
from rmqarq.worker.chunk import Chunk, Share
from rmqarq.worker.executor import Executor, failure_of, timeout_of
from rmqarq.worker.formats import Formats
from rmqarq.worker.health import Load
from rmqarq.worker.history import Detour, came_back
from rmqarq.worker.isolation import Isolation
from rmqarq.worker.judge import Judge, goes_on_whole
from rmqarq.worker.roster import Roster, Run
from rmqarq.worker.settle import Settler
from rmqarq.worker.stack import stack_of
from rmqarq.worker.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.app import App
    from rmqarq.handler import Runnable
    from rmqarq.outcome import Outcome
    from rmqarq.settings import Settings
    from rmqarq.stats import Stats
    from rmqarq.wire.codec import Decoded, Envelope
    from rmqarq.wire.consumer import Delivery
    from rmqarq.wire.transport import Transport
    from rmqarq.worker.judge import Verdict
    from rmqarq.worker.metrics import Execute, Metrics

log = logging.getLogger(__name__)

AFTER_INTERNAL_ERROR = 1.0
POLL = MOMENT = 0.02
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
        self._codec = Codec(settings, app.clock)
        self._formats = Formats(self._codec, app.registry.handlers)
        self._executor = Executor(app, settings)
        self._execute: Execute = self._executor.execute
        self._ends = app.hooks.job_end
        self._isolation = Isolation(path, settings, self._executor) if path else None
        self._judge = Judge(settings, app.clock, isolates=self._isolation is not None)
        self._roster = Roster(settings.cancel_grace, self._leave_behind)
        self.settler = Settler(
            transport, self._formats, settings, stats, self._roster, app.clock
        )
        self.delivered = False
        most = settings.max_jobs or settings.concurrency
        self._concurrency = min(settings.concurrency, most)
        self._waiting = Waiting()
        self._left: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._apart = 0
        self._chunks = 0
        self._started = 0
        self._expected = 0
        self._expected_until = 0.0
        self._starting = True
        self._closed = False

    @property
    def under_way(self) -> int:
        """How many jobs run, wait for a slot, or are being settled."""
        return len(self._roster) + len(self._waiting) + len(self._settling)

    @property
    def expected(self) -> int:
        """How many deliveries of a lost consumer may still come again."""
        return self._expected if self._loop.time() < self._expected_until else 0

    @property
    def left_behind(self) -> bool:
        """Whether code that ignored its cancellation is still running."""
        running = (run.task for run in self._roster)
        tasks = (*self._left, *self._settling, *running)
        alive = any(not task.done() for task in tasks)
        return alive or self._executor.busy_threads > 0

    @property
    def load(self) -> Load:
        """How busy it is."""
        return Load(
            running=len(self._roster) - self._chunks,
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
        if self._starting and (self._runs_apart(delivery) or self._has_slot):
            self._start(delivery)
        elif self._roster.adopts(delivery, self._read):
            self._stats.duplicates += 1
        elif self._closed:
            self._give_back(delivery)
        else:
            self._waiting.add(delivery)

    def note_loss(self, unsettled: int, heartbeat: int) -> None:
        """Take note that a consumer ended: its open deliveries come again.

        When only our side of a link has died, they do once the broker has noticed.
        """
        self._roster.note_loss(heartbeat)
        self._waiting.drop_dead()
        self._expected = self.expected + unsettled
        self._expected_until = self._loop.time() + GHOST * heartbeat

    def hold(self) -> None:
        """Start no more jobs."""
        self._starting = False

    def give_back(self) -> None:
        """Return to the broker what has not started, and whatever still comes."""
        self._closed = True
        if self._isolation is not None:
            self._isolation.hold()
        while (waiting := self._waiting.take()) is not None:
            self._give_back(waiting)

    def interrupt_all(self) -> None:
        """Cancel what runs: it is given back, no attempt is counted."""
        self.settler.follow_ups.stop()
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
        while (self._roster or self._settling) and not unless.is_set():
            if self._loop.time() >= end:
                return
            await asyncio.sleep(POLL)

    def _give_back(self, delivery: Delivery | Share) -> None:
        self._stats.returned += 1
        delivery.release()

    @property
    def _has_slot(self) -> bool:
        return len(self._roster) - self._apart - self._chunks < self._concurrency

    def _runs_apart(self, delivery: Delivery | Share) -> bool:
        """Tell whether it takes no slot: it runs, or waits, in isolation."""
        return delivery.suspect and self._isolation is not None

    def _start(self, delivery: Delivery | Share) -> None:
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
        while self._starting and self._has_slot:
            waiting = self._waiting.take()
            if waiting is None:
                return
            self._start(waiting)

    async def _process(self, run: Run) -> None:
        delivery = run.delivery
        try:
            decoded = run.decoded = self._read(delivery)
        except DecodeError as error:
            await self._bury_unreadable(run, error)
            return
        message = decoded.message
        task = self._registry.find(delivery.home, message.task)
        if task is None or self._calls_for_a_look(delivery, message):
            task = await self._admit(run, decoded, task)
            if task is None:
                return
        ctx = Context(message, self._state, delivery.home, came_back(delivery))
        run.deadline = self._deadline(task)
        outcome = await self._execute(run, task, decoded, ctx)
        if not run.detached:
            if type(outcome) is Succeeded:
                self.settler.complete(run)
            else:
                await self.settler.settle(run, outcome)
            if self._ends:
                await self._executor.after(ctx)

    def _calls_for_a_look(self, delivery: Delivery | Share, message: Envelope) -> bool:
        """Tell whether a job may have to be treated otherwise than just be run."""
        return (
            delivery.redelivered
            or delivery.suspect
            or bool(message.rows)
            or message.eta is not None
            or message.expires is not None
            or self._settings.max_jobs is not None
            or self._roster.alert
        )

    async def _admit(
        self, run: Run, decoded: Decoded, task: Runnable | None
    ) -> Runnable | None:
        """Give the task that shall run now, unless the message goes another way."""
        delivery, message = run.delivery, decoded.message
        if self._roster.recognise(run, message):
            self._stats.duplicates += 1
            return None
        verdict = self._judge.verdict(delivery, message, known=task is not None)
        if message.rows and not goes_on_whole(verdict):
            await self._unpack(run, decoded, verdict)
            return None
        if verdict is not None or task is None:
            await self._turn_away(run, verdict)
            return None
        if self._enough():
            self._waiting.add(delivery)  # given back when no more are delivered
            return None
        if message.eta is not None:
            await self._wait_out(message.eta - self._clock())
        if delivery.suspect and self._isolation is not None:
            apart = await self._isolation.execute(run, task, message)
            await self._settle_apart(run, apart)
            return None
        return task

    async def _bury_unreadable(self, run: Run, error: DecodeError) -> None:
        run.settling = True
        await self.settler.bury(run, DeadLettered("undecodable", failure_of(error)))

    def _read(self, delivery: Delivery | Share) -> Decoded:
        if isinstance(delivery, Share):
            return delivery.decoded
        return self._formats.of(delivery.home).decode(delivery)

    async def _unpack(
        self, run: Run, decoded: Decoded, verdict: Verdict | None
    ) -> None:
        """Run the jobs of a chunk; it is settled when each of them is."""
        run.settling = True
        chunk = Chunk(run.delivery, decoded, self._codec)
        if isinstance(verdict, Detour) or run.delivery.suspect:
            await self.settler.scatter(run, chunk)
            return
        if self._closed:
            self._give_back(run.delivery)
            return
        self._chunks += 1
        try:
            self._waiting.add_all(run.delivery.queue, chunk.shares)
            self._fill_slots()
            await self.settler.settle_chunk(run, await chunk.rest())
        finally:
            self._chunks -= 1

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
            {"task": message.task, "id": message.id, "stack": stack_of(run.task)},
        )
        task = self._registry.find(run.delivery.home, message.task)
        assert task is not None, "it has run"
        outcome = self._executor.interrupted(run, task, message)
        settling = self._loop.create_task(self.settler.settle(run, outcome))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        self._fill_slots()
