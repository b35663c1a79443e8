"""What stands behind a world: a broker, a worker, and a clock that moves on demand."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from rmqarq.devbroker import Broker, Clock
from rmqarq.testing.gate import Gate, GatedTransport
from rmqarq.testing.reader import HEADER, Lying, Reader
from rmqarq.testing.witness import Witness
from rmqarq.transports import Surroundings
from rmqarq.wire.delay import every_rung
from rmqarq.wire.names import SUSPECT, Names
from rmqarq.wire.topology import dead_letter_queue
from rmqarq.worker import Worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Container, Iterator

    from rmqarq.app import App
    from rmqarq.settings import Settings
    from rmqarq.testing.sightings import Dead, Delayed, Enqueued
    from rmqarq.wire.publication import Publication

TICK = 1e-6
"""Seconds: what is due so soon is due now, since sums of floats are not exact."""
TURNS, SHORT = 100, 0.001
"""After so many turns of the event loop without news a look is taken each millisecond:
a job waits for something outside."""
NOWHERE = "amqp://guest:guest@world/"
LAST = 3
ELSEWHERE = (
    "this world was entered on another event loop than the one that runs now, and"
    " nothing in it can run here; let the fixture that enters it and its tests have one"
    " loop (pytest-asyncio: one loop_scope for both), or enter a world in each test"
)


class Stage:
    """The machinery of one world.

    Args:
        app: Whose jobs are run.
        now: When it begins; `None` for the next whole second.
        limit: How many more runs than there were jobs may take place at one moment.

    Attributes:
        clock: The time of broker, App and worker.
        broker: Holds the jobs.
        witness: Saw the runs.
        enqueued: What was enqueued, in order.
    """

    def __init__(self, app: App[Any], now: datetime | None, limit: int) -> None:
        born = math.ceil(time.time()) if now is None else now.timestamp()
        self.clock = Clock(None, float(born))
        self.broker = Broker(clock=self.clock)
        self.witness = Witness(self.clock.date)
        self.enqueued: list[Enqueued] = []
        self._app = app
        self._limit = limit
        self._settings = settings_for(app.settings)
        self._gate = Gate()
        self._stack = AsyncExitStack()
        self._work: asyncio.Task[Any] | None = None
        self._queues: tuple[str, ...] = ()
        self._in_chunks = 0
        self._most = limit
        self._told = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._passing = False

    # --- its beginning and its end ---

    async def begin(self) -> None:
        """Put the App here, and start a worker."""
        app, stack = self._app, self._stack
        self._loop = asyncio.get_running_loop()
        stack.push_async_callback(self.broker.close)
        around = Surroundings(self.clock.date, self._connect, self._note)
        middleware = (self.witness, *app.middleware)
        stack.enter_context(app.elsewhere(around, self._settings, middleware))
        stack.push_async_callback(app.close)
        self._reader = Reader(app)
        app.hooks.job_end.append(self.witness.end)
        stack.callback(app.hooks.job_end.remove, self.witness.end)
        transport = app.transport
        if isinstance(transport, GatedTransport) and app.registry.handlers:
            await transport.provide(app.registry.handlers)
        worker = Worker(app, path="")
        worker.sums_up = False
        self._queues = worker.queues
        self._work = asyncio.create_task(worker.run(signals=False), name="worker")
        stack.push_async_callback(self._stop, worker)
        await self._until(lambda: worker.serving)

    def check_loop(self) -> None:
        """See whether the running event loop is that of this world.

        Raises:
            RuntimeError: It is another one, where nothing of this world runs.
        """
        if self._loop is None:
            raise RuntimeError(
                "this world has not begun; enter it first: async with world(app) as w"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(ELSEWHERE)

    async def end(self) -> None:
        """Stop the worker, and put the App back where it was.

        Raises:
            RuntimeError: The event loop is not that of its beginning.
        """
        if self._loop is not None:
            self.check_loop()
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def _stop(self, worker: Worker) -> None:
        assert self._work is not None, "it was started"
        worker.stop()
        await asyncio.wait((self._work,))
        if not (self._told or self._work.cancelled()):
            self._work.result()  # the end of the lifespan may fail

    def _connect(self, settings: Settings, foreign: Container[str]) -> GatedTransport:
        assert self._loop is not None, "it has begun"
        if not self._loop.is_running():  # a portal has one beside it, in its thread
            raise RuntimeError(ELSEWHERE)
        return GatedTransport(settings, foreign, self._dial, self._gate)

    async def _dial(self) -> socket.socket:
        """Connect; from a thread with an event loop of its own, too."""
        assert self._loop is not None, "it has begun"
        if asyncio.get_running_loop() is self._loop:
            return await self.broker.dial()
        dialled = asyncio.run_coroutine_threadsafe(self.broker.dial(), self._loop)
        return await asyncio.wrap_future(dialled)

    def _note(self, publication: Publication) -> None:
        jobs = self._reader.enqueued(publication)
        self.enqueued += jobs
        self._in_chunks += len(jobs) - 1

    # --- time ---

    async def pass_time(self, seconds: float) -> None:
        """Go from one moment to the next at which something falls due, and work.

        Raises:
            RuntimeError: Time passes already.
        """
        if self._passing:
            raise RuntimeError(
                "time passes already: only one run() or advance() at a time, and none"
                " inside a task"
            )
        self._passing = True
        try:
            await self._pass_until(self.clock.now() + seconds)
        finally:
            self._passing = False

    async def _pass_until(self, until: float) -> None:
        clock = self.clock
        with self._gate.opened():
            await asyncio.sleep(0)  # for what the test has started beside itself
            await self._work_off()
            while (due := clock.next_due) is not None:
                if due > until - clock.now() + TICK:
                    break
                clock.advance(max(due, TICK) if due else 0.0)
                await self._work_off()
            clock.advance(max(0.0, until - clock.now()))

    async def _work_off(self) -> None:
        """Return when nothing is left to do at this moment."""
        self.clock.run_due()
        due = self._jobs() + self._in_chunks
        self._most = self.witness.begun + due + self._limit
        await self._until(lambda: not self._jobs() and not self.witness.running)

    def _jobs(self) -> int:
        """Count the jobs that wait or run."""
        depths = self.broker.queues()
        lanes = (lane for queue in self._queues for lane in (queue, queue + SUSPECT))
        found = (depths[lane] for lane in lanes if lane in depths)
        return sum(depth.ready + depth.unacked for depth in found)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Let the event loop turn until it is so."""
        turns, seen = 0, -1
        while not done():
            self._check()
            witness = self.witness
            news = witness.begun + len(witness.done)
            turns = turns + 1 if news == seen else 0
            seen = news
            await asyncio.sleep(0 if turns < TURNS else SHORT)

    def _check(self) -> None:
        """See whether waiting makes sense.

        Raises:
            Exception: The worker has ended, with this.
            RuntimeError: Jobs make jobs without end, or the worker has ended.
        """
        if self._work is not None and self._work.done():
            self._told = True
            self._work.result()
            raise RuntimeError("the worker of this world has ended")
        if self.witness.begun > self._most:
            last = ", ".join(each.call for each in self.witness.done[-LAST:])
            raise RuntimeError(
                f"there were {self._limit} runs more than jobs at one moment, and there"
                f" is no end of it: the last were {last}; world(app, limit=...) allows"
                " more"
            )

    # --- what lies there ---

    def delayed(self) -> list[Delayed]:
        """Read all that waits for its time."""
        names = Names(self._settings.prefix)
        return [
            each
            for rung in every_rung()
            for lying in self._lying(names.rung(rung.label))
            for each in self._reader.delayed(lying)
        ]

    def dead(self) -> list[Dead]:
        """Read all dead letters."""
        return [
            self._reader.dead(lying)
            for home in self._queues
            for lying in self._lying(dead_letter_queue(home, self._settings), home)
        ]

    def _lying(self, queue: str, home: str | None = None) -> Iterator[Lying]:
        for message in self.broker.peek(queue):
            yield Lying(
                home or message.key.removesuffix(SUSPECT),
                message.exchange.encode(),
                message.key.encode(),
                message.header[HEADER:],
                message.body,
            )


def settings_for(settings: Settings) -> Settings:
    """Give the settings of a worker in a world: nothing of the machine it is on.

    The broker here has no delayed-message plugin, and nobody else declares its queues.
    """
    return msgspec.structs.replace(
        settings,
        url=NOWHERE,
        declare="active",
        delays="ladder",
        processes=1,
        burst=False,
        wait_delayed=False,
        max_jobs=None,
        health_port=None,
        health_check_interval=0.0,
        shutdown_grace=0.0,
    )
