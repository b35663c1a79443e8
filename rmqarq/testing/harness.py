"""The executor of production without any broker: nothing but Python runs."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from rmqarq.context import Context
from rmqarq.middleware import call_hooks
from rmqarq.outcome import DeadLettered, Outcome, Retried
from rmqarq.testing.paper import PaperTransport
from rmqarq.testing.reader import Reader, jobs_of
from rmqarq.testing.stage import settings_for
from rmqarq.transports import Surroundings
from rmqarq.worker.admission import admit
from rmqarq.worker.executor import Executor, timeout_of
from rmqarq.worker.lifespan import lifespan_of
from rmqarq.worker.roster import Execution
from rmqarq.worker.settle import next_attempt

if TYPE_CHECKING:
    from collections.abc import Container
    from types import TracebackType
    from typing import Self

    from rmqarq.app import App
    from rmqarq.handler import Runnable
    from rmqarq.message import Message
    from rmqarq.settings import Settings
    from rmqarq.task import Task
    from rmqarq.wire.codec import Decoded
    from rmqarq.wire.publication import Publication

P = ParamSpec("P")
R = TypeVar("R")


class Parcel(NamedTuple):
    """A job on its way: read, and where it goes."""

    queue: str
    decoded: Decoded


class Harness:
    """Runs jobs of an App by the executor of production, without AMQP.

    Publishing and settling are swapped, all the rest is as in a worker: arguments
    travel as bytes, and lifespan, hooks, middleware, timeouts and retries apply. Time
    stands still, and leaps to what is due next. For whatever happens in the broker, and
    for exceptions that surface, there is `world`.

    Use it as `async with Harness(app) as h`; without that, each `run` and `drain`
    enters and leaves it on its own, the lifespan included.

    Args:
        app: It must not be connected; afterwards it is as it was before.
        limit: How many runs one `drain` may take before it is taken for endless.

    Attributes:
        enqueued: What was enqueued, by the test and by jobs, in order.

    Example:
        >>> async with Harness(app) as h:
        ...     outcome = await h.run(welcome, "ada@example.com")
        ...     assert isinstance(outcome, Succeeded)
    """

    def __init__(self, app: App[Any], *, limit: int = 1000) -> None:
        self.enqueued: list[Message] = []
        self._app = app
        self._limit = limit
        self._now = float(math.ceil(time.time()))
        self._waiting: list[tuple[float, int, Parcel]] = []
        self._numbers = itertools.count()
        self._aside: list[Parcel] | None = None
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        """Begin: lifespan and start-up hooks.

        Raises:
            ConfigurationError: The App is connected, or can't be used.
            RuntimeError: It has begun already.
        """
        if self._stack is not None:
            raise RuntimeError("this harness is entered already")
        self._stack = AsyncExitStack()
        try:
            await self._begin(self._stack)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End: the hooks of the shutdown, and the lifespan."""
        await self._end()

    async def run(self, task: Task[P, R], *args: P.args, **kwargs: P.kwargs) -> Outcome:
        """Run one call now, as a worker would that has just received it.

        Returns:
            How it ended; what follows from it, a further attempt say, is for `drain`.

        Raises:
            TypeError: The function can't be called like that.
            EncodeError: An argument would not arrive as it is.
        """
        if self._stack is None:
            async with self:
                return await self.run(task, *args, **kwargs)
        taken: list[Parcel] = []
        self._aside = taken
        try:
            await task.enqueue(*args, **kwargs)
        finally:
            self._aside = None
        assert taken, "no middleware has kept the job back"
        return await self._perform(taken[0])

    async def drain(self) -> list[Outcome]:
        """Run all that was enqueued, and what follows from it, in the order of time.

        Time leaps to each job that was deferred or is retried.

        Returns:
            How the runs ended, in order.

        Raises:
            RuntimeError: There was no end of it.
        """
        if self._stack is None:
            async with self:
                return await self.drain()
        outcomes: list[Outcome] = []
        while self._waiting:
            if len(outcomes) == self._limit:
                raise RuntimeError(
                    f"there were {self._limit} runs, and there is no end of it:"
                    " Harness(app, limit=...) allows more"
                )
            due, _, parcel = heapq.heappop(self._waiting)
            self._now = max(self._now, due)
            outcomes.append(await self._perform(parcel))
        return outcomes

    # --- its beginning and its end ---

    async def _begin(self, stack: AsyncExitStack) -> None:
        app = self._app
        settings = settings_for(app.settings)
        around = Surroundings(lambda: self._now, self._connect)
        stack.enter_context(app.elsewhere(around, settings, app.middleware))
        for each in app.registry:
            each.prepare()
        self._reader = Reader(app)
        self._executor = Executor(app, settings)
        self._state = await stack.enter_async_context(lifespan_of(app))
        app.state = self._state
        stack.callback(setattr, app, "state", None)
        for hook in app.hooks.startup:
            await hook(self._state)
        stack.push_async_callback(call_hooks, app.hooks.shutdown, self._state)

    async def _end(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    def _connect(self, settings: Settings, foreign: Container[str]) -> PaperTransport:
        return PaperTransport(settings, foreign, self._take)

    def _take(self, publication: Publication) -> None:
        """Take what was enqueued."""
        lying, whole = self._reader.published(publication)
        for decoded in jobs_of(whole):
            parcel = Parcel(lying.home, decoded)
            if self._aside is not None:
                self._aside.append(parcel)
            else:
                self.enqueued.append(self._reader.message(lying, decoded))
                self._post(parcel)

    def _post(self, parcel: Parcel) -> None:
        due = parcel.decoded.message.eta or self._now
        heapq.heappush(self._waiting, (due, next(self._numbers), parcel))

    # --- a run ---

    async def _perform(self, parcel: Parcel) -> Outcome:
        """Run a job, and see to what follows from it."""
        decoded = parcel.decoded
        message = decoded.message
        task = self._app.registry.find(parcel.queue, message.task)
        if task is None:
            return DeadLettered("unknown task")
        verdict = admit(message, self._now)
        if isinstance(verdict, DeadLettered):
            return verdict
        ctx: Context[Any] = Context(message, self._state, parcel.queue)
        outcome = await self._execute(task, decoded, ctx)
        if isinstance(outcome, Retried):
            again = next_attempt(message, outcome.delay, self._now)
            self._post(parcel._replace(decoded=decoded._replace(message=again)))
        await self._executor.after(ctx)
        return outcome

    async def _execute(
        self, task: Runnable, decoded: Decoded, ctx: Context[Any]
    ) -> Outcome:
        """Run a function as the worker does: once cancelled when it takes too long."""
        run = Execution()
        coroutine = self._executor.execute(run, task, decoded, ctx)
        job = asyncio.create_task(coroutine, name="job")
        run.task = job
        timeout = timeout_of(task, self._app.settings)
        try:
            done, _ = await asyncio.wait((job,), timeout=timeout)
            if not done:
                run.interrupt("timeout", 0.0)
            return await job
        except asyncio.CancelledError:
            job.cancel()
            raise
