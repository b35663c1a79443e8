"""The `rmqarq` program: its commands, and what it says when one fails."""

from __future__ import annotations

import io
import sys
import traceback
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Literal, NoReturn

import typer

from rmqarq import logs
from rmqarq.cli import output, translated
from rmqarq.errors import AppNotFound, RmqarqError
from rmqarq.records import masked
from rmqarq.worker.ending import code_of

COMMANDS = ("run", "dev", "check", "tasks", "doctor", "broker")
GROUPS = ("queue", "dlq", "lost")
"""Each is a file beside this one, which is loaded when it is called, or for help."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rmqarq {version('rmqarq')}")
        raise typer.Exit


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
    language: Annotated[  # read before anything is parsed: output.named_in
        Literal["en", "zh"] | None,
        typer.Option(expose_value=False, help="English or Chinese, for all output."),
    ] = None,
) -> None:
    """Typed background tasks on RabbitMQ."""


def program(*names: str) -> typer.Typer:
    """Put the program together.

    Args:
        *names: The commands and groups that are wanted; all, if none is named.
    """
    made = typer.Typer(
        name="rmqarq",
        help="Typed background tasks on RabbitMQ.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    made.callback()(options)
    for name in names or (*COMMANDS, *GROUPS):
        file: Any = import_module(f"rmqarq.cli.{name}")
        if name in GROUPS:
            made.add_typer(file.program)
        else:
            made.command(name=name)(getattr(file, name))
    return made


def main() -> NoReturn:
    """Run the program and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for any locale, and any text
            stream.reconfigure(errors="backslashreplace")
    output.asked_for.set(output.named_in(sys.argv[1:]))
    try:
        # what the other commands import would take a probe longer than its own work
        named = [each for each in sys.argv[1:2] if each in (*COMMANDS, *GROUPS)]
        sys.exit(translated.command_of(program(*named))(standalone_mode=False))
    except RmqarqError as error:
        _complain(error)
        sys.exit(code_of(error))
    except typer.Abort:
        output.aside("Aborted.")
        sys.exit(1)
    except Exception as error:
        if not isinstance(error, translated.Complaint):
            raise
        translated.complain(error)
        sys.exit(error.exit_code)


def _complain(error: RmqarqError) -> None:
    cause = error.__cause__ if isinstance(error, AppNotFound) else None
    if logs.tell(error, cause):
        return
    if cause is not None:
        typer.echo(
            masked("".join(traceback.format_exception(cause))), err=True, nl=False
        )
    problem = masked(logs.render(error, output.language()))
    output.aside("{program}: {problem}", program="rmqarq", problem=problem)
