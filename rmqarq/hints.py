"""Reading the parameters and annotations of a function, as late as possible."""

from __future__ import annotations

import inspect
import re
import sys
from inspect import Parameter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from rmqarq.context import Context
from rmqarq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CONTEXT_BY_NAME = re.compile(r"(\w+\.)*Context(\[.*\])?")


def parameters_of(fn: Callable[..., Any], task: str) -> list[Parameter]:
    """List the parameters of a function without looking up their annotations.

    Raises:
        ConfigurationError: A first parameter `ctx` without annotation.
    """
    if sys.version_info >= (3, 14):
        import annotationlib

        lazily = annotationlib.Format.FORWARDREF
        found = inspect.signature(fn, annotation_format=lazily)
    else:
        found = inspect.signature(fn)
    parameters = list(found.parameters.values())
    _check_first(parameters, task)
    return parameters


def hint_of(parameter: Parameter, fn: Callable[..., Any], task: str) -> Any:
    """Give the annotated type of a parameter; `Any` where there is none.

    Raises:
        ConfigurationError: It can't be found.
    """
    if parameter.annotation is Parameter.empty:
        return Any
    try:
        return _resolved(parameter.annotation, fn)
    except Exception as error:
        raise ConfigurationError(
            "the annotation of {parameter} in the task {task} can't be found"
            " ({problem}): import the type at module level,"
            " outside of 'if TYPE_CHECKING'",
            parameter=repr(parameter.name),
            task=task,
            problem=str(error),
        ) from error


def is_context(parameter: Parameter, fn: Callable[..., Any], task: str) -> bool:
    """Tell whether a parameter is annotated as a `Context`, an alias included.

    Raises:
        ConfigurationError: Its annotation can't be found.
    """
    hint = parameter.annotation
    if hint is Parameter.empty:
        return False
    by_name = isinstance(hint, str) and _CONTEXT_BY_NAME.fullmatch(hint.strip("'\" "))
    if not by_name:
        resolved = hint_of(parameter, fn, task)
        origin = get_origin(resolved) or resolved
        if not (isinstance(origin, type) and issubclass(origin, Context)):
            return False
    if parameter.kind is Parameter.KEYWORD_ONLY:
        raise ConfigurationError(
            "the context of the task {task} must be its first positional parameter,"
            " not {parameter} behind a '*'",
            task=task,
            parameter=repr(parameter.name),
        )
    return True


def _check_first(parameters: Sequence[Parameter], task: str) -> None:
    if not parameters:
        return
    first = parameters[0]
    if first.name == "ctx" and first.annotation is Parameter.empty:
        raise ConfigurationError(
            "the first parameter of the task {task} is called ctx but has no"
            " annotation; write 'ctx: Context' to get the context,"
            " or give it another name",
            task=task,
        )


def _resolved(hint: Any, fn: Callable[..., Any]) -> Any:
    """Evaluate an annotation, quoted parts included, in the module of its function."""
    if sys.version_info >= (3, 14) and hasattr(hint, "evaluate"):
        hint = hint.evaluate()
    holder = SimpleNamespace(__annotations__={"hint": hint})
    names = getattr(inspect.unwrap(fn), "__globals__", {})
    while isinstance(holder.__annotations__["hint"], str):
        found = get_type_hints(holder, globalns=names, include_extras=True)
        holder.__annotations__ = found
    return get_type_hints(holder, globalns=names, include_extras=True)["hint"]
