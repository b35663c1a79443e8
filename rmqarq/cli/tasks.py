"""`rmqarq tasks`: what an App has registered."""

from __future__ import annotations

import inspect
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import msgspec

from rmqarq import logs
from rmqarq.cli import output
from rmqarq.cli.target import Json, Path
from rmqarq.loader import load
from rmqarq.wire.topology import dead_letter_queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.app import App
    from rmqarq.handler import Runnable


def tasks(app: Path, *, as_json: Json = False) -> None:
    """Show the tasks and consume functions of the App in MODULE:APP. Asks no broker."""
    with logs.held(output.language()):
        found = load(app)
    rows = [
        _described(found, task, found.queue_of(task)) for task in found.tasks.values()
    ]
    rows += [
        _described(found, handler, handler.queue)
        for handler in found.registry.handlers.values()
    ]
    if as_json:
        output.as_json(rows)
    elif not rows:
        output.say("{app} has no tasks.", app=app)
    else:
        shown = ("task", "queue", "retries", "timeout", "signature")
        output.table(shown, ([_shown(row, name) for name in shown] for row in rows))


def _described(app: App[Any], task: Runnable, queue: str) -> dict[str, Any]:
    settings, policy = app.settings, task.policy
    timeout = None if policy.no_timeout else policy.timeout or settings.job_timeout
    retries = policy.max_retries
    backoff = policy.backoff
    return {
        "task": task.name,
        "signature": _signature(task),
        "queue": queue,
        "foreign": queue in app.registry.handlers,
        "dead_letter_queue": dead_letter_queue(queue, settings),
        "retries": settings.max_retries if retries is None else retries,
        "backoff": None if backoff is None else msgspec.to_builtins(backoff),
        "timeout": timeout,
        "function": _place(task.fn),
    }


def _shown(row: dict[str, Any], name: str) -> object:
    value = row[name]
    if name == "queue" and row["foreign"]:
        return f"{value} (foreign)"
    if name == "timeout":
        return output.translated("none") if value is None else f"{value:g} s"
    return value


def _signature(task: Runnable) -> str:
    """Write what callers fill in, as it stands in the code."""
    written = [_unquoted(each) for each in task.parameters]
    try:
        returned = inspect.signature(task.fn).return_annotation
    except (TypeError, ValueError):
        returned = inspect.Signature.empty
    shown = str(inspect.Signature(written))
    if returned is inspect.Signature.empty:
        return shown
    return f"{shown} -> {_name_of(returned)}"


def _unquoted(parameter: Parameter) -> Parameter:
    """Write annotations that are kept as text without quotes."""
    if parameter.annotation is Parameter.empty:
        return parameter
    return parameter.replace(annotation=_Written(_name_of(parameter.annotation)))


def _name_of(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation
    return inspect.formatannotation(annotation)


class _Written:
    """An annotation that is shown as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _place(fn: Callable[..., Any]) -> str:
    return f"{fn.__module__}.{getattr(fn, '__qualname__', repr(fn))}"
