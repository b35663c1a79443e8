"""Which letters a command means: its flags, and the filter that they make."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from rmqarq.cli import output
from rmqarq.letters import Filter

SHOWN = 100
"""How many a list shows unless it is told."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")

Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="Name of a task, or a pattern such as 'mail.*'."),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Why they are dead, as 'expired'; or a pattern."),
]
Errors = Annotated[
    list[str] | None,
    typer.Option("--error", help="Words of the error's type or text, in any case."),
]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Job id.")]
OlderThan = Annotated[
    str | None,
    typer.Option(help="At least so long dead: 90, 30m, 12h, 7d.", metavar="TIME"),
]
NewerThan = Annotated[
    str | None,
    typer.Option(help="At most so long dead: 90, 30m, 12h, 7d.", metavar="TIME"),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="At most so many, the oldest first.")
]
To = Annotated[
    str | None,
    typer.Option(help="Another queue than the one they came from; it must exist."),
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


def span(text: str | None, flag: str) -> float | None:
    """Read a time such as `90`, `30m`, `12h` or `7d`, in seconds."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            output.filled(
                "{text} is no time; write 90, 30m, 12h or 7d", text=repr(text)
            ),
            param_hint=flag,
        )
    return float(found[1]) * _UNITS[found[2] or "s"]


def picked(
    tasks: list[str] | None = None,
    reasons: list[str] | None = None,
    errors: list[str] | None = None,
    ids: list[str] | None = None,
    older_than: str | None = None,
    newer_than: str | None = None,
    queues: list[str] | None = None,
) -> Filter:
    """Make the filter of these flags."""
    return Filter(
        tasks=tuple(tasks or ()),
        reasons=tuple(reasons or ()),
        errors=tuple(errors or ()),
        ids=tuple(ids or ()),
        older_than=span(older_than, "--older-than"),
        newer_than=span(newer_than, "--newer-than"),
        queues=tuple(queues or ()),
    )


def refuse_all_by_mistake(chosen: Filter, limit: int | None, everything: bool) -> None:
    """Take a command without any condition for a mistake."""
    if chosen.takes_all and limit is None and not everything:
        raise typer.BadParameter("say which, or --all for all of them")
