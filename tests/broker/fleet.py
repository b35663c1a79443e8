"""Tools of the tests with several worker processes: who they are, what they said."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from tests.broker.apps.ledger_app import make

if TYPE_CHECKING:
    from tests.broker.kit import Node
    from tests.harness.worker import WorkerProcess


async def wait(worker: WorkerProcess, timeout: float = 30) -> int:
    return await to_thread.run_sync(worker.wait, timeout)


async def wait_for(worker: WorkerProcess, text: str, timeout: float = 20) -> None:
    await to_thread.run_sync(worker.wait_for, text, timeout)


async def enqueue(node: Node, task: str, *args: object, count: int = 1) -> set[str]:
    async with make(node.broker.url, queue=node.queue) as app:
        specs = [app.tasks[task].job(*args) for _ in range(count)]
        return {job.id for job in await app.enqueue_many(specs)}


async def run_the_rest(node: Node) -> None:
    with node.worker("--burst", "--burst-check-interval", "0.2") as worker:
        assert await wait(worker) == 0, worker.output


def farewell(text: str) -> dict[str, int]:
    """Read the counters of a line of statistics."""
    return {name: int(number) for number, name in re.findall(r"(\d+) ([a-z-]+)", text)}


def farewells(output: str) -> list[str]:
    """Give the lines that sum up what was done."""
    return [line for line in output.splitlines() if "pending" in line]


def started(output: str) -> list[int]:
    """Give the numbers of the processes that have begun to take jobs, in order."""
    return [int(each) for each in re.findall(r"\[(\d+)\] worker started", output)]


def children(pid: int) -> list[int]:
    """Give the worker processes of a supervisor, and all its dead children."""
    found: list[int] = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
            command = each.with_name("cmdline").read_bytes()
            if int(parent) == pid and (b"worker.supervised" in command or state == "Z"):
                found.append(int(each.parent.name))
    return sorted(found)
