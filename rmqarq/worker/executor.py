"""Runs a message's function and says how it ended; no AMQP in here."""

from __future__ import annotations

import asyncio
import logging
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rmqarq.backoff import Backoff
from rmqarq.errors import DecodeError, JobSignal, Reject, Retry
from rmqarq.logs import current_job
from rmqarq.middleware import call_hooks, run_chain
from rmqarq.outcome import (
    DeadLettered,
    Failure,
    Outcome,
    Released,
    Retried,
    Succeeded,
)
from rmqarq.records import clean
from rmqarq.threads import Threads
from rmqarq.when import seconds_until

if TYPE_CHECKING:
    from rmqarq.app import App
    from rmqarq.context import Context
    from rmqarq.handler import Runnable
    from rmqarq.message import Message
    from rmqarq.settings import Settings
    from rmqarq.wire.codec import Decoded
    from rmqarq.worker.roster import Execution

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 2000
LONGEST_TRACEBACK = 8000


class Executor:
    """Turns a decoded message into an outcome.

    Args:
        app: Its hooks and middleware apply.
        settings: The worker's, for what a task leaves open.
    """

    def __init__(self, app: App[Any], settings: Settings) -> None:
        self._clock = app.clock
        self._hooks = app.hooks
        self._chain = run_chain(app.middleware)
        self._settings = settings
        self._backoff = Backoff.beginning(settings.retry_backoff)
        self._threads = Threads(settings.concurrency)
        worker = asyncio.current_task()
        assert worker is not None, "made by a running worker"
        self._worker = worker

    @property
    def busy_threads(self) -> int:
        """How many threads run a plain function, those given up included."""
        return self._threads.busy

    @property
    def given_up_threads(self) -> int:
        """How many threads run a plain function that nobody waits for any more."""
        return self._threads.given_up

    async def execute(
        self, run: Execution, task: Runnable, decoded: Decoded, ctx: Context[Any]
    ) -> Outcome:
        """Run the function, the hooks of its start before it.

        Raises:
            asyncio.CancelledError: The worker itself was cancelled.
        """
        current_job.set(ctx)
        try:
            ctx.outcome = await self._outcome(run, task, decoded, ctx)
        finally:
            run.settling = True
            if run.interrupted is not None and _is_running(run):
                run.task.uncancel()  # the cancellation has done its work
        return ctx.outcome

    async def after(self, ctx: Context[Any]) -> None:
        """Call the hooks of the job's end; its fate is settled already."""
        await call_hooks(self._hooks.job_end, ctx)

    def interrupted(self, run: Execution, task: Runnable, message: Message) -> Outcome:
        """Say what becomes of a run that was cancelled, by who asked for it."""
        if run.interrupted == "shutdown":
            return Released()
        limit = timeout_of(task, self._settings)
        error = TimeoutError(f"the run took longer than {limit:g} s")
        return self._again(task, message, failure_of(error))

    async def _outcome(
        self, run: Execution, task: Runnable, decoded: Decoded, ctx: Context[Any]
    ) -> Outcome:
        message = decoded.message
        try:
            ctx.arguments = args, kwargs = task.decode(decoded)
        except DecodeError as error:
            return DeadLettered("undecodable", failure_of(error))
        if task.takes_context:
            args = (ctx, *args)
        try:
            if self._hooks.job_start:
                await call_hooks(self._hooks.job_start, ctx)
            if self._chain is None:
                return Succeeded(await task.call(args, kwargs, self._threads))
            call = partial(task.call, args, kwargs, self._threads)
            return Succeeded(await self._chain(ctx, call))
        except asyncio.CancelledError as error:
            return self._cancelled(run, task, message, error)
        except BaseException as error:
            if isinstance(error, GeneratorExit) and not _is_running(run):
                raise  # the coroutine is thrown away, nobody waits for an outcome
            return self._failed(run, task, message, error)

    def _failed(
        self,
        run: Execution,
        task: Runnable,
        message: Message,
        error: BaseException,
    ) -> Outcome:
        """Decide after an exception, whichever: a task may not end the worker."""
        signal = signal_in(error)
        if signal is None and run.interrupted is not None:
            # its clean-up failed after our cancellation: that is not its own failure
            return self.interrupted(run, task, message)
        return self._after(task, message, signal or error)

    def _cancelled(
        self,
        run: Execution,
        task: Runnable,
        message: Message,
        error: asyncio.CancelledError,
    ) -> Outcome:
        """Tell our own cancellation from the worker's end and the function's doing."""
        if run.abandoned:
            raise error
        if run.interrupted is not None:
            return self.interrupted(run, task, message)
        if self._worker.cancelling():
            raise error  # every task of the loop is cancelled: the process ends
        while run.task.cancelling():  # the function has cancelled its own task
            run.task.uncancel()
        return self._after(task, message, error)

    def _after(self, task: Runnable, message: Message, error: BaseException) -> Outcome:
        """Decide after an exception: another attempt, or the dead letters."""
        failure = failure_of(error)
        if isinstance(error, Reject):
            return DeadLettered("rejected", failure)
        if isinstance(error, Retry):
            return self._again(task, message, failure, error)
        if not retryable(error, task.policy.retry_on):
            return DeadLettered("not retryable", failure)
        return self._again(task, message, failure)

    def _again(
        self,
        task: Runnable,
        message: Message,
        failure: Failure,
        signal: Retry | None = None,
    ) -> Outcome:
        allowed = message.max_retries
        if allowed is None:
            allowed = task.policy.max_retries
        if allowed is None:
            allowed = self._settings.max_retries
        if message.job_try > allowed:
            return DeadLettered("retries used up", failure)
        if signal is not None and signal.defer is not None:
            try:
                return Retried(seconds_until(signal.defer, self._clock()), failure)
            except (TypeError, ValueError) as error:
                return DeadLettered("rejected", failure_of(error))
        backoff = task.policy.backoff or self._backoff
        return Retried(backoff.delay(message.job_try), failure)


def retryable(error: BaseException, kinds: tuple[type[Exception], ...]) -> bool:
    """Tell whether another attempt is worth it; of a group, each exception must be."""
    if isinstance(error, kinds) or not isinstance(error, Exception):
        return True
    if not isinstance(error, ExceptionGroup):
        return False
    inside = cast("ExceptionGroup[Exception]", error).exceptions
    return all(retryable(each, kinds) for each in inside)


def signal_in(error: BaseException) -> JobSignal | None:
    """Find a `Retry` or `Reject`, alone in the group that a TaskGroup made of it."""
    while isinstance(error, BaseExceptionGroup):
        inside = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(inside) != 1:
            return None
        error = inside[0]
    return error if isinstance(error, JobSignal) else None


def _is_running(run: Execution) -> bool:
    """Tell whether this code runs in the job's own asyncio task."""
    try:
        return asyncio.current_task() is run.task
    except RuntimeError:
        return False


def timeout_of(task: Runnable, settings: Settings) -> float | None:
    """Give the seconds a run of `task` may take; `None` for no limit."""
    if task.policy.no_timeout:
        return None
    return task.policy.timeout or settings.job_timeout


def failure_of(error: BaseException) -> Failure:
    """Put an exception into words that can travel: bounded, no password in a URL."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
        trace = "".join(traceback.format_exception(error))
    except Exception:
        text, trace = "(the exception can't be shown)", ""
    # cut last: half a URL would no longer show that it holds a password
    text, trace = clean(text)[:LONGEST_MESSAGE], clean(trace)[-LONGEST_TRACEBACK:]
    return Failure(name, text, trace)
