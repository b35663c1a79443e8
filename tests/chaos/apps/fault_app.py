"""Tasks that do to their worker what it must stand; each run is a line of the ledger.

With RMQARQ_TEST_CLOCK set, the process has a wall clock that a task can put forward.
"""

from __future__ import annotations

import asyncio
import builtins
import multiprocessing
import os
import resource
import time
from pathlib import Path
from typing import Any

from rmqarq import App, Backoff, Context
from tests.broker.apps.ledger_app import write

_honest = time.time
_ahead = 0.0


def _clock() -> float:
    return _honest() + _ahead


if "RMQARQ_TEST_CLOCK" in os.environ:
    _ahead = float(os.environ["RMQARQ_TEST_CLOCK"])
    time.time = _clock


async def done(ctx: Context, number: int) -> int:
    write(ctx, "done")
    return number


async def nothing(number: int) -> None:
    """Leave no trace: for measuring what the worker itself keeps."""


async def patient(ctx: Context, door: str) -> None:
    """Wait until a file appears."""
    write(ctx, "patient")
    while not Path(door).exists():  # noqa: ASYNC110, ASYNC240 - no other signal
        await asyncio.sleep(0.02)
    write(ctx, "patient-done")


async def block(ctx: Context, seconds: float) -> None:
    """Hold up the event loop."""
    write(ctx, "block")
    time.sleep(seconds)  # noqa: ASYNC251 - it is the fault
    write(ctx, "block-done")


async def leave(ctx: Context, kind: str, where: str) -> None:
    """Raise what would end a process, in a place that nobody awaits."""
    write(ctx, "leave")
    error = getattr(builtins, kind)

    async def aside() -> None:
        raise error("enough")

    if where == "sub-task":
        await asyncio.create_task(aside())
    elif where == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(aside())
    elif where == "forgotten sub-task":
        ctx.state.task = asyncio.create_task(aside())
        await asyncio.sleep(0.2)
    elif where == "thread":
        await asyncio.to_thread(_leave, error)
    elif where == "callback":
        asyncio.get_running_loop().call_soon(_leave, error)
        await asyncio.sleep(0.2)
    else:
        raise error("enough")


def _leave(error: type[BaseException]) -> None:
    raise error("enough")


def _enqueue_in_the_child(number: int) -> None:
    asyncio.run(_enqueue_and_close(number))


async def _enqueue_and_close(number: int) -> None:
    await app.tasks["done"].enqueue(number)
    await app.close()


def _fork(number: int) -> None:
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_enqueue_in_the_child, args=(number,))
    child.start()
    child.join(20)
    if child.exitcode != 0:
        raise RuntimeError(f"the child ended with {child.exitcode}")


async def fork_async(ctx: Context, number: int) -> None:
    """Fork in the middle of the event loop."""
    write(ctx, "fork")
    _fork(number)
    write(ctx, "fork-done")


def fork_thread(ctx: Context, number: int) -> None:
    """Fork in a thread, as most programs would."""
    write(ctx, "fork")
    _fork(number)
    write(ctx, "fork-done")


async def use_up(ctx: Context, door: str) -> None:
    """Leave no file descriptor until a file is there."""
    write(ctx, "use-up")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open
    try:
        while not Path(door).exists():  # noqa: ASYNC110, ASYNC240 - no other signal
            await asyncio.sleep(0.02)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    write(ctx, "use-up-done")


async def jump(ctx: Context, seconds: float, door: str) -> None:
    """Put the wall clock forward (or back) in the middle of a run."""
    global _ahead
    write(ctx, "jump")
    _ahead += seconds
    await patient(ctx, door)


async def flaky(ctx: Context, number: int) -> int:
    write(ctx, "flaky")
    if ctx.job_try == 1:
        raise OSError(f"number {number} is not there yet")
    return number


def make(url: str | None = None, **settings: Any) -> App:
    """Make an App with these tasks; a test makes its own to enqueue."""
    made = App(url, **settings)
    for fn in (done, nothing, patient, block, fork_async, fork_thread, use_up, jump):
        made.task(fn)
    made.task(leave, max_retries=0)
    made.task(flaky, max_retries=1, backoff=Backoff(base=1.0, jitter=0))
    return made


app = make()
