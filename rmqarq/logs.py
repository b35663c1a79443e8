"""The log of a worker: where it goes, its shape, and the job a line belongs to."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from rmqarq import records
from rmqarq.language import catalogue, chosen_language, render

if TYPE_CHECKING:
    from collections.abc import Generator

    from rmqarq.context import Context
    from rmqarq.errors import RmqarqError

__all__ = [
    "JsonFormatter",
    "TextFormatter",
    "catalogue",
    "chosen_language",
    "current_job",
    "held",
    "process_number",
    "render",
    "set_up",
    "tell",
]

COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m"}
PLAIN = "\x1b[0m"

current_job: ContextVar[Context | None] = ContextVar("rmqarq_job", default=None)
"""The job whose code is running; every task of the event loop has its own."""


class Numbered(logging.Filter):
    """Marks each record with the number of its worker process, as `record.worker`.

    Args:
        number: 1 for the first of several; `None` for a process that is alone.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number

    def filter(self, record: logging.LogRecord) -> bool:
        """Mark a record, and let it pass."""
        if self.number is not None:
            record.worker = self.number
        return True


def set_up(
    level: str, language: str, log_format: str = "text", worker: int | None = None
) -> None:
    """Send the log to standard error, unless the program has set up its own.

    Our loggers speak even when `logging.config.dictConfig` has silenced those that it
    does not name, as it does by default; a level of the program's stands.

    Args:
        level: The lowest level shown, such as `INFO`.
        language: `en`, `zh` or `auto`.
        log_format: `text`, or `json` for one object a line.
        worker: The number of this worker process, when there are several.
    """
    root, ours = logging.getLogger(), logging.getLogger("rmqarq")
    ours.setLevel(level)
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == "rmqarq":
            logging.getLogger(name).disabled = False
    # below WARNING, aiormq logs every frame it sends, bodies included
    logging.getLogger("aiormq").setLevel(logging.WARNING)
    if not root.handlers:
        handler = logging.StreamHandler()
        shape = JsonFormatter if log_format == "json" else TextFormatter
        handler.setFormatter(shape(chosen_language(language)))
        handler.addFilter(Numbered(worker))
        if not all(isinstance(each, _Early) for each in ours.handlers):
            # the program shows our lines itself: here are all others
            handler.addFilter(_is_foreign)
        root.addHandler(handler)
        root.setLevel(level)


def process_number() -> int | None:
    """Give the number that `set_up` was told, if it marks lines at all."""
    for handler in logging.getLogger().handlers:
        for each in handler.filters:
            if isinstance(each, Numbered):
                return each.number
    return None


def tell(error: RmqarqError, cause: BaseException | None = None) -> bool:
    """Log the error that ends this process, where lines are JSON.

    Args:
        error: The error.
        cause: The exception behind it, where its traceback is of use.

    Returns:
        Whether it was logged; where lines are text, it is for the terminal.
    """
    handlers = logging.getLogger().handlers
    if not any(isinstance(each.formatter, JsonFormatter) for each in handlers):
        return False
    problem = {"problem": error}
    logging.getLogger(__name__).error("%(problem)s", problem, exc_info=cause)
    return True


def _is_foreign(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] != "rmqarq"


@contextmanager
def held(language: str, log_format: str = "text") -> Generator[None]:
    """Keep our lines back while an App is loaded, until it is known how to show them.

    The App's module may set up logging for itself, so that it can't be done before.

    Args:
        language: `en` or `zh`, for warnings where nobody has set up the log inside.
        log_format: As for `set_up`, likewise.
    """
    ours = logging.getLogger("rmqarq")
    early = _Early()
    ours.addHandler(early)
    try:
        yield
    finally:
        ours.removeHandler(early)
        if not logging.getLogger().handlers:
            set_up("WARNING", language, log_format)
        for record in early.records:
            logging.getLogger(record.name).handle(record)


class _Early(logging.Handler):
    """Keeps the records that nobody else shows."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        shown_by = *logging.getLogger("rmqarq").handlers, *logging.getLogger().handlers
        if not set(shown_by) - {self}:  # the module has not set up logging yet
            self.records.append(record)


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
        line += records.sentence_of(record, self._language)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._coloured(record.levelname, records.masked(line))

    def _coloured(self, level: str, line: str) -> str:
        colour = COLOURS.get(level)
        if not self._colour or colour is None:
            return line
        return f"{colour}{line}{PLAIN}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: sentence, event, job, parameters, extras, exception.

    Whatever was logged, it raises nothing and writes one line.

    Args:
        language: `en` or `zh`, for the message alone.
        ascii_only: Escape all that is not ASCII; by default where standard error is
            not UTF-8.
    """

    def __init__(self, language: str, ascii_only: bool | None = None) -> None:
        super().__init__()
        self._language = language
        if ascii_only is None:
            encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
            ascii_only = encoding.lower().replace("-", "") != "utf8"
        self._ascii = bool(ascii_only)

    def format(self, record: logging.LogRecord) -> str:
        """Write `record` as JSON."""
        try:
            fields = records.fields_of(record, self._language, current_job.get())
            return records.as_line(fields, ascii_only=self._ascii)
        except Exception as error:  # a log that fails tells nobody anything
            fields = {
                "level": str(record.levelname),
                "logger": str(record.name),
                "message": f"a record could not be written: {type(error).__name__}",
                "event": records.clean(records.text_of(record.msg)[:200]),
            }
            return records.as_line(fields, ascii_only=self._ascii)
