"""What a command means: which broker and queues, and whether it is meant at all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import Struct

from rmqarq import logs
from rmqarq.cli import output
from rmqarq.loader import load
from rmqarq.settings import Settings, chosen_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.app import App
    from rmqarq.context import State

YES = ("y", "yes", "是")

Path = Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the App is.")]
AnyPath = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:APP",
        show_default=False,
        help="Where an App is: its settings and queues are taken.",
    ),
]
Url = Annotated[
    str | None, typer.Option("--url", "-u", help="Broker URL, or several: a,b.")
]
Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        "-q",
        help="Queue of jobs; may be given several times. By default those of the App,"
        " else the setting 'queue'.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Target(Struct, frozen=True):
    """What a command looks at.

    Args:
        settings: Of the App, or from the environment; flags beat both.
        queues: The queues of jobs that were named, else those of the App.
    """

    settings: Settings
    queues: tuple[str, ...]


def chosen(path: str | None, url: str | None, queues: Sequence[str] | None) -> Target:
    """Find out what is meant, and send warnings to standard error.

    Raises:
        AppNotFound: MODULE:APP leads nowhere.
        ConfigurationError: A setting or the URL can't be used.
    """
    with logs.held(output.language()):
        app = None if path is None else load(path)
        settings = chosen_settings(None, {}) if app is None else app.settings
        if url is not None:
            settings = msgspec.structs.replace(settings, url=url)
        logs.set_up("WARNING", output.language(), settings.log_format)
    named = tuple(dict.fromkeys(queues or ()))
    return Target(settings, named or _queues_of(app, settings))


def confirm(question: str, /, **words: object) -> None:
    """Ask before something is gone; any answer but yes ends the program with 1."""
    typer.echo(output.filled(question, **words) + " [y/N] ", err=True, nl=False)
    answer = sys.stdin.readline()
    if not answer:  # there is nobody to answer
        typer.echo(err=True)
        output.aside("--yes answers the question.")
    if answer.strip().lower() not in YES:
        output.aside("Nothing was changed.")
        raise typer.Exit(1)


def _queues_of(app: App[State] | None, settings: Settings) -> tuple[str, ...]:
    return (settings.queue,) if app is None else app.queues
