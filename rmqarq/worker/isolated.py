"""The isolated process of a worker: loads the App, runs one suspect at a time.

It lives and dies for its worker: it speaks to nobody else, and when the worker is
gone it ends at once, since the broker gives the job to another one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio

from rmqarq import logs
from rmqarq.context import Context
from rmqarq.loader import load
from rmqarq.middleware import call_hooks
from rmqarq.outcome import Succeeded
from rmqarq.wire.codec import Codec
from rmqarq.worker.executor import Executor
from rmqarq.worker.lifespan import lifespan_of
from rmqarq.worker.pipe import (
    LENGTH,
    Ended,
    Interrupt,
    Leave,
    Order,
    Ready,
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
    from rmqarq.outcome import Outcome
    from rmqarq.worker.pipe import Ending, ToWorker

OOM_SCORE = Path("/proc/self/oom_score_adj")


class Pipe:
    """The socket to the worker, read in a thread: a busy loop must not hide its end.

    Args:
        number: The file descriptor of the socket.
    """

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)
        self._socket.set_inheritable(False)  # what a task starts must not hold it

    def send(self, word: ToWorker) -> None:
        """Send one frame."""
        with suppress(OSError):  # the worker is gone: the reader ends this process
            self._socket.sendall(pack(word))

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
        self._codec = Codec(app.settings)
        self._executor = Executor(app, app.settings)
        self._orders: asyncio.Queue[Order | Leave] = asyncio.Queue()
        self._run: Execution | None = None

    async def work(self) -> None:
        """Run jobs until the worker wants no more."""
        self._pipe.listen(self._hear)
        self._pipe.send(Ready())
        while True:
            order = await self._orders.get()
            if isinstance(order, Leave):
                return
            run = self._run = Execution()
            run.task = asyncio.Task(self._execute(run, order), loop=self._loop)
            await asyncio.wait((run.task,))
            run.task.result()

    def _hear(self, word: ToChild) -> None:
        self._loop.call_soon_threadsafe(self._obey, word)

    def _obey(self, word: ToChild) -> None:
        if isinstance(word, Order | Leave):
            self._orders.put_nowait(word)
        elif isinstance(word, Interrupt) and self._run is not None:
            self._run.interrupt(word.why, self._loop.time())

    async def _execute(self, run: Execution, order: Order) -> None:
        decoded = self._codec.decode(order.properties, order.body)
        message = decoded.message
        task = self._app.tasks[message.task]
        ctx = Context(message, self._state, order.queue, redelivered=True)
        outcome = await self._executor.execute(run, task, decoded, ctx)
        self._pipe.send(Ended(_portable(outcome)))
        await self._executor.after(ctx)


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
        for task in app.tasks.values():
            if task.signature is not None:
                task.signature.prepare()
        try:
            await Isolated(app, pipe, state).work()
        finally:
            await call_hooks(app.hooks.shutdown, state)
            app.state = None
            await app.close()


def _leave_it_to_the_worker(number: int, frame: FrameType | None) -> None:
    """Do nothing at a signal that was meant for all processes of the group."""


def main() -> None:
    """Serve the worker at the other end of the socket that the argument names."""
    # handled, not ignored: what is ignored would be so in a task's own processes, too
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_it_to_the_worker)
    with suppress(OSError):  # when memory runs out, this process shall go first
        OOM_SCORE.write_text("500")
    pipe = Pipe(int(sys.argv[1]))
    start = pipe.receive()
    assert isinstance(start, Start), "the worker begins with what to load"
    sys.path[:] = start.sys_path
    logs.set_up(start.settings.log_level, start.settings.language)
    app = load(start.path)
    app.configure(start.settings)
    uvloop = importlib.util.find_spec("uvloop") is not None
    anyio.run(_serve, app, pipe, backend_options={"use_uvloop": uvloop})


if __name__ == "__main__":
    main()
