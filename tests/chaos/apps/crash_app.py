"""Tasks for workers that kill themselves at a chosen point, once.

RMQARQ_CHAOS_POINT names the point and RMQARQ_CHAOS_MARKER a file: whoever creates it
dies, by SIGKILL, without a last word. The ledger is that of the ledger app.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmqarq import App, Backoff, Context, Reject
from rmqarq.wire.consumer import Delivery
from rmqarq.wire.transport import Transport
from rmqarq.worker.dispatcher import Dispatcher
from rmqarq.worker.executor import Executor
from rmqarq.worker.intake import Intake
from tests.broker.apps.ledger_app import write

if TYPE_CHECKING:
    from collections.abc import Callable

POINT = os.environ.get("RMQARQ_CHAOS_POINT", "")


def die_once() -> None:
    """End this process as a crash does, unless another has done it."""
    try:
        marker = os.open(os.environ["RMQARQ_CHAOS_MARKER"], os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return
    os.close(marker)
    os.kill(os.getpid(), signal.SIGKILL)


async def filler(ctx: Context, number: int) -> None:
    write(ctx, "filler")


async def good(ctx: Context) -> None:
    write(ctx, "good")


async def middle(ctx: Context) -> None:
    write(ctx, "middle")
    if POINT == "mid task":
        die_once()
    write(ctx, "middle-done")


async def fails_once(ctx: Context) -> None:
    write(ctx, "fails_once")
    if ctx.job_try == 1:
        raise OSError("not yet")
    write(ctx, "fails_once-done")


async def reject(ctx: Context) -> None:
    write(ctx, "reject")
    raise Reject("on purpose")


async def lasting(ctx: Context, door: str) -> None:
    """Wait until a file appears."""
    write(ctx, "lasting")
    while not Path(door).exists():  # noqa: ASYNC110, ASYNC240 - no other signal
        await asyncio.sleep(0.01)
    write(ctx, "lasting-done")


def make(url: str | None = None, **settings: Any) -> App:
    """Make an App with these tasks; a test makes its own to enqueue."""
    app = App(url, **settings)
    for fn in (filler, good, middle, reject, lasting):
        app.task(fn)
    app.task(max_retries=1, backoff=Backoff(base=0.2, jitter=0))(fails_once)
    return app


# --- the points: each wraps one method of the package in this process ---


def _before(kind: type[Any], method: str) -> None:
    """Die when the method is called."""
    original: Callable[..., Any] = getattr(kind, method)

    @functools.wraps(original)
    def dying(*args: Any, **kwargs: Any) -> Any:
        die_once()
        return original(*args, **kwargs)

    setattr(kind, method, dying)


def _after(kind: type[Any], method: str) -> None:
    """Die when the coroutine method has done its work."""
    original: Callable[..., Any] = getattr(kind, method)

    @functools.wraps(original)
    async def dying(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        die_once()
        return result

    setattr(kind, method, dying)


def _nowhere() -> None:
    """Stand for the points that lie inside a task."""


POINTS: dict[str, Callable[[], None]] = {
    "before the start": lambda: _before(Executor, "execute"),
    "mid task": _nowhere,
    "done, not acked": lambda: _before(Delivery, "ack"),
    "retry confirmed, not acked": lambda: _after(Transport, "publish"),
    "dead letter confirmed, not acked": lambda: _after(Transport, "publish"),
    "sent on, not acked": lambda: _after(Transport, "publish"),
    "stopping, consumers cancelled": lambda: _after(Intake, "cancel"),
    "stopping, the rest given back": lambda: _after(Dispatcher, "idle"),
    "stopping, acks on the way": lambda: _before(Intake, "close"),
}

if POINT:
    POINTS[POINT]()

app = make()
