"""The test file of a user: ten tests on delays, retries, dead letters and chains."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rmqarq import App, Backoff, Context, Reject, Retry
from rmqarq.testing import World, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = App(queue="mail")
sent: list[str] = []
days: list[datetime] = []
failing = 0


@app.task
async def welcome(email: str) -> None:
    sent.append(email)


@app.task(max_retries=3, backoff=Backoff(base=60, factor=2, jitter=0))
async def deliver(email: str) -> None:
    global failing
    if failing:
        failing -= 1
        raise ConnectionError("no mail server")
    sent.append(email)


@app.task
async def verify(email: str) -> None:
    if "@" not in email:
        raise Reject("no address")
    await welcome.defer(timedelta(minutes=5), email)


@app.task(max_retries=1)
async def poll(ctx: Context) -> None:
    if ctx.job_try == 1:
        raise Retry(defer=600)
    sent.append(f"attempt {ctx.job_try}")


@app.task
async def nightly(ctx: Context) -> None:
    days.append(ctx.enqueued_at)
    await nightly.defer(timedelta(days=1))


@app.task
async def code(number: int) -> None:
    sent.append(str(number))


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    global failing
    failing = 0
    sent.clear()
    days.clear()


async def test_a_welcome_is_sent_an_hour_later() -> None:
    async with world(app) as w:
        await welcome.defer(3600, "ada@example.com")
        await w.advance(minutes=59)
        assert sent == []
        await w.advance(minutes=1)
        assert sent == ["ada@example.com"]
        w.assert_enqueued(welcome, "ada@example.com")
        assert w.dead == []


async def test_the_one_that_is_due_first_is_sent_first() -> None:
    async with world(app) as w:
        await welcome.defer(timedelta(days=2), "late")
        await welcome.defer(timedelta(days=1), "early")
        assert [each.args for each in w.delayed] == [("early",), ("late",)]
        await w.advance(days=2)
        assert sent == ["early", "late"]


async def test_a_failing_delivery_raises_in_the_test() -> None:
    global failing
    failing = 1
    async with world(app) as w:
        await deliver.enqueue("bob@example.com")
        with pytest.raises(ConnectionError, match="no mail server"):
            await w.run()
        assert len(w.delayed) == 1


async def test_a_delivery_is_tried_again_with_growing_pauses() -> None:
    global failing
    failing = 2
    async with world(app, raises=False) as w:
        start = w.now
        await deliver.enqueue("bob@example.com")
        await w.advance(hours=1)
        pauses = [(each.at - start).total_seconds() for each in w.done]
        assert pauses == [0, 60, 180]
        assert sent == ["bob@example.com"]


async def test_a_delivery_that_never_works_is_a_dead_letter() -> None:
    global failing
    failing = 9
    async with world(app, raises=False) as w:
        await deliver.enqueue("bob@example.com")
        await w.advance(days=1)
        letter = w.assert_dead(deliver, "bob@example.com")
        assert (letter.reason, letter.tries) == ("retries used up", 4)
        assert (letter.error, letter.message) == ("ConnectionError", "no mail server")


async def test_an_address_that_is_none_is_rejected_at_once() -> None:
    async with world(app) as w:
        await verify.enqueue("nobody")
        await w.run()
        assert w.assert_dead(verify, "nobody").reason == "rejected"
        w.assert_not_enqueued(welcome)


async def test_a_verified_address_is_welcomed_five_minutes_later() -> None:
    async with world(app) as w:
        await verify.enqueue("ada@example.com")
        await w.run()
        job = w.assert_enqueued(welcome, "ada@example.com")
        assert (job.delay, job.queue) == (300, "mail")
        await w.advance_to(w.now + timedelta(minutes=5))
        w.assert_ran(welcome, "ada@example.com")


async def test_a_poll_that_asks_for_it_comes_back_in_ten_minutes() -> None:
    async with world(app) as w:
        await poll.enqueue()
        await w.advance(minutes=10)
        assert sent == ["attempt 2"]


async def test_the_nightly_job_runs_every_night_of_a_month() -> None:
    async with world(app, now=datetime(2028, 2, 1, 3, tzinfo=UTC)) as w:
        await nightly.enqueue()
        await w.advance_to(datetime(2028, 3, 1, 3, tzinfo=UTC))
        ran = [each.at for each in w.done]
        assert ran == [
            datetime(2028, 2, 1, 3, tzinfo=UTC) + timedelta(days=day)
            for day in range(30)
        ]
        assert days == [ran[0], *ran[:-1]]  # each was enqueued by the one before
        assert len(w.delayed) == 1


async def test_a_code_for_another_program_does_not_run_here(
    w: World,
) -> None:
    await code.options(queue="theirs").enqueue(123)
    await code.enqueue(456)
    await w.run()
    assert sent == ["456"]
    assert w.assert_enqueued(code, 123).queue == "theirs"


@pytest.fixture(name="w")
async def own_world() -> AsyncIterator[World]:
    async with world(app) as made:
        yield made
