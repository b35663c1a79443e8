"""Tasks that write down each of their runs.

The ledger is a file, named by RMQARQ_TEST_LEDGER: one line a run (job id, kind, try,
seconds since the epoch), written when the run begins; a task of the kind `slow` writes
one of the kind `slow-done`, too. Queue and broker come from the environment.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from rmqarq import App, Backoff, Context, Reject, Retry


def write(ctx: Context[Any], kind: str) -> None:
    line = f"{ctx.job_id} {kind} {ctx.job_try} {time.time():.6f}\n"
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    ledger = os.open(os.environ["RMQARQ_TEST_LEDGER"], flags, 0o644)
    try:
        os.write(ledger, line.encode())
    finally:
        os.close(ledger)


async def done(ctx: Context, number: int) -> int:
    write(ctx, "done")
    return number


def plain(ctx: Context, number: int) -> int:
    write(ctx, "plain")
    return number


async def flaky(ctx: Context, number: int) -> int:
    write(ctx, "flaky")
    if ctx.job_try == 1:
        raise OSError(f"number {number} is not there yet")
    return number


async def again(ctx: Context, times: int, wait: float) -> None:
    write(ctx, "again")
    if ctx.job_try <= times:
        raise Retry(defer=wait)


async def reject(ctx: Context, number: int) -> None:
    write(ctx, "reject")
    raise Reject(f"number {number} is odd")


async def broken(ctx: Context, number: int) -> None:
    write(ctx, "broken")
    raise LookupError(f"number {number} is never there")


async def slow(ctx: Context, seconds: float) -> None:
    write(ctx, "slow")
    await asyncio.sleep(seconds)
    write(ctx, "slow-done")


async def patient(ctx: Context, door: str) -> None:
    """Wait until a file appears."""
    write(ctx, "patient")
    while not Path(door).exists():  # noqa: ASYNC110, ASYNC240 - no other signal
        await asyncio.sleep(0.02)
    write(ctx, "patient-done")


async def stubborn(ctx: Context, seconds: float) -> None:
    """Ignore every cancellation."""
    write(ctx, "stubborn")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            write(ctx, "stubborn-cancelled")


def stubborn_thread(ctx: Context, seconds: float) -> None:
    """Know nothing of cancellations."""
    write(ctx, "stubborn-thread")
    time.sleep(seconds)


def make(url: str | None = None, **settings: Any) -> App:
    """Make an App with these tasks; a test makes its own to enqueue."""
    app = App(url, **settings)
    for fn in (done, plain, slow, patient, stubborn, stubborn_thread):
        app.task(fn)
    app.task(reject)
    app.task(again, max_retries=20)
    app.task(flaky, max_retries=1, backoff=Backoff(base=0.2, jitter=1))
    app.task(broken, max_retries=1, backoff=Backoff(base=0.1, jitter=0))
    return app


app = make()
