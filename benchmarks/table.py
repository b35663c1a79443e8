"""Writes what a run found as Markdown: `python -m benchmarks.table result.json`.

Runs of different scenarios may be given together. With --write, into the pages, between
their markers, and as a picture beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import picture
from benchmarks.demands import Verdict, judge
from benchmarks.results import (
    Report,
    Standing,
    better,
    joined,
    load,
    ours,
    queues,
    standings,
)
from benchmarks.rows import MATCHES, ROWS, Row

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "zh" / "README.md",
    ROOT / "docs" / "benchmarks.md",
    ROOT / "benchmarks" / "README.md",
)
PICTURE = ROOT / "docs" / "benchmarks.svg"
MARKED = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def short(value: float) -> str:
    """Write a figure with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def grid(head: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(report: Report) -> str:
    """One line for each figure: rmqarq, and the best of the others.

    Its place is that among the task queues that run on RabbitMQ with durable, confirmed
    messages; a better one of the others is named beside.
    """
    head = ["figure", "rmqarq", "best durable and confirmed queue on RabbitMQ"]
    head += ["ratio", "place", "better, but not so"]
    lines = [_summary_line(row, standings(report, row)) for row in ROWS]
    return grid(head, [line for line in lines if line])


def _summary_line(row: Row, ranked: list[Standing]) -> list[str]:
    own = ours(ranked)
    if own is None:
        return []
    rivals = queues(ranked)
    safe = [each for each in rivals if each.entry.safe]
    ahead = [each for each in rivals if better(each.value, own.value, row)]
    place = 1 + len({each.entry.name for each in ahead if each.entry.safe})
    others = [each for each in ahead if not each.entry.safe]
    best = safe[0] if safe else None
    return [
        row.label,
        short(own.value),
        _named(best) if best else "",
        f"{own.value / best.value:.2f}x" if best and best.value > 0 else "",
        str(place),
        ", ".join(map(_named, others)),
    ]


def _named(standing: Standing) -> str:
    entry = standing.entry
    return f"{entry.peer.title} ({entry.variant}) {short(standing.value)}"


def details(report: Report) -> str:
    """A table for each scenario, with every library."""
    parts: list[str] = []
    for match in MATCHES:
        rows = [row for row in ROWS if row.match == match.name]
        if report.contest.get(match.name):
            parts.append(f"**{match.what}**\n\n{_detail(report, match.name, rows)}")
    return "\n\n".join(parts)


def _detail(report: Report, match: str, rows: list[Row]) -> str:
    head = ["library", "broker", "durable, confirmed", "jobs"]
    head += [row.label for row in rows]
    ranked = {row.figure: standings(report, row) for row in rows}
    lines: list[list[str]] = []
    for standing in ranked[rows[0].figure]:
        entry = standing.entry
        jobs = report.contest[match][entry.key][0].get("n", 1)
        values = {
            figure: short(each.value)
            for figure, found in ranked.items()
            for each in found
            if each.entry.key == entry.key
        }
        cells = [entry.title, entry.peer.broker, _promises(standing), f"{jobs:,.0f}"]
        lines.append(cells + [values.get(row.figure, "") for row in rows])
    return grid(head, lines)


def _promises(standing: Standing) -> str:
    settings = standing.entry.settings
    words = [
        "yes" if promised else "no"
        for promised in (settings.durable, settings.confirmed)
    ]
    note = f" ({settings.note})" if settings.note else ""
    return f"{', '.join(words)}{note}"


def missing(report: Report) -> str:
    """Who could not do what, and why."""
    found: dict[str, list[str]] = {}
    for match, failures in report.failures.items():
        for key, why in failures.items():
            said = f"`{match}`: {' '.join(why.split())[-160:]}"
            found.setdefault(said, []).append(key)
    return "\n".join(f"- {said}: {', '.join(keys)}" for said, keys in found.items())


def demands(report: Report) -> str:
    """What rmqarq has to show, each with its ratio."""
    head = ["rmqarq beside", "figure", "rmqarq", "the best of them", "ratio", "must"]
    return grid([*head, "met"], [_demand_line(verdict) for verdict in judge(report)])


def _demand_line(verdict: Verdict) -> list[str]:
    demand, own, rival = verdict.demand, verdict.own, verdict.rival
    sign = "≥" if demand.row.most else "≤"
    variant = f" ({demand.variant})" if demand.variant else ""
    return [
        demand.beside,
        demand.row.label,
        f"{short(own.value)}{variant}" if own else "",
        _named(rival) if rival else "not measured",
        "" if verdict.ratio is None else f"{verdict.ratio:.3g}x",
        f"{sign} {demand.bound:g}x",
        {None: "", True: "yes", False: "no"}[verdict.met],
    ]


def head(report: Report) -> str:
    """Where and how it was measured; by which commands, if by several."""
    if report.parts:
        return "\n".join(
            f"- {', '.join(each.contest)}: {head(each)}" for each in report.parts
        )
    machine = report.machine
    brokers = ", ".join(f"{name} {version}" for name, version in report.brokers.items())
    load_average = ", ".join(f"{each:g}" for each in machine.load)
    scale = (
        "" if report.scale == 1 else f" Numbers of jobs: {report.scale:g} of the usual."
    )
    return (
        f"`{report.command}`: {machine.cpus} cores of {machine.cpu}, Python"
        f" {machine.python}, {brokers}; load average before it: {load_average}."
        f" Medians of {report.repeat}.{scale}"
    )


def brief(report: Report) -> str:
    """Write what matters most."""
    return "\n\n".join((head(report), summary(report), demands(report)))


def write(report: Report) -> str:
    """Write everything."""
    parts = [head(report), summary(report), demands(report), details(report)]
    if report.failures:
        parts += ["**What was not measured**", missing(report)]
    return "\n\n".join(parts)


def fill(page: str, texts: Mapping[str, str]) -> str:
    """Put texts between `<!-- name -->` and `<!-- end of name -->`.

    Args:
        page: As it is.
        texts: By name.

    Raises:
        ValueError: The page has no markers.
        KeyError: It has markers of another name.
    """
    if not MARKED.search(page):
        raise ValueError("the page has no markers, such as <!-- contest -->")
    return MARKED.sub(lambda found: f"{found[1]}{texts[found[2]]}\n{found[3]}", page)


def texts_for(page: Path, report: Report) -> dict[str, str]:
    """Give what may stand between the markers of a page."""
    path = relpath(PICTURE, page.parent)
    return {
        "picture": f"![rmqarq beside other task queues]({path})",
        "brief": brief(report),
        "contest": write(report),
    }


def main(
    result: Annotated[
        list[Path], typer.Argument(help="What benchmarks.run --json wrote, run by run.")
    ],
    svg: Annotated[Path | None, typer.Option(help="Write the picture here.")] = None,
    *,
    into_pages: Annotated[
        bool, typer.Option("--write", help="Into the pages.")
    ] = False,
) -> None:
    """Write the tables of a run."""
    report = joined([load(each) for each in result])
    if svg is not None:
        svg.write_text(picture.draw(report), "utf-8")
    if not into_pages:
        print(write(report))
        return
    for page in PAGES:
        texts = texts_for(page, report)
        page.write_text(fill(page.read_text("utf-8"), texts), "utf-8")
    PICTURE.write_text(picture.draw(report), "utf-8")


if __name__ == "__main__":
    typer.run(main)
