"""Keeps N worker processes running, and sums up what they did.

It runs no jobs, loads no App and has no connection to the broker.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from rmqarq import logs
from rmqarq.errors import ConfigurationError
from rmqarq.settings import Settings
from rmqarq.stats import Stats
from rmqarq.worker import reports
from rmqarq.worker.changes import changes, directories_of
from rmqarq.worker.child import Child, News
from rmqarq.worker.ending import Ending, Why, worst
from rmqarq.worker.interpreter import death
from rmqarq.worker.line import Loaded
from rmqarq.worker.process import replaced
from rmqarq.worker.restarts import (
    Again,
    Done,
    End,
    Hopeless,
    Restarts,
    UntilChange,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from rmqarq.worker.line import Start

log = logging.getLogger(__name__)


class Place:
    """The place of one worker process, taken by one after the other.

    Args:
        number: Which one, from 1 on.
        reload: Whether somebody works on the code.
    """

    def __init__(self, number: int, *, reload: bool) -> None:
        self.number = number
        self.restarts = Restarts(reload=reload)
        self.child: Child | None = None
        self.changed = asyncio.Event()
        self.last: End | None = None


class Supervisor:
    """Starts worker processes and starts them again; to be run in the main thread.

    Args:
        start: What each shall run; the numbers are filled in.
        processes: How many; `None` as the settings of the App say.
        output: File descriptor for all that they print; ours if not given.

    Attributes:
        total: What all of them have done.
    """

    def __init__(
        self, start: Start, processes: int | None = None, *, output: int | None = None
    ) -> None:
        self._start = start
        self._output = output
        self._processes = processes
        early = {"language": start.language, "log_format": start.log_format}
        self._settings = replaced(Settings(), {**early, **start.flags})
        self._places: list[Place] = []
        self._loaded = asyncio.Event()
        self._stopping = asyncio.Event()
        self._signal: str | None = None
        self._forced = False
        self._hopeless: int | None = None
        self._problem: Exception | None = None
        self._logs = False
        self._began = 0.0
        self.total = Stats()

    async def run(self, *, signals: bool = True) -> int:
        """Work until a signal, or until all have done what there is to do.

        Args:
            signals: Heed SIGTERM and SIGINT; `False` where somebody else does, and
                calls `heed`.

        Returns:
            The exit code for all.

        Raises:
            ConfigurationError: What is asked for does not go together, or files can't
                be watched.
        """
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        for number in (signal.SIGINT, signal.SIGTERM) if signals else ():
            loop.add_signal_handler(number, self.heed, signal.Signals(number).name)
        watching = asyncio.create_task(self._watch())
        try:
            await self._keep_all()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for place in self._places:
                if place.child is not None:
                    place.child.kill()
                    await place.child.end()
            for number in (signal.SIGINT, signal.SIGTERM) if signals else ():
                loop.remove_signal_handler(number)
        return self._conclude()

    def heed(self, name: str) -> None:
        """Do what a signal asks for: the first time stop in order, then at once."""
        self._set_up_log()
        again = self._stopping.is_set()
        self._signal = name
        if again:
            log.warning("received %(signal)s again, stopping now", {"signal": name})
            self._forced = True
            for place in self._places:
                if place.child is not None:
                    place.child.force(name)
        else:
            log.info("received %(signal)s, stopping", {"signal": name})
            self.stop()

    def stop(self) -> None:
        """Stop in order."""
        self._stopping.set()
        for place in self._places:
            if place.child is not None:
                place.child.halt(self._signal)

    def finish(self) -> None:
        """Let patient bursts end when nothing is left."""
        self._start = msgspec.structs.replace(self._start, patient=False)
        for place in self._places:
            if place.child is not None:
                place.child.finish()

    # --- the processes ---

    async def _keep_all(self) -> None:
        """Keep the first process; the others when that has loaded the App.

        So there is one complaint about an App that can't be loaded, and it is known
        how many there shall be.
        """
        first = asyncio.create_task(self._keep(self._place(1)))
        await self._any(first, self._loaded.wait(), self._stopping.wait())
        rest: list[asyncio.Task[None]] = []
        if self._loaded.is_set():
            count = self._processes or self._settings.processes
            log.info(
                "supervisor started; worker processes: %(count)d", {"count": count}
            )
            numbers = range(2, count + 1)
            rest = [asyncio.create_task(self._keep(self._place(n))) for n in numbers]
        await asyncio.gather(first, *rest)

    def _place(self, number: int) -> Place:
        place = Place(number, reload=self._start.reload)
        self._places.append(place)
        return place

    async def _keep(self, place: Place) -> None:
        """Start one process after the other, as long as there shall be one."""
        while True:
            if place.number > 1:
                await self._any(self._loaded.wait(), self._stopping.wait())
            if self._stopping.is_set():
                return
            place.changed.clear()
            end = await self._live(place)
            if self._stopping.is_set():
                place.last = end
                return
            if not place.changed.is_set():
                verdict = self._judge(place, end)
                if not await self._follow(place, end, verdict):
                    return

    async def _live(self, place: Place) -> End:
        """Start a process and wait until it has ended."""
        word = msgspec.structs.replace(
            self._start, number=place.number, flags=self._flags()
        )
        try:
            child = await Child.start(word, self._hear, self._output)
        except OSError as error:
            self._set_up_log()
            log.error(  # noqa: TRY400
                "process %(number)d can't be started: %(problem)s",
                {"number": place.number, "problem": error},
            )
            return End(1)
        place.child = child
        if self._forced and self._signal is not None:  # while it was started
            child.force(self._signal)
        elif self._stopping.is_set() or place.changed.is_set():
            child.halt(self._signal)
        elif word.patient and not self._start.patient:
            child.finish()
        end = await child.end()
        place.child = None
        self.total.add(child.stats)
        return end

    def _flags(self) -> dict[str, Any]:
        """Give the flags for a process; a burst that goes on has less time left."""
        limit = self._settings.burst_timeout
        if not (self._loaded.is_set() and self._settings.burst and limit):
            return self._start.flags
        return {**self._start.flags, "burst_timeout": max(0.1, limit - self._age())}

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._began

    def _judge(self, place: Place, end: End) -> Verdict:
        limit = self._settings.burst_timeout
        burst = self._settings.burst
        if burst and end.ending is None and limit is not None and self._age() >= limit:
            return Done()
        return place.restarts.judge(end, burst=burst)

    async def _follow(self, place: Place, end: End, verdict: Verdict) -> bool:
        """Do what follows from an end; False when the place stays empty."""
        self._set_up_log()
        details = {"number": place.number, "death": death(end.code)}
        if isinstance(verdict, Again):
            if verdict.after:
                log.warning(
                    "process %(number)d %(death)s; a new one starts in %(seconds)g s",
                    {**details, "seconds": verdict.after},
                )
            else:
                log.info(
                    "process %(number)d has run enough jobs; a new one starts", details
                )
            await self._pause(place, verdict.after)
        elif isinstance(verdict, UntilChange):
            log.error(
                "process %(number)d %(death)s before it took jobs; a new one starts"
                " when the code has changed",
                details,
            )
            await self._pause(place, None)
        else:
            place.last = end
            if isinstance(verdict, Hopeless):
                self._hopeless = end.code
                self.stop()
            return False
        return True

    async def _pause(self, place: Place, seconds: float | None) -> None:
        """Wait, but no longer than until the code changes or all is over."""
        await self._any(place.changed.wait(), self._stopping.wait(), timeout=seconds)

    async def _any(self, *works: Awaitable[Any], timeout: float | None = None) -> None:
        """Wait for the first of several; the others are given up, but for tasks."""
        tasks = [asyncio.ensure_future(each) for each in works]
        try:
            await asyncio.wait(
                tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task, work in zip(tasks, works, strict=True):
                if task is not work:
                    task.cancel()

    # --- what they say ---

    def _hear(self, news: News) -> None:
        if isinstance(news, Loaded):
            self._learn(news.settings)
            return
        self._set_up_log()
        details = {"number": news.number, "seconds": news.seconds}
        if news.loaded:
            log.warning(
                "process %(number)d takes no jobs yet after %(seconds)g s: it waits for"
                " the broker, or for its lifespan or start hooks",
                details,
            )
        else:
            log.warning(
                "process %(number)d still loads its App after %(seconds)g s", details
            )

    def _learn(self, settings: Settings) -> None:
        """Take in the settings of a process that has loaded its App."""
        self._settings = settings
        self._set_up_log()
        if self._start.reload and settings.burst:
            self._fail(
                ConfigurationError(
                    "--reload and burst mode don't go together: a burst ends when the"
                    " queues are empty, --reload waits for changes"
                )
            )
        self._loaded.set()

    def _set_up_log(self) -> None:
        if not self._logs:
            self._logs = True
            settings = self._settings
            logs.set_up(settings.log_level, settings.language, settings.log_format)

    # --- what ends them ---

    def _fail(self, problem: Exception) -> None:
        self._problem = problem
        self.stop()

    async def _watch(self) -> None:
        """Start all anew when the code changes."""
        if not self._start.reload:
            return
        try:
            async for name in changes(directories_of(self._start.path)):
                self._set_up_log()
                log.info("%(file)s has changed, starting anew", {"file": name})
                self._loaded.clear()
                for place in self._places:
                    place.changed.set()
                    if place.child is not None:
                        place.child.halt()
        except Exception as error:
            self._fail(error)

    # --- how it ended ---

    def _conclude(self) -> int:
        """Sum up, and give the exit code."""
        if self._problem is not None:
            raise self._problem
        if self._hopeless is not None and self.total == Stats():
            return self._hopeless  # its process has said why
        ending = self._ending()
        reports.farewell(ending, self.total)
        of_all = [] if ending is None else [ending.exit_code]
        if self._forced:
            return of_all[0]
        codes = [place.last.code for place in self._places if place.last is not None]
        return worst([*codes, *of_all])

    def _ending(self) -> Ending | None:
        """Give the ending of all: by a signal, or the worst of theirs, if any."""
        dead = self._settings.fail_on_dead and self.total.dead_lettered > 0
        if self._signal is not None:
            why: Why = "forced" if self._forced else "asked to stop"
            return Ending(why, self._signal, dead)
        lasts = [place.last.ending for place in self._places if place.last is not None]
        endings = [each for each in lasts if each is not None]
        if not endings:
            return None
        chosen = max(endings, key=lambda each: each.exit_code)
        return msgspec.structs.replace(chosen, dead_letters=dead)
