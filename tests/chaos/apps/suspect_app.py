"""Tasks that kill, block or leave their process, and some that do no harm.

Each line of the ledger, a file named by RMQARQ_TEST_LEDGER, is a JSON object: who wrote
it, in which process, and whatever else the task has to say.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import re
import resource
import signal
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmqarq import App, Context, Middleware, Reject, Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def note(kind: str, ctx: Context[Any] | None = None, **more: object) -> None:
    """Write down one line, whole whatever happens next."""
    who = {} if ctx is None else {"job": ctx.job_id, "try": ctx.job_try}
    line = {"kind": kind, "pid": os.getpid(), "at": time.time(), **who, **more}
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    ledger = os.open(os.environ["RMQARQ_TEST_LEDGER"], flags, 0o644)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")
    finally:
        os.close(ledger)


@asynccontextmanager
async def lifespan() -> AsyncIterator[str]:
    note("lifespan")
    yield "made by the lifespan"
    note("lifespan-end")


class Around(Middleware):
    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        note("middleware", ctx)
        return await call_next()


# --- harmless ---


async def good(ctx: Context[str], number: int) -> int:
    note("good", ctx, number=number)
    await asyncio.sleep(0.01)
    return number


async def innocent(ctx: Context[str]) -> None:
    note("innocent", ctx)


async def size(ctx: Context[str], text: str) -> None:
    note("size", ctx, size=len(text))


async def inspect(ctx: Context[str], number: int) -> None:
    note(
        "inspect",
        ctx,
        queue=ctx.queue,
        redelivered=ctx.redelivered,
        state=ctx.state,
    )
    logging.getLogger("suspects").warning("looked around")
    await app.tasks["good"].enqueue(number)


async def patient(ctx: Context[str], door: str) -> None:
    """Wait until a file appears."""
    note("patient", ctx)
    while not Path(door).exists():  # noqa: ASYNC110, ASYNC240 - no other signal
        await asyncio.sleep(0.01)
    note("patient-done", ctx)


async def forks(ctx: Context[str], seconds: float) -> None:
    """Leave a copy of this process behind that holds what this one holds."""
    pid = os.fork()
    if pid == 0:
        time.sleep(seconds)  # noqa: ASYNC251 - nothing else runs in the copy
        os._exit(0)
    note("forks", ctx, copy=pid)


# --- failing ---


async def again(ctx: Context[str], times: int) -> None:
    note("again", ctx)
    if ctx.job_try <= times:
        raise Retry(defer=0.05)
    raise LookupError("not to be found")


async def rejects(ctx: Context[str]) -> None:
    note("rejects", ctx)
    raise Reject("a name of foreign bytes: \udc80")


async def crash_fail_crash(ctx: Context[str], marker: str) -> None:
    """Crash first, fail at the second run and crash at the third."""
    note("crash_fail_crash", ctx)
    if ctx.job_try == 1 and Path(marker).exists():  # noqa: ASYNC240
        raise OSError("not this time")
    Path(marker).touch()  # noqa: ASYNC240
    os._exit(9)


# --- too long ---


async def sleeper(ctx: Context[str]) -> None:
    note("begun", ctx)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note("cancelled", ctx)
        raise


async def swallower(ctx: Context[str]) -> None:
    note("begun", ctx)
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def blocker(ctx: Context[str]) -> None:
    note("begun", ctx)
    time.sleep(60)  # noqa: ASYNC251 - that is the point


def thread(ctx: Context[str]) -> None:
    note("begun", ctx)
    time.sleep(60)


async def hog(ctx: Context[str]) -> None:
    """Stay in C code that lets no other thread run."""
    note("begun", ctx)
    re.match(r"(a+)+$", "a" * 60 + "b")


async def punctual(ctx: Context[str], seconds: float) -> None:
    note("punctual", ctx)
    await asyncio.sleep(seconds)
    note("punctual-done", ctx)


async def dies_of_cancellation(ctx: Context[str]) -> None:
    note("begun", ctx)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        os._exit(11)


# --- deadly ---


async def killer(ctx: Context[str]) -> None:
    note("killer", ctx)
    os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(60)


async def row(ctx: Context[str], deadly: bool) -> None:
    """One of many: most do no harm."""
    note("row", ctx, deadly=deadly)
    await asyncio.sleep(0.01)
    if deadly:
        os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(60)


async def leaver(ctx: Context[str], code: int) -> None:
    note("leaver", ctx)
    os._exit(code)


async def segfault(ctx: Context[str]) -> None:
    note("segfault", ctx)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


async def subtask_exits(ctx: Context[str], code: int) -> None:
    async def leave() -> None:
        sys.exit(code)

    note("subtask_exits", ctx)
    await asyncio.create_task(leave())


async def bomb(ctx: Context[str], seconds: float) -> None:
    """Succeed, and end the process later."""
    note("bomb", ctx)

    def explode() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=explode, daemon=True).start()


def make(url: str | None = None, **settings: Any) -> App[str]:
    """Make an App with these tasks; a test makes its own to enqueue."""
    made = App(url, lifespan=lifespan, middleware=[Around()], **settings)
    for fn in (good, innocent, size, inspect, patient, forks, rejects, punctual):
        made.task(fn)
    for fn in (row, killer, leaver, segfault, subtask_exits, bomb):
        made.task(fn)
    for fn in (sleeper, swallower, blocker, hog, thread, dies_of_cancellation):
        made.task(fn)
    made.task(again, max_retries=2)
    made.task(crash_fail_crash, max_retries=3)

    @made.on_startup
    async def started(state: str) -> None:
        note("startup", state=state)

    @made.on_shutdown
    async def stopped(state: str) -> None:
        note("shutdown", state=state)

    @made.on_job_start
    async def job_started(ctx: Context[str]) -> None:
        note("job-start", ctx)

    @made.on_job_end
    async def job_ended(ctx: Context[str]) -> None:
        note("job-end", ctx)
        await asyncio.sleep(float(os.environ.get("RMQARQ_TEST_SLOW_END", "0")))

    return made


app = make()
