"""A worker killed at the worst moments: its jobs run elsewhere, none is lost.

After each death another worker finishes the queue. The ledger tells what ran how
often: only the job that stood at the point may run twice.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import pytest
from anyio import to_thread

from tests.broker.kit import (
    Ledger,
    channel_to,
    delete_queues,
    running,
    take_all,
    until,
    wait_for_count,
)
from tests.chaos.apps.crash_app import POINTS, make
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rmqarq import App
    from tests.harness.broker import Broker

QueueType: TypeAlias = Literal["quorum", "classic"]
Runs: TypeAlias = dict[str, tuple[int, ...]]
KINDS: tuple[QueueType, ...] = ("quorum", "classic")
ROOT = Path(__file__).parents[2]
FILLERS = 8


class Expected(NamedTuple):
    """What may be in the ledger and the dead-letter queue when all is done.

    Args:
        task: Which task stands at the point.
        runs: Of each kind of line, the counts that are right.
        tries: The attempts that were started.
        letters: How many dead letters there are.
    """

    task: str
    runs: Runs
    tries: list[int]
    letters: int = 0


AT_WORK = {
    "before the start": Expected("good", {"good": (1,)}, [1]),
    "mid task": Expected("middle", {"middle": (2,), "middle-done": (1,)}, [1, 1]),
    "done, not acked": Expected("good", {"good": (2,)}, [1, 1]),
    # the delivery and the retry both go on: each attempt runs twice, not once
    "retry confirmed, not acked": Expected(
        "fails_once", {"fails_once": (4,), "fails_once-done": (2,)}, [1, 1, 2, 2]
    ),
    # a second letter of the same job is the price for losing none
    "dead letter confirmed, not acked": Expected(
        "reject", {"reject": (2,)}, [1, 1], letters=2
    ),
}
# what came back is sent on before it runs: to be counted, or as a suspect
CAME_BACK = "sent on, not acked"
RETURNS: dict[QueueType, int] = {"classic": 1, "quorum": 3}
AT_THE_END: dict[str, Runs] = {
    "stopping, consumers cancelled": {"lasting": (2,), "lasting-done": (1,)},
    # its ack is on the way; quorum queues lose some of those when a channel dies
    "stopping, the rest given back": {"lasting": (1, 2), "lasting-done": (1, 2)},
    "stopping, acks on the way": {"lasting": (1, 2), "lasting-done": (1, 2)},
}


class Scene:
    """One queue, a worker that dies at a point, and another that does not."""

    def __init__(self, url: str, queue: str, kind: QueueType, ledger: Ledger) -> None:
        self.url = url
        self.queue = f"{queue}-{kind}"
        self.kind: QueueType = kind
        self.ledger = ledger
        self.marker = ledger.path.with_name(f"{kind}-has-died")
        self.job_id = ""
        self.fillers: set[str] = set()

    def app(self) -> App:
        return make(self.url, queue=self.queue, queue_type=self.kind)

    def doomed(self, point: str) -> WorkerProcess:
        """Make the worker that dies: it runs one job, and holds all others."""
        return WorkerProcess(
            "tests.chaos.apps.crash_app:app",
            ["-c", "1", "-p", "100"],
            cwd=ROOT,
            env={
                "RMQARQ_URL": self.url,
                "RMQARQ_QUEUE": self.queue,
                "RMQARQ_QUEUE_TYPE": self.kind,
                "RMQARQ_TEST_LEDGER": str(self.ledger.path),
                "RMQARQ_CHAOS_POINT": point,
                "RMQARQ_CHAOS_MARKER": str(self.marker),
            },
        )

    async def enqueue(self, task: str, *args: object, returns: int = 0) -> None:
        """Enqueue a job, which comes back so often, and some behind it."""
        async with self.app() as app:
            job = await app.tasks[task].enqueue(*args)
            await self.return_it(returns)
            specs = [app.tasks["filler"].job(each) for each in range(FILLERS)]
            self.fillers = {each.id for each in await app.enqueue_many(specs)}
        self.job_id = job.id

    async def return_it(self, times: int) -> None:
        """Take the only message out of the queue, and give it back."""
        async with channel_to(self.url) as channel:
            for _ in range(times):
                got = await channel.basic_get(self.queue)
                assert got.delivery_tag, "the queue was empty"
                await channel.basic_nack(got.delivery_tag, requeue=True)
                await wait_for_count(self.url, self.queue, ready=1)

    async def death_of(self, worker: WorkerProcess) -> None:
        """Wait until the worker has died at its point, and the broker knows."""
        code = await to_thread.run_sync(worker.wait, 20)
        assert code == -signal.SIGKILL, worker.output
        assert self.marker.exists(), "it died, but not at its point"
        assert self.ran()["filler"] == 0
        await wait_for_count(self.url, self.queue, consumers=0)

    async def finish(self, runs: Runs) -> None:
        """Have another worker do the rest; nothing may be left after it."""
        least = Counter({kind: min(counts) for kind, counts in runs.items()})
        least["filler"] = FILLERS
        async with running(self.app()):
            await until(lambda: self.ran() >= least, what=f"{self.kind}: {least}")
        await wait_for_count(self.url, self.queue, ready=0)
        await wait_for_count(self.url, f"{self.queue}.suspect", ready=0)

    def ran(self) -> Counter[str]:
        """Count the lines of this scene in the ledger by their kind."""
        rows = self.ledger.rows()
        mine = {*self.fillers, self.job_id}
        return Counter(row.kind for row in rows if row.job_id in mine)

    def starts(self, task: str) -> list[int]:
        """Give the attempts of the job that were started."""
        rows = self.ledger.rows(task)
        return sorted(row.job_try for row in rows if row.job_id == self.job_id)

    def check(self, runs: Runs) -> None:
        """Compare the ledger with what is right: each filler ran once."""
        ran = self.ran()
        assert ran.keys() == {*runs, "filler"}
        for kind, counts in runs.items():
            assert ran[kind] in counts, f"{self.kind}: {ran}"
        tries = self.ledger.tries()
        assert [tries[each] for each in self.fillers] == [[1]] * FILLERS

    async def letters(self) -> list[str]:
        """Take the job ids of the dead letters."""
        letters = await take_all(self.url, f"{self.queue}_dlq")
        return [str(each.properties.correlation_id) for each in letters]


@pytest.fixture
async def scenes(
    broker: Broker, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Scene]]:
    """A scene on a queue of each type; both write into one ledger."""
    ledger = Ledger(tmp_path / "ledger")
    monkeypatch.setenv("RMQARQ_TEST_LEDGER", str(ledger.path))
    both = [Scene(broker.url, queue, kind, ledger) for kind in KINDS]
    yield both
    for each in both:
        names = [each.queue, f"{each.queue}.suspect", f"{each.queue}_dlq"]
        await delete_queues(broker.url, names)


def test_every_point_is_tested() -> None:
    assert POINTS.keys() == {*AT_WORK, CAME_BACK, *AT_THE_END}


@pytest.mark.parametrize("point", AT_WORK)
async def test_a_worker_killed_at_work_loses_no_job(
    scenes: list[Scene], point: str
) -> None:
    expected = AT_WORK[point]

    async def play(scene: Scene) -> None:
        await scene.enqueue(expected.task)
        with scene.doomed(point) as worker:
            await scene.death_of(worker)
        await scene.finish(expected.runs)
        scene.check(expected.runs)
        assert scene.starts(expected.task) == expected.tries
        assert await scene.letters() == [scene.job_id] * expected.letters

    await asyncio.gather(*map(play, scenes))


async def test_a_worker_killed_while_it_sends_on_what_came_back_loses_no_job(
    scenes: list[Scene],
) -> None:
    runs: Runs = {"good": (2,)}

    async def play(scene: Scene) -> None:
        await scene.enqueue("good", returns=RETURNS[scene.kind])
        with scene.doomed(CAME_BACK) as worker:
            await scene.death_of(worker)
        assert scene.ran()["good"] == 0
        await scene.finish(runs)
        scene.check(runs)
        assert await scene.letters() == []

    await asyncio.gather(*map(play, scenes))


@pytest.mark.parametrize("point", AT_THE_END)
async def test_a_worker_killed_while_it_stops_loses_no_job(
    scenes: list[Scene], point: str
) -> None:
    runs = AT_THE_END[point]

    async def play(scene: Scene) -> None:
        door = scene.marker.with_name(f"{scene.kind}-door")
        await scene.enqueue("lasting", str(door))
        with scene.doomed(point) as worker:
            await until(lambda: scene.ran()["lasting"] == 1)
            worker.terminate()
            await to_thread.run_sync(worker.wait_for, "received SIGTERM", 10)
            if point != "stopping, consumers cancelled":
                # before, it might still start one of them
                await wait_for_count(scene.url, scene.queue, ready=FILLERS)
                door.touch()
            await scene.death_of(worker)
        door.touch()
        await scene.finish(runs)
        scene.check(runs)
        assert await scene.letters() == []

    await asyncio.gather(*map(play, scenes))
