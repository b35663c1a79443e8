"""What an App adds around its tasks: state, hooks, middleware, other Apps, options."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from anyio import to_thread

from rmqarq import (
    App,
    ConfigurationError,
    Context,
    DeadLettered,
    Message,
    Middleware,
    Reject,
    Retried,
    Retry,
    State,
    Succeeded,
    TaskAlreadyRegistered,
    Worker,
)
from tests.broker.kit import (
    channel_to,
    declared,
    delete_queues,
    running,
    take_all,
    until,
    wait_for_count,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rmqarq import Outcome
    from tests.harness.broker import Broker


class Db:
    """Something that a lifespan opens and closes."""

    def __init__(self) -> None:
        self.open = True
        self.rows: list[int] = []


async def test_the_lifespan_is_around_all_jobs_and_gives_them_their_state(
    broker: Broker, queue: str
) -> None:
    made: list[Db] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Db]:
        made.append(Db())
        yield made[-1]
        made[-1].open = False

    app = App(broker.url, queue=queue, lifespan=lifespan)

    @app.task
    async def insert(ctx: Context[Db], number: int) -> None:
        await asyncio.sleep(0.05)
        assert ctx.state.open
        ctx.state.rows.append(number)

    for number in range(10):
        await insert.enqueue(number)
    async with running(app) as worker:
        await until(lambda: worker.stats.completed >= 1)
    assert len(made) == 1
    assert not made[0].open
    assert sorted(made[0].rows) == list(range(10))


async def test_a_lifespan_that_fails_ends_the_worker_and_takes_no_job(
    broker: Broker, queue: str
) -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Db]:
        raise OSError("no database")
        yield Db()

    app = App(broker.url, queue=queue, lifespan=lifespan)

    @app.task
    async def never() -> None: ...

    async with app:
        await never.enqueue()
        with pytest.raises(OSError, match="no database"):
            await Worker(app).run(signals=False)
    assert await declared(broker.url, queue) == (1, 0)


def watched(app: App) -> tuple[list[Any], dict[str, list[Outcome | None]]]:
    """Put all four hooks on an App; give what they will note."""
    events: list[Any] = []
    outcomes: dict[str, list[Outcome | None]] = {}

    @app.on_startup
    async def start(state: State) -> None:
        state["number"] = 7
        events.append("startup")

    @app.on_shutdown
    async def stop(state: State) -> None:
        events.append(("shutdown", state["number"]))

    @app.on_job_start
    async def begin(ctx: Context) -> None:
        assert ctx.outcome is None
        events.append(("start", ctx.task, ctx.job_try))

    @app.on_job_end
    async def end(ctx: Context) -> None:
        events.append(("end", ctx.task, ctx.job_try))
        outcomes.setdefault(ctx.task, []).append(ctx.outcome)

    return events, outcomes


async def test_all_four_hooks_are_called_around_and_see_how_each_job_ended(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    events, outcomes = watched(app)

    @app.task
    async def good(ctx: Context) -> int:
        events.append(("run", ctx.state["number"]))
        return 5

    @app.task
    async def again(ctx: Context) -> None:
        if ctx.job_try == 1:
            raise Retry(defer=0)

    @app.task
    async def bad() -> None:
        raise Reject("no")

    async with running(app) as worker:
        for task in (good, again, bad):
            await task.enqueue()
        await until(lambda: worker.stats.completed == 2)
        await until(lambda: worker.stats.dead_lettered == 1)
    assert events[0] == "startup"
    assert events[-1] == ("shutdown", 7)
    of_good = [each for each in events if each[1:2] in (("good",), (7,))]
    assert of_good[:3] == [("start", "good", 1), ("run", 7), ("end", "good", 1)]
    tries = [each for each in events if each[1:2] == ("again",)]
    for kind in ("start", "end"):  # the next try may be over before a hook is called
        assert sorted(each[2] for each in tries if each[0] == kind) == [1, 2]
    assert tries[0] == ("start", "again", 1)
    assert outcomes["good"] == [Succeeded(5)]
    assert {type(each) for each in outcomes["again"]} == {Retried, Succeeded}
    (dead,) = outcomes["bad"]
    assert isinstance(dead, DeadLettered)
    assert dead.reason == "rejected"


async def test_a_hook_that_fails_does_not_change_how_a_job_ended(
    broker: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(broker.url, queue=queue)
    runs: list[int] = []
    called: list[str] = []

    @app.on_job_start
    @app.on_job_end
    async def broken(_: Context) -> None:
        raise RuntimeError("the hook is broken")

    @app.on_job_end
    async def whole(ctx: Context) -> None:
        called.append(ctx.job_id)

    @app.on_shutdown
    async def broken_too(_: State) -> None:
        raise RuntimeError("this one, too")

    @app.task
    async def good(number: int) -> None:
        runs.append(number)

    async with running(app) as worker:
        job = await good.enqueue(1)
        await until(lambda: worker.stats.completed == 1)
    assert runs == [1]
    assert called == [job.id]
    assert (worker.stats.failed, worker.stats.retried) == (0, 0)
    assert caplog.text.count("the job is not affected") >= 2
    assert await declared(broker.url, queue) == (0, 0)


async def test_a_startup_hook_that_fails_stops_the_worker_before_any_job(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    @app.on_startup
    async def broken(_: State) -> None:
        raise RuntimeError("no start")

    @app.task
    async def never() -> None: ...

    await never.enqueue()
    with pytest.raises(RuntimeError, match="no start"):
        await Worker(app).run(signals=False)
    await app.close()
    assert await declared(broker.url, queue) == (1, 0)


class Tracing(Middleware):
    """Sends a trace id along and notes what it wraps."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        self.notes.append(f"{self.name} sends {message.task}{message.args}")
        trace = message.headers.get("trace", "") + self.name
        headers = {**message.headers, "trace": trace}
        await call_next(msgspec.structs.replace(message, headers=headers))
        self.notes.append(f"{self.name} sent")

    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        self.notes.append(f"{self.name} runs {ctx.headers['trace']}")
        try:
            return await call_next()
        except KeyError:
            self.notes.append(f"{self.name} saw a KeyError")
            raise
        finally:
            self.notes.append(f"{self.name} ran")


