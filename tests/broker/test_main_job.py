"""Thousands of jobs of all kinds, from one process to another: all accounted for."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from anyio import to_thread

from rmqarq import App
from tests.broker.apps.ledger_app import make
from tests.broker.kit import channel_to, dead_letters

if TYPE_CHECKING:
    from rmqarq import Job, JobSpec
    from tests.broker.kit import Letter, Node

INTERVAL = 0.5


class Sent(NamedTuple):
    """What was enqueued: by kind, the ids of its jobs and their numbers."""

    ids: dict[str, dict[str, int]]
    due: dict[str, float]
    raw: list[bytes]


async def enqueue_all(app: App, elsewhere: App, node: Node) -> Sent:
    """Enqueue 2000 jobs in every way there is, and 50 as a foreign producer does."""
    ids: dict[str, dict[str, int]] = {}
    due: dict[str, float] = {}
    tasks = app.tasks

    async def one_by_one(kind: str, task: str, count: int, source: App) -> None:
        sending = [source.ref(task).enqueue(n) for n in range(count)]
        jobs = await asyncio.gather(*sending)
        ids[kind] = {job.id: n for n, job in enumerate(jobs)}

    async def in_bulk(kind: str, specs: list[JobSpec[int]]) -> list[Job[int]]:
        jobs = await app.enqueue_many(specs)
        ids[kind] = {job.id: n for n, job in enumerate(jobs)}
        return jobs

    mayfly = tasks["done"].options(expires=0.01)
    delays = [round(random.uniform(0.1, 3), 3) for _ in range(300)]
    keeper = await tasks["slow"].enqueue(3.5)  # a burst waits for it, and by then
    ids["slow"] = {keeper.id: 0}  # all that is deferred below is due
    await one_by_one("done", "done", 400, app)
    await in_bulk("bulk", [tasks["done"].job(n) for n in range(400)])
    await one_by_one("plain", "plain", 100, app)
    await one_by_one("by name", "done", 150, elsewhere)
    await one_by_one("flaky", "flaky", 250, app)
    await one_by_one("reject", "reject", 150, app)
    await one_by_one("broken", "broken", 150, app)
    await in_bulk("expired", [mayfly.job(n) for n in range(100)])
    began = time.time()
    late = [tasks["done"].job(n).defer(delay) for n, delay in enumerate(delays)]
    for job, delay in zip(await in_bulk("deferred", late), delays, strict=True):
        due[job.id] = began + delay
    return Sent(ids, due, await send_foreign(node))


async def send_foreign(node: Node) -> list[bytes]:
    """Send what only a foreign producer would write like this."""
    bodies = [
        b'{ "kwargs" : {"number":%d},\n "task":"reject", "id":"foreign-%d",'
        b' "note": "\xe2\x9c\x93 \\u2713" }  ' % (n, n)
        for n in range(50)
    ]
    async with channel_to(node.broker.url) as channel:
        for body in bodies:
            await channel.basic_publish(body, routing_key=node.queue)
    return bodies


def check_runs(node: Node, sent: Sent) -> None:
    tries = node.ledger.tries()
    runs = dict.fromkeys(sent.ids, 1) | {"flaky": 2, "broken": 2, "expired": 0}
    for kind, count in runs.items():
        wanted = [1, 1] if kind == "slow" else list(range(1, count + 1))
        for job_id in sent.ids[kind]:
            assert tries.pop(job_id, []) == wanted, (kind, job_id)
    foreign = {f"foreign-{n}": [1] for n in range(len(sent.raw))}
    assert tries == foreign
    for row in node.ledger.rows():
        assert row.at >= sent.due.get(row.job_id, 0.0), f"{row} was early"


def check_letters(node: Node, sent: Sent, letters: list[Letter]) -> None:
    now = time.time()
    for letter in letters:
        headers = letter.headers
        assert headers["x-rmqarq-queue"] == node.queue
        assert now - 60 < headers["x-rmqarq-first-at"] / 1000 <= now + 1
        assert headers["x-rmqarq-first-at"] <= headers["x-rmqarq-last-at"]
        assert headers["x-rmqarq-worker"].rpartition(":")[2].isdecimal()
        assert not [name for name in headers if name.startswith("x-death")]
        assert letter.properties.delivery_mode == 2
    reasons = Counter(letter.headers["x-rmqarq-reason"] for letter in letters)
    assert reasons == {"rejected": 200, "retries used up": 150, "expired": 100}
    found = {letter.properties.correlation_id: letter for letter in letters}
    foreign = [found.pop(f"foreign-{n}").body for n in range(len(sent.raw))]
    assert foreign == sent.raw
    wanted = sent.ids["reject"] | sent.ids["broken"] | sent.ids["expired"]
    assert found.keys() == wanted.keys()
    for job_id, number in wanted.items():
        check_letter(found[job_id], job_id, number)


def check_letter(letter: Letter, job_id: str, number: int) -> None:
    body, headers = json.loads(letter.body), letter.headers
    assert body["id"] == job_id
    assert body["args"] == [number]
    assert letter.properties.message_type == body["task"]
    assert letter.properties.content_type == "application/json"
    if headers["x-rmqarq-reason"] == "rejected":
        error, said = "rmqarq.errors.Reject", f"number {number} is odd"
    elif headers["x-rmqarq-reason"] == "retries used up":
        error, said = "LookupError", f"number {number} is never there"
    else:
        assert "x-rmqarq-error" not in headers
        return
    assert headers["x-rmqarq-error"] == error
    assert headers["x-rmqarq-message"] == said
    assert headers["x-rmqarq-traceback"].rstrip().endswith(f"{error}: {said}")
    assert "ledger_app.py" in headers["x-rmqarq-traceback"]
    assert headers["x-rmqarq-attempts"] == (2 if error == "LookupError" else 1)


async def test_two_thousand_jobs_of_all_kinds_are_each_accounted_for(
    node: Node, prefix: str
) -> None:
    app = make(node.broker.url, queue=node.queue, prefix=prefix)
    elsewhere = App(node.broker.url, queue=node.queue, prefix=prefix)
    async with app, elsewhere:
        sent = await enqueue_all(app, elsewhere, node)
    flags = ["--burst", "--burst-check-interval", str(INTERVAL)]
    with node.worker(*flags, prefix=prefix) as worker:
        code = await to_thread.run_sync(worker.wait, 50)
        ended = time.time()
    assert code == 0, worker.output
    (last,) = node.ledger.rows("slow-done")
    assert last.at == max(row.at for row in node.ledger.rows())
    assert ended - last.at < INTERVAL + 2.5, worker.output
    check_runs(node, sent)
    left = await to_thread.run_sync(queues_with_messages, node, prefix)
    assert left == {f"{node.queue}_dlq": 450}
    check_letters(node, sent, await dead_letters(node.broker.url, node.queue, 450))
    assert "queues empty ◆ 1601 completed ◆ 350 failed" in worker.output
    assert "◆ 450 dead-lettered ◆ 0 returned ◆ 0 pending" in worker.output


def queues_with_messages(node: Node, prefix: str) -> dict[str, int]:
    """Count the messages of each queue of the test that holds any."""
    found: dict[str, int] = {}
    for name, counts in node.broker.queues().items():
        held = counts["messages_ready"] + counts["messages_unacknowledged"]
        if held and name.startswith((node.queue, prefix)):
            found[name] = held
    return found


async def test_a_burst_with_dead_letters_exits_with_5_only_when_asked_to(
    node: Node,
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        for fail_on_dead in (True, False):
            await app.tasks["reject"].enqueue(1)
            flags = ["--burst", *(["--fail-on-dead"] if fail_on_dead else [])]
            with node.worker(*flags) as worker:
                code = await to_thread.run_sync(worker.wait, 20)
            assert code == (5 if fail_on_dead else 0), worker.output
        with node.worker("--burst", "--fail-on-dead") as worker:
            assert await to_thread.run_sync(worker.wait, 20) == 0, worker.output
