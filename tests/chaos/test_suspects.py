"""Jobs that came back too often: how they get into the lane, and out of it.

Three workers die of a killer at most, nobody is dead but the killer, and returns alone,
however many, kill no job. What happens inside the isolated process is the matter of
`test_isolation.py`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.broker.kit import (
    channel_to,
    dead_letters,
    delete_queues,
    running,
    take_all,
    until,
    wait_for_count,
)
from tests.chaos.suspects import (
    KINDS,
    PATH,
    Lane,
    QueueType,
    children,
    cut_links,
    ended,
    move,
    return_in_order,
    said,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.proxy import Proxy
    from tests.harness.worker import WorkerProcess

RETURNS = 50


# --- killers ---


async def after_three_are_lost(lane: Lane, *flags: str) -> WorkerProcess:
    """Start workers until one ends well: three are killed before, and no more."""
    for _ in range(3):
        with lane.burst("-c", "10", *flags) as worker:
            assert await ended(worker, 60) == -signal.SIGKILL, worker.output
        await wait_for_count(lane.url, lane.queue, consumers=0)
    with lane.burst("-c", "10", *flags) as worker:
        assert await ended(worker, 60) == 0, worker.output
    return worker


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killer_among_good_jobs_costs_three_workers_and_no_other_job(
    lane: Lane, kind: QueueType
) -> None:
    lane.kind = kind
    calls = [("good", number) for number in range(99)]
    ids = await lane.enqueue(*calls[:30], ("killer",), *calls[30:])
    killer = ids.pop(30)
    worker = await after_three_are_lost(lane, "-p", "10")
    ran = Counter(each["job"] for each in lane.notes("good"))
    assert ran.keys() == set(ids)
    runs = lane.pids("killer")
    # twice alone, and perhaps each time once before in a process that has run another
    assert len(runs) == len(set(runs))
    assert 3 + 2 <= len(runs) <= 3 + 4
    assert worker.pid not in runs
    (letter,) = await dead_letters(lane.url, lane.queue, 1)
    assert letter.properties.correlation_id == killer
    assert letter.headers["x-rmqarq-reason"] == "crashed"
    assert letter.headers["x-rmqarq-queue"] == lane.queue
    assert letter.headers["x-rmqarq-error"] == "Crashed"
    assert letter.headers["x-rmqarq-message"] == "killed by SIGKILL"
    assert letter.headers["x-rmqarq-attempts"] == 1
    assert f"killer {killer} came back unfinished 3 times" in worker.output
    assert "ended its isolated process (killed by SIGKILL)" in worker.output
    await lane.empty()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killer_in_a_chunk_costs_three_workers_and_no_other_row(
    lane: Lane, kind: QueueType
) -> None:
    lane.kind = kind
    async with lane.app() as app:
        rows = [number == 30 for number in range(100)]
        await app.tasks["row"].map(rows, chunk=100)
    worker = await after_three_are_lost(lane)
    notes = lane.notes("row")
    assert len({each["job"] for each in notes}) == 100
    assert len({each["job"] for each in notes if each["pid"] != worker.pid}) == 100
    (letter,) = await dead_letters(lane.url, lane.queue, 1)
    (deadly,) = {each["job"] for each in notes if each["deadly"]}
    assert letter.properties.correlation_id == deadly
    assert letter.headers["x-rmqarq-reason"] == "crashed"
    assert "a chunk of 100, came back unfinished 3 times" in worker.output
    await lane.empty()


async def test_a_dead_letter_says_how_the_process_has_died(lane: Lane) -> None:
    deaths = {
        ("leaver", 7): "ended with exit code 7",
        ("segfault",): "killed by SIGSEGV",
    }
    ids = await lane.suspect(*deaths)
    async with lane.embedded() as worker:
        await until(lambda: worker.stats.dead_lettered == len(deaths), timeout=40)
    letters = await dead_letters(lane.url, lane.queue, len(deaths))
    said = {
        each.properties.correlation_id: each.headers["x-rmqarq-message"]
        for each in letters
    }
    assert said == dict(zip(ids, deaths.values(), strict=True))
    assert {each.headers["x-rmqarq-reason"] for each in letters} == {"crashed"}
    assert worker.stats.crashed == 2 * len(deaths)
    assert worker.stats.failed == len(deaths)
    assert len(set(lane.pids("leaver", "segfault"))) == 4


# --- returns ---


async def test_returned_a_hundred_times_in_either_queue_a_job_still_runs(
    lane: Lane, proxy: Proxy
) -> None:
    through = proxy.url(lane.broker)
    (job,) = await lane.enqueue(("good", 1))
    await return_in_order(lane.url, lane.queue, RETURNS)
    await cut_links(through, lane.queue, RETURNS, proxy)
    async with lane.embedded("nowhere:app") as worker:  # to the lane, and no further
        await wait_for_count(lane.url, lane.queue, ready=0)
        await until(lambda: worker.stats.suspected == 1)
    assert lane.notes("good") == []
    await return_in_order(lane.url, lane.name, RETURNS)
    await cut_links(through, lane.name, RETURNS, proxy)
    with lane.burst() as burst:
        assert await ended(burst) == 0, burst.output
    (ran,) = lane.notes("good")
    assert (ran["job"], ran["try"]) == (job, 1)
    assert ran["pid"] != burst.pid
    assert await take_all(lane.url, f"{lane.queue}_dlq") == []
    await lane.empty()


@pytest.mark.parametrize("suspect", [False, True], ids=["queue", "lane"])
async def test_returned_a_hundred_times_a_job_of_a_classic_queue_still_runs(
    lane: Lane, proxy: Proxy, *, suspect: bool
) -> None:
    lane.kind = "classic"
    put = lane.suspect if suspect else lane.enqueue
    name = lane.name if suspect else lane.queue
    (job,) = await put(("good", 1))
    await return_in_order(lane.url, name, RETURNS)
    await cut_links(proxy.url(lane.broker), name, RETURNS, proxy)
    async with lane.embedded() as worker:
        await until(lambda: worker.stats.completed == 1)
    (ran,) = lane.notes("good")
    assert (ran["job"], ran["try"]) == (job, 1)
    assert worker.stats.suspected == 0  # a classic queue tells of one return
    assert await take_all(lane.url, f"{lane.queue}_dlq") == []
    await lane.empty()


async def test_jobs_that_stopping_workers_give_back_unrun_end_as_innocents(
    lane: Lane, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    ids = await lane.enqueue(("patient", str(door)), ("patient", str(door)))
    for round_ in range(1, 5):
        with lane.worker("-c", "1", "-p", "2", "--shutdown-grace", "0") as worker:
            await until(lambda n=round_: len(lane.notes("patient")) >= n)
            # the other waits for the slot, or in the lane
            await wait_for_count(lane.url, lane.queue, ready=0)
            worker.terminate()
            assert await ended(worker) == 0, worker.output
    assert len(lane.notes("patient")) == 4
    door.touch()
    with lane.burst() as worker:
        assert await ended(worker) == 0, worker.output
    assert {each["job"] for each in lane.notes("patient-done")} == set(ids)
    assert {each["try"] for each in lane.notes("patient")} == {1}
    assert worker.pid not in lane.pids("patient-done")
    assert await take_all(lane.url, f"{lane.queue}_dlq") == []
    await lane.empty()


async def test_a_classic_queue_counts_returns_before_the_job_runs_again(
    lane: Lane,
) -> None:
    lane.kind = "classic"
    (job,) = await lane.enqueue(("killer",))
    for round_ in (1, 2):
        with lane.worker() as worker:
            assert await ended(worker) == -signal.SIGKILL, worker.output
        assert len(lane.notes("killer")) == round_
        await wait_for_count(lane.url, lane.queue, ready=1)
    async with channel_to(lane.url) as channel:
        aside = f"{lane.queue}_dlq"
        await move(channel, lane.queue, aside)
    (letter,) = await take_all(lane.url, aside)
    assert letter.headers["x-rmqarq-returns"] == 1  # and the last one is not written
    assert letter.properties.correlation_id == job


# --- in the lane, but not to be run ---


async def test_an_expired_suspect_is_a_dead_letter_of_its_home_queue(
    lane: Lane,
) -> None:
    async with lane.app() as app:
        late = app.tasks["good"].options(expires=0.01)
        await late.enqueue(1)
        async with channel_to(lane.url) as channel:
            await move(channel, lane.queue, lane.name)
    async with lane.embedded():
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "expired"
    assert letter.headers["x-rmqarq-queue"] == lane.queue
    assert lane.notes("good") == []


async def test_a_suspect_of_an_unknown_task_comes_back_into_the_lane(
    lane: Lane,
) -> None:
    async with lane.app() as app:
        await app.ref("of tomorrow").enqueue()
        async with channel_to(lane.url) as channel:
            await move(channel, lane.queue, lane.name)
    async with lane.embedded(unknown_task_wait=2.5) as worker:
        await until(lambda: worker.stats.deferred == 2)
        (letter,) = await dead_letters(lane.url, lane.queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "unknown task"
    assert letter.headers["x-rmqarq-queue"] == lane.queue
    assert worker.stats.suspected == 0
    async with channel_to(lane.url) as channel:  # it never was in the main queue
        found = await channel.queue_declare(lane.queue, passive=True)
        assert found.message_count == 0


async def test_an_early_suspect_waits_and_comes_back_into_the_lane(
    lane: Lane,
) -> None:
    await lane.enqueue(("good", 1))
    (letter,) = await take_all(lane.url, lane.queue)
    body = json.loads(letter.body) | {"eta": time.time() + 3}
    async with channel_to(lane.url) as channel:
        await channel.basic_publish(
            json.dumps(body).encode(),
            routing_key=lane.name,
            properties=letter.properties,
        )
    async with lane.embedded() as worker:
        await until(lambda: worker.stats.deferred == 1)
        await until(lambda: worker.stats.completed == 1)
    (ran,) = lane.notes("good")
    assert ran["at"] >= body["eta"]
    assert ran["pid"] not in (os.getpid(), *children())


# --- workers that can't isolate ---


async def test_without_a_path_suspects_run_in_the_worker_and_it_says_so_once(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    await lane.suspect(("good", 1), ("good", 2), ("good", 3))
    async with lane.embedded(None) as worker:
        await until(lambda: worker.stats.completed == 3)
    assert set(lane.pids("good")) == set(lane.pids("lifespan"))
    assert caplog.text.count("suspects run in this process") == 1


async def test_with_a_wrong_path_suspects_wait_and_other_jobs_run(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    (suspect,) = await lane.suspect(("good", 1))
    async with lane.embedded("nowhere:app", shutdown_grace=0) as worker:
        await until(lambda: worker.stats.returned >= 1)
        await lane.enqueue(*[("good", number) for number in range(20)])
        await until(lambda: worker.stats.completed == 20)
        tries = caplog.text.count("the isolated process can't be started")
    assert 1 <= tries <= 3  # with longer and longer pauses, not in a hot loop
    assert "suspects have to wait: there is no module 'nowhere'" in caplog.text
    assert suspect not in {each["job"] for each in lane.notes("good")}
    await wait_for_count(lane.url, lane.name, ready=1)
    assert worker.stats.crashed == worker.stats.dead_lettered == 0
    with lane.burst() as burst:
        assert await ended(burst) == 0, burst.output
    assert lane.notes("good")[-1]["job"] == suspect


async def test_a_task_that_only_the_worker_knows_is_not_taken_for_a_crash(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    async def local() -> None: ...

    app = lane.app(shutdown_grace=0.0)
    app.task(local)
    async with app:
        await app.tasks["local"].enqueue()
        async with channel_to(lane.url) as channel:
            await move(channel, lane.queue, lane.name)
    async with running(app, path=PATH) as worker:
        await until(lambda: worker.stats.deferred == 1)
    assert "does not know local; its suspects have to wait" in caplog.text
    assert worker.stats.crashed == worker.stats.dead_lettered == 0
    assert worker.stats.returned == 0  # at the head of the lane it would block others


async def test_a_lane_deleted_under_a_running_suspect_is_made_anew(
    lane: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = tmp_path / "door"
    aside = f"{lane.queue}_dlq"
    await lane.suspect(("patient", str(door)), ("good", 2))
    async with channel_to(lane.url) as channel:
        await move(channel, lane.name, lane.queue)
        await move(channel, lane.name, aside)
        await move(channel, lane.queue, lane.name)
    async with lane.embedded() as worker:
        await until(lambda: lane.notes("patient"))
        await delete_queues(lane.url, [lane.name])
        await wait_for_count(lane.url, lane.name, consumers=1)
        door.touch()
        await until(lambda: worker.stats.completed == 1)
        async with channel_to(lane.url) as channel:
            await move(channel, aside, lane.name)
        await until(lambda: worker.stats.completed == 2)
    assert len(lane.notes("patient")) == 1
    assert "the broker cancelled the consumer" in caplog.text
    await lane.empty()


async def test_many_suspects_share_one_process_one_at_a_time(lane: Lane) -> None:
    calls = [("good", number) for number in range(200)]
    await lane.suspect(*calls)
    with lane.burst() as worker:
        assert await ended(worker, 50) == 0, worker.output
        await said(worker, "200 completed")
    rows = lane.notes("good")
    assert sorted(each["number"] for each in rows) == list(range(200))
    assert len({each["pid"] for each in rows}) == 1
    ends = lane.notes("job-end")
    for begun, end in zip(rows[1:], ends[:-1], strict=True):
        assert end["at"] <= begun["at"]
    seconds = ends[-1]["at"] - rows[0]["at"]
    assert seconds < 10, f"{200 / seconds:.0f} jobs/s"