async def test_middleware_wraps_sending_and_running_the_first_outermost(
    broker: Broker, queue: str
) -> None:
    notes: list[str] = []
    middleware = [Tracing("a", notes), Tracing("b", notes)]
    app = App(broker.url, queue=queue, middleware=middleware)

    @app.task(max_retries=0)
    async def work(number: int) -> None:
        notes.append(f"number {number}")
        if number == 2:
            raise KeyError(number)

    async with running(app) as worker:
        await work.enqueue(1)
        await until(lambda: worker.stats.completed == 1)
        sent = ["a sends work(1,)", "b sends work(1,)", "b sent", "a sent"]
        ran = ["a runs ab", "b runs ab", "number 1", "b ran", "a ran"]
        assert [each for each in notes if " se" in each] == sent
        assert [each for each in notes if each not in sent] == ran
        notes.clear()
        await app.enqueue_many([work.job(2)])
        await until(lambda: worker.stats.dead_lettered == 1)
    seen = [each for each in notes if "KeyError" in each]
    assert seen == ["b saw a KeyError", "a saw a KeyError"]


async def test_middleware_may_hold_back_a_message_or_answer_for_a_job(
    broker: Broker, queue: str
) -> None:
    class Guard(Middleware):
        async def enqueue(
            self, message: Message, call_next: Callable[[Message], Awaitable[None]]
        ) -> None:
            if message.args == (13,):
                raise PermissionError("not this one")
            await call_next(message)

        async def run(
            self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
        ) -> object:
            if ctx.headers.get("skip"):
                return None
            return await call_next()

    app = App(broker.url, queue=queue, middleware=[Guard()])
    ran: list[int] = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)

    async with running(app) as worker:
        with pytest.raises(PermissionError):
            await work.enqueue(13)
        await work.options(headers={"skip": "yes"}).enqueue(1)
        await work.enqueue(2)
        await until(lambda: worker.stats.completed == 2)
    assert ran == [2]


async def test_plain_functions_run_in_threads_beside_the_event_loop(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, concurrency=8)
    barrier = threading.Barrier(8)
    threads: set[int] = set()

    @app.task
    def meet(ctx: Context, number: int) -> int:
        barrier.wait(15)  # all eight must be running at the same time
        threads.add(threading.get_ident())
        assert ctx.job_try == 1
        return number

    async with running(app) as worker:
        began = time.monotonic()
        await app.enqueue_many([meet.job(n) for n in range(16)])
        await until(lambda: worker.stats.completed == 16)
        assert time.monotonic() - began < 10
    assert threading.get_ident() not in threads
    assert len(threads) >= 8


