"""What a run found, as one JSON file, and how the entries stand."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Struct, field

from benchmarks.peers import Entry, entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rows import Row

Samples: TypeAlias = dict[str, list[dict[str, float]]]


class Machine(Struct, frozen=True):
    """Where it ran."""

    platform: str
    cpu: str
    cpus: int
    python: str
    load: tuple[float, float, float]


class Report(Struct):
    """One run.

    Args:
        machine: Where it ran.
        command: That made it.
        repeat: Rounds that counted.
        scale: Numbers of jobs were multiplied by it.
        brokers: Their versions.
        budgets: Samples of rmqarq and plain aiormq in one process, by scenario.
        contest: Samples of all libraries, by scenario and entry.
        failures: Why an entry has no samples, likewise.
        parts: The runs that it was put together from, if there were several.
    """

    machine: Machine
    command: str
    repeat: int
    scale: float
    brokers: dict[str, str] = field(default_factory=dict[str, str])
    budgets: dict[str, Samples] = field(default_factory=dict[str, Samples])
    contest: dict[str, Samples] = field(default_factory=dict[str, Samples])
    failures: dict[str, dict[str, str]] = field(
        default_factory=dict[str, dict[str, str]]
    )
    parts: tuple[Report, ...] = ()


class Standing(Struct, frozen=True):
    """One entry's place in a row: its median."""

    entry: Entry
    value: float


def machine() -> Machine:
    """Describe where we are."""
    names = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith("model name")
    ]
    load = os.getloadavg()
    return Machine(
        platform=platform.platform(),
        cpu=names[0] if names else platform.machine(),
        cpus=os.cpu_count() or 1,
        python=platform.python_version(),
        load=(round(load[0], 1), round(load[1], 1), round(load[2], 1)),
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def new(repeat: int, scale: float) -> Report:
    """Begin a report."""
    command = " ".join(("python -m benchmarks.run", *sys.argv[1:]))
    return Report(machine(), command, repeat, scale)


def load(path: Path) -> Report:
    """Read a report.

    Raises:
        msgspec.ValidationError: It is none.
    """
    return msgspec.json.decode(path.read_bytes(), type=Report)


def joined(reports: Sequence[Report]) -> Report:
    """Put runs of different scenarios together; of the same one, the last counts."""
    if len(reports) == 1:
        return reports[0]
    first = reports[0]
    whole = Report(first.machine, first.command, first.repeat, first.scale)
    whole.parts = tuple(reports)
    for each in reports:
        whole.brokers |= each.brokers
        whole.budgets |= each.budgets
        whole.contest |= each.contest
        whole.failures |= each.failures
    return whole


def save(report: Report, path: Path) -> None:
    """Write a report."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))


def standings(report: Report, row: Row) -> list[Standing]:
    """Give the medians of a row, the best first."""
    samples = report.contest.get(row.match, {})
    known = {entry.key: entry for entry in entries(["all"])}
    found = [
        Standing(known[key], median(each[row.figure] for each in values))
        for key, values in samples.items()
        if key in known and values and all(row.figure in each for each in values)
    ]
    return sorted(found, key=lambda each: each.value, reverse=row.most)


def ours(ranked: list[Standing], variant: str = "") -> Standing | None:
    """Give rmqarq's best variant.

    Args:
        ranked: A row.
        variant: This one; else any that does the same as other libraries.
    """
    for each in ranked:
        settings = each.entry.settings
        fits = each.entry.variant == variant if variant else not settings.apart
        if each.entry.name == "rmqarq" and fits:
            return each
    return None


def better(a: float, b: float, row: Row) -> bool:
    """Whether a is better than b in this row."""
    return a > b if row.most else a < b


def queues(ranked: list[Standing]) -> list[Standing]:
    """Keep the task queues beside rmqarq."""
    return [
        each
        for each in ranked
        if each.entry.peer.kind == "queue" and each.entry.name != "rmqarq"
    ]
