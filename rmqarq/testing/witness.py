"""Sees every run of a worker: what it was called with, and what came out of it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rmqarq.middleware import Middleware
from rmqarq.outcome import DeadLettered, Retried
from rmqarq.testing.sightings import Done, moment
from rmqarq.worker.executor import signal_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rmqarq.context import Context
    from rmqarq.outcome import Outcome


class Witness(Middleware):
    """The outermost middleware of a worker, and the last of its hooks.

    So it sees the exception that decides what becomes of the job, after the middleware
    of the App, and the end of a run after the App's own hooks.

    Args:
        clock: Gives the time.

    Attributes:
        begun: How many runs have begun.
        done: Those that have ended, in order.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: set[Context[Any]] = set()
        self._errors: dict[Context[Any], BaseException] = {}
        self.begun = 0
        self.done: list[Done] = []
        self._raised: list[Exception] = []

    @property
    def running(self) -> int:
        """How many runs have begun and not ended."""
        return len(self._running)

    def take(self) -> list[Exception]:
        """Take away the exceptions of the runs that have failed since the last time."""
        raised, self._raised = self._raised, []
        return raised

    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        """See a run begin, and how it fails."""
        self.begun += 1
        self._running.add(ctx)
        try:
            return await call_next()
        except BaseException as error:
            self._errors[ctx] = error
            raise

    async def end(self, ctx: Context[Any]) -> None:
        """See a run end: a hook."""
        self._running.discard(ctx)
        error = self._errors.pop(ctx, None)
        assert ctx.outcome is not None, "hooks of the end come after it"
        args, kwargs = ctx.arguments
        self.done.append(
            Done(
                task=ctx.task,
                args=args,
                kwargs=kwargs,
                id=ctx.job_id,
                queue=ctx.queue,
                at=moment(self._clock()),
                job_try=ctx.job_try,
                outcome=ctx.outcome,
                error=error,
            )
        )
        shown = surfacing(ctx, error, ctx.outcome)
        if shown is not None:
            self._raised.append(shown)


def surfacing(
    ctx: Context[Any], error: BaseException | None, outcome: Outcome
) -> Exception | None:
    """Give the exception that a test shall see of a run.

    Signals are none, and what ends a program does not end the test.
    """
    if error is None or not isinstance(outcome, Retried | DeadLettered):
        return None
    if signal_in(error) is not None:
        return None
    if isinstance(error, Exception):
        return error.with_traceback(_of_the_task(error.__traceback__))
    failure = outcome.failure
    if isinstance(error, asyncio.CancelledError) and failure is not None:
        shown: Exception = TimeoutError(f"{ctx.task}: {failure.message}")
    else:
        shown = RuntimeError(f"{ctx.task} ended with {error!r}")
    shown.__cause__ = error
    return shown


def _of_the_task(whole: TracebackType | None) -> TracebackType | None:
    """Leave out how the worker came to call the function, unless that is all."""
    inner = whole
    while inner is not None and _is_ours(inner):
        inner = inner.tb_next
    return inner or whole


def _is_ours(step: TracebackType) -> bool:
    return str(step.tb_frame.f_globals.get("__name__", "")).startswith("rmqarq.")
