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
            each.reason,
            each.attempts,
            output.moment(each.died_at),
            _error(each),
        )
        for each in letters
    ]
    taken = sum(
        max(output.width(output.plain(str(cell))) for cell in column) + len(output.GAP)
        for column in list(zip(headings, *lines, strict=True))[:-1]
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
    facts = {
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "enqueued": output.moment(letter.enqueued_at),
        "first failed": output.moment(letter.first_at),
        "died": output.moment(letter.died_at),
        "worker": letter.worker,
        "size": f"{letter.size} bytes",
        **_facts_inside(contents),
        "error": _error(letter),
    }
    widest = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            shown = output.plain(str(value), lines=True)
            indented = shown.replace("\n", "\n" + " " * (widest + 2))
            typer.echo(f"{name:<{widest}}  {indented}")
    if letter.traceback:
        typer.echo("traceback")
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


def _facts_inside(contents: Contents) -> dict[str, object]:
    if contents.problem is not None:
        return {"unreadable": contents.problem, "body": contents.body}
    return {
        "generation": contents.generation,
        **_arguments(contents),
        "headers": json.dumps(dict(contents.headers), ensure_ascii=False)
        if contents.headers
        else None,
    }


def _arguments(contents: Contents) -> dict[str, object]:
    if contents.body is not None:  # of another producer
        return {"body": contents.body}
    return {
        "max_retries": contents.max_retries,
        "arguments": json.dumps(contents.args, ensure_ascii=False),
        "by name": json.dumps(contents.kwargs, ensure_ascii=False)
        if contents.kwargs
        else None,
    }


def _error(letter: DeadLetter) -> str | None:
    if letter.error is None:
        return letter.message
    return f"{letter.error}: {letter.message}" if letter.message else letter.error


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
