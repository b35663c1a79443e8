"""One run: jobs at a steady rate, one fault after the other, then the reckoning."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from operator import itemgetter
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from tests.broker.kit import take_all, until
from tests.chaos.faults import OUTAGES, Harmless
from tests.chaos.ledger import check
from tests.chaos.producer import QUEUE
from tests.chaos.stage import Stage
from tests.harness.broker import QUEUES, BrokerError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.chaos.faults import Fault
    from tests.chaos.ledger import Verdict
    from tests.harness.cluster import Cluster

DEAD = f"{QUEUE}_dlq"
FEW = 10  # open enqueues
BACKLOG_SECONDS = 10.0
SETTLED = 0.3  # after a backlog is gone, until a latency is a calm one
RESUME_SECONDS = 20.0
DRAIN_SECONDS = 60.0
REFRESH = 0.8  # RabbitMQ's figures of quorum queues are older than that by no means


@dataclass(frozen=True)
class Plan:
    """What a run is made of.

    Args:
        seconds: How long jobs are offered and faults made.
        rate: Jobs a second.
        workers: How many at a time.
        seed: Of everything that is left to chance.
        faults: Each once in this order, then any of them.
        calm: The shortest and the longest time between two faults.
        delays: What delayed jobs wait, in seconds.
        report: Told of each fault when work has gone on.
    """

    seconds: float
    rate: float
    workers: int
    seed: int
    faults: Mapping[str, Fault]
    calm: tuple[float, float] = (0.4, 1.2)
    delays: tuple[float, ...] = (0.3, 1.2, 3.0)
    report: Callable[[Event], None] | None = None


class Event(NamedTuple):
    """One fault: its name, begin, when work could go on, when it did, and was calm."""

    name: str
    began: float
    back: float
    first_done: float | None
    calm_at: float

    @property
    def recovery(self) -> float:
        """Seconds until a job was done that was enqueued after it."""
        if self.first_done is None:
            return RESUME_SECONDS
        return self.first_done - self.back


@dataclass(frozen=True)
class Result:
    """What a run showed.

    Attributes:
        plan: What was asked for.
        seconds: How long it took, reckoning included.
        verdict: What became of the jobs.
        events: The faults, in order.
        calm: Seconds in which no fault was active.
        offered: Jobs a second, while no fault was active.
        confirm: Median and 99th percentile of an enqueue in these times, in seconds.
        longest: The longest enqueue of all, in seconds.
        errors: What enqueues raised, in words, and how often.
        gaps: After each fault the longest time without a confirmed enqueue.
        leftovers: Queues that are not empty at the end, with their counts.
        letters: Dead letters, repeated ones included.
        poison: Unreadable messages sent.
        buried: Unreadable messages that are dead letters.
        secrets: Lines of output that hold what nobody may see.
        complaints: Whatever else went wrong, in words.
    """

    plan: Plan
    seconds: float
    verdict: Verdict
    events: list[Event]
    calm: float
    offered: float
    confirm: tuple[float, float]
    longest: float
    errors: dict[str, int]
    gaps: list[float]
    leftovers: dict[str, dict[str, int]]
    letters: int
    poison: int
    buried: int
    secrets: list[str]
    complaints: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How often each fault was made."""
        return dict(Counter(event.name for event in self.events))

    def recoveries(self, *names: str) -> list[float]:
        """Give the recovery times of faults with these names, or of all, sorted."""
        return sorted(e.recovery for e in self.events if not names or e.name in names)

    def figures(self) -> dict[str, object]:
        """Give the numbers to publish."""
        verdict = self.verdict
        back = self.recoveries(*OUTAGES) or [0.0]
        return {
            "seed": self.plan.seed,
            "seconds": round(self.seconds, 1),
            "workers": self.plan.workers,
            "jobs": verdict.sent,
            "confirmed": verdict.confirmed,
            "done": verdict.done,
            "offered_per_second": round(self.offered, 1),
            "faults": len(self.events),
            "faults_by_kind": self.counts,
            "lost": len(verdict.lost),
            "unexpected": len(verdict.unexpected),
            "errors": self.errors,
            "unknown_but_done": len(verdict.recovered),
            "hung": len(verdict.hung),
            "cancelled_by_faults": len(verdict.cancelled),
            "early": len(verdict.early),
            "duplicates_percent": round(100 * verdict.duplicates, 3),
            "done_twice": len(verdict.done_again),
            "most_starts_of_an_attempt": verdict.max_starts,
            "dead_letters": verdict.dead,
            "poison": self.poison,
            "confirm_p50_ms": round(1000 * self.confirm[0], 2),
            "confirm_p99_ms": round(1000 * self.confirm[1], 2),
            "longest_enqueue_s": round(self.longest, 2),
            "recovery_p50_s": round(back[len(back) // 2], 3),
            "recovery_max_s": round(back[-1], 3),
            "longest_gap_s": round(max(self.gaps, default=0.0), 2),
            "left_over": sum(sum(each.values()) for each in self.leftovers.values()),
            "secrets": len(self.secrets),
        }

    def assert_nothing_lost(self) -> None:
        """Insist on everything that holds whatever happens."""
        assert self.verdict.flaws == {}
        assert self.complaints == []
        assert self.leftovers == {}
        assert self.buried == self.poison
        assert self.secrets == []
        assert self.verdict.confirmed > 0


async def run(cluster: Cluster, directory: Path, plan: Plan) -> Result:
    """Make a whole run on a cluster that stands already."""
    began = time.monotonic()
    async with Stage(
        cluster, directory, rate=plan.rate, seed=plan.seed, delays=plan.delays
    ) as stage:
        for _ in range(plan.workers):
            await stage.fleet.start()
        await stage.producer.warm_up()
        await asyncio.to_thread(stage.write_down)
        producing = asyncio.create_task(stage.producer.run())
        try:
            events = await spoil(stage, plan)
        finally:
            ended = time.monotonic()
            await stage.producer.stop()
            await producing
        leftovers = await drain(stage)
        letters = await take_all(cluster.alive().url, DEAD)
        ids = [each.properties.correlation_id for each in letters]
        verdict = check(
            stage.account,
            stage.log.rows(),
            dead=[each for each in ids if each],
            stopped=stage.fleet.stopped,
        )
        spans = list(calm_spans(events, ended))
        return Result(
            plan=plan,
            seconds=time.monotonic() - began,
            verdict=verdict,
            events=events,
            calm=sum(end - begin for begin, end in spans),
            offered=offered(stage, spans),
            confirm=latencies(stage, spans),
            longest=stage.account.longest,
            errors=dict(stage.account.errors),
            gaps=[gap(stage, event) for event in events],
            leftovers=leftovers,
            letters=len(letters),
            poison=len(stage.producer.poison),
            buried=len(stage.producer.poison & {each.body for each in letters}),
            secrets=stage.secrets(),
            complaints=stage.complaints,
        )


async def spoil(stage: Stage, plan: Plan) -> list[Event]:
    """Make one fault after the other until the time is up."""
    end = time.monotonic() + plan.seconds
    events: list[Event] = []
    await asyncio.sleep(stage.chance.uniform(*plan.calm))
    for name in schedule(plan.faults, stage.chance):
        if time.monotonic() >= end and len(events) >= len(plan.faults):
            return events
        began = time.monotonic()
        try:
            back = await plan.faults[name](stage)
        except (Harmless, AssertionError, BrokerError, TimeoutError) as error:
            stage.complain(f"{name}: {error!r}")
            await stage.heal(plan.workers)
            back = time.monotonic()
        first_done = await resumed(stage, back)
        event = Event(name, began, back, first_done, await calmed(stage))
        if event.first_done is None:
            stage.complain(f"{name}: no new job was done within {RESUME_SECONDS} s")
        events.append(event)
        if plan.report is not None:
            plan.report(event)
        await asyncio.sleep(SETTLED + stage.chance.uniform(*plan.calm))
    raise AssertionError("a schedule has no end")


def schedule(faults: Mapping[str, Fault], chance: random.Random) -> Iterator[str]:
    """Name each fault once, then any of them for ever."""
    yield from faults
    while True:
        yield chance.choice(list(faults))


async def resumed(stage: Stage, back: float) -> float | None:
    """Wait until a job is done that was confirmed after a moment; tell when."""
    deadline = time.monotonic() + RESUME_SECONDS
    fresh: set[str] = set()
    while (first := stage.log.first_done(fresh, back)) is None:
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.02)
        fresh = {each.job_id for each in stage.account.confirmed_since(back)}
    return first


async def calmed(stage: Stage) -> float:
    """Wait until hardly an enqueue is open, if that comes soon; tell when.

    A fault doubles what is on its way just then, and should not meet the backlog of
    the one before.
    """
    with suppress(AssertionError):
        await until(lambda: stage.producer.open <= FEW, BACKLOG_SECONDS)
    return time.monotonic()


async def drain(stage: Stage) -> dict[str, dict[str, int]]:
    """Let the workers finish, stop them, and look for what is left over."""
    left = await until_empty(stage)
    if left:
        stage.complain(f"the workers left messages: {left}")
    for worker in list(stage.fleet.workers):
        end = await stage.fleet.terminate(worker)
        if end.code:
            stage.complain(f"{end}: {worker.output[-2000:]}")
    burst = await stage.fleet.start(
        "--burst", "--wait-delayed", "--burst-check-interval", "0.3"
    )
    try:
        end = await stage.fleet.ended(burst, "drained")
    except TimeoutError as error:
        # what waits for its dead-lettering is in the one, and not in the other
        items = QUEUES.format(items="messages, messages_ready, consumers, leader")
        held = await asyncio.to_thread(stage.cluster.alive().eval, items)
        raise AssertionError(f"{error}; the queues hold {held.split()}") from error
    if end.code:
        stage.complain(f"{end}: {burst.output[-2000:]}")
    return await until_empty(stage)


async def until_empty(stage: Stage) -> dict[str, dict[str, int]]:
    """Wait until nothing is ready or unacknowledged; give what is, if not in time."""
    deadline = time.monotonic() + DRAIN_SECONDS + max(stage.delays)
    empty = 0
    while empty < 2:
        queues = await asyncio.to_thread(stage.cluster.alive().queues)
        left = {name: counts for name, counts in queues.items() if has(name, counts)}
        if time.monotonic() > deadline:
            return left
        empty = 0 if left else empty + 1
        await asyncio.sleep(REFRESH)
    return {}


def has(name: str, counts: Mapping[str, int]) -> bool:
    """Tell whether there are messages where none should be."""
    messages = counts["messages_ready"] + counts["messages_unacknowledged"]
    return name != DEAD and messages > 0


def calm_spans(events: list[Event], ended: float) -> Iterator[tuple[float, float]]:
    """Give the times between faults, from a moment after all is calm."""
    for event, following in pairwise([*events, None]):
        if event is not None:
            begin = event.calm_at + SETTLED
            end = following.began if following is not None else ended
            if end > begin:
                yield begin, end


def offered(stage: Stage, spans: list[tuple[float, float]]) -> float:
    """Count the jobs a second that were offered in some spans."""
    seconds = sum(end - begin for begin, end in spans)
    inside = sum(among(at, spans) for at in stage.producer.offers)
    return inside / seconds if seconds else 0.0


def latencies(stage: Stage, spans: list[tuple[float, float]]) -> tuple[float, float]:
    """Give the median and the 99th percentile of the enqueues within some spans."""
    times = [
        confirm.seconds
        for confirm in stage.account.confirms
        if among(confirm.at, spans) and among(confirm.at - confirm.seconds, spans)
    ]
    if len(times) < 2:
        return 0.0, 0.0
    cuts = quantiles(times, n=100)
    return cuts[49], cuts[98]


def among(at: float, spans: list[tuple[float, float]]) -> bool:
    """Tell whether a moment lies in one of some spans, which are in order."""
    index = bisect_right(spans, at, key=itemgetter(0))
    return index > 0 and at <= spans[index - 1][1]


def gap(stage: Stage, event: Event) -> float:
    """Give the longest time without a confirmed enqueue around a fault."""
    end = (event.first_done or event.back) + 1.0
    around = takewhile(
        lambda confirm: confirm.at <= end,
        stage.account.confirmed_since(event.began - 1.0),
    )
    moments = [confirm.at for confirm in around]
    return max((late - early for early, late in pairwise(moments)), default=0.0)
