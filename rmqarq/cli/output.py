"""What commands print, in the language of the reader and safe to show.

A sentence stands in English where it is printed, with `{name}` for what is filled in;
the catalogue has its translation. JSON is never translated.
"""

from __future__ import annotations

import json
import os
import re
import time
import unicodedata
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import typer

from rmqarq import language as languages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GAP = "  "
_CLOSING, _OPENING = ("Po", "Pe", "Pf"), ("Ps", "Pi")  # classes of punctuation
asked_for: ContextVar[str | None] = ContextVar("rmqarq_language", default=None)
"""The language that `--language` names."""

_CONTROLS = (*range(32), *range(127, 160))
_ESCAPED = {code: repr(chr(code))[1:-1] for code in _CONTROLS}
_ESCAPED_LINES = {code: text for code, text in _ESCAPED.items() if code not in (9, 10)}


def language() -> str:
    """Give the language of the terminal: the flag, the environment, the locale."""
    given = asked_for.get() or os.environ.get("RMQARQ_LANGUAGE", "").lower()
    return languages.chosen_language(given if given in languages.LANGUAGES else "auto")


def log_format(given: Literal["text", "json"] | None = None) -> Literal["text", "json"]:
    """Give the shape of lines before the App, which may choose another, is loaded."""
    environment = os.environ.get("RMQARQ_LOG_FORMAT", "").lower()
    return given or ("json" if environment == "json" else "text")


def named_in(arguments: Sequence[str]) -> str | None:
    """Give the language that a command line asks for, before it is parsed."""
    found = None
    for at, each in enumerate(arguments):
        if each == "--":
            break
        flag, equals, value = each.partition("=")
        if flag == "--language":
            found = value if equals else next(iter(arguments[at + 1 :]), None)
    return found if found in languages.LANGUAGES else None


def translated(sentence: str) -> str:
    """Give a sentence, a heading or a word in the language of the terminal."""
    return languages.translated(sentence, language())


def plain(text: str, *, lines: bool = False) -> str:
    """Escape what would steer the terminal: texts of messages come from anywhere.

    Args:
        text: Any text.
        lines: Keep line ends and tabs.
    """
    return text.translate(_ESCAPED_LINES if lines else _ESCAPED)


def width(text: str) -> int:
    """Count the columns that a text takes; Chinese characters take two."""
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def cut(text: str, most: int) -> str:
    """Shorten a text to so many columns, with an ellipsis where it was cut."""
    if width(text) <= most:
        return text
    while text and width(text) >= most:
        text = text[:-1]
    return text + "…"


def wrapped(text: str, columns: int) -> list[str]:
    """Break a text into lines of so many columns; Chinese has no spaces to break at."""
    lines: list[str] = []
    line = ""
    for piece in _pieces(text):
        if line.strip() and width((line + piece).rstrip()) > columns:
            lines.append(line.rstrip())
            line = ""
        line += piece if line else piece.lstrip()
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """Fill a text up with spaces."""
    space = " " * (columns - width(text))
    return space + text if right else text + space


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; numbers stand to the right, `None` is a dash."""
    headings = [translated(each) for each in headings]
    cells = [[_cell(each) for each in row] for row in rows]
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(width, column)) for column in columns]
    right = [_is_number(column[1:]) for column in columns]
    for line in (headings, *cells):
        fitted = zip(line, widths, right, strict=True)
        shown = [padded(text, columns, right=side) for text, columns, side in fitted]
        typer.echo(GAP.join(shown).rstrip())


def fact(name: str, value: object) -> tuple[str, object]:
    """Give a line of a page: a name, translated, and what there is to say."""
    return translated(name), value


def page(facts: Iterable[tuple[str, object]]) -> None:
    """Print facts, a name beside each; one without a value is left out."""
    told = [(name, value) for name, value in facts if value is not None]
    widest = max((width(name) for name, _ in told), default=0)
    for name, value in told:
        text = plain(str(value), lines=True)
        indented = text.replace("\n", "\n" + " " * (widest + len(GAP)))
        typer.echo(padded(name, widest) + GAP + indented)


def say(sentence: str, /, **words: object) -> None:
    """Print a sentence; what is filled in is made safe to show."""
    typer.echo(filled(sentence, **words))


def aside(sentence: str, /, **words: object) -> None:
    """Print a sentence to standard error, where it is in no program's way."""
    typer.echo(filled(sentence, **words), err=True)


def filled(sentence: str, /, **words: object) -> str:
    """Translate a sentence and fill it with words that are made safe to show."""
    return translated(sentence).format(
        **{name: _cell(word) for name, word in words.items()}
    )


def as_json(value: Any) -> None:
    """Print a value for other programs; nothing else goes to standard output then."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def moment(seconds: float | None) -> str:
    """Write a moment as people here read it."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _cell(value: object) -> str:
    value = languages.rendered(value, language())
    return "-" if value is None else plain(str(value))


def _is_number(cells: Sequence[str]) -> bool:
    numbers = [each.isdecimal() for each in cells if each != "-"]
    return bool(numbers) and all(numbers)


def _pieces(text: str) -> list[str]:
    """Take a text apart where a line may end: words, and single wide characters."""
    pieces: list[str] = []
    for each in re.findall(r"\s+|[\u2e80-\uffff]|[^\s\u2e80-\uffff]+", text):
        sticks = unicodedata.category(each[0]) in _CLOSING
        if pieces and (sticks or unicodedata.category(pieces[-1][-1]) in _OPENING):
            pieces[-1] += each
        else:
            pieces.append(each)
    return pieces
