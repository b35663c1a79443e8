"""Tasks of all tempers that write down when they start, end or are cancelled.

The log is a file, named by RMQARQ_CHAOS_LOG; see tests/chaos/ledger.py. Queue and
broker come from the environment.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rmqarq import App, Backoff, Context, Reject
from tests.chaos.ledger import note

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def noted(ctx: Context[Any]) -> Iterator[None]:
    """Write down the start and, unless it fails, the end of a run."""
    note(ctx, "S")
    try:
        yield
    except asyncio.CancelledError:
        note(ctx, "C")
        raise
    note(ctx, "D")


async def quick(ctx: Context, mark: str = "") -> None:
    with noted(ctx):
        pass


async def sleeper(ctx: Context, seconds: float, mark: str = "") -> None:
    with noted(ctx):
        await asyncio.sleep(seconds)


def blocking(ctx: Context, seconds: float, mark: str = "") -> None:
    with noted(ctx):
        time.sleep(seconds)


async def flaky(ctx: Context, mark: str = "") -> None:
    """Fail at the first attempt."""
    with noted(ctx):
        if ctx.job_try == 1:
            raise OSError("not there yet")


async def reject(ctx: Context, mark: str = "") -> None:
    """End in the dead-letter queue."""
    with noted(ctx):
        raise Reject("on purpose")


async def delayed(ctx: Context, due: float, mark: str = "") -> None:
    """Be enqueued with a delay; `due` is the time in seconds since the epoch."""
    if time.time() < due:
        note(ctx, "E")
    with noted(ctx):
        pass


def make(url: str | None = None, **settings: Any) -> App:
    """Make an App with these tasks; a test makes its own to enqueue."""
    app = App(url, **settings)
    for fn in (quick, sleeper, blocking, delayed, reject):
        app.task(fn)
    app.task(flaky, max_retries=1, backoff=Backoff(base=0.2, jitter=0.5))
    return app


app = make()
