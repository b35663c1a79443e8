"""What the contest measures, and which figures the tables show: data."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Match(Struct, frozen=True):
    """One scenario of the contest.

    Args:
        name: A function of `contest.py`.
        what: What happens, in words.
        n: How many jobs.
        weighted: The number follows the library's speed: `up` and `down`, only
            `down`, or not at all.
        warm: A first round, which does not count, fills the caches.
    """

    name: str
    what: str
    n: int
    weighted: Literal["no", "down", "both"] = "no"
    warm: bool = False

    def jobs(self, weight: float, scale: float) -> int:
        """How many jobs a library of this weight gets."""
        factor = {"no": 1.0, "down": min(1.0, weight), "both": weight}[self.weighted]
        return self.n if self.n == 1 else max(20, int(self.n * factor * scale))


class Row(Struct, frozen=True):
    """One figure of a scenario.

    Args:
        match: The scenario.
        figure: Its name in the results.
        label: The same for people, with the unit.
        most: More is better.
    """

    match: str
    figure: str
    label: str
    most: bool = False


MATCHES = (
    Match("one_by_one", "each enqueue awaited before the next", 2000),
    Match("bulk", "enqueue, the library's fastest way for many", 10_000, "both"),
    Match("drain", "jobs that do nothing, from the first to the last", 10_000, "both"),
    Match("latency", "from enqueue to the start of the job, 50 a second", 500),
    Match("naps", "2 000 jobs that sleep 50 ms, 100 at a time", 2000),
    Match("start", "from the start of the worker to its first job", 1, warm=True),
    Match("import", "CPU time of the import", 1, warm=True),
    Match(
        "memory",
        "an idle worker, and its growth by 100 000 jobs",
        100_000,
        "down",
        warm=True,
    ),
    Match("delayed", "5 000 jobs, all due at one moment", 5000),
    Match("pending", "100 000 jobs that wait for an hour", 100_000),
)

ROWS = (
    Row("one_by_one", "rate", "enqueue one by one, per s", most=True),
    Row("one_by_one", "cpu", "enqueue one by one, CPU µs"),
    Row("bulk", "rate", "enqueue in bulk, per s", most=True),
    Row("bulk", "cpu", "enqueue in bulk, CPU µs"),
    Row("drain", "rate", "run, jobs per s", most=True),
    Row("drain", "cpu", "run, CPU µs a job"),
    Row("latency", "p50", "latency, median ms"),
    Row("latency", "p99", "latency, 99th percentile ms"),
    Row("naps", "ideal", "50 ms jobs, of the ideal", most=True),
    Row("naps", "cpu", "50 ms jobs, CPU µs"),
    Row("start", "wall", "start, ms"),
    Row("import", "cpu", "import, CPU ms"),
    Row("memory", "idle", "idle worker, RSS MiB"),
    Row("memory", "growth", "growth by the jobs, MiB"),
    Row("delayed", "last", "5 000 due at once, last late by ms"),
    Row("pending", "rate", "100 000 delays, enqueued per s", most=True),
    Row("pending", "worker", "100 000 delays, worker grows by MiB"),
    Row("pending", "stored", "100 000 delays, broker kB a job"),
)
