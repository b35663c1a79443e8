"""The `rmqarq` program: its commands, and what it says when one fails."""

from __future__ import annotations

import io
import sys
import traceback
from importlib.metadata import version
from typing import Annotated, Literal, NoReturn

import typer

from rmqarq import logs
from rmqarq.cli import (
    broker,
    check,
    dev,
    dlq,
    doctor,
    lost,
    output,
    queue,
    run,
    tasks,
    translated,
)
from rmqarq.errors import AppNotFound, RmqarqError
from rmqarq.records import masked
from rmqarq.worker.ending import code_of

program = typer.Typer(
    name="rmqarq",
    help="Typed background tasks on RabbitMQ.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
program.command(name="run")(run.run)
program.command(name="dev")(dev.dev)
program.command(name="check")(check.check)
program.command(name="tasks")(tasks.tasks)
program.command(name="doctor")(doctor.doctor)
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
    language: Annotated[  # read before anything is parsed: output.named_in
        Literal["en", "zh"] | None,
        typer.Option(expose_value=False, help="English or Chinese, for all output."),
    ] = None,
) -> None:
    """Typed background tasks on RabbitMQ."""


def main() -> NoReturn:
    """Run the program and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for any locale, and any text
            stream.reconfigure(errors="backslashreplace")
    output.asked_for.set(output.named_in(sys.argv[1:]))
    try:
        sys.exit(translated.command_of(program)(standalone_mode=False))
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
