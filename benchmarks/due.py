"""Where the time goes when many delayed jobs are due at one moment."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from benchmarks.processes import Resources
from rmqarq import App, Worker
from tests.harness.broker import Broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Figures: TypeAlias = dict[str, float]

QUEUE = "due"
LEAD = 5.0
PREFETCH = (32, 500)
SET = "ok = application:set_env(rabbit, dead_letter_worker_consumer_prefetch, {})."


def delayed(jobs: int, prefetch: int) -> Figures:
    """Defer jobs to one moment, and tell how late they begin.

    Args:
        jobs: How many.
        prefetch: How many messages at once RabbitMQ takes out of a rung; 32 by default.
    """
    with Broker() as broker:
        broker.eval(SET.format(prefetch))
        return asyncio.run(_delayed(broker, jobs))


def undelayed(jobs: int) -> Figures:
    """Let as many jobs wait in their queue, and tell when they begin after the first.

    Args:
        jobs: How many.
    """
    with Broker() as broker:
        return asyncio.run(_undelayed(broker, jobs))


class Begun:
    """When jobs began, by the clock that all processes share.

    Args:
        jobs: How many there will be.
    """

    def __init__(self, jobs: int) -> None:
        self.times: list[float] = []
        self.all = asyncio.Event()
        self._jobs = jobs

    def note(self) -> None:
        """Note that one has begun."""
        self.times.append(time.time())
        if len(self.times) == self._jobs:
            self.all.set()


async def _delayed(broker: Broker, jobs: int) -> Figures:
    begun, node = Begun(jobs), Resources(broker.pid)
    app = _noting(broker, begun)
    async with app, _working(app):
        when = datetime.now(UTC) + timedelta(seconds=LEAD)
        calls = [app.ref("note").job().defer(when) for _ in range(jobs)]
        await app.enqueue_many(calls)
        due = when.timestamp()
        if (left := due - time.time()) < 1:
            raise SystemExit(f"{jobs} jobs can't be enqueued in {LEAD:.0f} s here")
        await asyncio.sleep(left - 0.5)
        before = node.cpu
        await begun.all.wait()
        used = node.cpu - before
    return _figures([each - due for each in begun.times], used)


async def _undelayed(broker: Broker, jobs: int) -> Figures:
    begun, node = Begun(jobs), Resources(broker.pid)
    app = _noting(broker, begun)
    async with app:
        await app.enqueue_many([app.ref("note").job() for _ in range(jobs)])
        before = node.cpu
        async with _working(app):
            await begun.all.wait()
        used = node.cpu - before
    first = begun.times[0]
    return _figures([each - first for each in begun.times], used)


def _noting(broker: Broker, begun: Begun) -> App:
    app = App(broker.url, queue=QUEUE)

    @app.task
    async def note() -> None:
        begun.note()

    return app


@asynccontextmanager
async def _working(app: App) -> AsyncIterator[None]:
    worker = Worker(app)
    running = asyncio.create_task(worker.run(signals=False))
    yield
    worker.stop()
    await running


def _figures(late: list[float], used: float) -> Figures:
    return {
        "half of them, ms": median(late) * 1e3,
        "the last one, ms": max(late) * 1e3,
        "broker's CPU µs/job": used / len(late) * 1e6,
    }


def main(
    jobs: Annotated[int, typer.Option(help="How many are due at once.")] = 5000,
    repeat: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
) -> None:
    """Measure each variant in turn, on a node of its own, and print the range."""
    found: dict[str, list[Figures]] = {}
    for _ in range(repeat):
        found.setdefault("not delayed", []).append(undelayed(jobs))
        for prefetch in PREFETCH:
            name = f"delayed, prefetch {prefetch}"
            found.setdefault(name, []).append(delayed(jobs, prefetch))
    for name, rounds in found.items():
        for figure in rounds[0]:
            values = sorted(each[figure] for each in rounds)
            least, middle, most = values[0], median(values), values[-1]
            told = f"{middle:,.0f} | {least:,.0f}-{most:,.0f}"
            print(f"| {name:22} | {figure:20} | {told} |")


if __name__ == "__main__":
    typer.run(main)