async def test_included_apps_keep_their_queue_and_use_the_outer_lifespan(
    broker: Broker, queue: str
) -> None:
    other = f"{queue}-mail"
    mail = App(queue=other)
    plain = App()
    seen: list[tuple[str, str, Any]] = []

    @mail.task
    async def send(ctx: Context, number: int) -> None:
        seen.append((f"send {number}", ctx.queue, ctx.state["outer"]))

    @plain.task
    async def count(ctx: Context, number: int) -> None:
        seen.append((f"count {number}", ctx.queue, ctx.state["outer"]))

    @mail.on_startup
    async def inner(state: State) -> None:
        state["outer"] = False

    app = App(broker.url, queue=queue)
    app.include(mail, plain)

    @app.on_startup
    async def outer(state: State) -> None:
        state["outer"] = True

    try:
        async with running(app) as worker:
            assert set(worker.queues) == {queue, other}
            await send.enqueue(1)
            await count.enqueue(2)
            await until(lambda: worker.stats.completed == 2)
        assert sorted(seen) == [("count 2", queue, True), ("send 1", other, True)]
        twin = App()

        @twin.task(name="send")
        async def another() -> None: ...

        with pytest.raises(TaskAlreadyRegistered, match="'send' is taken by"):
            app.include(twin)
    finally:
        lanes = [other, f"{other}.suspect", f"{other}_dlq"]
        await delete_queues(broker.url, lanes)


async def test_an_embedded_worker_runs_beside_its_program_and_stops_when_told(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    ran: list[int] = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)

    for round_ in range(2):
        worker = Worker(app)
        working = asyncio.create_task(worker.run(signals=False))
        await work.enqueue(round_)
        await until(lambda worker=worker: worker.stats.completed == 1)
        if round_ == 0:
            worker.stop()
        else:
            await to_thread.run_sync(worker.stop)  # from another thread, too
        async with asyncio.timeout(10):
            stats = await working
        assert stats is worker.stats
        assert worker.ending is not None
        assert worker.ending.why == "asked to stop"
        assert worker.ending.exit_code == 0
    assert ran == [0, 1]
    assert await declared(broker.url, queue) == (0, 0)


