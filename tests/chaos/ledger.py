"""Two records of every job, and the judgement on what became of it.

The account holds what a producer was told about each job, the log what the tasks wrote
down when they ran. Both are kept outside the broker, so that the two compared show a
job that was lost, run without having been sent, or run more often than needed.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmqarq import ConnectionFailed, QueueFull, TransportError, Unroutable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterable, Mapping

    from rmqarq import Context

LOG_VARIABLE = "RMQARQ_CHAOS_LOG"

# after these the broker certainly does not hold the job
REFUSALS = (QueueFull, Unroutable, ConnectionFailed)


class Confirm(NamedTuple):
    """One confirmed enqueue: when it was confirmed, how long that took, and what."""

    at: float
    seconds: float
    job_id: str


class Account:
    """What a producer knows of its jobs.

    Args:
        deadline: The `publish_deadline` of the App that enqueues.

    Attributes:
        sent: Every job that was tried to be enqueued.
        confirmed: The ones whose enqueue returned.
        unknown: The ones whose enqueue raised, but which may be stored.
        refused: The ones whose enqueue raised and said that they are not stored.
        doomed: The ones that shall end in the dead-letter queue.
        surprises: Errors that no enqueue should raise, by job.
        errors: How often an enqueue raised which error, in words.
        longest: The longest enqueue, in seconds.
        hung: Enqueues that took longer than the deadline and a second, by job.
        confirms: Moment, duration and job of every confirmed enqueue, in order.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.sent: set[str] = set()
        self.confirmed: set[str] = set()
        self.unknown: set[str] = set()
        self.refused: set[str] = set()
        self.doomed: set[str] = set()
        self.surprises: dict[str, BaseException] = {}
        self.errors: Counter[str] = Counter()
        self.longest = 0.0
        self.hung: dict[str, float] = {}
        self.confirms: list[Confirm] = []

    async def keep(
        self, job_id: str, enqueueing: Awaitable[object], *, doomed: bool = False
    ) -> bool:
        """Await one enqueue and write down how it ended; tell if it was confirmed.

        Args:
            job_id: The id under which the job is enqueued.
            enqueueing: `task.options(job_id=...).enqueue(...)` or `.defer(...)`.
            doomed: It shall become a dead letter.
        """
        self.sent.add(job_id)
        if doomed:
            self.doomed.add(job_id)
        began = time.monotonic()
        try:
            await enqueueing
        except TransportError as error:
            kind = self.refused if isinstance(error, REFUSALS) else self.unknown
            kind.add(job_id)
            self.errors[f"{type(error).__name__}: {error}"] += 1
        except asyncio.CancelledError:
            self.unknown.add(job_id)
            self.hung[job_id] = math.inf  # given up on by the test
            raise
        except Exception as error:
            self.unknown.add(job_id)
            self.surprises[job_id] = error
        else:
            self.confirmed.add(job_id)
            now = time.monotonic()
            self.confirms.append(Confirm(now, now - began, job_id))
        self._time(job_id, time.monotonic() - began)
        return job_id in self.confirmed

    def confirmed_since(self, begin: float) -> list[Confirm]:
        """Give the enqueues confirmed since a moment of the monotonic clock."""
        first = bisect_left(self.confirms, begin, key=attrgetter("at"))
        return self.confirms[first:]

    def _time(self, job_id: str, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        if seconds > self.deadline + 1:
            self.hung[job_id] = seconds


class Row(NamedTuple):
    """One line of the log.

    Args:
        kind: `S`tart, `D`one, `C`ancelled, or `E`arly: before its time.
        job_id: Of the job.
        job_try: Its attempt.
        at: The moment, by the monotonic clock, which all processes share.
        pid: The process that ran it.
        parent: The parent of that process: the worker, if the job ran in a child.
        redelivered: The broker had delivered it before; else a second start is due
            to a second message.
    """

    kind: str
    job_id: str
    job_try: int
    at: float
    pid: int
    parent: int
    redelivered: bool = False


class Log:
    """What the tasks in all worker processes have written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[Row] = []
        self._read = 0

    def rows(self, kind: str | None = None) -> list[Row]:
        """Give the whole lines, of one kind or all."""
        self._catch_up()
        return [row for row in self._rows if kind is None or row.kind == kind]

    def first_done(self, among: Collection[str], since: float) -> float | None:
        """Give the moment since another at which the first of some jobs was done."""
        self._catch_up()
        first = None
        for row in reversed(self._rows):
            if row.at < since - 5:  # lines of two processes may be out of order
                break
            if row.kind == "D" and row.at >= since and row.job_id in among:
                first = row.at if first is None else min(first, row.at)
        return first

    def done(self) -> set[str]:
        """Give the ids of the jobs that came to their end."""
        return {row.job_id for row in self.rows("D")}

    def _catch_up(self) -> None:
        """Read what is new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        self._rows += map(parse, whole.decode().splitlines())


def parse(line: str) -> Row:
    """Read one line of the log."""
    kind, job_id, job_try, at, pid, parent, redelivered = line.split()
    moment, again = float(at), redelivered == "1"
    return Row(kind, job_id, int(job_try), moment, int(pid), int(parent), again)


def note(ctx: Context[Any], kind: str) -> None:
    """Write a line to the log that the environment names; called by the tasks.

    One write to a file opened for appending is whole even if the process is killed.
    """
    line = (
        f"{kind} {ctx.job_id} {ctx.job_try} {time.monotonic():.6f}"
        f" {os.getpid()} {os.getppid()} {ctx.redelivered:d}\n"
    )
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    log = os.open(os.environ[LOG_VARIABLE], flags, 0o644)
    try:
        os.write(log, line.encode())
    finally:
        os.close(log)


@dataclass(frozen=True)
class Verdict:
    """What became of all jobs.

    Attributes:
        sent: How many were tried to be enqueued.
        confirmed: How many of them were confirmed.
        done: How many came to their end.
        dead: How many became dead letters.
        lost: Confirmed, but neither done nor, if doomed, a dead letter.
        unexpected: Done or dead, but never sent.
        undead: Said to be refused, but done or dead.
        recovered: Of unknown outcome, and done or dead.
        wrongly_dead: Dead letters of jobs that are not doomed.
        duplicated: Attempts that were started more than once, by job and attempt;
            without the runs that a stopping worker cancelled and gave back.
        done_again: Attempts that were completed more than once.
        starts: All starts, retries included.
        max_starts: The most starts of one attempt, likewise.
        cancelled: Jobs cancelled in a worker that had not been told to stop.
        early: Delayed jobs that ran before their time.
        hung: Enqueues that took longer than their deadline and a second.
        surprises: Errors that no enqueue should raise, as text.
    """

    sent: int
    confirmed: int
    done: int
    dead: int
    lost: frozenset[str]
    unexpected: frozenset[str]
    undead: frozenset[str]
    recovered: frozenset[str]
    wrongly_dead: frozenset[str]
    duplicated: Mapping[tuple[str, int], int]
    done_again: Mapping[tuple[str, int], int]
    starts: int
    max_starts: int
    cancelled: frozenset[str]
    early: frozenset[str]
    hung: Mapping[str, float]
    surprises: Mapping[str, str]

    @property
    def duplicates(self) -> float:
        """Superfluous starts per start, as a fraction of one."""
        again = sum(count - 1 for count in self.duplicated.values())
        return again / self.starts if self.starts else 0.0

    @property
    def flaws(self) -> dict[str, object]:
        """What may not happen at all, if it did; duplicates are for the caller."""
        names = (
            "lost",
            "unexpected",
            "undead",
            "wrongly_dead",
            "cancelled",
            "early",
            "hung",
            "surprises",
        )
        return {name: found for name in names if (found := getattr(self, name))}


def check(
    account: Account,
    rows: Iterable[Row],
    *,
    dead: Iterable[str] = (),
    stopped: Collection[int] = (),
) -> Verdict:
    """Compare what the producer was told with what was run.

    Args:
        account: Of the producer.
        rows: The whole log.
        dead: The job id of every dead letter.
        stopped: Process ids of workers that were told to stop: they may cancel jobs.
    """
    rows = list(rows)
    buried = set(dead)
    done = {row.job_id for row in rows if row.kind == "D"}
    ended = done | buried
    starts, ends, cancels = (
        Counter((row.job_id, row.job_try) for row in rows if row.kind == kind)
        for kind in "SDC"
    )
    doomed = account.confirmed & account.doomed
    cancelled = (
        row.job_id
        for row in rows
        if row.kind == "C" and row.pid not in stopped and row.parent not in stopped
    )
    return Verdict(
        sent=len(account.sent),
        confirmed=len(account.confirmed),
        done=len(done),
        dead=len(buried),
        lost=frozenset((account.confirmed - doomed - done) | (doomed - buried)),
        unexpected=frozenset((ended | {job for job, _ in starts}) - account.sent),
        undead=frozenset(account.refused & ended),
        recovered=frozenset(account.unknown & ended),
        wrongly_dead=frozenset(buried - account.doomed),
        duplicated=_more_than_once(starts - cancels),
        done_again=_more_than_once(ends),
        starts=starts.total(),
        max_starts=max((starts - cancels).values(), default=0),
        cancelled=frozenset(cancelled),
        early=frozenset(row.job_id for row in rows if row.kind == "E"),
        hung=dict(account.hung),
        surprises={job: repr(error) for job, error in account.surprises.items()},
    )


def _more_than_once(
    counts: Mapping[tuple[str, int], int],
) -> dict[tuple[str, int], int]:
    return {key: count for key, count in counts.items() if count > 1}
