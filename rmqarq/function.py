"""A user's function: what it is called, and calling it, be it awaited or plain."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from rmqarq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rmqarq.threads import Threads


def checked_name(fn: object, given: str | None, not_functions: tuple[type, ...]) -> str:
    """Give the name that a function is registered under.

    Args:
        fn: What was decorated.
        given: The name it was given, if any.
        not_functions: What can be called and is no function all the same.

    Raises:
        ConfigurationError: It is no function, or a generator, or has no name that can
            travel.
    """
    if not callable(fn) or isinstance(fn, (type, *not_functions)):
        raise ConfigurationError("a task must be a function, not {what}", what=repr(fn))
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ConfigurationError(
            "{fn} yields, and nobody would iterate it: a task returns, or enqueues what"
            " follows",
            fn=repr(fn),
        )
    name = given or getattr(fn, "__name__", "")
    if not name or len(name.encode()) > 255:
        raise ConfigurationError(
            "the task {fn} needs a name of 1 to 255 bytes", fn=repr(fn)
        )
    return name


def call(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    threads: Threads | None,
) -> Awaitable[Any]:
    """Call a function with exactly these arguments; await what this gives.

    Args:
        fn: The function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        threads: Where it runs if it is a plain function; `None`: it is awaited.
    """
    if threads is not None:
        return _in_thread(fn, args, kwargs, threads)
    result = fn(*args, **kwargs)
    return result if inspect.isawaitable(result) else _given(result)


async def _in_thread(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    threads: Threads,
) -> Any:
    """Run a plain function; what a plain wrapper gives may still be to be awaited."""
    result = await threads.run(fn, args, kwargs)
    if inspect.isawaitable(result):
        return await result
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        msg = f"{fn!r} gave a generator, which nobody iterates"
        raise TypeError(msg)
    return result


async def _given(result: Any) -> Any:
    return result


def is_async(fn: Callable[..., object]) -> bool:
    """Tell whether a function is awaited, be it wrapped or an object that is called."""
    inside = inspect.unwrap(fn)
    candidates = (fn, inside, getattr(fn, "__call__", None))  # noqa: B004
    return any(inspect.iscoroutinefunction(each) for each in candidates)
