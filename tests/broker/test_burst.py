"""A burst ends when its work is done, not before and not much later."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

from anyio import to_thread

from rmqarq import App, Context, Reject, Retry, Worker
from tests.broker.apps.ledger_app import make
from tests.broker.kit import declared, until, wait_for_count

if TYPE_CHECKING:
    import pytest

    from tests.broker.kit import Node
    from tests.harness.broker import Broker
    from tests.harness.worker import WorkerProcess


async def wait(worker: WorkerProcess, timeout: float = 25) -> int:
    return await to_thread.run_sync(worker.wait, timeout)


def burst(broker: Broker, queue: str, **settings: object) -> App:
    """Make an App whose worker runs in burst mode, with few seconds between looks."""
    given = {"burst": True, "burst_check_interval": 0.2, **settings}
    return App(broker.url, queue=queue, **given)


async def run(app: App) -> tuple[Worker, float]:
    """Run a worker to its end; give it and the seconds that took."""
    worker = Worker(app)
    began = time.monotonic()
    async with asyncio.timeout(30):
        await worker.run(signals=False)
    return worker, time.monotonic() - began


async def test_a_burst_on_an_empty_queue_ends_within_two_seconds(node: Node) -> None:
    with node.worker("--burst") as worker:
        await to_thread.run_sync(worker.wait_for, "worker started", 10)
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
    assert time.monotonic() - began < 2
    assert "queues empty ◆ 0 completed" in worker.output


async def test_a_burst_waits_for_its_own_retries(broker: Broker, queue: str) -> None:
    app = burst(broker, queue)
    ended: list[float] = []

    @app.task(max_retries=3)
    async def again(ctx: Context, waits: list[float]) -> None:
        if ctx.job_try <= len(waits):
            raise Retry(defer=waits[ctx.job_try - 1])
        ended.append(time.monotonic())

    for waits in ([0.1], [1.7], [0.5, 1.1], [0.3, 0.4, 0.6]):
        await again.enqueue(waits)
    worker, _ = await run(app)
    assert worker.ending is not None
    assert worker.ending.exit_code == 0
    assert worker.ending.why == "queues empty"
    assert (worker.stats.completed, worker.stats.retried) == (4, 7)
    assert worker.stats.pending == 0
    assert time.monotonic() - max(ended) < 0.2 + 1.5


async def test_a_burst_waits_for_a_running_job_and_what_it_enqueues(
    broker: Broker, queue: str
) -> None:
    app = burst(broker, queue)

    @app.task
    async def first() -> None:
        await asyncio.sleep(1)
        await second.enqueue()

    @app.task
    async def second() -> None:
        await asyncio.sleep(0.5)

    await first.enqueue()
    worker, took = await run(app)
    assert worker.stats.completed == 2
    assert 1.5 <= took < 4


async def test_a_burst_that_meets_its_timeout_says_so_with_4(
    broker: Broker, queue: str
) -> None:
    app = burst(broker, queue, burst_timeout=1.0, shutdown_grace=0.2)

    @app.task
    async def long() -> None:
        await asyncio.sleep(30)

    job = await long.enqueue()
    worker, took = await run(app)
    assert 1.0 <= took < 3
    assert worker.ending is not None
    assert (worker.ending.why, worker.ending.exit_code) == ("burst timeout", 4)
    assert (worker.stats.completed, worker.stats.returned) == (0, 1)
    assert await declared(broker.url, queue) == (1, 0)
    assert job.queue == queue


async def test_a_burst_whose_retry_lies_beyond_its_timeout_does_not_wait_for_it(
    broker: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = burst(broker, queue, burst_timeout=20.0)

    @app.task
    async def later() -> None:
        raise Retry(defer=60)

    await later.enqueue()
    worker, took = await run(app)
    assert took < 3
    assert worker.ending is not None
    assert worker.ending.exit_code == 4
    assert worker.stats.retried == 1
    assert "retries may still be waiting" in caplog.text


async def test_no_wait_tasks_gives_running_jobs_back_at_once(node: Node) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        job = await app.tasks["slow"].enqueue(20.0)
        quick = await app.enqueue_many([app.tasks["done"].job(n) for n in range(20)])
    flags = ["--burst", "--burst-check-interval", "0.2"]
    with node.worker(*flags, "--no-wait-tasks") as worker:
        await until(lambda: len(node.ledger.rows()) == 21)
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
    assert time.monotonic() - began < 2
    assert "◆ 20 completed" in worker.output
    assert "◆ 1 returned ◆ 1 pending" in worker.output
    assert node.ledger.tries() == {each.id: [1] for each in (job, *quick)}
    await wait_for_count(node.broker.url, node.queue, ready=1)


async def test_wait_delayed_waits_for_what_others_have_deferred(
    node: Node, prefix: str
) -> None:
    flags = ["--burst", "--burst-check-interval", "0.2"]
    async with make(node.broker.url, queue=node.queue, prefix=prefix) as app:
        early = await app.tasks["done"].defer(5, 1)
        with node.worker(*flags, prefix=prefix) as worker:
            assert await wait(worker) == 0, worker.output
        assert node.ledger.rows() == []  # by default it does not wait
        late = await app.tasks["done"].defer(1.5, 2)
        with node.worker(*flags, "--wait-delayed", prefix=prefix) as worker:
            assert await wait(worker) == 0, worker.output
            ended = time.time()
    assert node.ledger.tries() == {early.id: [1], late.id: [1]}
    assert ended - max(row.at for row in node.ledger.rows()) < 4


async def test_a_burst_without_a_broker_ends_with_4(node: Node) -> None:
    nobody = "amqp://guest:secret-word@127.0.0.1:1/"
    with node.worker("--burst", url=nobody, publish_deadline="1.5") as worker:
        began = time.monotonic()
        assert await wait(worker) == 4, worker.output
    assert 1.5 <= time.monotonic() - began < 4
    assert "no broker" in worker.output
    assert "broker unreachable ◆ 0 completed" in worker.output
    assert "secret-word" not in worker.output


async def test_two_bursts_share_a_queue_and_both_end_when_it_is_done(
    node: Node,
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        flaky, slow = app.tasks["flaky"], app.tasks["slow"]
        specs = [flaky.job(n) for n in range(100)]
        specs += [slow.job(0.1) for _ in range(100)]
        jobs = await app.enqueue_many(specs)
    flags = ["--burst", "--burst-check-interval", "0.2", "-c", "5", "-p", "5"]
    with node.worker(*flags) as one, node.worker(*flags) as two:
        codes = await asyncio.gather(wait(one), wait(two))
    assert codes == [0, 0], one.output + two.output
    tries = node.ledger.tries()
    assert tries.keys() == {job.id for job in jobs}
    for job in jobs:
        wanted = [1, 2] if job.task == "flaky" else [1, 1]  # `slow` writes two rows
        assert tries[job.id] == wanted
    shares = [
        int(found[1])
        for each in (one, two)
        if (found := re.search(r"(\d+) completed", each.output.splitlines()[-1]))
    ]
    assert sum(shares) == 200
    assert min(shares) > 20, shares  # both took part
    assert await declared(node.broker.url, node.queue) == (0, 0)


async def test_a_burst_ends_although_every_job_is_dead(
    broker: Broker, queue: str
) -> None:
    app = burst(broker, queue, fail_on_dead=True)

    @app.task
    async def never() -> None:
        raise Reject

    await app.enqueue_many([never.job() for _ in range(50)])
    worker, took = await run(app)
    assert took < 3
    assert worker.ending is not None
    assert worker.ending.exit_code == 5
    assert worker.stats.dead_lettered == 50
