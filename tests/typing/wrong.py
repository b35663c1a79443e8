"""Wrong calls of the public interface: each marked line must be an error.

It is never run, and not part of the ordinary check: `tests/test_typing.py` gives it
to both type checkers and compares the lines. `EXPECT-ERROR: basedpyright` marks what
mypy can't see, because it takes a task with a context that mentions `Any` for
`Task[Any, Any]`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from rmqarq import (
    App,
    Backoff,
    Context,
    Job,
    Middleware,
    Portal,
    Retry,
    Settings,
    Worker,
)
from tests.typing.api import (
    Db,
    app,
    followed,
    nightly,
    process_data,
    query,
    render,
    texted,
    welcome,
)


async def calls() -> None:
    """Call tasks as their functions can't be called."""
    await process_data.enqueue("no", "update")  # EXPECT-ERROR: basedpyright
    await process_data.enqueue(1)  # EXPECT-ERROR: basedpyright
    await query.enqueue(1, 2)  # EXPECT-ERROR
    await query.enqueue("1")  # EXPECT-ERROR
    await query.enqueue(m=1)  # EXPECT-ERROR
    await query.enqueue()  # EXPECT-ERROR
    await query.defer(60)  # EXPECT-ERROR
    await welcome.defer("60", 1)  # EXPECT-ERROR
    await welcome.defer(1)  # EXPECT-ERROR
    await welcome(1, 2)  # EXPECT-ERROR
    await render.enqueue(template=b"t")  # EXPECT-ERROR
    await nightly.enqueue(3)  # EXPECT-ERROR
    await nightly(3)  # EXPECT-ERROR
    welcome.job("1")  # EXPECT-ERROR
    welcome.job(1).defer("60")  # EXPECT-ERROR
    await app.enqueue_many([welcome.enqueue(1)])  # EXPECT-ERROR
    await welcome.map(["1"])  # EXPECT-ERROR
    await welcome.map(1)  # EXPECT-ERROR
    await welcome.map([1], chunk="10")  # EXPECT-ERROR
    await welcome.starmap([(1, "x")])  # EXPECT-ERROR
    await welcome.starmap([("1",)])  # EXPECT-ERROR
    Retry(defer="10")  # EXPECT-ERROR


def blocking() -> None:
    """Call through a portal as the function can't be called."""
    portal = Portal(app)
    portal.call(query.enqueue, "1")  # EXPECT-ERROR
    portal.call(query.enqueue)  # EXPECT-ERROR
    portal.call(welcome.enqueue, user_id="7")  # EXPECT-ERROR
    portal.call(portal.close)  # EXPECT-ERROR
    one: Job[int] = portal.call(welcome.enqueue, 7)  # EXPECT-ERROR
    print(one)


async def results() -> None:
    """Take what comes back for another type."""
    one: Job[int] = await welcome.enqueue(7)  # EXPECT-ERROR
    two: int = await welcome(7)  # EXPECT-ERROR
    three: str = await render("t")  # EXPECT-ERROR
    print(one, two, three)


async def consuming() -> None:
    """Take consume functions for tasks, or give them what they do not take."""
    await followed.enqueue(Db(1))  # EXPECT-ERROR
    await followed.defer(1, Db(1))  # EXPECT-ERROR
    followed.options(priority=1)  # EXPECT-ERROR
    await followed({"x": 1})  # EXPECT-ERROR
    await followed(Db(1), Db(2))  # EXPECT-ERROR
    await texted(b"t")  # EXPECT-ERROR
    await texted()  # EXPECT-ERROR
    number: int = await texted("t")  # EXPECT-ERROR
    print(number)
    app.consume("q", priority=3)  # EXPECT-ERROR
    app.consume("q", max_retries="3")  # EXPECT-ERROR
    app.consume(queue="q")  # EXPECT-ERROR
    app.consume()  # EXPECT-ERROR


@app.consume("two")  # EXPECT-ERROR
async def two(a: int, b: int) -> None:
    """Take two bodies."""


@app.consume("none")  # EXPECT-ERROR
async def none() -> None:
    """Take nothing."""


@app.consume  # EXPECT-ERROR
async def bare(event: Db) -> None:
    """Name no queue."""


async def options() -> None:
    """Give options that do not exist, or of another type."""
    await welcome.options(nope=1).enqueue(1)  # EXPECT-ERROR
    await welcome.options(priority="high").enqueue(1)  # EXPECT-ERROR
    await welcome.options(headers={"a": 1}).enqueue(1)  # EXPECT-ERROR
    app.task(retries=3)  # EXPECT-ERROR
    app.task(timeout="30")  # EXPECT-ERROR
    app.task(retry_on=ValueError)  # EXPECT-ERROR
    app.task(max_retries=datetime(2030, 1, 1))  # EXPECT-ERROR


def settings() -> None:
    """Give settings that do not exist, or of another type."""
    App(concurency=5)  # EXPECT-ERROR
    App(concurrency="5")  # EXPECT-ERROR
    App(queue_type="stream")  # EXPECT-ERROR
    App(7)  # EXPECT-ERROR
    Settings(concurency=5)  # EXPECT-ERROR
    Settings(language="fr")  # EXPECT-ERROR
    Settings(concurrency=timedelta(1))  # EXPECT-ERROR
    Settings(job_timeout="300")  # EXPECT-ERROR
    Backoff("5")  # EXPECT-ERROR
    Worker(Settings())  # EXPECT-ERROR
    app.settings.queue = "other"  # EXPECT-ERROR


@app.on_startup  # EXPECT-ERROR
async def startup(state: Db) -> None:
    """Expect a state that this App does not have."""


@app.on_job_start  # EXPECT-ERROR
def started(ctx: Context) -> None:
    """Be no coroutine function."""


class Wrong(Middleware):
    """Overrides a method with another signature."""

    async def run(self, ctx: Context[Any]) -> object:  # EXPECT-ERROR
        return ctx
