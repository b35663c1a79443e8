"""What rmqarq has to show beside other libraries, each demand with its ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from benchmarks.peers import Entry
from benchmarks.results import Report, Standing, ours, standings
from benchmarks.rows import ROWS, Row

Choice: TypeAlias = Callable[[Entry], bool]


class Demand(Struct, frozen=True):
    """One demand: rmqarq's figure divided by that of the best of some others.

    Args:
        match: The scenario.
        figure: Of it.
        beside: The others, in words.
        choice: Whether an entry is one of them.
        bound: What the ratio must reach, or stay below if less is better.
        variant: Of rmqarq; the best one if not given.
    """

    match: str
    figure: str
    beside: str
    choice: Choice
    bound: float
    variant: str = ""

    @property
    def row(self) -> Row:
        """The row of the tables that it is about."""
        return next(r for r in ROWS if (r.match, r.figure) == (self.match, self.figure))


class Verdict(Struct, frozen=True):
    """How a demand was met.

    Args:
        demand: The demand.
        rival: The best of the others; None if none was measured.
        own: Ours.
    """

    demand: Demand
    rival: Standing | None
    own: Standing | None

    @property
    def ratio(self) -> float | None:
        """Ours divided by theirs; None where one is missing."""
        if self.rival is None or self.own is None or not self.rival.value:
            return None
        return self.own.value / self.rival.value

    @property
    def met(self) -> bool | None:
        """Whether it holds; None where nothing can be said."""
        ratio = self.ratio
        if ratio is None:
            return None
        bound = self.demand.bound
        return ratio >= bound if self.demand.row.most else ratio <= bound


def _queue(entry: Entry) -> bool:
    return entry.peer.kind == "queue" and entry.name != "rmqarq"


def _on_rabbitmq(entry: Entry) -> bool:
    return _queue(entry) and entry.peer.broker == "rabbitmq"


def _safe(entry: Entry) -> bool:
    return _queue(entry) and entry.safe


def _named(name: str, variant: str = "") -> Choice:
    return lambda entry: entry.name == name and variant in ("", entry.variant)


DEMANDS = (
    Demand("drain", "rate", "queues on RabbitMQ", _on_rabbitmq, 5),
    Demand("drain", "rate", "Celery", _named("celery"), 10),
    Demand("drain", "rate", "plain aiormq", _named("aiormq", "default"), 3),
    Demand("drain", "rate", "C", _named("c"), 0.5),
    Demand("bulk", "rate", "queues on RabbitMQ", _on_rabbitmq, 2),
    Demand("one_by_one", "rate", "durable and confirmed queues", _safe, 1.1),
    Demand("bulk", "cpu", "all queues", _queue, 0.25),
    Demand("drain", "cpu", "all queues", _queue, 0.25),
    Demand("latency", "p50", "queues on RabbitMQ", _on_rabbitmq, 1),
    Demand("memory", "idle", "queues on RabbitMQ", _on_rabbitmq, 1),
    Demand("delayed", "last", "Celery", _named("celery"), 0.05, "mapped"),
    Demand("delayed", "last", "Celery", _named("celery"), 0.05),
)


def judge(report: Report) -> list[Verdict]:
    """Look at every demand; both sides have the better of their variants."""
    verdicts: list[Verdict] = []
    for demand in DEMANDS:
        ranked = standings(report, demand.row)
        rivals = [each for each in ranked if demand.choice(each.entry)]
        own = ours(ranked, demand.variant)
        verdicts.append(Verdict(demand, next(iter(rivals), None), own))
    return verdicts
