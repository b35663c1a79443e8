"""Further attempts: how many, how late, and nothing lost on the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from anyio import to_thread

from rmqarq import App, Backoff, Context, Retry
from tests.broker.apps.ledger_app import make
from tests.broker.kit import (
    channel_to,
    dead_letters,
    running,
    take_all,
    until,
    wait_for_count,
)

if TYPE_CHECKING:
    from tests.broker.kit import Node
    from tests.harness.broker import Broker


class Runs:
    """When each try of each job began."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = {}

    def note(self, ctx: Context) -> None:
        times = self.at.setdefault(ctx.job_id, [])
        times.append(time.time())
        assert ctx.job_try == len(times)

    def waits(self, job_id: str) -> list[float]:
        """The seconds between the tries of a job."""
        times = self.at[job_id]
        return [b - a for a, b in pairwise(times)]


async def test_waits_between_attempts_follow_the_backoff_of_task_or_settings(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, retry_backoff=0.3, max_retries=2)
    runs = Runs()

    @app.task(max_retries=3, backoff=Backoff(base=0.2, factor=3, maximum=1, jitter=0))
    async def own(ctx: Context) -> None:
        runs.note(ctx)
        raise OSError

    @app.task(backoff=0.1)
    async def short(ctx: Context) -> None:
        runs.note(ctx)
        raise OSError

    @app.task
    async def usual(ctx: Context) -> None:
        runs.note(ctx)
        raise OSError

    async with running(app) as worker:
        jobs = [await each.enqueue() for each in (own, short, usual)]
        await until(lambda: worker.stats.dead_lettered == 3)
    wanted = [[0.2, 0.6, 1.0], [0.1, 0.2], [0.3, 0.6]]
    for job, waits in zip(jobs, wanted, strict=True):
        for wait, want in zip(runs.waits(job.id), waits, strict=True):
            jitter = 0 if job.task == "own" else 0.1 * want
            assert want - jitter - 0.005 <= wait < want + jitter + 0.5, (job, wait)
    assert (worker.stats.retried, worker.stats.failed) == (7, 3)


async def test_retry_says_itself_when_to_run_again(broker: Broker, queue: str) -> None:
    app = App(broker.url, queue=queue, retry_backoff=0.2)
    runs = Runs()
    moments = {
        "seconds": lambda: 0.4,
        "at once": lambda: 0,
        "past": lambda: datetime(2001, 1, 1, tzinfo=UTC),
        "timedelta": lambda: timedelta(seconds=0.4),
        "datetime": lambda: datetime.now(UTC) + timedelta(seconds=0.4),
        "backoff": lambda: None,
    }

    @app.task
    async def again(ctx: Context, kind: str) -> None:
        runs.note(ctx)
        if ctx.job_try == 1:
            raise Retry(defer=moments[kind]())

    async with running(app) as worker:
        jobs = {kind: await again.enqueue(kind) for kind in moments}
        await until(lambda: worker.stats.completed == len(moments))
    waits = {kind: runs.waits(job.id)[0] for kind, job in jobs.items()}
    for kind in ("at once", "past"):
        assert waits[kind] < 0.3, waits
    for kind in ("seconds", "timedelta", "datetime"):
        assert 0.4 <= waits[kind] < 0.9, waits
    assert 0.17 < waits["backoff"] < 0.7, waits
    assert worker.stats.retried == len(moments)


async def test_only_exceptions_in_retry_on_are_tried_again(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, retry_backoff=0.1)
    runs = Runs()
    kinds = {"os": OSError, "timeout": TimeoutError, "key": KeyError, "retry": Retry}

    @app.task(retry_on=(OSError,), max_retries=1)
    async def picky(ctx: Context, kind: str) -> None:
        runs.note(ctx)
        raise kinds[kind]

    async with running(app) as worker:
        jobs = {kind: await picky.enqueue(kind) for kind in kinds}
        await until(lambda: worker.stats.dead_lettered == 4)
    tries = {kind: len(runs.at[job.id]) for kind, job in jobs.items()}
    assert tries == {"os": 2, "timeout": 2, "key": 1, "retry": 2}
    letters = await dead_letters(broker.url, queue, 4)
    reasons = {
        letter.properties.correlation_id: letter.headers["x-rmqarq-reason"]
        for letter in letters
    }
    assert reasons.pop(jobs["key"].id) == "not retryable"
    assert set(reasons.values()) == {"retries used up"}


