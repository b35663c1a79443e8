"""How letters look: a table, a page of their own, JSON."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from rmqarq.cli import output
from rmqarq.letters import Contents, DeadLetter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.box import Listing

TIMES = ("enqueued_at", "first_at", "died_at")
NARROW = 20


def in_table(letters: Sequence[DeadLetter], *, lost: bool = False) -> None:
    """Print one line for each letter, the texts cut to the width of the terminal."""
    if lost:
        rows = [
            (each.id, each.task, each.queue, output.moment(each.died_at))
            for each in letters
        ]
        output.table(("id", "task", "due for", "since"), rows)
        return
    headings = ("id", "queue", "task", "reason", "attempts", "died", "error")
    lines = [
        (
            each.id,
            each.queue,
            each.task,
            _reason(each),
            each.attempts,
            output.moment(each.died_at),
            _error(each),
        )
        for each in letters
    ]
    shown = map(output.translated, headings)
    taken = sum(
        max(output.width(output.plain(str(cell))) for cell in column) + len(output.GAP)
        for column in list(zip(shown, *lines, strict=True))[:-1]
    )
    room = max(NARROW, _columns() - taken)
    output.table(
        headings,
        [(*line[:-1], line[-1] and output.cut(line[-1], room)) for line in lines],
    )


def how_many(listing: Listing, queue: str) -> None:
    """Tell on standard error how many there are and how many of them were shown."""
    output.aside(
        "{queue}: {fit} of {there} letters fit, {count} are shown",
        queue=queue,
        fit=listing.fit,
        there=listing.seen,
        count=len(listing.letters),
    )


def on_page(letter: DeadLetter, contents: Contents) -> None:
    """Print all that a letter says."""
    output.page(
        (
            output.fact("id", letter.id),
            output.fact("task", letter.task),
            output.fact("queue", letter.queue),
            output.fact("reason", _reason(letter)),
            output.fact("attempts", letter.attempts),
            output.fact("enqueued", output.moment(letter.enqueued_at)),
            output.fact("first failed", output.moment(letter.first_at)),
            output.fact("died", output.moment(letter.died_at)),
            output.fact("worker", letter.worker),
            output.fact("size", output.filled("{size} bytes", size=letter.size)),
            *_facts_inside(contents),
            output.fact("error", _error(letter)),
        )
    )
    if letter.traceback:
        output.say("traceback")
        text = output.plain(letter.traceback.rstrip("\n"), lines=True)
        typer.echo("  " + text.replace("\n", "\n  "))


def as_data(letter: DeadLetter, contents: Contents | None = None) -> dict[str, Any]:
    """Give what a letter says for JSON; without its contents no traceback either."""
    found: dict[str, Any] = msgspec.to_builtins(letter)
    for name in TIMES:
        seconds = found[name]
        if seconds is not None:
            found[name] = datetime.fromtimestamp(seconds, UTC).isoformat()
    if contents is None:
        del found["traceback"]
        return found
    return {**found, **msgspec.to_builtins(contents)}


def _facts_inside(contents: Contents) -> list[tuple[str, object]]:
    if contents.problem is not None:
        return [
            output.fact("unreadable", contents.problem),
            output.fact("body", contents.body),
        ]
    return [
        output.fact("generation", contents.generation),
        *_arguments(contents),
        output.fact("headers", _unless_empty(dict(contents.headers))),
    ]


def _arguments(contents: Contents) -> list[tuple[str, object]]:
    if contents.body is not None:  # of another producer
        return [output.fact("body", contents.body)]
    given = output.fact("arguments", json.dumps(contents.args, ensure_ascii=False))
    if contents.rows:  # a chunk of jobs
        given = output.fact("rows", json.dumps(contents.rows, ensure_ascii=False))
    return [
        output.fact("max_retries", contents.max_retries),
        given,
        output.fact("by name", _unless_empty(contents.kwargs)),
    ]


def _unless_empty(found: dict[str, Any]) -> str | None:
    return json.dumps(found, ensure_ascii=False) if found else None


def _reason(letter: DeadLetter) -> str | None:
    """Say why it is dead; `--reason` takes the English word, so that stands, too."""
    if letter.reason is None:
        return None
    shown = output.translated(letter.reason)
    return shown if shown == letter.reason else f"{shown} ({letter.reason})"


def _error(letter: DeadLetter) -> str | None:
    if letter.error is None:
        return letter.message
    return f"{letter.error}: {letter.message}" if letter.message else letter.error


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
