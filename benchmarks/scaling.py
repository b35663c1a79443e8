"""Measures what a worker, a queue and a broker hold: the figures of docs/scaling.md.

Each measurement has a private node of its own. CPU times hold better than rates on a
shared machine, where the clients and the broker take the cores from each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import typer

from benchmarks import holding
from benchmarks.mapping import QUEUE, TALLY, Tally, row
from benchmarks.mapping import app as counting
from benchmarks.processes import Resources, Worker
from benchmarks.results import machine
from rmqarq import Settings
from tests.harness.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator

Figures: TypeAlias = dict[str, float]

POLL = 0.01
IDLE = 2.0
CHUNK = 100
WORKER = [sys.executable, "-m", "rmqarq", "run", "benchmarks.mapping:app"]


class Bed(NamedTuple):
    """Where jobs run and are counted: a broker, and a file with a byte for each."""

    broker: Broker
    tally: Path

    def environment(self) -> dict[str, str]:
        """Give what a worker must know."""
        return {**os.environ, "RMQARQ_URL": self.broker.url, TALLY: str(self.tally)}


@contextmanager
def bed(jobs: int) -> Iterator[Bed]:
    """Make a broker and a tally for so many jobs."""
    with Broker() as broker, TemporaryDirectory() as directory:
        tally = Path(directory) / "tally"
        tally.write_bytes(bytes(jobs))
        counting.configure(Settings(url=broker.url, queue=QUEUE))
        yield Bed(broker, tally)


def pace(jobs: int, processes: int, chunk: int = 0) -> Figures:
    """Run jobs that do nothing, from the start of the first to the end of the last."""
    with bed(jobs) as place:
        asyncio.run(_fill(jobs, [QUEUE], chunk))
        more = ["--processes", str(processes)] if processes > 1 else []
        return _drain(place, jobs, more)


def queues(jobs: int, number: int) -> Figures:
    """Send jobs to so many queues in turn, and run them with one worker."""
    names = [f"{QUEUE}-{each}" for each in range(number)]
    with bed(jobs) as place:
        broker = Resources(place.broker.pid)
        broker.look()
        wall, cpu = time.perf_counter(), broker.cpu
        asyncio.run(_fill(jobs, names))
        wall, cpu = time.perf_counter() - wall, broker.cpu - cpu
        found = {"in: jobs/s": jobs / wall, "in: broker's CPU µs/job": cpu / jobs * 1e6}
        out = _drain(place, jobs, [f"--queue={name}" for name in names])
    return found | {f"out: {name}": value for name, value in out.items()}


def idle_process() -> Figures:
    """Look at the memory of a worker without jobs, alone and as `--processes 2`."""
    found: Figures = {}
    for processes in (1, 2):
        with bed(1) as place:
            command = [*WORKER, "--processes", str(processes)]
            log = place.tally.with_suffix(".log")
            with Worker(command, place.environment(), log) as worker:
                holding.consumed(place.broker, QUEUE, processes)
                time.sleep(IDLE)
                memory = worker.resources.memory
        for name, size in memory.items():
            found[f"{name} MiB, {processes} processes"] = size
    return found


async def _fill(jobs: int, names: list[str], chunk: int = 0) -> None:
    async with counting:
        if chunk:
            await row.map(range(jobs), chunk=chunk)
            return
        tasks = [row.options(queue=name) for name in names]
        await counting.enqueue_many(
            [tasks[each % len(tasks)].job(each) for each in range(jobs)]
        )


def _drain(place: Bed, jobs: int, more: list[str]) -> Figures:
    """Let a worker run all, and tell how fast, and what worker and broker used."""
    tally, log = Tally(place.tally), place.tally.with_suffix(".log")
    broker = Resources(place.broker.pid)
    broker.look()
    with Worker([*WORKER, *more], place.environment(), log) as worker:
        _wait(tally, worker, jobs - 1)
        worker.resources.look()  # by now all its processes are there
        left, wall = tally.left, time.perf_counter()
        cpu, brokers = worker.resources.cpu, broker.cpu
        _wait(tally, worker, 0)
        wall = time.perf_counter() - wall
        cpu, brokers = worker.resources.cpu - cpu, broker.cpu - brokers
    ran = max(1, left)
    return {
        "jobs/s": ran / wall,
        "worker's CPU µs/job": cpu / ran * 1e6,
        "broker's CPU µs/job": brokers / ran * 1e6,
    }


def _wait(tally: Tally, worker: Worker, left: int) -> None:
    while tally.left > left:
        if worker.ended is not None:
            raise SystemExit(worker.ended)
        time.sleep(POLL)


def medians(samples: list[Figures]) -> Figures:
    """Give the median of each figure."""
    return {name: median(each[name] for each in samples) for name in samples[0]}


def measurements(scale: float) -> dict[str, tuple[bool, Callable[[], Figures]]]:
    """Name all that is measured, and whether it is cheap enough to be repeated."""

    def scaled(number: int) -> int:
        return max(2 * CHUNK, int(number * scale))

    few, many = scaled(40_000), scaled(400_000)
    pending, workers = scaled(100_000), max(2, int(50 * scale))
    return {
        "worker, 1 process": (True, lambda: pace(few, 1)),
        "worker, 2 processes": (True, lambda: pace(few, 2)),
        "map, 1 process": (True, lambda: pace(many, 1, CHUNK)),
        "map, 2 processes": (True, lambda: pace(many, 2, CHUNK)),
        "1 queue": (True, lambda: queues(few, 1)),
        "4 queues": (True, lambda: queues(few, 4)),
        "idle worker": (False, idle_process),
        "pending": (False, lambda: holding.pending(pending)),
        "pending, mapped": (False, lambda: holding.pending(pending, chunk=CHUNK)),
        "delayed": (False, lambda: holding.pending(pending, delay=3000)),
        "idle workers": (False, lambda: holding.workers(workers)),
        "idle, small buffers": (
            False,
            lambda: holding.workers(workers, holding.SMALL_BUFFERS),
        ),
    }


def main(
    only: Annotated[list[str], typer.Option(help="Only these.")] = [],  # noqa: B006
    repeat: Annotated[int, typer.Option(min=1, help="Rounds of what is cheap.")] = 3,
    scale: Annotated[float, typer.Option(help="Multiplies the numbers.")] = 1.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also here.")] = None,
) -> None:
    """Measure what a worker, a queue and a broker hold, each on a node of its own."""
    known = measurements(scale)
    if unknown := set(only) - set(known):
        raise typer.BadParameter(f"{sorted(unknown)}: known are {list(known)}")
    began, found = machine(), dict[str, Figures]()
    for name, (cheap, measure) in known.items():
        if only and name not in only:
            continue
        rounds = range(repeat if cheap else 1)
        found[name] = medians([measure() for _ in rounds])
        for figure, value in found[name].items():
            print(f"| {name:20} | {figure:34} | {_short(value):>10} |", flush=True)
    if json_file is not None:
        where = {"cpu": began.cpu, "cpus": began.cpus, "load": began.load}
        report = {"machine": where, "scale": scale, "found": found}
        json_file.write_text(json.dumps(report, indent=1, ensure_ascii=False))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    typer.run(main)
