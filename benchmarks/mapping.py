"""Measures `task.map`: so many rows, what each costs, and what a killed worker repeats.

A worker process counts the runs of each row in a file. With `--kills` it is killed so
many times by SIGKILL on the way, and another takes its place.
"""

import asyncio
import json
import mmap
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.processes import Worker
from rmqarq import App, Settings
from tests.harness.broker import Broker

QUEUE = "rows"
TALLY = "RMQARQ_BENCHMARK_TALLY"
POLL = 0.05

app = App(queue=QUEUE)


class Tally:
    """How often each row was run: one byte each, in a file that outlives a process."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.runs = mmap.mmap(file.fileno(), 0)

    @property
    def left(self) -> int:
        """How many rows have not run."""
        return self.runs[:].count(0)

    @property
    def repeated(self) -> int:
        """How many rows have run more than once."""
        counts = self.runs[:]
        return len(counts) - counts.count(0) - counts.count(1)


tally = Tally(Path(os.environ[TALLY])) if TALLY in os.environ else None


@app.task
async def row(number: int) -> None:
    """Do nothing but be counted."""
    assert tally is not None, f"{TALLY} names the file"
    tally.runs[number] += 1


async def enqueued(url: str, rows: int, chunk: int) -> dict[str, float]:
    """Enqueue the rows, and tell what that has cost."""
    app.configure(Settings(url=url, queue=QUEUE))
    async with app:
        wall, cpu = time.perf_counter(), time.process_time()
        await row.map(range(rows), chunk=chunk)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return figures(rows, wall, cpu)


def run(url: str, path: Path, rows: int, kills: int) -> dict[str, float]:
    """Run all rows with one worker at a time, and kill it so many times on the way."""
    command = [sys.executable, "-m", "rmqarq", "run", "benchmarks.mapping:app"]
    environment = {**os.environ, "RMQARQ_URL": url, TALLY: str(path)}
    seen, cpu, began = Tally(path), 0.0, time.perf_counter()
    for number in range(1, kills + 2):
        left = rows - rows * number // (kills + 1)
        with Worker(command, environment, path.with_suffix(".log")) as worker:
            cpu += worked(worker, seen, left)
            if number <= kills:
                worker.kill()
    return figures(rows, time.perf_counter() - began, cpu)


def worked(worker: Worker, seen: Tally, left: int) -> float:
    """Wait until no more than so many rows are left; give the worker's CPU time."""
    while seen.left > left:
        if worker.ended is not None:
            raise SystemExit(worker.ended)
        time.sleep(POLL)
    return worker.resources.cpu


def figures(rows: int, wall: float, cpu: float) -> dict[str, float]:
    """Tell what rows have cost."""
    return {
        "seconds": round(wall, 2),
        "rows a second": round(rows / wall),
        "CPU µs a row": round(cpu / rows * 1e6, 2),
    }


def main(
    rows: Annotated[int, typer.Option(min=1, help="How many.")] = 1_000_000,
    chunk: Annotated[int, typer.Option(min=1, help="How many in a message.")] = 500,
    kills: Annotated[int, typer.Option(min=0, help="How often the worker dies.")] = 0,
) -> None:
    """Enqueue and run rows by `task.map`; exit with 1 when one was lost."""
    with Broker() as node, TemporaryDirectory() as directory:
        path = Path(directory) / "tally"
        path.write_bytes(bytes(rows))
        report = {"enqueue": asyncio.run(enqueued(node.url, rows, chunk))}
        report["run"] = run(node.url, path, rows, kills)
        seen = Tally(path)
        report["rows"] = {"lost": seen.left, "repeated": seen.repeated}
    print(json.dumps(report, indent=2, ensure_ascii=False))
    if seen.left:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
