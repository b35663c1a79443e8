"""Middleware wraps what happens to a job; hooks only watch."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from rmqarq.context import Context

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rmqarq.message import Message

log = logging.getLogger(__name__)

HOOK_LIMIT = 30.0
"""Seconds after which a hook is cancelled: it must not hold its job's slot for ever."""

Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
Call: TypeAlias = Callable[[], Awaitable[object]]
Run: TypeAlias = Callable[[Context[Any], Call], Awaitable[object]]
JobHook: TypeAlias = Callable[[Context[Any]], Awaitable[None]]


class Middleware:
    """Override one method or both; what is not overridden costs nothing.

    Example:
        >>> class Timed(Middleware):
        ...     async def run(self, ctx, call_next):
        ...         began = time.perf_counter()
        ...         try:
        ...             return await call_next()
        ...         finally:
        ...             print(ctx.task, time.perf_counter() - began)
    """

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Wrap the sending of a message; pass on the same or a changed one.

        Args:
            message: With its arguments as Python values.
            call_next: Sends it; an error of the transport comes out of it. In a batch
                it only encodes it, and all are sent together later.
        """
        await call_next(message)

    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        """Wrap the run of a job.

        Args:
            ctx: The job.
            call_next: Runs it; its result is returned, its exception raised.

        Returns:
            The result of the job.
        """
        return await call_next()


class Hooks:
    """Functions that watch: called in order, an exception is logged and forgotten.

    Only a start-up hook may fail: then the worker does not start.
    """

    def __init__(self) -> None:
        self.startup: list[Callable[[Any], Awaitable[None]]] = []
        self.shutdown: list[Callable[[Any], Awaitable[None]]] = []
        self.job_start: list[JobHook] = []
        self.job_end: list[JobHook] = []

    def __bool__(self) -> bool:
        return bool(self.startup or self.shutdown or self.job_start or self.job_end)


async def call_hook(hook: Callable[[Any], Awaitable[None]], value: Any) -> None:
    """Call a hook; a plain function, which no type checker lets pass, is one, too."""
    result: object = hook(value)
    if inspect.isawaitable(result):
        await result


async def call_hooks(
    hooks: Iterable[Callable[[Any], Awaitable[None]]], value: Any
) -> None:
    """Call every hook with `value`; one that fails or hangs does not stop the others.

    Raises:
        asyncio.CancelledError: The task that calls them was cancelled.
    """
    for hook in hooks:
        try:
            async with asyncio.timeout(HOOK_LIMIT):
                await call_hook(hook, value)
        except (Exception, asyncio.CancelledError) as error:
            current = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (
                current is None or current.cancelling()
            ):
                raise
            log.exception(
                "the hook %(hook)s failed; the job is not affected",
                {"hook": getattr(hook, "__qualname__", repr(hook))},
            )


def run_chain(middleware: Sequence[Middleware]) -> Run | None:
    """Compile the `run` methods that are overridden; `None` when there are none."""
    chain: Run | None = None
    for each in reversed(middleware):
        if type(each).run is not Middleware.run:
            chain = each.run if chain is None else _around(each.run, chain)
    return chain


def wraps_enqueue(middleware: Sequence[Middleware]) -> list[Middleware]:
    """Pick those that override `enqueue`."""
    return [each for each in middleware if type(each).enqueue is not Middleware.enqueue]


def enqueue_chain(middleware: Sequence[Middleware], send: Send) -> Send:
    """Put the `enqueue` methods around `send`, the first outermost."""
    for each in reversed(middleware):
        send = _before(each.enqueue, send)
    return send


def _around(outer: Run, inner: Run) -> Run:
    def run(ctx: Context[Any], call: Call) -> Awaitable[object]:
        return outer(ctx, lambda: inner(ctx, call))

    return run


def _before(outer: Callable[[Message, Send], Awaitable[None]], inner: Send) -> Send:
    def send(message: Message) -> Awaitable[None]:
        return outer(message, inner)

    return send
