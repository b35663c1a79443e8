"""What commands print: aligned tables, JSON, times and texts made safe to show."""

from __future__ import annotations

import json
import time
import unicodedata
from typing import TYPE_CHECKING, Any

import typer

from rmqarq.errors import RmqarqError
from rmqarq.logs import chosen_language, render

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GAP = "  "
_CONTROLS = (*range(32), *range(127, 160))
_ESCAPED = {code: repr(chr(code))[1:-1] for code in _CONTROLS}
_ESCAPED_LINES = {code: text for code, text in _ESCAPED.items() if code not in (9, 10)}


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


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; numbers stand to the right, `None` is a dash."""
    cells = [[_cell(each) for each in row] for row in rows]
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(width, column)) for column in columns]
    right = [_is_number(column[1:]) for column in columns]
    for line in (headings, *cells):
        padded = [_padded(*each) for each in zip(line, widths, right, strict=True)]
        typer.echo(GAP.join(padded).rstrip())


def say(sentence: str, /, **words: object) -> None:
    """Print a sentence; what is filled in is made safe to show."""
    typer.echo(filled(sentence, **words))


def aside(sentence: str, /, **words: object) -> None:
    """Print a sentence to standard error, where it is in no program's way."""
    typer.echo(filled(sentence, **words), err=True)


def filled(sentence: str, /, **words: object) -> str:
    """Fill a sentence with words that are made safe to show."""
    return sentence.format(**{name: _cell(word) for name, word in words.items()})


def as_json(value: Any) -> None:
    """Print a value for other programs; nothing else goes to standard output then."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def moment(seconds: float | None) -> str:
    """Write a moment as people here read it."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _cell(value: object) -> str:
    if isinstance(value, RmqarqError):
        value = render(value, chosen_language("auto"))
    return "-" if value is None else plain(str(value))


def _is_number(cells: Sequence[str]) -> bool:
    numbers = [each.isdecimal() for each in cells if each != "-"]
    return bool(numbers) and all(numbers)


def _padded(text: str, columns: int, right: bool) -> str:
    space = " " * (columns - width(text))
    return space + text if right else text + space
