"""A worker that is asked over HTTP how it is, and counts what it does."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiormq
import pytest
from anyio import to_thread

from rmqarq import App
from rmqarq.wire.consumer import Source
from rmqarq.worker.intake import Intake
from tests.broker.apps.ledger_app import make
from tests.broker.kit import channel_to, delete_queues, until
from tests.harness.broker import free_ports
from tests.harness.exposition import Exposition, fetch, scrape
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.broker.kit import Node
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

APP = "tests.broker.apps.health_app:app"
OK = (200, "ok\n")


class Probed:
    """A worker process with a health port."""

    def __init__(self, process: WorkerProcess, port: int) -> None:
        self.process = process
        self.port = port

    async def ask(self, path: str, timeout: float = 10) -> tuple[int, str]:
        return await to_thread.run_sync(fetch, self.port, path, "GET", timeout)

    async def metrics(self) -> Exposition:
        return await to_thread.run_sync(scrape, self.port)

    async def answers(
        self,
        path: str,
        fits: Callable[[tuple[int, str]], object],
        patience: float = 10,
    ) -> tuple[int, str]:
        """Ask until an answer fits, and give it."""
        end = time.monotonic() + 20
        last: Any = None
        while time.monotonic() < end:
            try:
                last = await self.ask(path, patience)
            except ConnectionError as error:
                last = error
            else:
                if fits(last):
                    return last  # type: ignore[no-any-return]
            assert self.process.process.poll() is None, self.process.output
            await asyncio.sleep(0.02)
        raise AssertionError(f"{path}: {last}\n{self.process.output}")

    async def ready(self) -> None:
        await self.answers("/readyz", lambda answer: answer == OK)

    async def says(self, text: str) -> None:
        await to_thread.run_sync(self.process.wait_for, text, 20)

    async def count(self, fits: Callable[[Exposition], object]) -> Exposition:
        """Read the metrics until they fit."""
        end = time.monotonic() + 20
        while not fits(found := await self.metrics()):
            assert time.monotonic() < end, found.samples
            await asyncio.sleep(0.05)
        return found


@contextmanager
def probed(
    node: Node, *args: str, url: str | None = None, **env: str
) -> Iterator[Probed]:
    """Run a worker with a health port of its own."""
    (port,) = free_ports(1)
    worker = node.worker("--health-port", str(port), *args, url=url, **env)
    worker.command[worker.command.index("tests.broker.apps.ledger_app:app")] = APP
    with worker:
        yield Probed(worker, port)


async def enqueue(node: Node, task: str, *args: object, count: int = 1) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        await app.enqueue_many([app.ref(task).job(*args) for _ in range(count)])


async def test_an_outage_makes_a_worker_not_ready_and_never_dead(
    node: Node, proxy: Proxy
) -> None:
    url = proxy.url(node.broker)
    with probed(node, url=url, health_check_interval="0.2") as worker:
        await worker.ready()
        assert await worker.ask("/livez") == OK
        assert (await worker.metrics()).value("rmqarq_connected") == 1
        await asyncio.sleep(2)  # so that it shows from when the seconds are counted
        proxy.refuse()
        began = time.monotonic()
        proxy.cut()
        _, said = await worker.answers("/readyz", lambda got: got[0] == 503)
        found = re.fullmatch(r"not connected to the broker for (\d+) s\n", said)
        assert found, said
        assert int(found[1]) <= time.monotonic() - began + 1
        assert await worker.ask("/livez") == OK
        lost = await worker.metrics()
        assert lost.value("rmqarq_connected") == lost.value("rmqarq_ready") == 0
        await to_thread.run_sync(
            worker.process.wait_for, "not ready: not connected", 10
        )
        proxy.accept()
        await worker.ready()
        healed = await worker.metrics()
        assert healed.value("rmqarq_ready") == 1
        assert healed.value("rmqarq_reconnects_total") >= 1


async def test_a_queue_that_was_deleted_is_known_to_be_without_consumer(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    seen: list[dict[str, float]] = []
    intake = Intake(
        app.transport,
        [Source(queue, queue, 1)],
        on_delivery=lambda _: None,
        on_loss=lambda *_: seen.append(intake.unconsumed),
    )
    try:
        assert intake.unconsumed == {}
        await intake.start()
        assert intake.unconsumed == {}
        await delete_queues(broker.url, [queue])
        await until(lambda: seen)
        assert list(seen[0]) == [queue]
        assert 0 <= seen[0][queue] < 1
        await until(lambda: intake.unconsumed == {})
        assert len(seen) == 1
    finally:
        await intake.cancel()
        await intake.close()
        await app.close()


async def test_a_worker_without_a_broker_is_alive_and_says_what_it_waits_for(
    node: Node, proxy: Proxy
) -> None:
    proxy.refuse()
    with probed(node, url=proxy.url(node.broker)) as worker:
        status, said = await worker.answers("/readyz", lambda _: True)
        assert status == 503
        first, second = said.splitlines()
        assert first == "starting: not all queues are consumed yet"
        assert second.startswith("not connected to the broker for ")
        assert await worker.ask("/livez") == OK
        assert (await worker.metrics()).value("rmqarq_ready") == 0
        proxy.accept()
        await worker.ready()


async def test_a_worker_that_stops_says_so_until_its_end(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    with probed(node) as worker:
        await enqueue(node, "patient", str(door))
        await until(lambda: node.ledger.count("patient"))
        await worker.ready()  # the lane of suspects, too
        worker.process.terminate()
        _, said = await worker.answers("/readyz", lambda got: got[0] == 503)
        assert said == "stopping: 1 jobs are under way\n"
        assert await worker.ask("/livez") == OK
        assert (await worker.metrics()).value("rmqarq_jobs_in_progress") == 1
        door.touch()
        code = await to_thread.run_sync(worker.process.wait, 20)
        assert code == 0, worker.process.output
        with pytest.raises(ConnectionRefusedError):
            await worker.ask("/livez")


async def test_a_job_that_blocks_the_event_loop_leaves_probes_unanswered(
    node: Node,
) -> None:
    with probed(node) as worker:
        await worker.ready()
        async with make(node.broker.url, queue=node.queue) as app:
            await app.ref("block").enqueue(4.0)
        with pytest.raises(TimeoutError):  # as a probe with a timeout of its own
            await worker.answers("/livez", lambda _: False, patience=1)
        await worker.answers("/livez", lambda got: got == OK)
        found = await worker.metrics()
        assert found.value("rmqarq_event_loop_blocks_total") == 1
        assert found.value("rmqarq_job_duration_seconds_sum", task="block") >= 4


async def test_runs_that_ignore_their_cancellation_on_every_slot_are_deadly(
    node: Node,
) -> None:
    given = {"job_timeout": "0.2", "cancel_grace": "0.2", "max_retries": "0"}
    with probed(node, "-c", "2", health_check_interval="0.3", **given) as worker:
        await worker.ready()
        await enqueue(node, "stubborn", 60.0)
        await worker.count(lambda got: got.value("rmqarq_stuck_total") == 1)
        assert await worker.ask("/livez") == OK  # the other slot is free
        await enqueue(node, "stubborn_thread", 60.0)
        _, said = await worker.answers("/livez", lambda got: got[0] == 503)
        assert said.startswith("2 runs that ignored their cancellation still go on")
        assert (await worker.ask("/readyz"))[0] == 503
        assert (await worker.metrics()).value("rmqarq_jobs_left_behind") == 2
        await worker.says("not ready: 2 runs")


async def foreign(broker: Broker, queue: str, *bodies: dict[str, Any]) -> None:
    """Put messages into a queue as another program would."""
    async with channel_to(broker.url) as channel:
        for body in bodies:
            properties = aiormq.spec.Basic.Properties(content_type="application/json")
            encoded = json.dumps(body).encode()
            await channel.basic_publish(
                encoded, routing_key=queue, properties=properties
            )


async def test_the_metrics_tell_what_was_done(node: Node) -> None:
    with probed(node, unknown_task_wait="0") as worker:
        await worker.ready()
        before = time.time()
        await enqueue(node, "done", 1, count=20)
        await enqueue(node, "plain", 1, count=3)
        await enqueue(node, "flaky", 1)
        await enqueue(node, "broken", 1)
        await enqueue(node, "reject", 1)
        strangers = [{"task": f"stranger-{number}"} for number in range(5)]
        await foreign(node.broker, node.queue, *strangers, {"task": 7})
        suspects = [{"task": "done", "args": [2]}, {"task": "die"}]
        await foreign(node.broker, f"{node.queue}.suspect", *suspects)
        dead = {"retries used up": 1, "rejected": 1, "undecodable": 1, "crashed": 1}
        dead["unknown task"] = len(strangers)

        def all_done(found: Exposition) -> bool:
            return sum(found.series("rmqarq_jobs_total").values()) == 37

        found = await worker.count(all_done)
    jobs = {
        (dict(labels)["task"], dict(labels)["outcome"]): int(count)
        for labels, count in found.series("rmqarq_jobs_total").items()
        if count and dict(labels)["queue"] == node.queue
    }
    assert jobs == {
        ("done", "succeeded"): 21,
        ("plain", "succeeded"): 3,
        ("flaky", "retried"): 1,
        ("flaky", "succeeded"): 1,
        ("broken", "retried"): 1,
        ("broken", "dead"): 1,
        ("reject", "dead"): 1,
        ("unknown", "dead"): 6,
        ("die", "crashed"): 1,
        ("die", "dead"): 1,
    }
    letters = found.series("rmqarq_dead_letters_total").items()
    assert {dict(labels)["reason"]: n for labels, n in letters if n} == dead
    for histogram in ("rmqarq_job_duration_seconds", "rmqarq_job_wait_seconds"):
        counts = found.series(f"{histogram}_count")
        timed = {dict(labels)["task"]: count for labels, count in counts.items()}
        assert timed["flaky"] == timed["broken"] == 2
        assert timed["done"] == 21
        assert "unknown" not in timed
    for task in ("done", "plain", "flaky"):
        at = found.value("rmqarq_last_success_timestamp_seconds", task=task)
        assert before <= at <= time.time()
    assert found.value("rmqarq_crashes_total") == 2
    assert found.value("rmqarq_jobs_in_progress") == 0


async def test_the_metrics_are_there_while_100_jobs_run(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    with probed(node, "-c", "100") as worker:
        await enqueue(node, "patient", str(door), count=105)
        await until(lambda: node.ledger.count("patient") == 100)
        found = await worker.count(lambda got: got.value("rmqarq_jobs_waiting") == 5)
        assert found.value("rmqarq_jobs_in_progress") == 100
        assert found.value("rmqarq_job_wait_seconds_count", task="patient") == 100
        assert found.value("rmqarq_job_duration_seconds_count", task="patient") == 0
        await worker.ready()
        door.touch()
        done = {"task": "patient", "queue": node.queue, "outcome": "succeeded"}
        await worker.count(lambda got: got.value("rmqarq_jobs_total", **done) == 105)


async def test_a_health_port_that_is_taken_ends_the_worker_with_its_number(
    node: Node,
) -> None:
    with probed(node) as first:
        await first.ready()
        with node.worker("--health-port", str(first.port)) as second:
            assert await to_thread.run_sync(second.wait, 20) == 3
        assert f"port {first.port} " in second.output
        assert "set another health_port" in second.output
        assert await first.ask("/readyz") == OK
