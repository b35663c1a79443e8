"""Every library in every scenario, each with a worker of its own kind, in turn.

A worker is started by the library's own command in its own environment, and measured
from outside: its jobs note in shared memory when they were begun, and the kernel tells
what the processes used. Producers are measured from inside, by child.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.libraries import CONCURRENCY, QUEUE
from benchmarks.processes import Worker
from benchmarks.tally import Tally
from tests.harness.broker import BrokerError

if TYPE_CHECKING:
    from benchmarks.peers import Entry
    from benchmarks.stores import Stores

Figures: TypeAlias = dict[str, float]

NAP = 0.05
IDLE = 2.0
READY_SECONDS = 60.0
SECONDS = 600.0  # one measurement, unless it is given up as hopeless
QUIET_SECONDS = 30.0  # nothing happened for so long: jobs are lost
LEAD = 6.0  # before delayed jobs are due, beside the time their enqueues may take
HOUR = 3600.0
FLOOR = ("one_by_one", "bulk", "drain")  # what the C client knows
IMPORT = """
import time
start = time.process_time()
{code}
print((time.process_time() - start) * 1e3)
"""


class Unmeasured(Exception):
    """A library could not do it, and why."""


def obstacle(scenario: str, entry: Entry) -> str | None:
    """Say why a library has no place in a scenario, if so."""
    if entry.peer.kind == "floor" and scenario not in FLOOR:
        return "it has no worker"
    if scenario == "naps" and not entry.settings.parallel:
        return "it does not run 100 jobs at a time with these settings"
    if scenario in ("delayed", "pending") and not entry.peer.delays:
        return "it has no delays without a plugin of the broker"
    return None


class Contest:
    """Measures one entry in one scenario at a time.

    Args:
        stores: The brokers.
        programs: Of each entry, by key.
        directory: For bytecode, logs and shared memory.
    """

    def __init__(
        self, stores: Stores, programs: dict[str, Path], directory: Path
    ) -> None:
        self.stores = stores
        self.programs = programs
        self.directory = directory
        shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else directory
        self.shared = shared / f"rmqarq-bench-{os.getpid()}"

    def measure(self, scenario: str, entry: Entry, n: int) -> Figures:
        """Give the figures of one measurement.

        Raises:
            Unmeasured: It did not work, or took too long.
        """
        if (why := obstacle(scenario, entry)) is not None:
            raise Unmeasured(why)
        try:
            run = Run(self, entry, n)
            if entry.peer.kind == "floor":
                return run.floor(scenario)
            return MEASURES[scenario](run)
        except subprocess.TimeoutExpired as error:
            raise Unmeasured(f"not done in {error.timeout:.0f} s") from error
        except BrokerError as error:
            raise Unmeasured(str(error)) from error
        finally:
            self.shared.unlink(missing_ok=True)


class Run:
    """One measurement of one entry, on brokers that are empty at its beginning."""

    def __init__(self, contest: Contest, entry: Entry, n: int) -> None:
        self.entry = entry
        self.n = n
        self._stores = contest.stores
        self._program = str(contest.programs[entry.key])
        self._log = contest.directory / f"{entry.name}.log"
        self._shared = str(contest.shared)
        on_rabbit = entry.peer.broker == "rabbitmq"
        self.store = self._stores.rabbit if on_rabbit else self._stores.redis
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RMQARQ_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        self._environment = {
            **kept,
            **self._stores.renew(rabbit=on_rabbit),
            "PYTHONPYCACHEPREFIX": str(contest.directory / "bytecode" / entry.key),
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "BENCH_VARIANT": entry.variant,
        }
        if entry.peer.queue:
            self._stores.rabbit.declare(QUEUE)

    def floor(self, scenario: str) -> Figures:
        """Run the C client, which measures itself."""
        if scenario == "drain":
            self._c("bulk")
        return self._c(scenario)

    def _c(self, scenario: str) -> Figures:
        address = self._stores.rabbit.address
        return self._json([self._program, scenario, str(self.n), *address, QUEUE])

    def child(self, what: str, *more: float) -> Figures:
        """Run a producer to its end."""
        return self._json(self._child(what, *more))

    def paced(self) -> list[float]:
        """Run the producer that takes its time; give the moments of its enqueues."""
        return json.loads(self._output(self._child("paced")))["sent"]

    def _child(self, what: str, *more: float) -> list[str]:
        arguments = [self.entry.peer.module, what, str(self.n), *map(str, more)]
        return [self._program, "-m", "benchmarks.child", *arguments]

    def imported(self) -> float:
        """Give the CPU time of the import, in ms."""
        code = IMPORT.format(code=self.entry.peer.imports)
        return float(self._output([self._program, "-c", code]))

    def _json(self, command: list[str]) -> Figures:
        return json.loads(self._output(command))

    def _output(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            raise Unmeasured(f"the producer failed: {done.stderr.strip()[-300:]}")
        return done.stdout.splitlines()[-1]

    def worker(self, nap: float = 0.0) -> Worker:
        """Give the library's worker, with nothing noted yet by its jobs."""
        self.tally = Tally(self._shared, self.n)
        threads = CONCURRENCY // 2 if nap else 8
        words = {
            "library": f"benchmarks.libraries.{self.entry.peer.module}",
            "threads": threads,
        }
        arguments = [each.format(**words) for each in self.entry.settings.worker]
        environment = {
            **self._environment,
            "BENCH_TALLY": self._shared,
            "BENCH_NAP": str(nap),
        }
        return Worker([self._program, *arguments], environment, self._log)

    def ready(self, worker: Worker) -> None:
        """Wait until the worker has run a first job."""
        self.child("warm")
        self.until(worker, lambda: self.tally.ready, READY_SECONDS)
        worker.resources.look()

    def until(
        self,
        worker: Worker,
        done: Callable[[], bool],
        seconds: float,
        step: float = 0.002,
    ) -> None:
        """Wait for something that the worker does.

        Raises:
            Unmeasured: The worker ended, or it took too long.
        """
        deadline = time.monotonic() + seconds
        while not done():
            if worker.ended is not None:
                raise Unmeasured(worker.ended)
            if time.monotonic() > deadline:
                begun = self.tally.begun
                raise Unmeasured(f"{begun} of {self.n} jobs begun in {seconds:.0f} s")
            time.sleep(step)

    def all_begun(self, worker: Worker) -> None:
        """Wait until every job has been begun, as long as there is progress."""
        deadline = time.monotonic() + SECONDS
        before = -1
        while (begun := self.tally.begun) < self.n:
            if begun == before or time.monotonic() > deadline:
                raise Unmeasured(f"only {begun} of {self.n} jobs were begun")
            before = begun
            moment = time.monotonic() + QUIET_SECONDS
            self.until(
                worker,
                lambda: self.tally.begun == self.n or time.monotonic() > moment,  # noqa: B023
                QUIET_SECONDS + 10,
                0.005,
            )

    def moments(self) -> list[float]:
        """When each job was begun."""
        return list(self.tally.moments[:-1])