async def test_max_retries_comes_from_the_call_else_the_task_else_the_settings(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, max_retries=2, retry_backoff=0)
    runs = Runs()

    @app.task(max_retries=1)
    async def own(ctx: Context) -> None:
        runs.note(ctx)
        raise OSError

    @app.task
    async def usual(ctx: Context) -> None:
        runs.note(ctx)
        raise OSError

    wanted = {own: 2, own.options(max_retries=3): 4, own.options(max_retries=0): 1}
    wanted |= {usual: 3, usual.options(max_retries=1): 2}
    async with running(app) as worker:
        jobs = [(await task.enqueue(), tries) for task, tries in wanted.items()]
        await until(lambda: worker.stats.dead_lettered == len(wanted))
    for job, tries in jobs:
        assert len(runs.at[job.id]) == tries
    letters = await dead_letters(broker.url, queue, len(wanted))
    attempts = {
        letter.properties.correlation_id: letter.headers["x-rmqarq-attempts"]
        for letter in letters
    }
    assert attempts == {job.id: tries for job, tries in jobs}


async def test_a_run_past_its_timeout_is_cancelled_and_tried_again(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, retry_backoff=0, job_timeout=0.4)
    runs = Runs()
    cancelled: list[float] = []

    @app.task(timeout=0.2, max_retries=1)
    async def own(ctx: Context) -> None:
        runs.note(ctx)
        began = time.time()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            cancelled.append(time.time() - began)
            raise

    @app.task
    async def usual(ctx: Context) -> None:
        runs.note(ctx)
        if ctx.job_try == 1:
            await asyncio.sleep(20)

    @app.task(timeout=None)
    async def unlimited(ctx: Context) -> None:
        runs.note(ctx)
        await asyncio.sleep(1.2)

    async with running(app) as worker:
        jobs = [await each.enqueue() for each in (own, usual, unlimited)]
        await until(lambda: worker.stats.completed == 2)
        await until(lambda: worker.stats.dead_lettered == 1)
    assert [len(runs.at[job.id]) for job in jobs] == [2, 2, 1]
    assert len(cancelled) == 2
    assert all(0.19 <= each < 0.7 for each in cancelled)
    assert 0.39 <= runs.waits(jobs[1].id)[0] < 1
    assert worker.stats.stuck == 0
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-error"] == "TimeoutError"
    assert "longer than 0.2 s" in letter.headers["x-rmqarq-message"]
    assert letter.headers["x-rmqarq-reason"] == "retries used up"


async def test_a_plain_function_past_its_timeout_is_tried_again_beside_itself(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, retry_backoff=0)
    runs = Runs()
    release = threading.Event()

    @app.task(timeout=0.2)
    def blocking(ctx: Context) -> None:
        runs.note(ctx)
        if ctx.job_try == 1:
            release.wait(20)

    async with running(app) as worker:
        job = await blocking.enqueue()
        await until(lambda: worker.stats.completed == 1)
        assert worker.stats.retried == 1
        release.set()
    assert len(runs.at[job.id]) == 2
    assert runs.waits(job.id)[0] >= 0.1  # its time began a moment before it


async def test_a_job_that_swallows_its_timeout_is_stuck_and_frees_its_slot(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, concurrency=1, cancel_grace=0.3, retry_backoff=0)
    runs = Runs()
    release = asyncio.Event()

    @app.task(timeout=0.2, max_retries=1)
    async def stubborn(ctx: Context) -> None:
        runs.note(ctx)
        if ctx.job_try == 1:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    async with running(app) as worker:
        job = await stubborn.enqueue()
        await until(lambda: worker.stats.completed == 1)
        assert (worker.stats.stuck, worker.stats.retried) == (1, 1)
        release.set()
    assert len(runs.at[job.id]) == 2
    assert worker.stats.completed == 1  # the late end of the stuck run counts no more
    await wait_for_count(broker.url, queue, ready=0)


