"""The isolated process of a worker: loads the App, runs one suspect at a time.

It lives and dies for its worker: it speaks to nobody else, and when the worker is
gone it ends at once, since the broker gives the job to another one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rmqarq import loader, logs
from rmqarq.context import Context
from rmqarq.errors import RmqarqError
from rmqarq.middleware import call_hooks
from rmqarq.outcome import Succeeded
from rmqarq.records import clean
from rmqarq.wire.codec import Codec
from rmqarq.worker.event_loop import run_to_the_end
from rmqarq.worker.executor import Executor
from rmqarq.worker.formats import Formats
from rmqarq.worker.lifespan import lifespan_of
from rmqarq.worker.pipe import (
    LENGTH,
    Ended,
    Interrupt,
    Leave,
    Order,
    Ready,
    Refused,
    Start,
    ToChild,
    pack,
    to_child,
)
from rmqarq.worker.roster import Execution

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from rmqarq.app import App
    from rmqarq.handler import Runnable
    from rmqarq.outcome import Outcome
    from rmqarq.wire.codec import Decoded
    from rmqarq.worker.pipe import Ending, ToWorker

OOM_SCORE = Path("/proc/self/oom_score_adj")
SET_PARENT_DEATH_SIGNAL = 1


class Pipe:
    """The socket to the worker, read in a thread: a busy loop must not hide its end.

    Args:
        number: The file descriptor of the socket.
    """

    def __init__(self, number: int) -> None:
        self._owner = os.getpid()
        self._socket = socket.socket(fileno=number)
        self._socket.set_inheritable(False)  # what a task starts must not hold it

    def send(self, word: ToWorker) -> None:
        """Send one frame; ends the process when nobody can hear it."""
        if os.getpid() != self._owner:  # a job has forked: only one may answer
            os._exit(1)
        try:
            self._socket.sendall(pack(word))
        except OSError:
            os._exit(1)

    def receive(self) -> ToChild:
        """Wait for the next frame; ends the process when the worker is gone."""
        length = int.from_bytes(self._read(LENGTH), "big")
        return to_child(self._read(length))

    def listen(self, hear: Callable[[ToChild], None]) -> None:
        """Pass on each frame, from a thread of its own, as long as the worker lives."""

        def listen() -> None:
            while True:
                hear(self.receive())

        threading.Thread(target=listen, name="rmqarq-pipe", daemon=True).start()

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                part = self._socket.recv(size)
            except OSError:
                part = b""
            if not part:
                os._exit(1)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class Isolated:
    """Runs what the worker sends.

    Args:
        app: Whose tasks to run.
        pipe: Where jobs come from and outcomes go to.
        state: What the functions see as `ctx.state`.
    """

    def __init__(self, app: App[Any], pipe: Pipe, state: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._app = app
        self._pipe = pipe
        self._state = state
        self._formats = Formats(Codec(app.settings, app.clock), app.registry.handlers)
        self._executor = Executor(app, app.settings)
        self._orders: asyncio.Queue[Order | Leave] = asyncio.Queue()
        self._run: Execution | None = None
        self._early: Interrupt | None = None

    async def work(self) -> None:
        """Run jobs until the worker wants no more."""
        self._pipe.listen(self._hear)
        self._pipe.send(Ready(frozenset(each.name for each in self._app.registry)))
        while True:
            order = await self._orders.get()
            if isinstance(order, Leave):
                return
            try:
                await self._execute(order)
            except Exception as error:
                # ours, not the job's: it must not be taken for a crash of the job
                traceback.print_exception(error)
                self._pipe.send(Refused(type(error).__name__))
                raise

    def _hear(self, word: ToChild) -> None:
        self._loop.call_soon_threadsafe(self._obey, word)

    def _obey(self, word: ToChild) -> None:
        if isinstance(word, Order | Leave):
            self._orders.put_nowait(word)
        elif isinstance(word, Interrupt):
            if not self._orders.empty():
                self._early = word  # its job has not begun
            elif self._run is not None:
                self._run.interrupt(word.why, self._loop.time())

    async def _execute(self, order: Order) -> None:
        decoded = self._formats.of(order.home).decode(order)
        message = decoded.message
        task = self._app.registry.find(order.home, message.task)
        assert task is not None, "the worker knows what this process knows"
        ctx = Context(message, self._state, order.home, redelivered=True)
        run = self._run = Execution()
        job = self._job(run, task, decoded, ctx)
        run.task = asyncio.Task(job, loop=self._loop)
        early, self._early = self._early, None
        if early is not None:
            run.interrupt(early.why, self._loop.time())
        await asyncio.wait((run.task,))
        if run.task.cancelled():  # before it began
            self._answer(self._executor.interrupted(run, task, message))
        else:
            run.task.result()

    async def _job(
        self,
        run: Execution,
        task: Runnable,
        decoded: Decoded,
        ctx: Context[Any],
    ) -> None:
        outcome = await self._executor.execute(run, task, decoded, ctx)
        self._answer(outcome)
        await self._executor.after(ctx)

    def _answer(self, outcome: Outcome) -> None:
        self._pipe.send(Ended(_portable(outcome)))


def _portable(outcome: Outcome) -> Ending:
    """Leave the result behind: nobody keeps it, and it may be anything."""
    if isinstance(outcome, Succeeded):
        return Succeeded()
    return cast("Ending", outcome)


async def _serve(app: App[Any], pipe: Pipe) -> None:
    async with lifespan_of(app) as state:
        app.state = state
        for hook in app.hooks.startup:
            await hook(state)
        for each in app.registry:
            each.prepare()
        try:
            await Isolated(app, pipe, state).work()
        finally:
            await call_hooks(app.hooks.shutdown, state)
            app.state = None
            await app.close()


def _leave_it_to_the_worker(number: int, frame: FrameType | None) -> None:
    """Do nothing at a signal that was meant for all processes of the group."""


def _loaded(start: Start, pipe: Pipe) -> App[Any]:
    """Load the App; ends the process when that can't be done."""
    try:
        app = loader.load(start.path)
        logs.set_up(
            start.settings.log_level,
            start.settings.language,
            start.settings.log_format,
            start.number,
        )
        app.configure(start.settings)
    except RmqarqError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        language = logs.chosen_language(start.settings.language)
        pipe.send(Refused(clean(logs.render(error, language))))
        sys.exit(1)
    return app


def _die_with(worker: int) -> None:
    """End when the worker does, even in the middle of code that lets no thread run."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != worker:
        os._exit(1)


def main() -> None:
    """Serve a worker.

    The command line holds the number of our end of the socket, the process id of the
    worker, this package, and where the worker finds modules.
    """
    # handled, not ignored: what is ignored would be so in a task's own processes, too
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_it_to_the_worker)
    with suppress(OSError):  # when memory runs out, this process shall go first
        OOM_SCORE.write_text("500")
    _die_with(int(sys.argv[2]))
    loader.isolated = True
    pipe = Pipe(int(sys.argv[1]))
    start = pipe.receive()
    assert isinstance(start, Start), "the worker begins with what to load"
    sys.path[:] = sys.argv[4:]
    del sys.argv[1:]
    app = _loaded(start, pipe)
    run_to_the_end(partial(_serve, app, pipe))