def one_by_one(run: Run) -> Figures:
    return run.child("one_by_one")


def bulk(run: Run) -> Figures:
    return run.child("bulk")


def drain(run: Run) -> Figures:
    run.child("fill")
    with run.worker() as worker:
        return _drained(run, worker)


def naps(run: Run) -> Figures:
    run.child("fill")
    with run.worker(NAP) as worker:
        figures = _drained(run, worker, NAP)
    return {**figures, "ideal": run.n / CONCURRENCY * NAP / figures["wall"]}


def _drained(run: Run, worker: Worker, last: float = 0.0) -> Figures:
    run.until(worker, lambda: run.tally.begun > 0, READY_SECONDS, 0.001)
    worker.resources.look()
    before, cpu = run.tally.begun, worker.resources.cpu
    run.all_begun(worker)
    time.sleep(last)
    cpu = worker.resources.cpu - cpu
    moments = run.moments()
    wall = max(moments) - min(moments) + last
    figures = {"n": run.n, "wall": wall, "rate": run.n / wall}
    if (counted := run.n - before) > run.n / 2:  # else it was too quick to be seen
        figures["cpu"] = cpu / counted * 1e6
    return figures


def latency(run: Run) -> Figures:
    with run.worker() as worker:
        run.ready(worker)
        sent = run.paced()
        run.all_begun(worker)
        begun = run.moments()
    waited = sorted(b - s for b, s in zip(begun, sent, strict=True))
    return {"n": run.n, "p50": waited[run.n // 2] * 1e3, "p99": _p99(waited) * 1e3}


def _p99(ordered: list[float]) -> float:
    return ordered[int(len(ordered) * 0.99)]


def start(run: Run) -> Figures:
    run.child("fill")
    with run.worker() as worker:
        run.until(worker, lambda: run.tally.begun > 0, READY_SECONDS, 0.001)
        return {"wall": (run.moments()[0] - worker.started) * 1e3}


def imports(run: Run) -> Figures:
    return {"cpu": run.imported()}


def memory(run: Run) -> Figures:
    with run.worker() as worker:
        run.ready(worker)
        time.sleep(IDLE)
        idle = worker.resources.memory
        run.child("fill")
        run.all_begun(worker)
        time.sleep(IDLE)
        after = worker.resources.memory
    return {
        "n": run.n,
        "idle": idle["Rss"],
        "idle_pss": idle["Pss"],
        "growth": after["Rss"] - idle["Rss"],
    }


def delayed(run: Run) -> Figures:
    """Jobs that are all due at one moment: how late is the last one?"""
    with run.worker() as worker:
        run.ready(worker)
        due = float(round(time.time() + LEAD + run.n / run.entry.settings.pace))
        run.child("deferred", due)
        enqueued = time.time() - due
        if enqueued > 0:
            raise Unmeasured(f"the enqueues ended {enqueued:.1f} s after the moment")
        run.until(worker, lambda: time.time() > due, SECONDS, 0.05)
        run.all_begun(worker)
        offset = time.time() - time.monotonic()
        late = sorted(moment + offset - due for moment in run.moments())
    return {
        "n": run.n,
        "first": late[0] * 1e3,
        "p50": late[run.n // 2] * 1e3,
        "last": late[-1] * 1e3,
    }


def pending(run: Run) -> Figures:
    """Many jobs that wait for an hour: what do they cost worker and broker?"""
    assert run.store is not None
    with run.worker() as worker:
        run.ready(worker)
        time.sleep(IDLE)
        before, stored = worker.resources.memory, run.store.resources.memory
        figures = run.child("deferred", time.time() + HOUR)
        time.sleep(IDLE)
        after, kept = worker.resources.memory, run.store.resources.memory
    return {
        **figures,
        "worker": after["Rss"] - before["Rss"],
        "stored": (kept["Rss"] - stored["Rss"]) * 1024 / run.n,
    }


MEASURES: dict[str, Callable[[Run], Figures]] = {
    "one_by_one": one_by_one,
    "bulk": bulk,
    "drain": drain,
    "latency": latency,
    "naps": naps,
    "start": start,
    "import": imports,
    "memory": memory,
    "delayed": delayed,
    "pending": pending,
}
