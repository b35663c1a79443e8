"""Draws a run as one SVG, readable on light and on dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.results import Report, Standing, standings
from benchmarks.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable

PANELS = (
    ("drain", "rate", "Jobs run a second"),
    ("bulk", "rate", "Enqueued in bulk a second"),
    ("drain", "cpu", "CPU µs to run a job (less is better)"),
    ("latency", "p50", "Enqueue to start, median ms (less is better)"),
)
WIDTH, MARGIN, GAP = 880, 16, 28
PANEL = (WIDTH - 2 * MARGIN - GAP) // 2
NAMES, FIGURES = 142, 62  # room for the names before the bars, the figures after
BAR, STEP, TITLE = 14, 22, 30
FOOT = 46

STYLE = """
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif;
    fill: #1f2328 }
  .title { font-size: 14px; font-weight: 600 }
  .small { fill: #59636e }
  .ours { fill: #d4580a }
  .safe { fill: #4f7ea8 }
  .less { fill: #b9c4cf }
  .bold { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .ours { fill: #f0883e }
    .safe { fill: #5b8fc0 }
    .less { fill: #4a535d }
  }
"""
LEGEND = (
    ("ours", "rmqarq"),
    ("safe", "on RabbitMQ, durable and confirmed"),
    ("less", "not confirmed or not durable, or on Redis"),
)


def draw(report: Report) -> str:
    """Draw four figures of all task queues, each in the better of its variants.

    Args:
        report: Of a run.

    Returns:
        SVG, with colours for both kinds of page and no background of its own.
    """
    bars = [_bars(report, match, figure) for match, figure, _ in PANELS]
    heights = [TITLE + STEP * len(each) + 14 for each in bars]
    lines = [max(heights[:2], default=0), max(heights[2:], default=0)]
    height = MARGIN + sum(lines) + FOOT
    parts: list[str] = []
    for number, ((_, _, title), found) in enumerate(zip(PANELS, bars, strict=True)):
        x = MARGIN + (PANEL + GAP) * (number % 2)
        y = MARGIN + (lines[0] if number > 1 else 0)
        parts += _panel(x, y, title, found)
    parts += _legend(height - FOOT + 18)
    label = "rmqarq beside other Python task queues"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img" aria-label="{label}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(report: Report, match: str, figure: str) -> list[Standing]:
    row = next(row for row in ROWS if (row.match, row.figure) == (match, figure))
    return list(_first_of_each(standings(report, row), row))


def _first_of_each(ranked: Iterable[Standing], row: Row) -> Iterable[Standing]:
    seen: set[tuple[str, bool]] = set()
    for standing in ranked:
        entry = standing.entry
        # a library that is faster without confirms shows both
        key = (entry.name, entry.safe or row.match != "bulk")
        if entry.peer.kind == "queue" and key not in seen:
            seen.add(key)
            yield standing


def _panel(x: int, y: int, title: str, found: list[Standing]) -> list[str]:
    parts = [f'<text class="title" x="{x}" y="{y + 14}">{escape(title)}</text>']
    longest = max((each.value for each in found), default=1.0) or 1.0
    room = PANEL - NAMES - FIGURES
    for number, standing in enumerate(found):
        top = y + TITLE + STEP * number
        length = max(1.0, room * standing.value / longest)
        kind = _kind(standing)
        weight = ' class="bold"' if kind == "ours" else ""
        base = top + BAR - 3
        name, figure = escape(_name(standing)), _figure(standing.value)
        left, right = x + NAMES - 8, x + NAMES + length + 6
        parts += [
            f'<text{weight} x="{left}" y="{base}" text-anchor="end">{name}</text>',
            _box(kind, x + NAMES, top, length),
            f'<text{weight} x="{right:.1f}" y="{base}">{figure}</text>',
        ]
    return parts


def _box(kind: str, x: int, y: int, width: float) -> str:
    place = f'x="{x}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"'
    return f'<rect class="{kind}" {place}/>'


def _kind(standing: Standing) -> str:
    if standing.entry.name == "rmqarq":
        return "ours"
    return "safe" if standing.entry.safe else "less"


def _name(standing: Standing) -> str:
    name = standing.entry.peer.title.partition(" +")[0]
    return f"{name} (Redis)" if standing.entry.peer.broker == "redis" else name


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _legend(y: int) -> list[str]:
    parts: list[str] = []
    x = MARGIN
    for kind, text in LEGEND:
        place = f'x="{x + BAR + 6}" y="{y + BAR - 3}"'
        parts += [_box(kind, x, y, BAR), f'<text class="small" {place}>{text}</text>']
        x += BAR + 30 + 7 * len(text)
    return parts
