"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Struct

from rmqarq.stats import Stats
from rmqarq.worker import pipe
from rmqarq.worker.interpreter import command
from rmqarq.worker.line import (
    MARGIN,
    Ended,
    Finish,
    Force,
    Halt,
    Loaded,
    Serving,
    Start,
    ToSupervisor,
    ToWorker,
    time_to_stop,
    to_supervisor,
)
from rmqarq.worker.restarts import End

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.settings import Settings
    from rmqarq.worker.ending import Ending

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SLOW_START = 60.0
LOADING_GRACE = 5.0
FORCED_GRACE = 5.0
LAST_WORDS = 1.0

log = logging.getLogger(__name__)


class Slow(Struct, frozen=True):
    """A process takes long to start.

    Args:
        number: Its own.
        seconds: For which it has done what it does.
        loaded: Whether it waits for the broker or for hooks, or still loads its App.
    """

    number: int
    seconds: float
    loaded: bool


News: TypeAlias = Loaded | Slow


class Child:
    """A worker process that was started.

    Args:
        number: Its own, from 1 on.
        process: The process.
        reader: What it says.
        writer: What it hears.
        hear: Told what it has come to.

    Attributes:
        stats: What it has done, as far as it has said.
    """

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hear: Callable[[News], None],
    ) -> None:
        self._number = number
        self._process = process
        self._listening = asyncio.create_task(self._listen(reader))
        self._writer = writer
        self._tell = hear
        self._loop = asyncio.get_running_loop()
        self._settings: Settings | None = None
        self._serving_since: float | None = None
        self._ending: Ending | None = None
        self._kill: asyncio.TimerHandle | None = None
        self._patience = self._wait_patiently()
        self.stats = Stats()

    @classmethod
    async def start(
        cls, word: Start, hear: Callable[[News], None], output: int | None = None
    ) -> Child:
        """Start a process.

        Args:
            word: What it shall run.
            hear: Told what it has come to.
            output: File descriptor for all that it prints; ours if not given.

        Raises:
            OSError: There can't be one more process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            try:
                process = await _spawn(theirs.fileno(), output)
            except BaseException:
                writer.close()
                raise
        child = cls(word.number, process, reader, writer, hear)
        child._send(word)
        return child

    def finish(self) -> None:
        """Tell it that all has been sent, and its burst may end."""
        self._send(Finish())

    def halt(self, name: str | None = None) -> None:
        """Ask it to stop in order, and see to it that it does.

        Args:
            name: The signal that we have received.
        """
        self._send(Halt(name))
        settings = self._settings
        self._kill_in(time_to_stop(settings) if settings else LOADING_GRACE)

    def force(self, name: str) -> None:
        """Ask it to stop at once, and see to it that it does.

        Args:
            name: The signal that we have received again.
        """
        self._send(Force(name))
        self._kill_in(FORCED_GRACE)

    def kill(self) -> None:
        """End it as a crash would."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> End:
        """Wait until it has ended, and say how."""
        code = await self._process.wait()
        served = None
        if self._serving_since is not None:
            served = self._loop.time() - self._serving_since
        # what it said last may still be on its way; what it has started may live on
        await asyncio.wait((self._listening,), timeout=LAST_WORDS)
        self._listening.cancel()
        self._writer.close()
        for timer in (self._patience, self._kill):
            if timer is not None:
                timer.cancel()
        return End(code, self._ending, served)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, msgspec.DecodeError):
            while True:
                size = int.from_bytes(await reader.readexactly(pipe.LENGTH), "big")
                self._hear(to_supervisor(await reader.readexactly(size)))

    def _hear(self, word: ToSupervisor) -> None:
        if isinstance(word, Loaded):
            self._settings = word.settings
            self._patience.cancel()
            self._patience = self._wait_patiently()
            self._tell(word)
        elif isinstance(word, Serving):
            self._serve()
        else:
            self.stats = word.stats
            if isinstance(word, Ended):
                self._serve()
                self._ending = word.ending
                if self._kill is None:  # a thread of a task may hold it up
                    self._kill_in(MARGIN)

    def _serve(self) -> None:
        self._patience.cancel()
        if self._serving_since is None:
            self._serving_since = self._loop.time()

    def _wait_patiently(self) -> asyncio.TimerHandle:
        slow = Slow(self._number, SLOW_START, loaded=self._settings is not None)
        return self._loop.call_later(SLOW_START, self._tell, slow)

    def _send(self, word: ToWorker) -> None:
        self._writer.write(pipe.pack(word))

    def _kill_in(self, seconds: float) -> None:
        if self._kill is not None:
            self._kill.cancel()
        self._kill = self._loop.call_later(seconds, self._lose_patience, seconds)

    def _lose_patience(self, seconds: float) -> None:
        log.error(
            "process %(number)d has not stopped within %(seconds)g s and is killed",
            {"number": self._number, "seconds": seconds},
        )
        self.kill()


async def _spawn(number: int, output: int | None) -> asyncio.subprocess.Process:
    """Start the process with its signals held back until it can handle them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return await asyncio.create_subprocess_exec(
            *command("supervised", number),
            stdout=output,
            stderr=output,
            pass_fds=(number,),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
