"""Inside the isolated process: what a job finds there, how it ends, what it can't do.

The suspects are put into their lane at once; how they get there is the matter of
`test_suspects.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.broker.kit import dead_letters, take_all, until, wait_for_count
from tests.chaos.suspects import Lane, children, ended, lives, said

if TYPE_CHECKING:
    from tests.harness.proxy import Proxy
    from tests.harness.worker import WorkerProcess

LONG = ["sleeper", "thread", "swallower", "blocker", "hog"]


def handles() -> list[str]:
    """Give what this process holds open, sorted."""
    found: list[str] = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()).partition(":")[0])
        except OSError:  # the handle of this very look
            continue
    return sorted(found)


# --- what a job finds ---


async def test_a_suspect_finds_everything_as_in_a_worker(lane: Lane) -> None:
    await lane.suspect(("inspect", 5))
    with lane.burst() as worker:
        assert await ended(worker) == 0, worker.output
    (seen,) = lane.notes("inspect")
    assert seen["queue"] == lane.queue
    assert seen["redelivered"] is True
    assert seen["state"] == "made by the lifespan"
    theirs = [each["kind"] for each in lane.notes() if each["pid"] == seen["pid"]]
    assert theirs == [
        *("lifespan", "startup", "job-start", "middleware", "inspect"),
        *("job-end", "shutdown", "lifespan-end"),
    ]
    # what it has enqueued is a job like any other
    assert worker.pid != seen["pid"]
    assert lane.pids("good") == [worker.pid]
    assert "2 completed" in worker.output
    await lane.empty()


async def test_a_process_of_a_supervisor_isolates_as_a_worker_does(lane: Lane) -> None:
    await lane.suspect(("inspect", 5), ("killer",))
    with lane.burst("--processes", "2") as worker:
        assert await ended(worker, 40) == 0, worker.output
    (seen,) = lane.notes("inspect")
    (good,) = lane.pids("good")
    assert len({worker.pid, seen["pid"], good}) == 3
    (letter,) = await dead_letters(lane.url, lane.queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "crashed"
    assert "2 completed ◆ 1 failed" in worker.output.splitlines()[-1]
    # what a suspect logs names the process that it was isolated by
    assert re.search(r"\[[12]\] \[inspect [^]]*\] looked around", worker.output)
    await lane.empty()


async def test_the_retries_of_a_suspect_stay_in_isolation(lane: Lane) -> None:
    (job,) = await lane.suspect(("again", 1))
    async with lane.embedded(retry_backoff=0.05) as worker:
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
    rows = lane.notes("again")
    assert [(each["job"], each["try"]) for each in rows] == [
        (job, attempt) for attempt in (1, 2, 3)
    ]
    assert len({each["pid"] for each in rows}) == 1
    assert rows[0]["pid"] != os.getpid()
    assert worker.stats.retried == 2
    assert letter.headers["x-rmqarq-reason"] == "retries used up"
    assert letter.headers["x-rmqarq-queue"] == lane.queue
    assert letter.headers["x-rmqarq-attempts"] == 3
    assert letter.headers["x-rmqarq-error"] == "LookupError"
    assert "LookupError: not to be found" in letter.headers["x-rmqarq-traceback"]


async def test_a_retry_does_not_wash_off_a_crash(lane: Lane, tmp_path: Path) -> None:
    await lane.suspect(("crash_fail_crash", str(tmp_path / "marker")))
    async with lane.embedded(retry_backoff=0.05) as worker:
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
    runs = [each["try"] for each in lane.notes("crash_fail_crash")]
    assert runs in ([1, 1, 2], [1, 1, 2, 2])  # the last perhaps in a used process first
    assert letter.headers["x-rmqarq-reason"] == "crashed"
    assert letter.headers["x-rmqarq-message"] == "ended with exit code 9"
    assert letter.headers["x-rmqarq-attempts"] == 2
    assert worker.stats.crashed == 2


async def test_an_error_of_odd_letters_is_no_crash(lane: Lane) -> None:
    await lane.suspect(("rejects",))
    async with lane.embedded() as worker:
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "rejected"
    assert letter.headers["x-rmqarq-message"] == r"a name of foreign bytes: \udc80"
    assert worker.stats.crashed == 0


async def test_sys_exit_in_a_sub_task_fails_its_job_as_in_a_worker(
    lane: Lane,
) -> None:
    await lane.suspect(("subtask_exits", 3), ("innocent",))
    async with lane.embedded(max_retries=0) as worker:
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
        await until(lambda: worker.stats.completed == 1)
    assert letter.headers["x-rmqarq-reason"] == "retries used up"
    assert letter.headers["x-rmqarq-error"] == "SystemExit"
    assert lane.pids("subtask_exits") == lane.pids("innocent")
    assert worker.stats.crashed == 0


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
async def test_large_and_packed_bodies_arrive(lane: Lane, serializer: str) -> None:
    sizes = [0, 1, 70_000, 1_000_000]
    calls = [("size", "x" * each) for each in sizes]
    await lane.suspect(*calls, serializer=serializer)
    await lane.suspect(*calls, serializer=serializer, compression=True)
    async with lane.embedded() as worker:
        await until(lambda: worker.stats.completed == 8)
    assert [each["size"] for each in lane.notes("size")] == sizes * 2
    assert os.getpid() not in lane.pids("size")


# --- too long ---


async def test_a_suspect_that_takes_too_long_really_ends_and_has_not_crashed(
    lane: Lane,
) -> None:
    await lane.suspect(*[(each,) for task in LONG for each in (task, "innocent")])
    async with lane.embedded(
        job_timeout=0.4, cancel_grace=0.4, max_retries=0
    ) as worker:
        letters = await dead_letters(lane.url, lane.queue, len(LONG))
        await until(lambda: worker.stats.completed == len(LONG))
        pids = lane.pids("begun")
        await until(lambda: not any(map(lives, pids)), 2)
        assert lives(lane.pids("innocent")[-1])
    # nobody works where somebody may still be at work
    innocent = lane.pids("innocent")
    assert len(set(pids)) == len(set(innocent)) == len(LONG)
    assert pids[1:] == innocent[:-1]
    assert {each.headers["x-rmqarq-reason"] for each in letters} == {"retries used up"}
    assert {each.headers["x-rmqarq-error"] for each in letters} == {"TimeoutError"}
    assert worker.stats.crashed == worker.stats.stuck == 0
    (cancelled,) = lane.notes("cancelled")
    assert cancelled["job"] == lane.notes("begun")[0]["job"]
    assert children() == []


async def test_a_process_that_dies_of_a_cancellation_counts_as_a_timeout(
    lane: Lane,
) -> None:
    await lane.suspect(("dies_of_cancellation",))
    async with lane.embedded(
        job_timeout=0.3, max_retries=1, retry_backoff=0.05
    ) as worker:
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
    assert [each["try"] for each in lane.notes("begun")] == [1, 2]
    assert letter.headers["x-rmqarq-reason"] == "retries used up"
    assert letter.headers["x-rmqarq-error"] == "TimeoutError"
    assert worker.stats.crashed == 0


async def test_ends_just_at_the_timeout_lose_no_job_and_count_no_crash(
    lane: Lane,
) -> None:
    # the sweeper looks every 0.1 s, from when a job began: some end just then
    calls = [("punctual", 0.28 + number * 0.02) for number in range(8)]
    ids = await lane.suspect(*calls)
    async with lane.embedded(job_timeout=0.3, max_retries=0, cancel_grace=1) as worker:
        await until(
            lambda: worker.stats.completed + worker.stats.dead_lettered == 8, 40
        )
    dead = await take_all(lane.url, f"{lane.queue}_dlq")
    late = {each.properties.correlation_id for each in dead}
    done = {each["job"] for each in lane.notes("punctual-done")}
    assert late | done == set(ids)
    assert worker.stats.crashed == 0
    assert {each.headers["x-rmqarq-error"] for each in dead} <= {"TimeoutError"}
    assert len(lane.notes("punctual")) == 8
    await lane.empty()


# --- innocents ---


async def test_an_innocent_does_not_pay_for_what_another_job_left_behind(
    lane: Lane,
) -> None:
    _, innocent = await lane.suspect(("bomb", 0.5), ("punctual", 1.5))
    async with lane.embedded() as worker:
        await until(lambda: worker.stats.completed == 2)
    first, second = lane.notes("punctual")  # it died once, and ran again
    assert first["job"] == second["job"] == innocent
    assert lane.pids("bomb") == [first["pid"]]
    assert lane.pids("punctual-done") == [second["pid"]]
    assert worker.stats.crashed == 0
    assert worker.stats.dead_lettered == 0
    await lane.empty()


async def test_a_process_that_died_between_two_jobs_is_replaced(lane: Lane) -> None:
    await lane.suspect(("bomb", 0.2))
    async with lane.embedded() as worker:
        await until(lambda: worker.stats.completed == 1)
        await until(lambda: not lives(lane.pids("bomb")[0]))
        await lane.suspect_later(("good", 1))
        await until(lambda: worker.stats.completed == 2)
    assert lane.pids("good") != lane.pids("bomb")
    assert worker.stats.crashed == 0
    assert children() == []


async def test_a_running_suspect_survives_the_loss_of_the_link(
    lane: Lane, proxy: Proxy, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    await lane.suspect(("patient", str(door)))
    async with lane.embedded(url=proxy.url(lane.broker)) as worker:
        await until(lambda: lane.notes("patient"))
        for cut in range(1, 4):
            proxy.cut()
            await until(lambda n=cut: worker.stats.duplicates == n)
        door.touch()
        await until(lambda: worker.stats.completed == 1)
    assert worker.stats.reconnects >= 3
    assert len(lane.notes("patient")) == len(lane.notes("patient-done")) == 1
    await lane.empty()


# --- the end of the worker ---


async def begun(lane: Lane, worker: WorkerProcess, kind: str = "begun") -> int:
    """Wait until a suspect runs; gives its process."""
    await until(lambda: lane.notes(kind), what=worker.output)
    pid = lane.pids(kind)[-1]
    assert pid != worker.pid
    assert pid in children(worker.pid)
    return pid


@pytest.mark.parametrize(
    ("number", "whole"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    ids=["SIGTERM to the worker", "SIGTERM to the group", "SIGINT to the group"],
)
async def test_a_stopping_worker_gives_a_running_suspect_back(
    lane: Lane, tmp_path: Path, number: signal.Signals, *, whole: bool
) -> None:
    (job,) = await lane.suspect(("patient", str(tmp_path / "door")))
    with lane.worker("--shutdown-grace", "0.3") as worker:
        pid = await begun(lane, worker, "patient")
        (os.killpg if whole else os.kill)(worker.pid, number)
        assert await ended(worker, 5) == 0, worker.output
        assert not lives(pid)
    assert "1 returned ◆ 1 pending" in worker.output
    assert "Traceback" not in worker.output
    kinds = [each["kind"] for each in lane.notes() if each["pid"] == pid]
    assert kinds[-3:] == ["job-end", "shutdown", "lifespan-end"]
    (letter,) = await take_all(lane.url, lane.name)
    assert letter.properties.correlation_id == job
    assert b'"try"' not in letter.body  # the first attempt, as it was


async def test_a_stopping_worker_waits_for_a_suspect_within_the_grace(
    lane: Lane, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    await lane.suspect(("patient", str(door)))
    with lane.worker() as worker:
        pid = await begun(lane, worker, "patient")
        os.killpg(worker.pid, signal.SIGTERM)
        await said(worker, "stopping")
        door.touch()
        assert await ended(worker, 5) == 0, worker.output
        assert not lives(pid)
    assert "1 completed" in worker.output
    await lane.empty()


async def test_a_second_signal_ends_the_worker_and_the_suspect_at_once(
    lane: Lane,
) -> None:
    await lane.suspect(("hog",))
    with lane.worker() as worker:
        pid = await begun(lane, worker)
        worker.terminate()
        await said(worker, "received SIGTERM, stopping")
        worker.terminate()
        began = time.monotonic()
        assert await ended(worker, 5) == 128 + signal.SIGTERM, worker.output
        await until(lambda: not lives(pid), 1)
        assert time.monotonic() - began < 2
    await wait_for_count(lane.url, lane.name, ready=1)


@pytest.mark.parametrize("task", ["blocker", "hog"])
async def test_a_suspect_does_not_outlive_a_killed_worker(
    lane: Lane, task: str
) -> None:
    await lane.suspect((task,))
    with lane.worker() as worker:
        pid = await begun(lane, worker)
        worker.kill()
        assert await ended(worker) == -signal.SIGKILL
        await until(lambda: not lives(pid), 2)
    await wait_for_count(lane.url, lane.name, ready=1)


async def test_a_suspect_ends_though_a_copy_of_the_killed_worker_lives_on(
    lane: Lane, tmp_path: Path
) -> None:
    await lane.suspect(("patient", str(tmp_path / "door")))
    with lane.worker() as worker:
        pid = await begun(lane, worker, "patient")
        await lane.enqueue(("forks", 20.0))
        await until(lambda: lane.notes("forks"))
        copy = lane.notes("forks")[0]["copy"]
        worker.kill()
        assert await ended(worker) == -signal.SIGKILL
        await until(lambda: not lives(pid), 2)
        assert lives(copy)  # and holds the worker's end of the socket


async def test_a_suspect_cancelled_before_it_began_never_begins(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMQARQ_TEST_SLOW_END", "1")  # holds up the next one in there
    await lane.suspect(("innocent",), ("sleeper",))
    async with lane.embedded(shutdown_grace=0.0) as worker:
        await until(lambda: worker.stats.completed == 1)
        await wait_for_count(lane.url, lane.name, ready=0)
    assert worker.stats.returned == 1
    assert [each["kind"] for each in lane.notes("innocent", "begun")] == ["innocent"]
    (pid,) = lane.pids("innocent")
    last = [each["kind"] for each in lane.notes() if each["pid"] == pid][-2:]
    assert last == ["shutdown", "lifespan-end"]  # in order: nobody had to kill it
    await wait_for_count(lane.url, lane.name, ready=1)


async def test_a_worker_may_be_stopped_while_the_process_starts(lane: Lane) -> None:
    for number, patience in enumerate((0.0, 0.1, 0.2, 0.4), 1):
        await lane.suspect(("good", number))  # the one before may be done
        async with lane.embedded(shutdown_grace=0.0) as worker:
            await until(children)
            await asyncio.sleep(patience)  # to another moment of its start
        assert children() == []
        assert worker.stats.crashed == worker.stats.dead_lettered == 0
    async with lane.embedded():
        await lane.empty()
        numbers = {1, 2, 3, 4}
        await until(lambda: {n["number"] for n in lane.notes("good")} == numbers)
    assert {each["try"] for each in lane.notes("good")} == {1}
    await lane.empty()


async def test_an_embedded_worker_leaves_no_process_handle_or_thread_behind(
    lane: Lane,
) -> None:
    async def once(number: int) -> None:
        await lane.suspect(("bomb", 0.05), ("punctual", 0.2))
        async with lane.embedded() as worker:
            await until(lambda: worker.stats.completed == 2)
        assert len(lane.notes("punctual")) == 2 * number  # one process has died
        assert children() == []

    await once(1)
    before, threads = handles(), threading.active_count()
    for number in range(2, 5):
        await once(number)
    assert handles() == before
    assert threading.active_count() == threads
