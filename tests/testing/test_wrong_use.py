"""What is said to a test that uses its world in a way that can't work."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App
from rmqarq.testing import world

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rmqarq.testing import World

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
app = App(queue="wrong_use")
ran: list[str] = []


@app.task
async def welcome(email: str) -> None:
    ran.append(email)


@app.task
async def farewell(email: str) -> None:
    ran.append(email)


@app.consume("signups")
async def signed_up(event: dict[str, str]) -> None:
    ran.append(event["email"])


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


# --- another event loop ---

ACTS: dict[str, Callable[[World], Coroutine[Any, Any, object]]] = {
    "run": lambda w: w.run(),
    "advance": lambda w: w.advance(hours=1),
    "advance_to": lambda w: w.advance_to(w.now),
    "publish": lambda w: w.publish("signups", {"email": "ada"}),
    "enqueue": lambda _: welcome.enqueue("ada"),
    "enqueue_many": lambda _: app.enqueue_many([welcome.job("ada")]),
    "end": lambda w: w.__aexit__(None, None, None),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_world_of_another_event_loop_is_refused_at_once(act: str) -> None:
    w = world(app)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(w.__aenter__())
        try:
            with pytest.raises(RuntimeError, match="entered on another event loop"):
                second.run(asyncio.wait_for(ACTS[act](w), 5))
        finally:
            first.run(w.__aexit__(None, None, None))
    assert ran == []


def test_its_own_event_loop_may_be_left_and_come_back_to() -> None:
    w = world(app)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(w.__aenter__())
        second.run(asyncio.sleep(0))
        first.run(welcome.enqueue("ada"))
        first.run(w.run())
        first.run(w.__aexit__(None, None, None))
    assert ran == ["ada"]


async def test_a_world_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"not begun; .* async with world\(app\)"):
        await world(app).run()


# --- amounts of time ---


@pytest.mark.parametrize(
    ("amounts", "kind", "words"),
    [
        ({"seconds": math.nan}, ValueError, "finite number of seconds, not nan"),
        ({"seconds": math.inf}, ValueError, "finite number of seconds, not inf"),
        ({"hours": -math.inf}, ValueError, "finite number of hours, not -inf"),
        ({"days": math.nan}, ValueError, "finite number of days, not nan"),
        ({"seconds": -1}, ValueError, r"does not go back: advance\(\) got -1 s"),
        ({"seconds": timedelta(days=-1)}, ValueError, "got -86400 s"),
        ({"minutes": 1, "hours": -1}, ValueError, "got -3540 s"),
        ({"seconds": "60"}, TypeError, "a number of seconds, not str"),
        ({"seconds": NEW_YEAR}, TypeError, "a number of seconds, not datetime"),
        ({"minutes": timedelta(minutes=1)}, TypeError, "minutes must be a number"),
        ({"days": True}, TypeError, "a number of days, not bool"),
        ({"days": 1e7}, ValueError, "ends with the year 9999"),
    ],
)
async def test_time_goes_by_amounts_that_mean_something(
    amounts: dict[str, Any], kind: type[Exception], words: str
) -> None:
    async with world(app, now=NEW_YEAR) as w:
        await welcome.enqueue("ada")
        with pytest.raises(kind, match=words):
            await w.advance(**amounts)
        assert ran == []
        assert w.now == NEW_YEAR


@pytest.mark.parametrize(
    ("when", "kind", "words"),
    [
        (NEW_YEAR - timedelta(seconds=1), ValueError, "2029-12-31 23:59:59.* is past"),
        (datetime(2029, 12, 1), ValueError, "it is 2030-01-01 00:00:00"),
        (60, TypeError, r"takes a datetime, not int; advance\(\) takes seconds"),
        (date(2031, 1, 1), TypeError, "takes a datetime, not date;"),
        (timedelta(days=1), TypeError, "takes a datetime, not timedelta;"),
    ],
)
async def test_time_goes_to_moments_that_come(
    when: Any, kind: type[Exception], words: str
) -> None:
    async with world(app, now=NEW_YEAR) as w:
        await welcome.enqueue("ada")
        with pytest.raises(kind, match=words):
            await w.advance_to(when)
        assert ran == []
        assert w.now == NEW_YEAR


async def test_a_naive_moment_is_local_time() -> None:
    async with world(app, now=NEW_YEAR) as w:
        local = (NEW_YEAR + timedelta(hours=2)).astimezone().replace(tzinfo=None)
        await w.advance_to(local)
        assert w.now == NEW_YEAR + timedelta(hours=2)


async def test_the_present_is_not_past() -> None:
    async with world(app, now=NEW_YEAR) as w:
        for number in range(1, 40):  # a datetime counts in microseconds, a float finer
            await w.advance(number * 0.1 + 1 / 3)
            await w.advance_to(w.now)


# --- tasks that nobody has ---


@pytest.mark.parametrize(
    "assertion",
    ["assert_enqueued", "assert_not_enqueued", "assert_ran", "assert_dead"],
)
async def test_a_task_that_the_app_does_not_have_is_an_error(assertion: str) -> None:
    other = App()

    @other.task
    async def stranger() -> None: ...

    async with world(app) as w:
        await farewell.enqueue("ada")
        with pytest.raises(LookupError) as caught:
            getattr(w, assertion)("farwell")
        assert str(caught.value) == (
            "this App has no task 'farwell'; it has: farewell, welcome, signed_up. A"
            " task of another program is app.ref('farwell')"
        )
        with pytest.raises(LookupError, match="no task 'stranger'"):
            getattr(w, assertion)(stranger)


async def test_a_task_of_another_program_may_be_asserted() -> None:
    elsewhere = app.ref("elsewhere")
    async with world(app, raises=False) as w:
        w.assert_not_enqueued(elsewhere)
        await elsewhere.enqueue(1)
        w.assert_enqueued(elsewhere, 1)
        w.assert_enqueued("elsewhere", 1)
        with pytest.raises(AssertionError, match="elsewhere was enqueued"):
            w.assert_not_enqueued("elsewhere")
        with pytest.raises(AssertionError, match="elsewhere was not run"):
            w.assert_ran("elsewhere")


async def test_an_app_with_many_tasks_names_some() -> None:
    many = App()
    for number in range(25):

        @many.task(name=f"task_{number}")
        async def each() -> None: ...

    async with world(many) as w:
        with pytest.raises(LookupError, match=r"has: task_7, .* and 5 more\."):
            w.assert_not_enqueued("task_7x")


# --- what nobody can read ---


async def test_what_nobody_can_read_is_among_the_dead_and_raises_nothing() -> None:
    async with world(app) as w:
        await w.publish("wrong_use", "no job")
        await w.run()
        assert w.enqueued == w.done == []
        assert [letter.reason for letter in w.dead] == ["undecodable"]
        await w.publish("signups", b"no json")
        await w.publish("wrong_use", {"task": "welcome", "args": [7]})
        await w.run()
        ended = {(each.task, type(each.outcome).__name__) for each in w.done}
        assert ended == {("signed_up", "DeadLettered"), ("welcome", "DeadLettered")}
        assert [letter.reason for letter in w.dead] == ["undecodable"] * 3
        assert ran == []
