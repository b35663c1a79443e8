"""Log records taken apart: their sentence in a language, their fields as JSON."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from rmqarq.errors import RmqarqError
from rmqarq.language import rendered, translated

if TYPE_CHECKING:
    from rmqarq.context import Context

LONGEST_MESSAGE = 8_000
LONGEST_TRACE = 16_000
MOST = 32_000
"""Characters that the fields of one line may take, beside message and traceback."""
DEEPEST = 8
OURS = ("time", "level", "logger", "message", "event", "exception", "stack")
RENAMED = {"id": "job_id", "attempt": "try"}
VOCABULARY = ("why", "reason")
"""Parameters whose values are words of our own, as `expired`."""

_ESCAPED = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}
_BREAKS = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}
_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S*@")
_STANDARD = {
    *vars(logging.LogRecord("", 0, "", 0, "", None, None)),
    *("message", "asctime", "taskName"),
}


def is_ours(record: logging.LogRecord) -> bool:
    """Tell whether a sentence is one of this package."""
    return record.name.partition(".")[0] == "rmqarq" and isinstance(record.msg, str)


def sentence_of(record: logging.LogRecord, language: str) -> str:
    """Give what a record says, translated when it is one of ours."""
    if not is_ours(record):
        return record.getMessage()
    template = translated(record.msg, language)
    if not isinstance(record.args, Mapping):
        return template % record.args if record.args else template
    return template % {
        name: _in_words(name, value, language) for name, value in record.args.items()
    }


def _in_words(name: str, value: object, language: str) -> object:
    """Translate what is ours; let no text from a message begin a line of its own."""
    value = rendered(value, language)
    if not isinstance(value, str) or name == "stack":
        return value
    if name in VOCABULARY:
        value = translated(value, language)
    return value.translate(_ESCAPED)


def fields_of(
    record: logging.LogRecord, language: str, job: Context[Any] | None
) -> dict[str, Any]:
    """Give a record as fields: its own, those of its job, its parameters, extras.

    Args:
        record: Of any logger.
        language: `en` or `zh`, for the message; the event stays English.
        job: The job whose code has logged it.
    """
    moment = datetime.fromtimestamp(record.created, UTC)
    keep = _Keeper()
    fields: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        "message": _cut(_whole_sentence(record, language), LONGEST_MESSAGE),
        "event": _cut(_event(record), LONGEST_MESSAGE),
    }
    params = keep.items(record.args) if isinstance(record.args, Mapping) else {}
    own = is_ours(record)
    if own:
        params = {RENAMED.get(name, name): value for name, value in params.items()}
    if job is not None and (not own or params.get("job_id") in (None, job.job_id)):
        fields |= {"job_id": clean(job.job_id), "task": clean(job.task)}
        fields |= {"queue": clean(job.queue), "try": job.job_try}
    extras = {k: v for k, v in vars(record).items() if k not in _STANDARD}
    taken = OURS if own else tuple(fields)
    for name, value in params.items():
        fields[f"{name}_" if name in taken else name] = value
    taken = tuple(fields)
    for name, value in keep.items(extras).items():
        fields[f"{name}_" if name in taken else name] = value
    return {**fields, **_traces(record)}


def as_line(fields: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Write fields as one line of JSON; no character in it ends a line."""
    import json  # here: few logs are JSON, and every worker is started

    text = json.dumps(fields, ensure_ascii=ascii_only, allow_nan=False)
    return text.translate(_BREAKS)


def clean(text: str) -> str:
    """Escape what UTF-8 can't express, and mask passwords in URLs."""
    return masked(str.encode(text, "utf-8", "backslashreplace").decode())


def masked(text: str) -> str:
    """Mask passwords in URLs."""
    return _PASSWORD.sub(r"\1***@", text) if "://" in text else text


def _cut(text: str, most: int) -> str:
    return clean(text if len(text) <= most else text[:most] + "…")


def _whole_sentence(record: logging.LogRecord, language: str) -> str:
    """Give the sentence; of a call whose arguments do not fit it, the pieces."""
    try:
        return sentence_of(record, language)
    except Exception:
        return f"{text_of(record.msg)} {text_of(record.args)}"


def _event(record: logging.LogRecord) -> str:
    """Give the template; where it is a gap alone, that of the error which fills it."""
    if not isinstance(record.msg, str):
        return type(record.msg).__name__
    if record.msg == "%(problem)s" and isinstance(record.args, Mapping):
        problem = record.args.get("problem")
        return problem.template if isinstance(problem, RmqarqError) else record.msg
    return record.msg


def _traces(record: logging.LogRecord) -> dict[str, str]:
    found: dict[str, str] = {}
    if record.exc_info and record.exc_info[1] is not None:
        text = logging.Formatter().formatException(record.exc_info)
        found["exception"] = clean(text[-LONGEST_TRACE:])
    elif record.exc_text:
        found["exception"] = clean(record.exc_text[-LONGEST_TRACE:])
    if record.stack_info:
        found["stack"] = clean(record.stack_info[-LONGEST_TRACE:])
    return found


def text_of(value: object) -> str:
    """Write anything as text; what can't be written says so."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that can't be shown>"


class _Keeper:
    """Makes of any value one that JSON knows, of bounded size."""

    def __init__(self) -> None:
        self._left = MOST

    def items(self, values: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
        """Keep the items of a mapping, as many as there is room for."""
        found: dict[str, Any] = {}
        for name, value in values.items():
            if self._left <= 0:
                break
            found[self._kept_text(text_of(name))] = self.value(value, depth + 1)
        return found

    def value(self, value: object, depth: int = 0) -> Any:
        """Keep one value."""
        self._left -= 1
        try:
            return self._kept(value, depth)
        except Exception:  # a value may do as it likes when it is looked at
            return f"<{type(value).__name__} that can't be shown>"

    def _kept(self, value: object, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._kept_text(value)
        if isinstance(value, int):
            number = int(value)
            return (
                number if -(2**63) <= number < 2**64 else self._kept_text(hex(number))
            )
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, BaseException) and not isinstance(value, RmqarqError):
            return self._kept_text(f"{type(value).__name__}: {value}")
        if depth < DEEPEST and isinstance(value, Mapping):
            return self.items(cast("Mapping[object, object]", value), depth)
        if depth < DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return self._kept_items(cast("Iterable[Any]", value), depth)
        return self._kept_text(str(value))

    def _kept_items(self, values: Iterable[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for each in values:
            if self._left <= 0:
                break
            found.append(self.value(each, depth + 1))
        return found

    def _kept_text(self, text: str) -> str:
        kept = _cut(text, max(0, self._left))
        self._left -= len(kept)
        return kept
