"""Measures the dev broker: its start, its pace beside RabbitMQ's, its memory."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks.run import Bench, judged
from benchmarks.scenarios import SCENARIOS, Line, Scenario
from tests.harness.broker import Broker
from tests.harness.dev_broker import DevBroker

PACES = ("one_by_one", "bulk", "drain")
START = Scenario("start", "a fresh one", 1, (Line("wall", "ms", "value", must=5),))
PACE = Line("rate", "jobs a second", must=1, at_least=True)
HELD = 100_000
MEMORY = Scenario("held", "", HELD, (Line("rss", "MB", "value", must=150),))
STARTING = """
import asyncio, json, time
from rmqarq.devbroker import Broker

async def start():
    begun = time.perf_counter()
    async with Broker() as broker:
        await broker.serve()
        reader, writer = await broker.connect()
        writer.write(b"AMQP\\x00\\x00\\x09\\x01")
        await reader.read(1)
        print(json.dumps({"wall": (time.perf_counter() - begun) * 1e3}))

asyncio.run(start())
"""


def started() -> dict[str, float]:
    """Milliseconds until a broker in a fresh interpreter says its first word."""
    command = [sys.executable, "-c", STARTING]
    return json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    )


def resident(pid: int) -> float:
    """Megabytes that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def paces(bench: dict[str, Bench], what: Scenario, repeat: int) -> dict[str, list]:
    """Measure one broker, then the other; the first round warms up."""
    samples: dict[str, list] = {name: [] for name in bench}
    for number in range(repeat + 1):
        print(f"{what.name} {number}/{repeat}", file=sys.stderr)
        for name, each in bench.items():
            figures = each.measure(what, "rmqarq")
            if number:
                samples[name].append(figures)
    return samples


def main(
    repeat: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 5,
    scale: Annotated[float, typer.Option(help="Multiplies the jobs.")] = 1.0,
    *,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 on a miss.")] = False,
) -> None:
    """Measure the dev broker: its start, its pace beside RabbitMQ's, its memory."""
    starts = {"rmqarq": [started() for _ in range(9)]}
    rows = [("start", judged(START.lines[0], starts))]
    with Broker() as node, DevBroker() as dev, TemporaryDirectory() as bytecode:
        # `judged` compares rmqarq with plain; here the dev broker with RabbitMQ
        urls = {"plain": node.url, "rmqarq": dev.url}
        bench = {name: Bench(url, bytecode, scale) for name, url in urls.items()}
        for each in bench.values():
            each.declare()
        rows += [
            (what.name, judged(PACE, paces(bench, what, repeat)))
            for what in SCENARIOS
            if what.name in PACES
        ]
    with DevBroker() as dev, TemporaryDirectory() as bytecode:
        each = Bench(dev.url, bytecode, 1.0)
        each.declare()
        asyncio.run(each.empty())
        before = resident(dev.pid)
        each.child("rmqarq", "fill", HELD)
        assert sum(row["messages_ready"] for row in dev.queues().values()) == HELD
        held = [{"rss": resident(dev.pid)}]
    rows.append((f"{HELD:,} held", judged(MEMORY.lines[0], {"rmqarq": held})))
    print(f"{'what':14} {'RabbitMQ':>10} {'dev broker':>10} {'compared':>10}  met")
    for name, row in rows:
        figures = [row.get("plain", 0), row["rmqarq"], row["result"]]
        met = "yes" if row["strict"] else "within slack" if row["must"] else "no"
        print(f"{name:14}", *(f"{each:10,.2f}" for each in figures), f" {met}")
    print(f"empty: {before:.0f} MB")
    if check and any(row["must"] is False for _, row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
