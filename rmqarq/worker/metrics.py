"""What a worker counts and times, and how Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msgspec import Struct

from rmqarq.outcome import Reason
from rmqarq.when import wall_clock

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Coroutine,
        Generator,
        Iterable,
        Iterator,
    )

    from rmqarq.context import Context
    from rmqarq.handler import Runnable
    from rmqarq.message import Message
    from rmqarq.outcome import Outcome
    from rmqarq.stats import Stats
    from rmqarq.wire.codec import Decoded
    from rmqarq.worker.health import Facts
    from rmqarq.worker.roster import Execution, Run

    Execute: TypeAlias = Callable[
        [Execution, Runnable, Decoded, Context[Any]],
        Coroutine[Any, Any, Outcome],
    ]

Fate: TypeAlias = Literal[
    "succeeded",
    "retried",
    "dead",
    "released",
    "aborted",
    "crashed",
    "deferred",
    "suspected",
]
"""What became of a job that a worker had begun with, as the label `outcome`."""

USUAL: tuple[Fate, ...] = ("succeeded", "retried", "dead")
BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
)
"""Upper bounds of the buckets, in seconds."""
UNKNOWN = "unknown"
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Histogram:
    """How many observations fell under each bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Metrics:
    """The counters and histograms of one worker.

    No name that comes out of a message makes a series of its own: a task that is not
    registered is `unknown`, and queues are those that are consumed. What is likely to
    come stands at 0 from the start: Prometheus can't see a rise from nothing.

    Args:
        tasks: The registered tasks, each with its queue.
        queues: The queues that are consumed.
        clock: Gives the time.
    """

    def __init__(
        self,
        tasks: Mapping[str, str],
        queues: Collection[str],
        clock: Callable[[], float] = wall_clock,
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._jobs: Counter[tuple[str, str, Fate]] = Counter()
        self._dead: Counter[tuple[str, Reason]] = Counter()
        for task, queue in tasks.items():
            if queue in queues:
                self._jobs.update({(task, queue, fate): 0 for fate in USUAL})
        for queue in queues:
            self._dead.update({(queue, reason): 0 for reason in get_args(Reason)})
        self._durations: dict[str, Histogram] = {}
        self._waits: dict[str, Histogram] = {}
        self._successes: dict[str, float] = {}

    def begin(self, task: str, message: Message) -> float:
        """Take note that a run begins.

        Returns:
            The moment, for `end`.
        """
        due = message.enqueued_at if message.eta is None else message.eta
        waits = self._waits.get(task)
        if waits is None:
            waits = self._waits[task] = Histogram()
        waits.observe(max(0.0, self._clock() - due))
        return time.perf_counter()

    def end(self, task: str, began: float) -> None:
        """Take note that a run has ended, however it did."""
        durations = self._durations.get(task)
        if durations is None:
            durations = self._durations[task] = Histogram()
        durations.observe(time.perf_counter() - began)

    @contextmanager
    def timing(self, task: str, message: Message) -> Generator[None]:
        """Time a run that takes place elsewhere."""
        began = self.begin(task, message)
        yield
        self.end(task, began)

    def timed(self, execute: Execute) -> Execute:
        """Put the clock around what runs a job."""

        async def run(
            execution: Execution,
            task: Runnable,
            decoded: Decoded,
            ctx: Context[Any],
        ) -> Outcome:
            began = self.begin(task.name, decoded.message)
            outcome = await execute(execution, task, decoded, ctx)
            self.end(task.name, began)
            return outcome

        return run

    def settled(self, run: Run, fate: Fate, reason: Reason | None = None) -> None:
        """Count what became of a job.

        Args:
            run: The job.
            fate: What became of it.
            reason: Why it is dead, if it is.
        """
        task = run.decoded.message.task if run.decoded is not None else UNKNOWN
        if task not in self._tasks:
            task = UNKNOWN
        queue = run.delivery.home
        self._jobs[task, queue, fate] += 1
        if fate == "succeeded":
            self._successes[task] = self._clock()
        if reason is not None:
            self._dead[queue, reason] += 1

    def text(self, facts: Facts, stats: Stats, *, ready: bool) -> str:
        """Write everything down as Prometheus reads it.

        Args:
            facts: What can be seen of the worker now.
            stats: Its other counters.
            ready: What /readyz says.
        """
        families = (*self._counted(), *_seen(facts, ready), *_others(facts, stats))
        return "".join(map(_written, families))

    def _counted(self) -> Iterator[Family]:
        yield Family(
            "rmqarq_jobs_total",
            "counter",
            "What became of jobs: one for each delivery that was begun with.",
            tuple(
                Sample({"task": task, "queue": queue, "outcome": fate}, count)
                for (task, queue, fate), count in self._jobs.items()
            ),
        )
        yield Family(
            "rmqarq_dead_letters_total",
            "counter",
            "Dead letters written.",
            tuple(
                Sample({"queue": queue, "reason": reason}, count)
                for (queue, reason), count in self._dead.items()
            ),
        )
        yield _histograms(
            "rmqarq_job_duration_seconds", "How long runs took.", self._durations
        )
        yield _histograms(
            "rmqarq_job_wait_seconds",
            "From the moment a job was due, or enqueued, to the begin of its run.",
            self._waits,
        )
        yield Family(
            "rmqarq_last_success_timestamp_seconds",
            "gauge",
            "When a run last succeeded, in seconds since the epoch.",
            tuple(Sample({"task": name}, at) for name, at in self._successes.items()),
        )


class Sample(Struct, frozen=True):
    """One number.

    Args:
        labels: What tells it from its sisters.
        value: The number.
        suffix: What its name has more than that of the family.
    """

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


class Family(Struct, frozen=True):
    """All numbers of one name.

    Args:
        name: The name.
        kind: What sort of numbers they are.
        help: What they count.
        samples: The numbers.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]


def _seen(facts: Facts, ready: bool) -> Iterator[Family]:
    load = facts.load
    gauges = {
        "connected": ("1 while there is a connection to the broker.", facts.connected),
        "ready": ("1 while /readyz says ok.", ready),
        "jobs_in_progress": ("Jobs begun and not settled.", load.running),
        "jobs_waiting": ("Jobs received and not begun.", load.waiting),
        "jobs_left_behind": (
            "Runs that ignored their cancellation and still go on.",
            load.left_behind,
        ),
        "slots": ("How many jobs may run at the same time.", load.slots),
    }
    for name, (what, value) in gauges.items():
        yield _single(f"rmqarq_{name}", "gauge", what, int(value))
    sample = Sample(_build(), 1)
    yield Family("rmqarq_build_info", "gauge", "The version that runs.", (sample,))


@cache
def _build() -> Mapping[str, str]:
    python = ".".join(map(str, sys.version_info[:3]))
    return {"version": version("rmqarq"), "python": python}


def _others(facts: Facts, stats: Stats) -> Iterator[Family]:
    counters = {
        "reconnects": ("Connections made anew after a loss.", facts.reconnects),
        "event_loop_blocks": ("Times the event loop was blocked.", facts.blocks),
        "returned": ("Messages given back unfinished.", stats.returned),
        "duplicates": ("Redeliveries of what ran or was done.", stats.duplicates),
        "crashes": ("Suspects that ended their process.", stats.crashed),
        "stuck": ("Runs left behind.", stats.stuck),
    }
    for name, (what, value) in counters.items():
        yield _single(f"rmqarq_{name}_total", "counter", what, value)


def _single(
    name: str, kind: Literal["counter", "gauge"], what: str, value: float
) -> Family:
    return Family(name, kind, what, (Sample({}, value),))


def _histograms(name: str, what: str, of: Mapping[str, Histogram]) -> Family:
    """Buckets are cumulative in this format: each counts those below it, too."""
    samples: list[Sample] = []
    for task, histogram in of.items():
        for bound, count in zip(
            (*map(repr, BOUNDS), "+Inf"), accumulate(histogram.counts), strict=True
        ):
            samples.append(Sample({"task": task, "le": bound}, count, "_bucket"))
        labels = {"task": task}
        samples.append(Sample(labels, histogram.total, "_sum"))
        samples.append(Sample(labels, sum(histogram.counts), "_count"))
    return Family(name, "histogram", what, tuple(samples))


def _written(family: Family) -> str:
    lines = [
        f"# HELP {family.name} {family.help}",
        f"# TYPE {family.name} {family.kind}",
    ]
    lines += [
        f"{family.name}{each.suffix}{_labels(each.labels.items())} {each.value!r}"
        for each in family.samples
    ]
    return "\n".join(lines) + "\n"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f'{name}="{text.translate(_ESCAPED)}"' for name, text in pairs)
    return f"{{{inside}}}" if inside else ""
