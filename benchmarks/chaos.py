"""Lets everything fail for as long as you like, and counts what became of the jobs."""

import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tests.chaos import engine, faults
from tests.harness.cluster import Cluster

DELAYS = (0.3, 1.2, 3.0, 20.0, 65.0)
CALM = (2.0, 6.0)


class Diary:
    """Tells of each fault as it happens.

    Args:
        minutes: The length of the run.
    """

    def __init__(self, minutes: float) -> None:
        self._minutes = minutes
        self._begin = time.monotonic()
        self._count = 0

    def __call__(self, event: engine.Event) -> None:
        self._count += 1
        minute = (time.monotonic() - self._begin) / 60
        print(
            f"{minute:5.1f} of {self._minutes:g} min, fault {self._count}:"
            f" {event.name}, {event.back - event.began:.1f} s,"
            f" work went on after {event.recovery:.2f} s",
            file=sys.stderr,
            flush=True,
        )


def machine() -> dict[str, object]:
    """Describe where the run took place."""
    return {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def by_kind(result: engine.Result) -> list[tuple[str, int, float, float, float]]:
    """Give for each fault its count, median and longest recovery, and longest gap."""
    rows = []
    for name, count in result.counts.items():
        times = result.recoveries(name)
        pairs = zip(result.events, result.gaps, strict=True)
        gap = max(gap for event, gap in pairs if event.name == name)
        rows.append((name, count, times[len(times) // 2], times[-1], gap))
    return rows


def table(result: engine.Result) -> str:
    """Write the figures as two Markdown tables."""
    figures = {
        name: value
        for name, value in result.figures().items()
        if not isinstance(value, dict)
    }
    lines = ["| figure | value |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {figures[name]} |" for name in figures]
    lines += [
        "",
        "| fault | times | new job done after s, median | longest | no confirm for s |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {count} | {median:.2f} | {longest:.2f} | {gap:.2f} |"
        for name, count, median, longest, gap in by_kind(result)
    ]
    return "\n".join(lines)


def record(result: engine.Result) -> dict[str, object]:
    """Give everything that is worth keeping."""
    begin = result.events[0].began
    verdict = result.verdict
    return {
        **result.figures(),
        "machine": machine(),
        "flaws": {name: str(found)[:2000] for name, found in verdict.flaws.items()},
        "complaints": result.complaints,
        "left_over_queues": result.leftovers,
        "events": [
            {
                "fault": event.name,
                "at": round(event.began - begin, 2),
                "seconds": round(event.back - event.began, 2),
                "recovery": round(event.recovery, 3),
                "gap": round(gap, 2),
            }
            for event, gap in zip(result.events, result.gaps, strict=True)
        ],
    }


def main(
    minutes: Annotated[float, typer.Option(help="How long jobs are offered.")] = 30,
    nodes: Annotated[int, typer.Option(help="RabbitMQ nodes in the cluster.")] = 3,
    rate: Annotated[float, typer.Option(help="Jobs a second.")] = 300,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 4,
    seed: Annotated[int, typer.Option(help="Of all that is left to chance.")] = 1,
    result: Annotated[Path, typer.Option(help="Where to write it.")] = Path(
        "chaos.json"
    ),
) -> None:
    """Make a run; exit with 1 if a job was lost or anything else was wrong."""
    plan = engine.Plan(
        seconds=minutes * 60,
        rate=rate,
        workers=workers,
        seed=seed,
        faults=faults.LONG,
        calm=CALM,
        delays=DELAYS,
        report=Diary(minutes),
    )
    with Cluster(nodes) as cluster, TemporaryDirectory() as directory:
        found = asyncio.run(engine.run(cluster, Path(directory), plan))
    result.write_text(json.dumps(record(found), indent=1) + "\n")
    print(table(found))
    try:
        found.assert_nothing_lost()
    except AssertionError as error:
        print(f"not as promised: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
