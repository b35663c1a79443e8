"""Settings do what their descriptions say, where no other file here shows it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from rmqarq import App
from tests.broker.kit import running, until, wait_for_count

if TYPE_CHECKING:
    import pytest

    from tests.harness.broker import Broker


async def test_prefetch_is_how_many_unfinished_messages_a_worker_holds(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, prefetch=4, concurrency=2)
    free = asyncio.Event()
    begun: list[int] = []

    @app.task
    async def hold(number: int) -> None:
        begun.append(number)
        await free.wait()

    async with running(app) as worker:
        await app.enqueue_many([hold.job(number) for number in range(10)])
        await until(lambda: len(begun) == 2)
        await wait_for_count(broker.url, queue, ready=6)
        assert len(begun) == 2
        free.set()
        await until(lambda: worker.stats.completed == 10)


async def test_job_timeout_ends_the_runs_of_tasks_that_set_none(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, job_timeout=0.3, max_retries=0)
    ended: list[str] = []

    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append("awake")

    usual = app.task(name="usual")(nap)
    patient = app.task(name="patient", timeout=30)(nap)
    async with running(app) as worker:
        await usual.enqueue(20)
        await patient.enqueue(1)
        await until(lambda: worker.stats.dead_lettered == 1)
        await until(lambda: ended == ["awake"])
        await until(lambda: worker.stats.completed == 1)


async def test_statistics_are_written_when_something_has_happened(
    broker: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(broker.url, queue=queue, health_check_interval=0.1)
    caplog.set_level("INFO", "rmqarq")

    @app.task
    async def work() -> None: ...

    def lines() -> list[str]:
        pattern = r"(\d) completed ◆ 0 failed ◆ 0 retried ◆ 0 running"
        found = (re.fullmatch(pattern, each.getMessage()) for each in caplog.records)
        return [each[1] for each in found if each and each[1] != "0"]  # while it starts

    async with running(app):
        await work.enqueue()
        await until(lambda: lines() == ["1"])
        await asyncio.sleep(0.5)  # nothing happens
        await work.enqueue()
        await until(lambda: lines() == ["1", "2"])
