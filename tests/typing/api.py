"""Right calls of the public interface: both type checkers must find nothing here.

It is never run. What is wrong stands in `wrong.py`, where each line must be an error.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, assert_type

from rmqarq import (
    App,
    Backoff,
    Context,
    Handler,
    Incoming,
    Job,
    JobSpec,
    Message,
    Middleware,
    Outcome,
    Portal,
    Reject,
    Retry,
    Settings,
    State,
    Stats,
    Task,
    Worker,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

MYPY = False
"""mypy takes a variable of this name for true."""


@dataclass
class Db:
    """What a lifespan yields."""

    x: int


@asynccontextmanager
async def lifespan() -> AsyncGenerator[Db]:
    """Open and close what the jobs use."""
    yield Db(1)


class Timed(Middleware):
    """Overrides both methods."""

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        await call_next(message)

    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        return await call_next()


MINUTE = timedelta(minutes=1)
typed = App(lifespan=lifespan, middleware=[Timed()])
app = App(Settings(queue="my_queue"))
assert_type(typed, App[Db])
assert_type(app, App[State])
assert_type(App("amqp://h", queue="q", burst=True, job_timeout=None), App[State])
assert_type(App("amqp://h", job_timeout=MINUTE, heartbeat=MINUTE), App[State])
assert_type(Settings(job_timeout=MINUTE, heartbeat=MINUTE).job_timeout, float | None)
assert_type(Settings(shutdown_grace=MINUTE).shutdown_grace, float)
assert_type(Backoff(MINUTE, maximum=MINUTE).base, float)
assert_type(App(["amqp://a", "amqp://b"], serializer="msgpack"), App[State])


@app.on_startup
async def startup(state: State) -> None:
    """See the state before the first job."""
    state["db"] = Db(1)


@typed.on_shutdown
async def shutdown(state: Db) -> None:
    """See the state that the lifespan yielded."""
    state.x = 0


@app.on_job_start
async def started(ctx: Context) -> None:
    """See each job."""
    assert_type(ctx.job_id, str)
    assert_type(ctx.job_try, int)
    assert_type(ctx.enqueued_at, datetime)
    assert_type(ctx.redelivered, bool)
    assert_type(ctx.state, State)
    assert_type(ctx.outcome, Outcome | None)


@app.task
async def process_data(ctx: Context, data_id: int, action: str) -> dict[str, Any]:
    """Take a context, which callers do not give."""
    if action == "retry":
        raise Retry(defer=10)
    if action == "bad":
        raise Reject("no such action")
    return {"data_id": data_id, "db": ctx.state["db"]}


@typed.task
async def query(ctx: Context[Db], n: int) -> int:
    """Take a context with a state of its own type."""
    assert_type(ctx.state, Db)
    return ctx.state.x + n


@app.task(queue="mail", timeout=30, max_retries=5, backoff=Backoff(base=1))
def render(template: str) -> bytes:
    """Be a plain function, run in a thread."""
    return template.encode()


@app.task(timeout=MINUTE, backoff=MINUTE, expires=MINUTE)
async def hourly() -> None:
    """Have times that are timedeltas."""
    await hourly.options(expires=MINUTE).enqueue()


@app.task(timeout=None, retry_on=(OSError,), backoff=2.5, priority=3)
async def nightly() -> int:
    """Take nothing."""
    return 1


@app.task
async def tick(ctx: Context) -> None:
    """Take nothing but a context."""


mail = app.task(queue="mail")


@mail
async def welcome(user_id: int) -> str:
    """Be registered by a decorator kept as a value."""
    return str(user_id)


@mail(name="farewell", max_retries=0)
def goodbye(user_id: int, *, reason: str = "") -> str | None:
    """Be registered by a refined decorator."""
    return reason or None


@app.task
async def loose(x: Any, y: int = 1) -> int:
    """Begin with a parameter of any type, which is not a context."""
    return y


@app.task
def many(first: int, *rest: int, **named: str) -> list[int]:
    """Take any number of arguments."""
    return [first, *rest]


@app.consume("followers", max_retries=5, timeout=60)
async def followed(ctx: Context, event: Db) -> int:
    """Take messages of other producers, and a context."""
    return ctx.job_try + event.x


@typed.consume("unfollowers", backoff=Backoff(base=1), retry_on=(OSError,))
def unfollowed(ctx: Context[Db], event: Incoming[dict[str, int]]) -> None:
    """Ask for more than the body, in a thread."""
    assert_type(event.body, dict[str, int])
    assert_type(event.raw, bytes)
    assert_type((event.exchange, event.routing_key), tuple[str, str])
    assert_type(event.properties.reply_to, str | None)


@app.consume("later", timeout=MINUTE, backoff=MINUTE)
async def later(event: bytes) -> None:
    """Have times that are timedeltas."""


@app.consume("texts", name="text", timeout=None)
async def texted(text: str) -> str:
    """Take the body alone."""
    return text


@app.consume("bytes")
def raw(body: bytes) -> None:
    """Take it as it is, in a thread."""


async def consuming() -> None:
    """Check what consume functions are, and their calls right here."""
    assert_type(followed, Handler[Db, int])
    assert_type(unfollowed, Handler[Incoming[dict[str, int]], None])
    assert_type(texted, Handler[str, str])
    assert_type(raw, Handler[bytes, None])
    assert_type(await followed(Db(1)), int)
    assert_type(await unfollowed(Incoming(body={"a": 1}, routing_key="x")), None)
    assert_type(await texted("t"), str)
    assert_type((followed.name, followed.queue), tuple[str, str])


async def enqueueing() -> None:
    """Check the three verbs, with the types of what comes back."""
    async with app as entered:
        assert_type(entered, App[State])
        assert_type(await query.enqueue(2), Job[int])
        assert_type(await query.defer(timedelta(hours=24), 1), Job[int])
        assert_type(await query.defer(datetime(2030, 1, 1), n=1), Job[int])
        assert_type(
            await render.options(priority=9, job_id="x").enqueue("t"), Job[bytes]
        )
        assert_type(await goodbye.enqueue(1, reason="left"), Job[str | None])
        assert_type(await many.enqueue(1, 2, 3, a="b"), Job[list[int]])
        assert_type(await welcome(7), str)
        assert_type(await render("t"), bytes)
        assert_type(await nightly(), int)
        assert_type(await nightly.enqueue(), Job[int])
        assert_type(await nightly.defer(0.5), Job[int])
        assert_type(tick, Task[[], None])
        assert_type(await tick.enqueue(), Job[None])
        job = await welcome.enqueue(user_id=7)
        assert_type((job.id, job.task, job.queue), tuple[str, str, str])


def blocking() -> None:
    """Check calls from code that can't await."""
    with Portal(app, typed) as portal:
        assert_type(portal, Portal)
        assert_type(portal.call(query.enqueue, 2), Job[int])
        assert_type(portal.call(goodbye.enqueue, 1, reason="left"), Job[str | None])
        assert_type(portal.call(query.defer, timedelta(hours=24), 1), Job[int])
        assert_type(portal.call(app.enqueue_many, [welcome.job(1)]), list[Job[str]])
    assert_type(portal.close(), None)


