"""Measures rmqarq beside plain aiormq and other libraries, and judges the budgets."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import aiormq
import typer

from benchmarks import results, rounds, table
from benchmarks.demands import judge
from benchmarks.libraries import QUEUE, plain_aiormq, rmqarq_app
from benchmarks.peers import Entry, entries
from benchmarks.rows import MATCHES
from benchmarks.scenarios import SCENARIOS, Line, Scenario
from tests.harness.broker import Broker

LIBRARIES = {"plain": plain_aiormq, "rmqarq": rmqarq_app}
SLACK = 1.3
FOREIGN = ("RMQARQ_", "PYTHONDONTWRITEBYTECODE")  # unknown settings of ours
UNWANTED = "typer", "rich", "pydantic"
IMPORT = """
import json, sys, time
start = time.process_time()
{code}
cpu = (time.process_time() - start) * 1e3
print(json.dumps({{"cpu": cpu, "unwanted": len({unwanted} & sys.modules.keys())}}))
"""


class Bench:
    """Runs children against one broker.

    Args:
        url: Of the broker.
        bytecode: A directory for it.
        scale: Multiplies the numbers of jobs.
    """

    def __init__(self, url: str, bytecode: str, scale: float) -> None:
        self._url = url
        self._scale = scale
        others = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        self._environment = {
            **others,
            "RMQARQ_URL": url,
            "PYTHONPYCACHEPREFIX": bytecode,  # an installed package is compiled, too
        }

    def measure(self, scenario: Scenario, library: str) -> dict[str, float]:
        module = LIBRARIES[library]
        if scenario.name == "import":
            unwanted = set(UNWANTED)
            code = IMPORT.format(code=module.IMPORT, unwanted=unwanted)
            return json.loads(self._python("-c", code))
        if scenario.name == "help":
            start = time.perf_counter()
            self._python(*module.HELP, "--help")
            return {"wall": (time.perf_counter() - start) * 1e3}
        n = max(1, int(scenario.n * self._scale)) if scenario.n > 1 else 1
        asyncio.run(self.empty())
        if scenario.filled:
            self.child("rmqarq", "fill", n)
        started = time.time()
        figures = self.child(library, scenario.name, n)
        if "at" in figures:
            figures["wall"] = (figures.pop("at") - started) * 1e3
        return figures

    def declare(self) -> None:
        """Let rmqarq declare the queue, by its first job."""
        self.child("rmqarq", "fill", 1)

    def child(self, library: str, what: str, n: int) -> dict[str, float]:
        name = LIBRARIES[library].__name__.rpartition(".")[2]
        return json.loads(self._python("-m", "benchmarks.child", name, what, str(n)))

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=True,
        )
        return done.stdout

    async def empty(self) -> None:
        connection = await aiormq.connect(self._url)
        channel = await connection.channel()
        await channel.queue_purge(QUEUE)
        await connection.close()


def judged(line: Line, samples: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Compare the medians of a line's figure with its budget."""
    values = {name: [each[line.figure] for each in s] for name, s in samples.items()}
    row: dict[str, object] = {n: median(v) for n, v in values.items()}
    ours, plain = values.get("rmqarq"), values.get("plain")
    result = None
    if ours and line.compare == "value":
        result = median(ours)
    elif ours and plain:
        pairs = zip(ours, plain, strict=True)
        ratio = line.compare == "ratio"
        result = median(a / b if ratio else a - b for a, b in pairs)
    return {
        **row,
        "result": result,
        "must": _within(line, result, line.must, SLACK),
        "strict": _within(line, result, line.must),
        "stretch": _within(line, result, line.stretch),
    }


def _within(
    line: Line, result: float | None, bound: float | None, slack: float = 1.0
) -> bool | None:
    if result is None or bound is None:
        return None
    return result >= bound / slack if line.at_least else result <= bound * slack


