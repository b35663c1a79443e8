"""`rmqarq run --reload`: new code runs the next job, and broken code is waited out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rmqarq import App
from tests.broker.fleet import children, farewells, wait, wait_for
from tests.broker.kit import until
from tests.cli.kit import module, rmqarq, said
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.kit import Node

CODE = """
import asyncio
from rmqarq import App
app = App()

@app.task
async def work(seconds: float) -> None:
    print("run by VERSION", flush=True)
    await asyncio.sleep(seconds)
"""


def version(directory: Path, name: str) -> None:
    module(directory, "jobs", CODE.replace("VERSION", name))


def worker(node: Node, directory: Path, *args: str) -> WorkerProcess:
    env = {"RMQARQ_URL": node.broker.url, "RMQARQ_QUEUE": node.queue}
    return WorkerProcess("jobs:app", ["--reload", *args], cwd=directory, env=env)


async def enqueue(node: Node, seconds: float) -> None:
    async with App(node.broker.url, queue=node.queue) as app:
        await app.ref("work").enqueue(seconds)


async def test_changed_code_runs_the_next_job_and_a_broken_one_is_waited_out(
    node: Node, tmp_path: Path
) -> None:
    version(tmp_path, "one")
    with worker(node, tmp_path) as process:
        await enqueue(node, 60)
        await wait_for(process, "run by one")
        (first,) = children(process.pid)
        (tmp_path / "notes.txt").touch()  # no Python
        version(tmp_path, "two")
        await wait_for(process, "jobs.py has changed, starting anew")
        await wait_for(process, "run by two")  # the very job that was given back
        module(tmp_path, "jobs", "def (:\n")
        await wait_for(process, "a new one starts when the code has changed")
        assert "SyntaxError" in process.output
        assert children(process.pid) == []
        version(tmp_path, "three")
        await wait_for(process, "run by three")
        assert children(process.pid) != [first]
        process.terminate()
        began = time.monotonic()
        assert await wait(process) == 0, process.output
        assert time.monotonic() - began < 8
    assert len(farewells(process.output)) == 1
    assert "notes.txt" not in process.output


def new(process: WorkerProcess, earlier: list[int]) -> int:
    return len(set(children(process.pid)) - set(earlier))


async def test_several_processes_are_all_started_anew_and_complain_once(
    node: Node, tmp_path: Path
) -> None:
    module(tmp_path, "jobs", "def (:\n")
    with worker(node, tmp_path, "--processes", "2") as process:
        await wait_for(process, "a new one starts when the code has changed")
        assert process.output.count("Traceback") == 1
        for name in ("one", "two"):
            earlier = children(process.pid)
            version(tmp_path, name)
            await until(lambda old=earlier: new(process, old) == 2, 30)
        process.terminate()
        assert await wait(process) == 0, process.output


def test_a_burst_does_not_wait_for_changes(tmp_path: Path) -> None:
    version(tmp_path, "one")
    done = rmqarq("run", "jobs:app", "--reload", "--burst", cwd=tmp_path)
    assert done.returncode == 2
    assert "it waits for changes, and --burst ends" in said(done)
    done = rmqarq("run", "jobs:app", "--reload", cwd=tmp_path, RMQARQ_BURST="1")
    assert done.returncode == 3
    assert "--reload and burst mode don't go together" in said(done)
