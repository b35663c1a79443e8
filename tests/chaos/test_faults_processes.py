"""Frozen, starved, forked, blocked, told to leave: the worker process lives on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from tests.broker.kit import dead_letters, until, wait_for_count
from tests.chaos.apps.fault_app import make
from tests.chaos.tools import fault_worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.kit import Node
    from tests.harness.proxy import Proxy
    from tests.harness.worker import WorkerProcess

WHERE = ("task", "sub-task", "group", "thread", "forgotten sub-task", "callback")


async def enqueue(node: Node, task: str, *args: Any, count: int = 1) -> set[str]:
    async with make(node.broker.url, queue=node.queue) as app:
        specs = [app.tasks[task].job(*args) for _ in range(count)]
        return {job.id for job in await app.enqueue_many(specs)}


async def stop(worker: WorkerProcess, timeout: float = 10) -> None:
    """Stop a worker in order: whatever it met, it is in order now."""
    worker.terminate()
    assert await to_thread.run_sync(worker.wait, timeout) == 0, worker.output


async def test_a_frozen_worker_is_replaced_and_does_no_harm_when_it_thaws(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    running = await enqueue(node, "patient", str(door), count=5)
    with (
        fault_worker(node, heartbeat="1") as frozen,
        fault_worker(node, heartbeat="1") as other,
    ):
        await until(lambda: node.ledger.count("patient") == 5)
        await wait_for_count(node.broker.url, node.queue, consumers=2)
        frozen.stop()
        began = time.monotonic()
        # half of these are sent to the frozen one, which does not read them
        ids = await enqueue(node, "done", 1, count=60)
        await wait_for_count(node.broker.url, node.queue, consumers=1)
        await until(lambda: time.monotonic() - began > 3.5)
        await until(lambda: node.ledger.count("done") >= 60)
        door.touch()
        await until(
            lambda: {r.job_id for r in node.ledger.rows("patient-done")} == running
        )
        frozen.cont()
        await wait_for_count(node.broker.url, node.queue, consumers=2)
        more = await enqueue(node, "done", 2, count=60)
        await until(lambda: node.ledger.count("done") >= 120)
        await stop(frozen)
        await stop(other)
    assert "it is made anew" in frozen.output  # its link was taken from it
    assert "has been blocked" not in frozen.output  # no job is to blame
    done = [row.job_id for row in node.ledger.rows("done")]
    assert set(done) == ids | more
    twice = len(done) - len(ids | more)
    print(f"thawed: {twice} jobs that it had never begun ran twice")
    assert twice == 0
    # its own five ran to their end, and again where they were delivered anew
    assert 5 <= node.ledger.count("patient-done") <= 10
    await wait_for_count(node.broker.url, node.queue, ready=0)


async def test_a_worker_out_of_file_descriptors_says_so_and_waits(
    node: Node, proxy: Proxy, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    with fault_worker(node, url=proxy.url(node.broker)) as worker:
        (job_id,) = await enqueue(node, "use_up", str(door))
        await until(lambda: node.ledger.count("use-up") == 1)
        proxy.cut()
        await to_thread.run_sync(worker.wait_for, "Too many open files", 10)
        door.touch()
        ids = await enqueue(node, "done", 1, count=20)
        await until(lambda: node.ledger.count("done") == 20)
        await until(lambda: node.ledger.count("use-up-done") == 1)
        await stop(worker)
    assert proxy.cuts
    assert "Traceback" not in worker.output
    assert worker.output.count("Too many open files") < 10  # not a flood
    tries = node.ledger.tries()
    assert tries.pop(job_id) == [1, 1]  # begun and done, once
    assert tries == {each: [1] for each in ids}


async def test_a_task_that_blocks_the_loop_past_the_heartbeats_costs_no_job(
    node: Node,
) -> None:
    with fault_worker(node, heartbeat="1") as worker:
        (job_id,) = await enqueue(node, "block", 4.5)
        await until(lambda: node.ledger.count("block") == 1)
        await wait_for_count(node.broker.url, node.queue, consumers=0)
        ids = await enqueue(node, "done", 1, count=20)
        await until(lambda: node.ledger.count("done") == 20)
        await stop(worker)
    assert "it is made anew" in worker.output  # the broker had given it up
    # the watchdog has named the job, and the place where it blocked
    assert "the event loop has been blocked for" in worker.output
    assert job_id in worker.output
    assert "time.sleep(seconds)" in worker.output
    tries = node.ledger.tries()
    # acked when its redelivery came, or run once more at most
    assert tries.pop(job_id) in ([1, 1], [1, 1, 1, 1])
    assert tries == {each: [1] for each in ids}
    assert node.ledger.count("block-done") >= 1
    await wait_for_count(node.broker.url, node.queue, ready=0)


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
async def test_what_would_end_the_process_ends_only_the_job_that_raises_it(
    node: Node, tmp_path: Path, kind: str
) -> None:
    door = tmp_path / "door"
    with fault_worker(node, max_retries="0") as worker:
        innocent = await enqueue(node, "patient", str(door), count=3)
        await until(lambda: node.ledger.count("patient") == 3)
        for number, where in enumerate(WHERE, 1):
            await enqueue(node, "leave", kind, where)
            await until(
                lambda number=number: node.ledger.count("leave") == number, what=where
            )
        await enqueue(node, "done", 1)
        await until(lambda: node.ledger.count("done") == 1)
        letters = await dead_letters(node.broker.url, node.queue, 4)
        door.touch()
        await until(lambda: node.ledger.count("patient-done") == 3)
        await stop(worker)
    # what nobody awaits fails no job: those of `forgotten` and `callback` went well
    assert [each.headers["x-rmqarq-error"] for each in letters][:2] == [kind] * 2
    assert {each.headers["x-rmqarq-reason"] for each in letters} == {"retries used up"}
    assert node.ledger.count("leave") == len(WHERE)
    assert {row.job_id for row in node.ledger.rows("patient-done")} == innocent
    assert node.ledger.count("patient") == 3


@pytest.mark.parametrize("how", ["fork_async", "fork_thread"])
async def test_a_child_forked_by_a_task_has_links_of_its_own(
    node: Node, how: str
) -> None:
    with fault_worker(node) as worker:
        await enqueue(node, how, 1, count=3)
        await until(lambda: node.ledger.count("fork-done") == 3)
        # the jobs that the children enqueued, and some through the parent's link
        await enqueue(node, "done", 2, count=20)
        await until(lambda: node.ledger.count("done") == 23)
        await stop(worker)
    assert node.ledger.count("fork") == 3
    assert "it is made anew" not in worker.output  # the parent's link is unharmed
    assert "Traceback" not in worker.output
    await wait_for_count(node.broker.url, node.queue, ready=0)


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0], ids=["behind", "ahead"])
async def test_a_worker_whose_clock_jumps_runs_nothing_early_and_ends_nothing(
    node: Node, tmp_path: Path, ahead: float
) -> None:
    door = tmp_path / "door"
    async with make(node.broker.url, queue=node.queue) as app:
        with fault_worker(
            node, test_clock="0", job_timeout="60", publish_deadline="5"
        ) as worker:
            await app.tasks["jump"].enqueue(ahead, str(door))
            await until(lambda: node.ledger.count("patient") == 1)
            began = time.monotonic()
            flaky = await app.tasks["flaky"].enqueue(1)  # again after 1 s
            await until(lambda: node.ledger.count("flaky") == 2)
            waited = time.monotonic() - began
            assert 0.9 <= waited < 4
            began = time.monotonic()
            await app.tasks["done"].enqueue(1)
            if ahead > 0:  # for the other, see below
                await app.tasks["done"].defer(1.5, 2)
                await until(lambda: node.ledger.count("done") == 2)
                assert time.monotonic() - began >= 1.4
            else:
                await until(lambda: node.ledger.count("done") == 1)
            door.touch()
            await until(lambda: node.ledger.count("patient-done") == 1)
            await stop(worker)
    assert node.ledger.tries()[flaky.id] == [1, 2]
    assert node.ledger.count("jump") == 1
    assert "took longer" not in worker.output


async def test_a_worker_whose_clock_is_slow_puts_a_deferred_job_off_and_keeps_it(
    node: Node,
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        with fault_worker(node, test_clock="-2.5") as worker:
            began = time.monotonic()
            await app.tasks["done"].defer(0.5, 1)
            await until(lambda: node.ledger.count("done") == 1)
            waited = time.monotonic() - began
            await stop(worker)
    # its clock says that the job came early: late by what the clock is slow, not lost
    assert 2.0 <= waited < 6
    assert "is put off for" in worker.output