def cells(scenario: Scenario, line: Line, row: dict[str, object]) -> list[str]:
    """Write a line for people."""
    sign = "≥" if line.at_least else "≤"
    unit = {"ratio": "x", "difference": " more", "value": ""}[line.compare]
    bounds = [
        "" if bound is None else f"{sign} {bound:g}{unit}"
        for bound in (line.must, line.stretch)
    ]
    words = {None: "", True: "yes", False: "no"}
    met = words[row["strict"]]
    if row["must"] and not row["strict"]:
        met = "within slack"
    if row["stretch"] is not None:
        met += f", stretch {words[row['stretch']]}"
    result = "" if row["result"] is None else f"{_short(row['result'])}{unit}"
    figures = [_short(row.get(name)) for name in LIBRARIES]
    return [scenario.name, line.label, *figures, result, *bounds, met]


def _short(value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(rows: list[list[str]]) -> None:
    head = ["scenario", "figure", "plain aiormq", "rmqarq", "compared"]
    head += ["must", "stretch", "met"]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, ["-" * width for width in widths], *rows):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(padded)} |")


def main(
    scenario: Annotated[list[str], typer.Option(help="Only these.")] = [],  # noqa: B006
    library: Annotated[list[str], typer.Option(help="Only these.")] = [],  # noqa: B006
    peers: Annotated[str, typer.Option(help="Other libraries: a,b or all.")] = "",
    repeat: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 5,
    scale: Annotated[float, typer.Option(help="Multiplies the jobs.")] = 1.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also here.")] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 on a miss.")] = False,
) -> None:
    """Measure rmqarq beside plain aiormq, interleaved, on a broker of its own.

    With --peers, beside other libraries, which are installed when first needed; the
    budgets, which compare with aiormq inside one process, then need --check, too.
    """
    chosen = [each for each in SCENARIOS if each.name in scenario or not scenario]
    matches = [each for each in MATCHES if each.name in scenario or not scenario]
    names = [name for name in LIBRARIES if name in library or not library]
    if not (chosen or (matches and peers)) or not names:
        known = [each.name for each in SCENARIOS]
        raise typer.BadParameter(f"known are {[*known, 'delayed', 'pending']}")
    contestants = _contestants(peers)
    report = results.new(repeat, scale)
    with Broker() as broker, TemporaryDirectory() as directory:
        report.brokers["RabbitMQ"] = broker.ctl("version").strip()
        missed = False
        if check or not contestants:
            missed = _budgets(broker, directory, report, chosen, names)
        if contestants:
            contest = rounds.Rounds(report, json_file)
            contest.run(broker, Path(directory), contestants, matches)
            print(table.write(report))
            missed |= any(verdict.met is False for verdict in judge(report))
    if json_file is not None:
        results.save(report, json_file)
    if check and missed:
        raise typer.Exit(1)


def _contestants(peers: str) -> list[Entry]:
    if not peers:
        return []
    try:
        return entries(["rmqarq", *peers.split(",")])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _budgets(
    broker: Broker,
    directory: str,
    report: results.Report,
    chosen: list[Scenario],
    names: list[str],
) -> bool:
    """Measure and print the budgets; tell whether one was missed."""
    bench = Bench(broker.url, directory, report.scale)
    bench.declare()
    found: list[tuple[Scenario, Line, dict[str, object]]] = []
    for each in chosen:
        count = max(1, round(report.repeat * each.rounds))
        samples = report.budgets[each.name] = _rounds(bench, each, names, count)
        found += [(each, line, judged(line, samples)) for line in each.lines]
    print_table([cells(*each) for each in found])
    return any(row["must"] is False for _, _, row in found)


def _rounds(
    bench: Bench, scenario: Scenario, names: list[str], count: int
) -> dict[str, list[dict[str, float]]]:
    """Measure A B A B …; the first round warms up and does not count."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(count + 1):
        print(f"{scenario.name} {number}/{count}", file=sys.stderr)
        for name in names:
            figures = bench.measure(scenario, name)
            if number:
                samples[name].append(figures)
    return samples


if __name__ == "__main__":
    typer.run(main)