async def test_a_worker_killed_while_its_jobs_retry_leaves_a_copy_of_each(
    node: Node,
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        again = app.tasks["again"]
        jobs = await app.enqueue_many([again.job(12, 0) for _ in range(100)])
    for rows in (200, 500, 800):
        with node.worker() as worker:
            await until(lambda rows=rows: len(node.ledger.rows()) >= rows)
            worker.kill()
            await to_thread.run_sync(worker.wait, 10)
    with node.worker("--burst", "--burst-check-interval", "0.2") as worker:
        assert await to_thread.run_sync(worker.wait, 30) == 0, worker.output
    tries = node.ledger.tries()
    assert tries.keys() == {job.id for job in jobs}
    for job_id, numbers in tries.items():
        # twice where the worker died between the confirm and the ack; never a gap
        assert set(numbers) == set(range(1, 14)), (job_id, numbers)
    await wait_for_count(node.broker.url, f"{node.queue}_dlq", ready=0)


async def test_a_job_comes_through_the_ladder_again_and_again(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    runs = Runs()

    @app.task(max_retries=10)
    async def again(ctx: Context) -> None:
        runs.note(ctx)
        if ctx.job_try <= 6:
            raise Retry(defer=0.1 if ctx.job_try % 2 else 1.2)

    async with running(app) as worker:
        job = await again.defer(1.2)
        await until(lambda: worker.stats.completed == 1)
    assert len(runs.at[job.id]) == 7
    for number, wait in enumerate(runs.waits(job.id), 1):
        assert wait >= (0.1 if number % 2 else 1.2)
    await wait_for_count(broker.url, queue, ready=0)


async def test_no_header_of_the_broker_is_carried_over_to_the_next_attempt(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    @app.task(max_retries=1)
    async def again() -> None:
        raise Retry(defer=1)

    async with channel_to(broker.url) as channel, running(app) as worker:
        spy = await channel.queue_declare(exclusive=True)
        assert spy.queue
        await channel.queue_bind(spy.queue, "rmqarq.due", queue)
        await channel.queue_bind(spy.queue, "rmqarq.due", f"{queue}_dlq")
        await again.defer(1)
        await until(lambda: worker.stats.dead_lettered == 1)
        got = [await channel.basic_get(spy.queue, no_ack=True) for _ in range(2)]
    # each has been through one rung, and shows that one only
    for message in got:
        headers = message.header.properties.headers
        assert [death["count"] for death in headers["x-death"]] == [1]
    bodies = [json.loads(message.body) for message in got]
    assert [body.get("try", 1) for body in bodies] == [1, 2]
    (letter,) = await take_all(broker.url, f"{queue}_dlq")
    names = letter.headers.keys() - {"x-delivery-count"}  # RabbitMQ's own, on 3.10
    assert all(name.startswith("x-rmqarq-") for name in names)


async def test_a_dead_letter_tells_of_its_first_failure_and_its_attempts(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    @app.task(max_retries=2, backoff=Backoff(base=0.5, factor=1, jitter=0))
    async def fails(ctx: Context) -> None:
        raise ValueError(f"attempt {ctx.job_try}")

    async with running(app) as worker:
        began = time.time()
        await fails.enqueue()
        await until(lambda: worker.stats.dead_lettered == 1)
    (letter,) = await dead_letters(broker.url, queue, 1)
    headers = letter.headers
    assert headers["x-rmqarq-attempts"] == 3
    assert headers["x-rmqarq-message"] == "attempt 3"
    first, last = headers["x-rmqarq-first-at"], headers["x-rmqarq-last-at"]
    assert began * 1000 - 1 <= headers["x-rmqarq-enqueued-at"] <= first
    assert first < (began + 0.5) * 1000
    assert last - first >= 995


async def test_expiry_counts_from_the_first_enqueue_across_all_attempts(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    runs = Runs()

    @app.task(max_retries=100, expires=1.5, backoff=Backoff(base=0.4, factor=1))
    async def fails(ctx: Context) -> None:
        runs.note(ctx)
        raise OSError

    async with running(app) as worker:
        at_once = await fails.enqueue()
        later = await fails.defer(1)
        await until(lambda: worker.stats.dead_lettered == 2)
    for job, start in ((at_once, 0), (later, 1)):
        spent = runs.at[job.id][-1] - runs.at[job.id][0]
        assert 0.7 < spent < 1.6, (start, spent)
        assert 3 <= len(runs.at[job.id]) <= 5
    letters = await dead_letters(broker.url, queue, 2)
    assert {letter.headers["x-rmqarq-reason"] for letter in letters} == {"expired"}
    for letter in letters:
        tried = len(runs.at[letter.properties.correlation_id])
        assert letter.headers["x-rmqarq-attempts"] == tried