async def test_a_worker_told_to_stop_before_it_ran_takes_no_job(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    @app.task
    async def never() -> None: ...

    async with app:
        await never.enqueue()
        worker = Worker(app)
        worker.stop()
        async with asyncio.timeout(10):
            await worker.run(signals=False)
    assert worker.stats.completed == 0
    assert await declared(broker.url, queue) == (1, 0)


async def test_options_choose_queue_id_headers_and_expiry_for_one_call(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    other = f"{queue}-other"
    seen: dict[str, tuple[str, Any]] = {}

    @app.task
    async def work(ctx: Context, number: int) -> None:
        seen[ctx.job_id] = (ctx.queue, dict(ctx.headers))

    try:
        async with running(app, queues=[queue, other]) as worker:
            special = work.options(queue=other, job_id="my-job", headers={"a": "ü"})
            job = await special.enqueue(1)
            assert (job.id, job.queue, job.task) == ("my-job", other, "work")
            usual = await work.enqueue(2)
            dead = await work.options(expires=0).enqueue(3)
            await until(lambda: worker.stats.completed == 2)
            await until(lambda: worker.stats.dead_lettered == 1)
        assert seen == {"my-job": (other, {"a": "ü"}), usual.id: (queue, {})}
        (letter,) = await take_all(broker.url, f"{queue}_dlq")
        assert letter.properties.correlation_id == dead.id
        with pytest.raises(TypeError, match="no option colour"):
            work.options(colour="red")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError):
            work.options(priority=256)
        with pytest.raises(ConfigurationError):
            await work.options(queue="amq.nope").enqueue(1)
    finally:
        lanes = [other, f"{other}.suspect", f"{other}_dlq"]
        await delete_queues(broker.url, lanes)


async def test_one_job_id_enqueued_twice_runs_twice(broker: Broker, queue: str) -> None:
    app = App(broker.url, queue=queue)
    ran: list[int] = []

    @app.task
    async def work(number: int) -> None:
        ran.append(number)

    async with running(app) as worker:
        same = work.options(job_id="same")
        await same.enqueue(1)
        await until(lambda: ran == [1])
        await same.enqueue(2)
        await until(lambda: ran == [1, 2])
    assert worker.stats.duplicates == 0


async def test_a_classic_queue_delivers_by_priority(broker: Broker, queue: str) -> None:
    app = App(
        broker.url,
        queue=queue,
        queue_type="classic",
        max_priority=5,
        concurrency=1,
        prefetch=1,
    )
    order: list[int] = []

    @app.task
    async def work(ctx: Context, number: int) -> None:
        if number == 0 and ctx.job_try == 1:
            raise Retry(defer=0.1)
        order.append(number)

    async with app:
        for number in (1, 5, 3, 2, 4):
            await work.options(priority=number).enqueue(number)
        async with running(app) as worker:
            await until(lambda: len(order) == 5)
            await work.enqueue(0)
            await until(lambda: order[5:] == [0])
    assert order == [5, 4, 3, 2, 1, 0]
    assert worker.stats.retried == 1


async def test_passive_declares_nothing_and_says_what_is_missing(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, declare="passive")

    @app.task
    async def work() -> None:
        raise Reject("kept")

    with pytest.raises(ConfigurationError, match="declare='passive' makes none"):
        await work.enqueue()
    with pytest.raises(ConfigurationError, match=f"'{queue}' does not exist"):
        async with asyncio.timeout(15):
            await Worker(app).run(signals=False)
    await app.close()
    assert await declared(broker.url, queue) == (None, None)
    async with channel_to(broker.url) as channel:  # any arguments will do
        for name in (queue, f"{queue}.suspect", f"{queue}_dlq"):
            await channel.queue_declare(name, durable=True)
    async with running(app) as worker:
        await work.enqueue()
        await until(lambda: worker.stats.dead_lettered == 1)
    await wait_for_count(broker.url, f"{queue}_dlq", ready=1)


async def test_a_worker_says_which_queue_does_not_fit(
    broker: Broker, queue: str
) -> None:
    async with channel_to(broker.url) as channel:
        await channel.queue_declare(queue, durable=True)
    app = App(broker.url, queue=queue)

    @app.task
    async def work() -> None: ...

    with pytest.raises(ConfigurationError, match=f"'{queue}' exists with x-"):
        async with asyncio.timeout(15):
            await Worker(app).run(signals=False)


async def test_a_task_called_directly_runs_here_and_needs_no_broker() -> None:
    app = App("amqp://guest:guest@127.0.0.1:1/")

    @app.task
    async def add(ctx: Context, a: int, b: int) -> int:
        assert ctx.job_try == 1
        return a + b

    @app.task
    def thread_name() -> str:
        return threading.current_thread().name

    assert await add(2, b=3) == 5
    assert await thread_name() != threading.current_thread().name


async def test_jobs_run_so_many_at_a_time_and_no_more(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, concurrency=5)
    now = most = 0

    @app.task
    async def work() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1

    async with running(app) as worker:
        await app.enqueue_many([work.job() for _ in range(100)])
        await until(lambda: worker.stats.completed == 100)
    assert most == 5


async def test_tasks_of_two_queues_are_consumed_by_one_worker_or_by_two(
    broker: Broker, queue: str
) -> None:
    other = f"{queue}-other"

    def make() -> tuple[App, list[str], Any, Any]:
        app = App(broker.url, queue=queue)
        ran: list[str] = []

        @app.task
        async def here() -> None:
            ran.append("here")

        @app.task(queue=other)
        async def there() -> None:
            ran.append("there")

        return app, ran, here, there

    try:
        app, ran, here, there = make()
        async with running(app):
            await here.enqueue()
            await there.enqueue()
            await until(lambda: sorted(ran) == ["here", "there"])
        app, ran, here, there = make()
        async with running(app, queues=[other]) as worker:
            await here.enqueue()
            await there.enqueue()
            await until(lambda: worker.stats.completed == 1)
        assert ran == ["there"]
        await wait_for_count(broker.url, queue, ready=1)
    finally:
        lanes = [other, f"{other}.suspect", f"{other}_dlq"]
        await delete_queues(broker.url, lanes)
