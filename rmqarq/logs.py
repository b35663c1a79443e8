"""The log of a worker: its language, its shape, and the job a line belongs to."""

from __future__ import annotations

import gettext
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rmqarq.errors import RmqarqError

if TYPE_CHECKING:
    from rmqarq.context import Context

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "rmqarq"
COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
PLAIN = "\x1b[0m"
_ESCAPED = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}

current_job: ContextVar[Context | None] = ContextVar("rmqarq_job", default=None)
"""The job whose code is running; every task of the event loop has its own."""


class Numbered(logging.Filter):
    """Marks each record with the number of its worker process, as `record.worker`.

    Args:
        number: 1 for the first of several; `None` for a process that is alone.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        """Mark a record, and let it pass."""
        record.worker = self._number
        return True


def set_up(level: str, language: str, worker: int | None = None) -> None:
    """Send the log to standard error, unless the program has set up its own.

    Args:
        level: The lowest level shown, such as `INFO`.
        language: `en`, `zh` or `auto`.
        worker: The number of this worker process, when there are several.
    """
    root = logging.getLogger()
    logging.getLogger("rmqarq").setLevel(level)
    # below WARNING, aiormq logs every frame it sends, bodies included
    logging.getLogger("aiormq").setLevel(logging.WARNING)
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(TextFormatter(chosen_language(language)))
        handler.addFilter(Numbered(worker))
        root.addHandler(handler)
        root.setLevel(level)


def chosen_language(language: str) -> str:
    """Give `en` or `zh`; `auto` goes by the locale in the environment."""
    if language != "auto":
        return language
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """Load the sentences of a language; English stands in the code itself."""
    if language != "zh":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, LOCALE, languages=["zh_CN"], fallback=True)


def render(error: BaseException, language: str) -> str:
    """Give the sentence of an error in the user's language."""
    if not isinstance(error, RmqarqError):
        return str(error)
    template = catalogue(language).gettext(error.template)
    return template.format(**error.params) if error.params else template


class TextFormatter(logging.Formatter):
    """One line a record: time, level, number of the process, job, sentence.

    Args:
        language: `en` or `zh`.
        colour: Whether levels are coloured; by default when standard error is
            a terminal and `NO_COLOR` is not set.
    """

    def __init__(self, language: str, colour: bool | None = None) -> None:
        super().__init__()
        self._language = language
        if colour is None:
            colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Render `record`, translated when the sentence is one of ours."""
        time = self.formatTime(record, "%H:%M:%S")
        line = f"{time}.{int(record.msecs):03d} {record.levelname:<8}"
        number: int | None = getattr(record, "worker", None)
        if number is not None:
            line += f"[{number}] "
        job = current_job.get()
        if job is not None and not record.name.startswith("rmqarq."):
            line += f"[{job.task} {job.job_id}] "  # our own lines name it themselves
        line += self._sentence(record)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._coloured(record.levelname, line)

    def _sentence(self, record: logging.LogRecord) -> str:
        if not record.name.startswith("rmqarq") or not isinstance(record.msg, str):
            return record.getMessage()
        template = catalogue(self._language).gettext(record.msg)
        if not isinstance(record.args, Mapping):
            return template % record.args if record.args else template
        return template % {
            name: self._shown(name, value) for name, value in record.args.items()
        }

    def _shown(self, name: str, value: object) -> object:
        """Translate errors; let no text from a message begin a line of its own."""
        if isinstance(value, RmqarqError):
            value = render(value, self._language)
        if isinstance(value, str) and name != "stack":
            return value.translate(_ESCAPED)
        return value

    def _coloured(self, level: str, line: str) -> str:
        colour = COLOURS.get(level)
        if not self._colour or colour is None:
            return line
        return f"{colour}{line}{PLAIN}"
