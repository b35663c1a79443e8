"""Help and complaints of the parser in the reader's language.

Commands are written in English. Before anything is parsed, the tree of commands that
typer has built gets the translations of its help texts, a formatter that knows the
parser's own words, and `--language` everywhere. Complaints, which the parser puts
together from pieces, are recognised by their wording.
"""

from __future__ import annotations

import inspect
import io
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import typer
from typer.main import get_command

from rmqarq.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PARSER_WORDS = (
    "Usage: ",
    "Arguments:",
    "Options:",
    "Commands:",
    "Show this message and exit.",
    "required",
    "default: {default}",
    "env var: {var}",
)
"""What the parser writes into help."""

COMPLAINTS = (
    "Error: {text}",
    "Try '{command}' for help.",
    "Missing command.",
    "Missing argument {name}.",
    "Missing option {name}.",
    "Missing argument.",
    "Missing option.",
    "Missing parameter: {name}",
    "No such command {name}. Did you mean {names}?",
    "No such command {name}.",
    "No such option {name}. Did you mean {names}?",
    "No such option {name}.",
    "No such option: {name} (Possible options: {names})",
    "No such option: {name} Did you mean {names}?",
    "No such option: {name}",
    "Got unexpected extra argument(s) ({names})",
    "Got unexpected extra argument ({names})",
    "Got unexpected extra arguments ({names})",
    "Option {name} does not take a value.",
    "Option {name} requires an argument.",
    "Option {name} requires {count} arguments.",
    "Invalid value for {name}: Value error, {text}",
    "Invalid value for {name}: {text}",
    "Invalid value: {text}",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid integer, got a number with a fractional part",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be a valid boolean, unable to interpret input",
    "Input should be greater than or equal to {least}",
    "Input should be less than or equal to {most}",
    "Input should be a finite number",
    "{value} is not one of {names}.",
    "{value} is not a valid integer.",
    "{value} is not a valid int.",
    "{value} is not a valid float.",
    "{value} is not a valid boolean.",
    "{value} is not in the range {range}.",
)
"""What the parser says when it refuses something, in the versions of typer that fit."""

NESTED = ("text",)
"""Gaps that hold a sentence themselves."""


@runtime_checkable
class Complaint(Protocol):
    """An error of the parser, whichever version of typer raises it."""

    exit_code: int

    def show(self, file: Any = None) -> None:
        """Print it."""

    def format_message(self) -> str:
        """Give its sentence."""
        ...


def command_of(program: typer.Typer) -> Any:
    """Build the tree of commands, and put it into the language of the terminal."""
    root: Any = get_command(program)
    language = next(each for each in root.params if each.name == "language")
    for command in each_command(root):
        if command is not root:
            command.params.append(language)
        if output.language() != "en":
            _translate(command)
    return root


def each_command(command: Any) -> Iterator[Any]:
    """Give a command and all below it."""
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from each_command(each)


def help_texts(command: Any) -> Iterator[str]:
    """Give what a command and its parameters say of themselves."""
    found = [command.help, command.short_help, command.epilog]
    found += [getattr(each, "help", None) for each in command.params]
    return (inspect.cleandoc(each) for each in found if each)


def complain(error: Complaint) -> None:
    """Print a complaint of the parser to standard error."""
    if output.language() == "en":
        error.show()
        return
    shown = io.StringIO()
    error.show(file=shown)
    for line in shown.getvalue().splitlines():
        typer.echo(understood(line), err=True)


def understood(text: str) -> str:
    """Translate a complaint by its wording; one that is not known stays English."""
    for template, pattern in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            words = found.groupdict()
            nested = {name: understood(words[name]) for name in NESTED if name in words}
            return output.translated(template).format(**{**words, **nested})
    return output.translated(text)


@cache
def _patterns() -> Sequence[tuple[str, re.Pattern[str]]]:
    return [
        (each, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(each))))
        for each in COMPLAINTS
    ]


def _translate(command: Any) -> None:
    command.context_class = _context_class(command.context_class)
    if command.help:
        command.help = output.translated(inspect.cleandoc(command.help))
        # the parser would cut at the first full stop, and knows the English one only
        command.short_help = re.split(r"。|\n\n", command.help, maxsplit=1)[0]


@cache
def _context_class(usual: Any) -> Any:
    """Derive a context whose help is written by a formatter of ours."""
    formatter: Any = type("Formatter", (_Wording, usual.formatter_class), {})
    return type("Context", (usual,), {"formatter_class": formatter})


class _Wording:
    """Writes help with translated words, wrapped by the columns that they take."""

    width: Any
    current_indent: Any
    write: Any

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line that shows how a command is called."""
        begin = f"{prefix or output.translated('Usage: ')}{prog} "
        indent = " " * output.width(begin)
        lines = output.wrapped(args, max(20, self.width - len(indent)))
        self.write(begin + f"\n{indent}".join(lines) + "\n")

    def write_heading(self, heading: str) -> None:
        """Write what stands above options, arguments or commands."""
        self.write(output.translated(f"{heading}:") + "\n")

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        indent = " " * self.current_indent
        parts = (" ".join(each.split()) for each in re.split(r"\n\s*\n", text))
        pages = (output.wrapped(each, self.width - len(indent)) for each in parts)
        self.write("\n\n".join(indent + f"\n{indent}".join(page) for page in pages))
        self.write("\n")

    def write_dl(
        self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Write names beside what they mean."""
        names = [output.width(name) for name, _ in rows]
        column = self.current_indent + min(max(names), col_max) + col_spacing
        gap = " " * column
        for (name, meaning), taken in zip(rows, names, strict=True):
            begin = " " * self.current_indent + name
            fits = taken <= col_max
            begin += " " * (column - output.width(begin)) if fits else f"\n{gap}"
            lines = output.wrapped(_meaning(meaning), max(10, self.width - column))
            self.write((begin + f"\n{gap}".join(lines)).rstrip() + "\n")


def _meaning(text: str) -> str:
    """Translate a help text and what the parser has added: `[default: 3; required]`."""
    found = re.fullmatch(r"(.*?)(?:  )?\[([^\[\]]+)\]", text, re.DOTALL)
    if found is None:
        return output.translated(text)
    added = "; ".join(map(_addition, found[2].split("; ")))
    return f"{output.translated(found[1])}  [{added}]".strip()


def _addition(text: str) -> str:
    for name in ("default", "env var"):
        if text.startswith(f"{name}: "):
            template = next(each for each in PARSER_WORDS if each.startswith(name))
            gap = "default" if name == "default" else "var"
            return output.filled(template, **{gap: text[len(name) + 2 :]})
    return output.translated(text)
