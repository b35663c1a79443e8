"""The world of an App: what happens there, when, and what a test sees of it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rmqarq import (
    App,
    Backoff,
    ConfigurationError,
    Context,
    Incoming,
    Middleware,
    Portal,
    Reject,
    Retry,
    Settings,
)
from rmqarq.devbroker import Broker
from rmqarq.testing import Harness, world
from tests.testing.users import test_mail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rmqarq import Message
    from rmqarq.testing import World

STEADY = Backoff(base=60, factor=1, jitter=0)
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


class Jobs:
    """An App with some tasks, and what they did."""

    def __init__(self, **settings: Any) -> None:
        self.app = App(Settings(queue="mail", **settings))
        self.ran: list[Any] = []
        app, ran = self.app, self.ran

        @app.task
        async def note(what: Any) -> None:
            ran.append(what)

        @app.task(max_retries=2, backoff=STEADY)
        async def fail(what: str) -> None:
            ran.append(what)
            raise ValueError(what)

        @app.task
        async def signal(kind: str) -> None:
            raise Reject("no") if kind == "reject" else Retry(defer=10)

        self.note, self.fail, self.signal = note, fail, signal


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


# --- when things happen ---


async def test_nothing_runs_until_the_test_says_so(jobs: Jobs) -> None:
    async with world(jobs.app) as w:
        await jobs.note.enqueue(1)
        await asyncio.sleep(0.02)
        assert jobs.ran == []
        await w.run()
        assert jobs.ran == [1]
        await jobs.note.enqueue(2)
        await asyncio.sleep(0.02)
        assert jobs.ran == [1]


async def test_what_a_job_enqueues_runs_in_the_same_call(jobs: Jobs) -> None:
    @jobs.app.task
    async def chain(left: int) -> None:
        jobs.ran.append(left)
        if left:
            await chain.enqueue(left - 1)

    async with world(jobs.app) as w:
        await chain.enqueue(5)
        await w.run()
        assert jobs.ran == [5, 4, 3, 2, 1, 0]


async def test_a_job_knows_the_time_of_its_world(jobs: Jobs) -> None:
    seen: list[tuple[datetime, datetime]] = []

    async with world(jobs.app, now=NEW_YEAR) as w:

        @jobs.app.task
        async def look(ctx: Context) -> None:
            seen.append((ctx.enqueued_at, w.now))

        handle = await look.defer(timedelta(days=400))
        (waiting,) = w.delayed
        assert waiting.due == NEW_YEAR + timedelta(days=400)
        await w.advance(days=400)
        assert seen == [(NEW_YEAR, NEW_YEAR + timedelta(days=400))]
        assert w.now == NEW_YEAR + timedelta(days=400)
        born = int(handle.id.replace("-", "")[:12], 16)  # UUIDv7: milliseconds
        assert born == NEW_YEAR.timestamp() * 1000


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.7, 59.9, 3600.7, 86399.9, 1e7 + 0.1])
async def test_a_job_is_due_exactly_at_its_time(jobs: Jobs, delay: float) -> None:
    async with world(jobs.app) as w:
        await jobs.note.defer(delay, "x")
        await w.advance(delay - 0.05)
        assert jobs.ran == []
        await w.advance(0.05)
        assert jobs.ran == ["x"]


async def test_a_job_is_due_exactly_at_its_time_after_many_steps(jobs: Jobs) -> None:
    async with world(jobs.app) as w:
        for number in range(1, 50):  # sums of such floats are not exact
            await jobs.note.defer(number * 0.7, number)
            await w.advance(number * 0.7)
            assert jobs.ran[-1:] == [number]


async def test_each_attempt_runs_at_its_time_and_others_in_between(jobs: Jobs) -> None:
    async with world(jobs.app, now=NEW_YEAR, raises=False) as w:
        start = w.now
        await jobs.fail.enqueue("f")
        await w.run()
        assert [each.due for each in w.delayed] == [NEW_YEAR + timedelta(minutes=1)]
        await jobs.note.defer(90, "n")
        await w.advance(hours=1)
        assert jobs.ran == ["f", "f", "n", "f"]
        assert [(each.at - start).seconds for each in w.done] == [0, 60, 90, 120]
        assert [each.job_try for each in w.done] == [1, 2, 1, 3]


async def test_a_minute_can_be_written_in_many_ways(jobs: Jobs) -> None:
    async with world(jobs.app, now=NEW_YEAR) as w:
        await w.advance(60)
        await w.advance(timedelta(minutes=1))
        await w.advance(minutes=1)
        await w.advance(days=1, hours=1)
        await w.advance_to(w.now + timedelta(seconds=60))
        assert w.now == NEW_YEAR + timedelta(days=1, hours=1, minutes=4)
        with pytest.raises(ValueError, match="time does not go back"):
            await w.advance(-1)
        with pytest.raises(ValueError, match="time does not go back"):
            await w.advance_to(NEW_YEAR)


async def test_jobs_of_one_moment_run_at_the_same_time(jobs: Jobs) -> None:
    met = asyncio.Barrier(2)

    @jobs.app.task
    async def meet() -> None:
        async with met:
            jobs.ran.append("met")

    async with world(jobs.app) as w:
        await meet.enqueue()
        await meet.enqueue()
        await w.run()
        assert jobs.ran == ["met", "met"]


async def test_a_job_that_waits_for_something_else_is_waited_for(jobs: Jobs) -> None:
    @jobs.app.task
    async def slow() -> None:
        await asyncio.sleep(0.2)
        jobs.ran.append("slow")

    @jobs.app.task
    def plain() -> str:
        jobs.ran.append(threading.current_thread() is threading.main_thread())
        return "plain"

    async with world(jobs.app) as w:
        await slow.enqueue()
        await plain.enqueue()
        await w.run()
        assert jobs.ran == [False, "slow"]
        assert len(w.done) == 2


async def test_code_without_an_event_loop_enqueues_through_a_portal(jobs: Jobs) -> None:
    portal = Portal(jobs.app)

    @jobs.app.task
    def plain() -> None:
        portal.call(jobs.note.enqueue, "by a portal")

    async with world(jobs.app) as w:
        await plain.enqueue()
        await w.run()
        assert jobs.ran == ["by a portal"]
        await asyncio.to_thread(portal.close)


async def test_a_chain_without_end_is_noticed(jobs: Jobs) -> None:
    @jobs.app.task
    async def again(number: int) -> None:
        await again.enqueue(number + 1)

    async with world(jobs.app, limit=50) as w:
        await again.enqueue(0)
        with pytest.raises(RuntimeError, match=r"50 runs more .* again\(\d+\).*limit"):
            await w.advance(days=1)
        assert 50 <= len(w.done) < 100


async def test_many_jobs_are_no_chain(jobs: Jobs) -> None:
    async with world(jobs.app, limit=10) as w:
        await jobs.app.enqueue_many([jobs.note.job(i) for i in range(300)])
        await w.run()
        assert sorted(jobs.ran) == list(range(300))


# --- what comes out of a job ---


async def test_an_exception_of_a_task_is_raised_in_the_test(jobs: Jobs) -> None:
    async with world(jobs.app) as w:
        await jobs.fail.enqueue("x")
        with pytest.raises(ValueError, match="x") as caught:
            await w.run()
        functions = [each.name for each in caught.traceback]
        assert functions[-1] == "fail"
        assert "_outcome" not in functions  # how the worker came there is left out
        assert caught.value is w.done[0].error
        await w.run()  # once is enough


async def test_several_exceptions_are_raised_together(jobs: Jobs) -> None:
    async with world(jobs.app) as w:
        await jobs.fail.enqueue("x")
        await jobs.note.enqueue("y")
        with pytest.raises(ExceptionGroup) as caught:
            await w.advance(minutes=1)
        assert [str(each) for each in caught.value.exceptions] == ["x", "x"]
        assert jobs.ran == ["x", "y", "x"]


@pytest.mark.parametrize("kind", ["reject", "retry"])
async def test_a_signal_is_no_exception(jobs: Jobs, kind: str) -> None:
    async with world(jobs.app) as w:
        await jobs.signal.enqueue(kind)
        await w.run()
        (done,) = w.done
        assert isinstance(done.error, Reject | Retry)
        assert len(w.dead) + len(w.delayed) == 1


async def test_a_run_that_takes_too_long_is_a_timeout(jobs: Jobs) -> None:
    @jobs.app.task(timeout=0.05, max_retries=0)
    async def hang() -> None:
        await asyncio.sleep(60)

    async with world(jobs.app) as w:
        await hang.enqueue()
        with pytest.raises(TimeoutError, match="hang: the run took longer"):
            await w.run()
        assert w.assert_dead(hang).error == "TimeoutError"


async def test_what_would_end_a_program_does_not_end_the_test(jobs: Jobs) -> None:
    @jobs.app.task(max_retries=0)
    async def leave() -> None:
        raise SystemExit(3)

    async with world(jobs.app) as w:
        await leave.enqueue()
        with pytest.raises(
            RuntimeError, match=r"leave ended with SystemExit\(3\)"
        ) as e:
            await w.run()
        assert isinstance(e.value.__cause__, SystemExit)


async def test_an_exception_that_middleware_takes_is_not_raised() -> None:
    class Forgiving(Middleware):
        async def run(
            self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
        ) -> object:
            try:
                return await call_next()
            except ValueError:
                return "forgiven"

    app = App(Settings(), middleware=[Forgiving()])

    @app.task
    async def fail() -> None:
        raise ValueError

    async with world(app) as w:
        await fail.enqueue()
        await w.run()
        assert w.assert_ran(fail).error is None


# --- what dies ---


async def test_a_dead_letter_says_what_one_in_production_says(jobs: Jobs) -> None:
    async with world(jobs.app, now=NEW_YEAR, raises=False) as w:
        handle = await jobs.fail.enqueue("x")
        await w.advance(minutes=2)
        (letter,) = w.dead
        assert (letter.task, letter.args, letter.id) == ("fail", ("x",), handle.id)
        assert (letter.reason, letter.tries) == ("retries used up", 3)
        assert (letter.error, letter.message) == ("ValueError", "x")
        assert "raise ValueError(what)" in (letter.traceback or "")
        assert letter.at == NEW_YEAR + timedelta(minutes=2)
    assert w.dead == [letter]  # to be looked at afterwards, too


async def test_jobs_die_of_what_they_die_of_in_production(jobs: Jobs) -> None:
    @jobs.app.task(expires=60)
    async def late() -> None:
        raise Retry(defer=600)

    async with world(jobs.app, raises=False) as w:
        await w.publish("mail", {"task": "note", "args": [1, 2, 3]})
        await w.publish("mail", b"\x00")
        await late.enqueue()
        await jobs.app.ref("elsewhere").enqueue(1)
        await w.advance(hours=1)
        assert sorted((each.reason, each.task) for each in w.dead) == [
            ("expired", "late"),
            ("undecodable", ""),
            ("undecodable", "note"),
            ("unknown task", "elsewhere"),
        ]
        assert w.assert_dead("elsewhere", 1).tries == 0


async def test_each_queue_has_its_dead_letters(jobs: Jobs) -> None:
    @jobs.app.task(queue="other", max_retries=0)
    async def elsewhere() -> None:
        raise ValueError

    async with world(jobs.app, raises=False) as w:
        await elsewhere.enqueue()
        await jobs.signal.enqueue("reject")
        await w.run()
        assert {(each.task, each.queue) for each in w.dead} == {
            ("elsewhere", "other"),
            ("signal", "mail"),
        }


# --- what is asserted ---


@dataclass
class Point:
    x: int
    y: int


async def test_arguments_are_seen_as_the_function_gets_them(jobs: Jobs) -> None:
    @jobs.app.task
    async def draw(at: Point, color: str = "red", *, size: int = 1) -> None: ...

    async with world(jobs.app) as w:
        await draw.options(headers={"who": "ada"}).enqueue(Point(1, 2), size=3)
        job = w.assert_enqueued(draw, Point(1, 2), "red", size=3)
        assert job.args == (Point(1, 2),)
        assert (job.kwargs, job.headers) == ({"size": 3}, {"who": "ada"})
        w.assert_enqueued(draw, at=Point(1, 2), color="red", size=3)
        w.assert_enqueued(draw)
        w.assert_enqueued("draw")
        w.assert_not_enqueued(draw, Point(1, 2))
        with pytest.raises(TypeError, match="draw"):
            w.assert_enqueued(draw, Point(1, 2), sise=3)


async def test_a_tuple_is_found_as_the_list_it_became(jobs: Jobs) -> None:
    app = App(Settings(validate=False))

    @app.task
    async def note(what: Any) -> None: ...

    async with world(app) as w:
        await note.enqueue((1, 2))
        w.assert_enqueued(note, (1, 2))
        w.assert_enqueued(note, [1, 2])
        w.assert_not_enqueued(note, [2, 1])


async def test_an_assertion_says_what_was_there_instead(jobs: Jobs) -> None:
    async with world(jobs.app, now=NEW_YEAR, raises=False) as w:
        for assertion in (w.assert_enqueued, w.assert_ran, w.assert_dead):
            with pytest.raises(AssertionError, match=r"note\(1\) was not .*; nothing"):
                assertion(jobs.note, 1)
        await jobs.note.enqueue(2)
        await jobs.note.defer(60, 3)
        await jobs.signal.enqueue("reject")
        await w.run()
        assert said(w.assert_enqueued, jobs.note, 1) == [
            "note(1) was not enqueued; enqueued were:",
            "  note(2) on mail",
            "  note(3) on mail, due 2030-01-01 00:01:00+00:00",
            "  signal('reject') on mail",
        ]
        assert said(w.assert_not_enqueued, jobs.note) == [
            "note was enqueued; enqueued were:",
            "  note(2) on mail",
            "  note(3) on mail, due 2030-01-01 00:01:00+00:00",
        ]
        assert said(w.assert_ran, jobs.note, 3) == [
            "note(3) was not run; run were:",
            "  note(2), attempt 1: Succeeded",
            "  signal('reject'), attempt 1: DeadLettered, Reject('no')",
        ]
        assert said(w.assert_dead, jobs.note) == [
            "note was not dead-lettered; dead-lettered were:",
            "  signal('reject') of mail: rejected, rmqarq.errors.Reject: no, tries: 1",
        ]
        assert [str(each) for each in w.delayed] == [
            "note(3) on mail, attempt 1, due 2030-01-01 00:01:00+00:00"
        ]


def said(assertion: Callable[..., object], *arguments: Any) -> list[str]:
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments)
    return str(caught.value).splitlines()


async def test_a_retry_is_not_enqueued_twice(jobs: Jobs) -> None:
    async with world(jobs.app, raises=False) as w:
        await jobs.fail.enqueue("x")
        await jobs.app.enqueue_many([jobs.note.job(1), jobs.note.job(2).defer(60)])
        await w.advance(hours=1)
        assert [each.call for each in w.enqueued] == ["fail('x')", "note(1)", "note(2)"]
        assert [each.delay for each in w.enqueued] == [0, 0, 60]


# --- messages of others ---


class Follower(msgspec.Struct):
    name: str


@pytest.fixture
def followers(jobs: Jobs) -> Any:
    @jobs.app.consume("followers", max_retries=1, backoff=STEADY)
    async def followed(event: Incoming[Follower]) -> None:
        jobs.ran.append((event.body.name, dict(event.properties.headers)))
        if event.body.name == "nobody":
            raise ValueError("nobody")

    return followed


async def test_a_message_of_another_producer_is_consumed(
    jobs: Jobs, followers: Any
) -> None:
    async with world(jobs.app) as w:
        headers = {"from": "shop", "n": 1}
        await w.publish("followers", {"name": "ada"}, headers=headers, message_id="m-1")
        await w.publish("followers", b'{"name": "bob"}', content_type=None)
        await w.publish("followers", '{"name": "cleo"}')
        await w.run()
        assert jobs.ran == [("ada", headers), ("bob", {}), ("cleo", {})]
        assert w.assert_ran(followers, Follower("ada")).id == "m-1"
        assert w.enqueued == []


async def test_a_message_of_another_producer_is_retried_and_dies(
    jobs: Jobs, followers: Any
) -> None:
    async with world(jobs.app) as w:
        await w.publish("followers", Follower("nobody"))
        with pytest.raises(ValueError, match="nobody"):
            await w.run()
        assert [each.task for each in w.delayed] == ["followed"]
        with pytest.raises(ValueError, match="nobody"):
            await w.advance(minutes=1)
        letter = w.assert_dead(followers, Follower("nobody"))
        assert (letter.queue, letter.tries) == ("followers", 2)
        await w.publish("followers", b"no json")
        await w.run()
        assert [each.reason for each in w.dead][1:] == ["undecodable"]


async def test_a_message_for_a_queue_that_is_not_there_is_an_error(jobs: Jobs) -> None:
    async with world(jobs.app) as w:
        with pytest.raises(LookupError, match=r"no queue 'mial' .* mail, "):
            await w.publish("mial", {})


# --- what applies, and what does not ---


async def test_lifespan_hooks_and_middleware_apply_as_in_production() -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        seen.append("lifespan")
        yield "state"
        seen.append("end")

    class Watching(Middleware):
        async def enqueue(
            self, message: Message, call_next: Callable[[Message], Awaitable[None]]
        ) -> None:
            seen.append(f"enqueue {message.args}")
            await call_next(msgspec.structs.replace(message, args=("changed",)))

        async def run(
            self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
        ) -> object:
            seen.append(f"run {ctx.arguments}")
            return await call_next()

    app = App(Settings(), lifespan=lifespan, middleware=[Watching()])

    @app.task
    async def note(ctx: Context[str], what: str) -> None:
        seen.append(f"{ctx.state} {what}")

    async def hook(name: str) -> None:
        seen.append(name)

    app.on_startup(lambda _: hook("startup"))
    app.on_shutdown(lambda _: hook("shutdown"))
    app.on_job_start(lambda _: hook("start"))
    app.on_job_end(lambda ctx: hook(type(ctx.outcome).__name__))
    async with world(app) as w:
        assert seen == ["lifespan", "startup"]
        await note.enqueue("x")
        w.assert_enqueued(note, "changed")
        await w.run()
    assert seen[2:] == [
        "enqueue ('x',)",
        "start",
        "run (('changed',), {})",
        "state changed",
        "Succeeded",
        "shutdown",
        "end",
    ]


async def test_an_app_is_afterwards_what_it_was_before(jobs: Jobs) -> None:
    app = jobs.app
    others = asyncio.all_tasks()
    before = app.settings, app.clock, app.middleware, list(app.hooks.job_end)
    for _ in range(2):
        async with world(app) as w:
            assert app.clock is not before[1]
            await jobs.note.enqueue(1)
            await w.run()
    assert (app.settings, app.clock, app.middleware, app.hooks.job_end) == before
    assert jobs.ran == [1, 1]
    assert asyncio.all_tasks() == others


async def test_an_app_that_does_not_start_is_left_as_it_was(jobs: Jobs) -> None:
    async def refuse(_: Any) -> None:
        raise LookupError("no database")

    jobs.app.on_startup(refuse)
    others = asyncio.all_tasks()
    before = jobs.app.settings
    with pytest.raises(LookupError, match="no database"):
        async with world(jobs.app):
            pass
    assert jobs.app.settings is before
    assert asyncio.all_tasks() == others
    jobs.app.hooks.startup.clear()
    async with world(jobs.app) as w:
        await jobs.note.enqueue(1)
        await w.run()


async def test_an_app_that_can_not_start_leaves_no_connection(
    jobs: Jobs, followers: Any
) -> None:
    @jobs.app.task
    async def broken(what: Missing) -> None: ...  # noqa: F821

    others = asyncio.all_tasks()
    with pytest.raises(ConfigurationError, match="Missing"):
        async with world(jobs.app):
            pass
    assert asyncio.all_tasks() == others


async def test_a_test_that_fails_with_jobs_under_way_ends_quickly(jobs: Jobs) -> None:
    begun = asyncio.Event()

    @jobs.app.task
    async def hang() -> None:
        begun.set()
        await asyncio.sleep(600)

    async def fail(w: World) -> None:
        await hang.enqueue()
        running = asyncio.create_task(w.run())
        await begun.wait()
        running.cancel()
        raise LookupError("the test has failed")

    others = asyncio.all_tasks()
    with pytest.raises(LookupError, match="the test has failed"):
        async with asyncio.timeout(30), world(jobs.app) as w:
            await fail(w)
    assert asyncio.all_tasks() == others


async def test_an_app_has_one_world_at_a_time(jobs: Jobs) -> None:
    async with world(jobs.app) as w:
        with pytest.raises(ConfigurationError, match="can't enter a world of tests"):
            async with world(jobs.app):
                pass
        await jobs.note.enqueue(1)
        await w.run()
    with pytest.raises(RuntimeError, match="entered once"):
        await w.__aenter__()


async def test_a_connected_app_is_refused() -> None:
    async with Broker() as broker:
        port = await broker.serve()
        jobs = Jobs(url=f"amqp://guest:guest@127.0.0.1:{port}/", delays="ladder")
        await jobs.note.enqueue(1)
        with pytest.raises(ConfigurationError, match="close it first"):
            async with world(jobs.app):
                pass
        await jobs.app.close()
        async with world(jobs.app) as w:
            await w.run()
            assert w.enqueued == jobs.ran == []  # another broker


@pytest.mark.parametrize(
    "settings",
    [
        {"declare": "passive"},
        {"delays": "plugin"},
        {"burst": True, "max_jobs": 1},
        {"health_port": 1},
        {"url": "amqps://me:secret@example.com/other", "tls_ca": "/nowhere"},
        {"serializer": "msgpack", "compression": True, "compression_threshold": 0},
        {"queue_type": "classic", "max_priority": 5},
        {"processes": 4, "prefix": "mine", "dead_letter_queue": "graves"},
    ],
    ids=lambda each: next(iter(each)),
)
async def test_settings_of_the_machine_do_not_matter(settings: dict[str, Any]) -> None:
    jobs = Jobs(**settings)
    async with world(jobs.app, raises=False) as w:
        await jobs.note.enqueue(1)
        await jobs.note.defer(60, 2)
        await jobs.fail.enqueue("x")
        await w.advance(hours=1)
        assert jobs.ran == [1, "x", 2, "x", "x"]
        w.assert_dead(jobs.fail, "x")


async def test_a_suspect_runs_in_this_process() -> None:
    test_mail.sent.clear()
    async with world(test_mail.app) as w:  # which a process of its own could load
        await w.publish("mail.suspect", {"task": "welcome", "args": ["suspect"]})
        await w.run()
        assert test_mail.sent == ["suspect"]
        assert len(w.done) == 1


async def test_tasks_of_an_included_app_belong_to_the_world(jobs: Jobs) -> None:
    whole = App(Settings())
    whole.include(jobs.app)
    async with world(whole) as w:
        await jobs.note.enqueue(1)
        await w.run()
        w.assert_ran(jobs.note, 1)


async def test_retry_times_follow_the_clock_of_the_world(jobs: Jobs) -> None:
    @jobs.app.task
    async def until(when: datetime) -> None:
        jobs.ran.append("ran")
        if len(jobs.ran) == 1:
            raise Retry(defer=when)

    async with world(jobs.app, now=NEW_YEAR) as w:
        await until.enqueue(NEW_YEAR + timedelta(hours=2))
        await w.advance(minutes=119)
        assert jobs.ran == ["ran"]
        await w.advance(minutes=1)
        assert jobs.ran == ["ran", "ran"]


async def test_time_passes_once_at_a_time() -> None:
    jobs = Jobs()

    @jobs.app.task
    async def slow() -> None:
        await asyncio.sleep(0.01)

    async with world(jobs.app) as w:
        await slow.enqueue()
        await slow.defer(5)
        results = await asyncio.gather(w.run(), w.advance(5), return_exceptions=True)
        assert [type(each) for each in results] == [type(None), RuntimeError]
        await w.advance(5)
        assert len(w.done) == 2


async def test_a_job_that_closes_the_app_takes_nothing_from_its_worker() -> None:
    jobs = Jobs()

    @jobs.app.task
    async def close() -> None:
        await jobs.app.close()

    async with world(jobs.app) as w:
        await close.enqueue()
        await close.defer(5)
        await jobs.app.close()
        await w.advance(5)
        assert len(w.done) == 2


async def test_the_end_of_a_lifespan_may_fail() -> None:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[dict[str, int]]:
        yield {}
        raise ValueError("at its end")

    with pytest.raises(ValueError, match="at its end"):
        async with world(App(lifespan=lifespan)):
            pass


async def test_rows_of_a_map_are_jobs_like_any_other() -> None:
    app = App(queue="rows")
    seen: list[int] = []

    @app.task(max_retries=1, backoff=60)
    async def row(number: int) -> None:
        seen.append(number)
        if number == 3:
            raise LookupError(number)

    async with world(app, raises=False) as w:
        assert await row.map(range(5), chunk=2) == 5
        await row.map([8, 9], defer=3600)
        assert [each.args for each in w.enqueued] == [(n,) for n in (*range(5), 8, 9)]
        assert [each.args for each in w.delayed] == [(8,), (9,)]
        w.assert_enqueued(row, 4)
        await w.run()
        assert seen == [*range(5)]
        await w.advance(minutes=2)
        assert seen == [*range(5), 3]
        letter = w.assert_dead(row, 3)
        assert letter.tries == 2
        assert letter.id == w.enqueued[3].id
        await w.advance(hours=1)
        assert seen[6:] == [8, 9]


async def test_more_rows_than_the_limit_are_no_endless_chain() -> None:
    app = App(queue="rows")

    @app.task
    async def row(number: int) -> None: ...

    async with world(app, limit=10) as w:
        await row.map(range(200), chunk=50)
        await row.map(range(200), chunk=50, defer=60)
        await w.run()
        await w.advance(minutes=1)
        assert len(w.done) == 400


async def test_the_harness_runs_the_rows_of_a_map() -> None:
    app = App(queue="rows")
    seen: list[int] = []

    @app.task
    async def row(number: int) -> None:
        seen.append(number)

    async with Harness(app) as h:
        await row.map(range(5), chunk=2)
        assert [each.args for each in h.enqueued] == [(number,) for number in range(5)]
        assert len(await h.drain()) == 5
    assert seen == [*range(5)]
