"""A worker that stops, in order or not: nothing is lost, no attempt is spent."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from tests.broker.apps.ledger_app import make
from tests.broker.kit import until, wait_for_count

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.kit import Node
    from tests.harness.worker import WorkerProcess


async def wait(worker: WorkerProcess, timeout: float = 20) -> int:
    return await to_thread.run_sync(worker.wait, timeout)


async def wait_for(worker: WorkerProcess, text: str, timeout: float = 10) -> None:
    await to_thread.run_sync(worker.wait_for, text, timeout)


async def enqueue(node: Node, task: str, *args: object, count: int = 1) -> set[str]:
    async with make(node.broker.url, queue=node.queue) as app:
        specs = [app.tasks[task].job(*args) for _ in range(count)]
        return {job.id for job in await app.enqueue_many(specs)}


async def run_the_rest(node: Node, *flags: str) -> None:
    with node.worker("--burst", "--burst-check-interval", "0.2", *flags) as worker:
        assert await wait(worker) == 0, worker.output


def farewell(worker: WorkerProcess) -> dict[str, int]:
    """Read the counters in the last line of a worker."""
    last = worker.output.splitlines()[-1]
    return {name: int(number) for number, name in re.findall(r"(\d+) ([a-z-]+)", last)}


async def test_sigterm_lets_running_jobs_end_and_leaves_the_rest_to_others(
    node: Node,
) -> None:
    ids = await enqueue(node, "slow", 1.0, count=200)
    with node.worker("-c", "50") as worker:
        await until(lambda: node.ledger.count("slow") >= 50)
        worker.terminate()
        began = time.monotonic()
        code = await wait(worker)
        took = time.monotonic() - began
    assert code == 0, worker.output
    assert took < 3, worker.output
    done = node.ledger.count("slow-done")
    assert done == node.ledger.count("slow") >= 50
    said = farewell(worker)
    assert said["completed"] == done
    assert said["pending"] == 200 - done
    assert "received SIGTERM, stopping" in worker.output
    assert "SIGTERM ◆" in worker.output.splitlines()[-1]
    await run_the_rest(node, "-c", "200")
    for kind in ("slow", "slow-done"):
        rows = node.ledger.rows(kind)
        assert sorted(row.job_id for row in rows) == sorted(ids)
        assert {row.job_try for row in rows} == {1}


async def test_a_job_longer_than_the_grace_is_given_back_and_runs_elsewhere(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    (job_id,) = await enqueue(node, "patient", str(door))
    with node.worker("--shutdown-grace", "0.5") as worker:
        await until(lambda: node.ledger.count("patient"))
        worker.terminate()
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
        assert 0.5 <= time.monotonic() - began < 2.5, worker.output
    assert farewell(worker)["returned"] == 1
    door.touch()
    await run_the_rest(node)
    assert node.ledger.tries() == {job_id: [1, 1, 1]}
    assert node.ledger.count("patient-done") == 1


async def test_restarts_never_count_as_attempts_however_many(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    async with make(node.broker.url, queue=node.queue) as app:
        await app.tasks["patient"].options(max_retries=0).enqueue(str(door))
    for restart in range(1, 5):
        with node.worker("--shutdown-grace", "0") as worker:
            await until(lambda count=restart: node.ledger.count("patient") == count)
            worker.terminate()
            assert await wait(worker) == 0, worker.output
    door.touch()
    await run_the_rest(node)
    assert node.ledger.count("patient-done") == 1
    assert {row.job_try for row in node.ledger.rows()} == {1}


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=["SIGTERM", "SIGINT"],
)
async def test_a_second_signal_ends_the_worker_at_once(
    node: Node, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    door = tmp_path / "door"
    (job_id,) = await enqueue(node, "patient", str(door))
    with node.worker() as worker:
        await until(lambda: node.ledger.count("patient"))
        worker.process.send_signal(number)
        await wait_for(worker, f"received {number.name}, stopping")
        worker.process.send_signal(number)
        began = time.monotonic()
        assert await wait(worker, 5) == code, worker.output
        assert time.monotonic() - began < 1.5, worker.output
    assert f"received {number.name} again" in worker.output
    door.touch()
    await run_the_rest(node)
    assert node.ledger.tries() == {job_id: [1, 1, 1]}


@pytest.mark.parametrize("kind", ["stubborn", "stubborn_thread"])
async def test_a_job_that_ignores_its_cancellation_is_left_behind_and_given_back(
    node: Node, kind: str
) -> None:
    (job_id,) = await enqueue(node, kind, 30.0)
    with node.worker("--shutdown-grace", "0.3", cancel_grace="0.5") as worker:
        await until(lambda: node.ledger.rows())
        worker.terminate()
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
        assert time.monotonic() - began < 3, worker.output
    assert farewell(worker)["returned"] == 1
    assert {row.job_id for row in node.ledger.rows()} == {job_id}
    if kind == "stubborn":
        assert f"stubborn {job_id} ignores its cancellation" in worker.output
        assert "ledger_app.py" in worker.output
        assert node.ledger.count("stubborn-cancelled") == 1  # once, not in a loop
    await wait_for_count(node.broker.url, node.queue, ready=1)


def _running(node: Node) -> int:
    return node.ledger.count("slow") - node.ledger.count("slow-done")


async def test_jobs_of_a_killed_worker_run_again_and_none_is_lost(
    node: Node,
) -> None:
    ids = await enqueue(node, "slow", 0.3, count=60)
    with node.worker("-c", "20") as worker:
        await until(lambda: node.ledger.count("slow-done") >= 10)
        await until(lambda: _running(node) >= 15)  # the next ones have just begun
        worker.kill()
        assert await wait(worker) == -signal.SIGKILL
    assert node.ledger.count("slow-done") < 60
    await wait_for_count(node.broker.url, node.queue, consumers=0)
    await run_the_rest(node, "-c", "60")
    assert {row.job_id for row in node.ledger.rows("slow-done")} == ids
    assert {row.job_try for row in node.ledger.rows()} == {1}
    assert 1 <= _running(node) <= 20  # these were cut short
    assert node.ledger.count("slow-done") - 60 <= 20  # done, but not acked yet


async def test_a_worker_stops_after_max_jobs_and_keeps_no_other_job(
    node: Node,
) -> None:
    ids = await enqueue(node, "done", 1, count=20)
    with node.worker("--max-jobs", "5") as worker:
        assert await wait(worker) == 0, worker.output
    assert node.ledger.count("done") == 5
    assert "enough jobs ◆ 5 completed" in worker.output
    assert farewell(worker)["pending"] == 15
    await run_the_rest(node)
    assert node.ledger.tries() == {job_id: [1] for job_id in ids}


async def test_a_signal_during_the_start_is_not_lost(node: Node) -> None:
    with node.worker(url="amqp://guest:guest@127.0.0.1:1/") as worker:
        await wait_for(worker, "attempt 1")
        worker.terminate()
        assert await wait(worker, 5) == 0, worker.output
    assert "SIGTERM ◆ 0 completed" in worker.output


async def test_an_idle_worker_stops_within_a_second(node: Node) -> None:
    with node.worker() as worker:
        await wait_for(worker, "worker started")
        await wait_for_count(node.broker.url, node.queue, consumers=1)
        worker.terminate()
        began = time.monotonic()
        assert await wait(worker, 5) == 0, worker.output
    assert time.monotonic() - began < 1, worker.output
