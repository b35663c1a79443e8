"""The `rmqarq` program: its commands, and what it says when one fails."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from rmqarq.cli import broker, dlq, lost, queue, run, tasks
from rmqarq.errors import (
    AppNotFound,
    ConfigurationError,
    NotFound,
    RmqarqError,
    TransportError,
)
from rmqarq.logs import chosen_language, render

program = typer.Typer(
    name="rmqarq",
    help="Typed background tasks on RabbitMQ.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
program.command(name="run")(run.run)
program.command(name="tasks")(tasks.tasks)
program.command(name="broker")(broker.broker)
program.add_typer(queue.program)
program.add_typer(dlq.program)
program.add_typer(lost.program)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rmqarq {version('rmqarq')}")
        raise typer.Exit


@program.callback()
def options(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Typed background tasks on RabbitMQ."""


def _code(error: RmqarqError) -> int:
    if isinstance(error, AppNotFound | NotFound):
        return 2
    if isinstance(error, TransportError):
        return 4
    return 3 if isinstance(error, ConfigurationError) else 1


def main() -> NoReturn:
    """Run the program and exit with its code."""
    try:
        program()
    except RmqarqError as error:
        if isinstance(error, AppNotFound) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        typer.echo(f"rmqarq: {render(error, chosen_language('auto'))}", err=True)
        sys.exit(_code(error))
    sys.exit(0)