async def batches() -> None:
    """Check calls that are made now and sent together."""
    assert_type(welcome.job(1), JobSpec[str])
    assert_type(welcome.job(2).defer(30), JobSpec[str])
    assert_type(
        await app.enqueue_many([welcome.job(i) for i in range(3)]), list[Job[str]]
    )
    assert_type(
        await app.enqueue_many([welcome.job(1), welcome.job(2).defer(30)]),
        list[Job[str]],
    )


async def mapping() -> None:
    """Check many rows in few messages."""
    assert_type(await welcome.map([1, 2], chunk=10), int)
    assert_type(await welcome.map(iter(range(3)), defer=timedelta(hours=1)), int)
    assert_type(await process_data.starmap([(1, "update")]), int)
    assert_type(await app.ref("other").map([{"a": 1}]), int)
    assert_type(await app.ref("other").starmap([(1, "a"), (2, "b")]), int)

    async def cursor() -> AsyncIterator[int]:
        yield 1

    assert_type(await welcome.options(priority=3).map(cursor()), int)


async def elsewhere() -> None:
    """Check tasks that live in another codebase."""
    task = app.ref("other")
    assert_type(await task.enqueue(1, 2, a=3), Job[Any])
    assert_type(await task.options(queue="q", headers={"a": "b"}).enqueue(), Job[Any])


async def mentioning_any() -> None:
    """Check tasks that mention `Any`: mypy has two gaps here, no false alarms.

    It gives `Job[Any]` for a task with a context that mentions `Any`, and for one
    whose first parameter is `Any`; the calls themselves must pass all the same.
    """
    data = await process_data.enqueue(123, "update")
    later = await process_data.defer(60, 456, action="delayed")
    loosely = await loose.enqueue(1, 2)
    if not MYPY:
        assert_type(data, Job[dict[str, Any]])
        assert_type(later, Job[dict[str, Any]])
        assert_type(loosely, Job[int])


class Web:
    """Take a lifespan as FastAPI, Starlette and Litestar do."""

    def __init__(
        self, lifespan: Callable[[Web], AbstractAsyncContextManager[None]]
    ) -> None: ...


async def serving() -> None:
    """Check what web frameworks are given."""
    web = Web(lifespan=app.connected)
    Web(lifespan=partial(app.connected, required=False))
    async with app.connected(web) as nothing, typed.connected(required=False):
        assert_type(nothing, None)


async def working() -> None:
    """Check workers, inside and outside of an event loop."""
    worker = Worker(app, Settings(burst=True), queues=["mail"])
    assert_type(await worker.run(), Stats)
    assert_type(await worker.run(signals=False), Stats)
    assert_type(Worker(typed).run_sync(), Stats)
    assert_type(worker.stop(), None)
    assert_type(worker.stats.completed, int)
