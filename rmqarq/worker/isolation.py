"""Runs suspects one at a time in a process of their own, whose death is the proof.

A suspect came back too often for anybody to know why: restarts, bad links, or because
it kills its worker. In here it can only kill a process that runs nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from rmqarq.logs import process_number
from rmqarq.outcome import Crashed, Outcome, Released
from rmqarq.worker import pipe
from rmqarq.worker.admission import Postponed
from rmqarq.worker.executor import timeout_of
from rmqarq.worker.interpreter import command, death

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rmqarq.handler import Runnable
    from rmqarq.message import Message
    from rmqarq.settings import Settings
    from rmqarq.worker.executor import Executor
    from rmqarq.worker.roster import Run

    Timing: TypeAlias = Callable[[str, Message], AbstractContextManager[None]]

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
IDLE = 30.0
LAST_WORDS = 0.5
DYING = 5.0
PAUSE, LONGEST_PAUSE = 1.0, 30.0
UNKNOWN_THERE = 30.0


class Isolation:
    """The isolated process of a worker, started when the first suspect comes.

    Args:
        path: Where it finds the App, as MODULE:APP.
        settings: The worker's.
        executor: Knows what becomes of a job that was cancelled.

    Attributes:
        timing: Stands around each run.
    """

    def __init__(self, path: str, settings: Settings, executor: Executor) -> None:
        self._start = pipe.Start(path, settings, process_number())
        self._settings = settings
        self._executor = executor
        self._turn = asyncio.Lock()
        self._child: Child | None = None
        self._retirement: asyncio.TimerHandle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._pause = PAUSE
        self._held = False
        self.timing: Timing = _untimed

    async def execute(
        self, run: Run, task: Runnable, message: Message
    ) -> Outcome | Postponed:
        """Run a job in the isolated process, when it is its turn.

        Returns:
            How it ended; `Postponed` when the process does not know its task.

        Raises:
            asyncio.CancelledError: The worker itself was cancelled.
        """
        try:
            async with self._turn:
                if self._held or not run.delivery.alive:  # it may run elsewhere now
                    return Released()
                self._stay()
                try:
                    return await self._execute(run, task, message)
                finally:
                    self._retire_later()
        except asyncio.CancelledError:
            if run.abandoned or run.interrupted is None:
                raise
            run.settling = True
            run.task.uncancel()
            return self._executor.interrupted(run, task, message)

    def hold(self) -> None:
        """Start no more jobs: those that wait for their turn are given back."""
        self._held = True

    async def close(self) -> None:
        """End the process, in good order if it is idle."""
        self._stay()
        if self._child is not None and self._turn.locked():
            self._child.kill()
        self._dismiss()
        await asyncio.gather(*self._leaving)

    async def _execute(
        self, run: Run, task: Runnable, message: Message
    ) -> Outcome | Postponed:
        while True:
            run.deadline = None
            try:
                child = await self._ready()
            except (OSError, ChildNotReady) as problem:
                return await self._hold_up(problem)
            if message.task not in child.tasks:  # others must not wait for it
                log.error(
                    "the App that the isolated process has loaded does not know"
                    " %(task)s; its suspects have to wait",
                    {"task": message.task},
                )
                return Postponed(UNKNOWN_THERE, "unknown task")
            self._pause = PAUSE
            proof = child.fresh
            timeout = timeout_of(task, self._settings)
            if timeout is not None:
                run.deadline = asyncio.get_running_loop().time() + timeout
            try:
                with self.timing(task.name, message):
                    outcome = await self._watch(run, child)
            except ChildNotReady as problem:
                self._dismiss()
                return await self._hold_up(problem)
            if not isinstance(outcome, Crashed):
                run.settling = True
                return outcome
            self._child = None
            if proof:
                run.settling = True
                return outcome
            # what an earlier job left behind may be to blame: once more, all alone

    async def _ready(self) -> Child:
        """Give the process, made anew when need be.

        Raises:
            OSError: There can't be one more process.
            ChildNotReady: It can't load the App.
        """
        if self._child is None or not self._child.alive:
            self._dismiss()
            self._child = await Child.start(self._start)
        return self._child

    async def _hold_up(self, problem: Exception) -> Outcome:
        """Say what is wrong, and wait: the job comes again at once."""
        log.error(
            "the isolated process can't be started, suspects have to wait: %(problem)s",
            {"problem": problem},
        )
        await asyncio.sleep(self._pause)
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        return Released()

    async def _watch(self, run: Run, child: Child) -> Outcome:
        """Wait for the outcome, and see to it that a cancelled job really ends.

        Raises:
            asyncio.CancelledError: The run was cancelled; the process is idle or dead.
        """
        delivery = run.delivery
        order = pipe.Order(
            delivery.home,
            delivery.exchange,
            delivery.routing_key,
            delivery.properties,
            delivery.body,
        )
        answer = asyncio.ensure_future(child.run(order))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            try:
                if run.interrupted is None or run.abandoned:
                    raise
                run.settling = True  # it ends in here, not by the roster's sweep
                child.send(pipe.Interrupt(run.interrupted))
                await asyncio.wait((answer,), timeout=self._settings.cancel_grace)
                if (ended := _ended(answer)) is not None:
                    run.task.uncancel()
                    return ended
                raise
            finally:
                if not answer.done():
                    child.kill()
                    await asyncio.wait((answer,))
                _ended(answer)
                self._dismiss()  # a thread of the job may go on in there

    def _retire_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._retirement = loop.call_later(IDLE, self._dismiss)

    def _stay(self) -> None:
        if self._retirement is not None:
            self._retirement.cancel()
            self._retirement = None

    def _dismiss(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            leaving = asyncio.ensure_future(child.leave(self._settings.cancel_grace))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


class ChildNotReady(Exception):
    """The isolated process ended, or said nothing, before it was ready."""


class Child:
    """One isolated process.

    Attributes:
        fresh: It has not run anything yet: if it dies, its first job has done it.
        tasks: The names of those that it knows.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._dead = asyncio.ensure_future(process.wait())
        self.fresh = True
        self.tasks: frozenset[str] = frozenset()

    @classmethod
    async def start(cls, word: pipe.Start) -> Child:
        """Start a process and wait until the App is loaded in it.

        Raises:
            OSError: There can't be one more process.
            ChildNotReady: It ended before, or did nothing for a minute.
        """
        ours, theirs = socket.socketpair()
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command("isolated", theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
            except BaseException:
                writer.close()
                raise
        finally:
            theirs.close()
        child = cls(process, reader, writer)
        try:
            child.send(word)
            async with asyncio.timeout(START_TIMEOUT):
                await child._greet()
        except BaseException as error:
            child.kill()
            await child.death()
            if isinstance(error, TimeoutError):
                msg = f"it was not ready after {START_TIMEOUT:g} s"
                raise ChildNotReady(msg) from None
            raise
        return child

    @property
    def alive(self) -> bool:
        """Whether it can run a job."""
        return not self._dead.done()

    def send(self, word: pipe.ToChild) -> None:
        """Send one frame; a dead process hears nothing."""
        self._writer.write(pipe.pack(word))

    async def run(self, order: pipe.Order) -> Outcome:
        """Run one job; the death of the process is an outcome, too.

        Raises:
            ChildNotReady: It has failed by an error of ours, not by the job.
        """
        self.send(order)
        answer = await self._hear()
        self.fresh = False
        if isinstance(answer, pipe.Ended):
            return answer.outcome
        if isinstance(answer, pipe.Refused):
            raise ChildNotReady(answer.problem)
        return Crashed(await self._end())

    async def death(self) -> str:
        """Say how the process ended."""
        code = await self._dead
        self._writer.close()
        return death(code)

    def kill(self) -> None:
        """End the process at once."""
        if self.alive:
            self._process.kill()

    async def leave(self, grace: float) -> None:
        """Ask the process to end, and see to it that it does."""
        self.send(pipe.Leave())
        await asyncio.wait((self._dead,), timeout=grace)
        self.kill()
        await self.death()

    async def _greet(self) -> None:
        answer = await self._hear()
        if isinstance(answer, pipe.Refused):
            raise ChildNotReady(answer.problem)
        if not isinstance(answer, pipe.Ready):
            raise ChildNotReady(await self._end())
        self.tasks = answer.tasks

    async def _hear(self) -> pipe.ToWorker | None:
        """Wait for the next frame; `None` when there is none to come."""
        frame = asyncio.ensure_future(self._frame())
        try:
            await asyncio.wait((frame, self._dead), return_when=asyncio.FIRST_COMPLETED)
            if not frame.done():  # what it said last may still be on its way
                await asyncio.wait((frame,), timeout=LAST_WORDS)
            return frame.result() if frame.done() else None
        finally:
            frame.cancel()

    async def _end(self) -> str:
        """Say how a process ended that says nothing any more, or talks nonsense."""
        await asyncio.wait((self._dead,), timeout=DYING)
        self.kill()
        return await self.death()

    async def _frame(self) -> pipe.ToWorker | None:
        try:
            length = int.from_bytes(await self._reader.readexactly(pipe.LENGTH), "big")
            return pipe.to_worker(await self._reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError):
            return None


def _untimed(task: str, message: Message) -> AbstractContextManager[None]:
    """Stand in for a clock."""
    return nullcontext()


def _ended(answer: asyncio.Future[Outcome]) -> Outcome | None:
    """Give the outcome of a job that ended; none when its process did instead."""
    if not answer.done() or answer.exception() is not None:
        return None
    outcome = answer.result()
    return None if isinstance(outcome, Crashed) else outcome
