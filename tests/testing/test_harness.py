"""The harness: the executor of production, and no broker at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rmqarq import (
    App,
    Backoff,
    ConfigurationError,
    Context,
    DeadLettered,
    EncodeError,
    Middleware,
    Reject,
    Retried,
    Retry,
    Settings,
    Succeeded,
)
from rmqarq.testing import Harness, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from rmqarq.message import Message


class Jobs:
    """An App with some tasks, and what they did."""

    def __init__(self, **options: Any) -> None:
        self.app = App(Settings(), **options)
        self.ran: list[Any] = []
        ran = self.ran

        @self.app.task
        async def add(a: int, b: int) -> int:
            return a + b

        @self.app.task
        async def note(what: str) -> None:
            ran.append(what)

        @self.app.task(max_retries=2, backoff=Backoff(base=60, factor=2, jitter=0))
        async def fail(what: str) -> None:
            ran.append(what)
            raise ValueError(what)

        self.add, self.note, self.fail = add, note, fail


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


async def test_what_a_plain_wrapper_gives_is_awaited(jobs: Jobs) -> None:
    async def twice(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    def wrapper(n: int) -> Awaitable[int]:
        return twice(n)

    task = jobs.app.task(wrapper)
    async with Harness(jobs.app) as h:
        assert await h.run(task, 3) == Succeeded(6)
    assert await task(4) == 8


async def test_a_generator_is_no_task(jobs: Jobs) -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    def wrapper() -> Iterator[int]:
        return numbers()

    for fn in (numbers, later):
        with pytest.raises(ConfigurationError, match="nobody would iterate it"):
            jobs.app.task(fn)
    task = jobs.app.task(wrapper)
    async with Harness(jobs.app) as h:
        outcome = await h.run(task)
    assert isinstance(outcome, Retried)
    assert outcome.failure is not None
    assert "gave a generator" in outcome.failure.message


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((OSError(), OSError()), Retried),
        ((OSError(), ExceptionGroup("inner", [OSError()])), Retried),
        ((OSError(), KeyError()), DeadLettered),
    ],
)
async def test_of_a_group_each_exception_must_be_worth_another_attempt(
    jobs: Jobs, errors: tuple[Exception, ...], kind: type[Any]
) -> None:
    @jobs.app.task(retry_on=(OSError,))
    async def fail_together() -> None:
        raise ExceptionGroup("several", errors)

    async with Harness(jobs.app) as h:
        assert isinstance(await h.run(fail_together), kind)


async def test_a_plain_hook_is_called_like_any_other(jobs: Jobs) -> None:
    def watch(ctx: Context[Any]) -> None:
        jobs.ran.append(ctx.task)

    jobs.app.on_job_start(watch)  # type: ignore[arg-type]
    async with Harness(jobs.app) as h:
        assert await h.run(jobs.add, 1, 2) == Succeeded(3)
    assert jobs.ran == ["add"]


async def test_headers_that_middleware_writes_stay_with_their_message() -> None:
    class Tag(Middleware):
        async def enqueue(
            self, message: Message, call_next: Callable[[Message], Awaitable[None]]
        ) -> None:
            assert isinstance(message.headers, dict)
            message.headers[message.id] = "here"
            await call_next(msgspec.structs.replace(message, id=f"{message.id}-new"))

    jobs = Jobs(middleware=[Tag()])
    tagged = jobs.add.options(headers={"always": "yes"})
    async with world(jobs.app) as w:
        for task in (jobs.add, jobs.add, tagged, tagged):
            job = await task.enqueue(1, 2)
            assert job.id == w.enqueued[-1].id
        many = await jobs.app.enqueue_many([tagged.job(1, 2), jobs.add.job(1, 2)])
        assert [each.id for each in many] == [each.id for each in w.enqueued[-2:]]
        sizes = [len(each.headers) for each in w.enqueued]
    assert sizes == [1, 1, 2, 2, 2, 1]


async def test_a_run_gives_the_outcome(jobs: Jobs) -> None:
    async with Harness(jobs.app) as h:
        assert await h.run(jobs.add, 1, b=2) == Succeeded(3)
        outcome = await h.run(jobs.fail, "x")
        assert isinstance(outcome, Retried)
        assert outcome.delay == 60
        assert outcome.failure is not None
        assert outcome.failure.kind == "ValueError"
        assert h.enqueued == []  # a run is none


async def test_what_follows_from_a_run_is_drained(jobs: Jobs) -> None:
    async with Harness(jobs.app) as h:
        await h.run(jobs.fail, "x")
        outcomes = await h.drain()
        assert [type(each) for each in outcomes] == [Retried, DeadLettered]
        assert jobs.ran == ["x", "x", "x"]
        assert await h.drain() == []


async def test_jobs_run_in_the_order_of_their_times(jobs: Jobs) -> None:
    async with Harness(jobs.app) as h:
        await jobs.note.defer(timedelta(days=365), "last")
        await jobs.note.defer(90, "between")
        await jobs.fail.enqueue("f")
        await jobs.note.enqueue("first")
        assert jobs.ran == []
        await h.drain()
        assert jobs.ran == ["f", "first", "f", "between", "f", "last"]
        assert [each.args for each in h.enqueued] == [
            ("last",),
            ("between",),
            ("f",),
            ("first",),
        ]


async def test_jobs_enqueue_jobs(jobs: Jobs) -> None:
    @jobs.app.task
    async def chain(left: int, when: datetime | None = None) -> None:
        jobs.ran.append(left)
        if left:
            await jobs.app.enqueue_many([chain.job(left - 1).defer(3600)])

    async with Harness(jobs.app) as h:
        await chain.enqueue(3)
        assert len(await h.drain()) == 4
        assert jobs.ran == [3, 2, 1, 0]
        first, *_, last = h.enqueued
        assert last.enqueued_at - first.enqueued_at == 2 * 3600  # by the clock of it


async def test_lifespan_hooks_and_middleware_apply() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        seen.append("lifespan")
        yield "state"
        seen.append("end")

    class Watching(Middleware):
        async def run(
            self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
        ) -> object:
            seen.append(f"run {ctx.task}")
            return await call_next()

    async def hook(name: str) -> None:
        seen.append(name)

    app = App(Settings(), lifespan=lifespan, middleware=[Watching()])
    app.on_startup(lambda _: hook("startup"))
    app.on_shutdown(lambda _: hook("shutdown"))
    app.on_job_end(lambda ctx: hook(type(ctx.outcome).__name__))

    @app.task
    async def note(ctx: Context[str]) -> None:
        seen.append(ctx.state)

    async with Harness(app) as h:
        await h.run(note)
    once = ["lifespan", "startup", "run note", "state", "Succeeded", "shutdown", "end"]
    assert seen == once
    await Harness(app).run(note)  # it enters and leaves by itself
    assert seen == once * 2


async def test_signals_decide_as_in_production(jobs: Jobs) -> None:
    @jobs.app.task
    async def signal(kind: str) -> None:
        raise Reject("no") if kind == "reject" else Retry(defer=7)

    @jobs.app.task(expires=60)
    async def late() -> None:
        jobs.ran.append("late")
        raise Retry(defer=600)

    async with Harness(jobs.app) as h:
        rejected = await h.run(signal, "reject")
        assert isinstance(rejected, DeadLettered)
        assert rejected.reason == "rejected"
        again = await h.run(signal, "retry")
        assert isinstance(again, Retried)
        assert again.delay == 7
        await h.drain()
        await late.enqueue()
        *_, expired = await h.drain()
        assert expired == DeadLettered("expired")
        assert jobs.ran == ["late"]
        await jobs.app.ref("elsewhere").enqueue(1)
        assert await h.drain() == [DeadLettered("unknown task")]


async def test_a_run_that_takes_too_long_is_cancelled(jobs: Jobs) -> None:
    @jobs.app.task(timeout=0.05, max_retries=0)
    async def hang() -> None:
        await asyncio.sleep(60)

    async with Harness(jobs.app) as h:
        outcome = await h.run(hang)
        assert isinstance(outcome, DeadLettered)
        assert outcome.failure is not None
        assert outcome.failure.kind == "TimeoutError"


async def test_arguments_are_checked_as_in_production(jobs: Jobs) -> None:
    async with Harness(jobs.app) as h:
        with pytest.raises(EncodeError):
            await h.run(jobs.add, "one", 2)  # pyright: ignore[reportArgumentType]
        assert await h.drain() == []


async def test_a_chain_without_end_is_noticed(jobs: Jobs) -> None:
    @jobs.app.task
    async def again() -> None:
        await again.defer(60)

    async with Harness(jobs.app, limit=20) as h:
        await again.enqueue()
        with pytest.raises(RuntimeError, match="20 runs"):
            await h.drain()


async def test_an_app_is_afterwards_what_it_was_before(jobs: Jobs) -> None:
    others = asyncio.all_tasks()
    before = jobs.app.settings, jobs.app.clock, jobs.app.middleware
    async with Harness(jobs.app) as h:
        with pytest.raises(ConfigurationError, match="can't enter a world of tests"):
            async with world(jobs.app):
                pass
        with pytest.raises(RuntimeError, match="entered already"):
            await h.__aenter__()
    assert (jobs.app.settings, jobs.app.clock, jobs.app.middleware) == before
    assert asyncio.all_tasks() == others
