"""Registers functions as tasks, with the options that were given."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from rmqarq.context import Context
from rmqarq.function import checked_name
from rmqarq.job import JobOptions
from rmqarq.policy import Policy, checked_policy, converted
from rmqarq.signature import Signature
from rmqarq.task import Task
from rmqarq.when import plain_seconds

if TYPE_CHECKING:
    from rmqarq.backoff import Backoff
    from rmqarq.home import Home
    from rmqarq.task import Publisher
    from rmqarq.when import Duration

P = ParamSpec("P")
R = TypeVar("R")
ContextStateT = TypeVar("ContextStateT")


class TaskOptions(TypedDict, total=False):
    """What `@app.task(...)` takes; times are seconds or a timedelta.

    Args:
        name: Instead of the function's name.
        queue: Instead of the App's queue.
        priority: Of its jobs, 0 to 255.
        timeout: How long a run may take; `None`: no limit; not given: `job_timeout`.
        max_retries: Further attempts after a failed run.
        backoff: A `Backoff`, or the length of the first wait.
        retry_on: The exceptions that are worth another attempt; all by default.
        expires: How long after its time a job is dead.
        compression: Whether to pack bodies above the threshold.
    """

    name: str
    queue: str
    priority: int
    timeout: Duration | None
    max_retries: int
    backoff: Backoff | Duration
    retry_on: tuple[type[Exception], ...]
    expires: Duration
    compression: bool


_FOR_JOBS = ("priority", "expires", "compression")


class TaskDecorator:
    """Registers functions as tasks: `@app.task`, `@app.task(...)`, or kept as a value.

    Example:
        >>> mail = app.task(queue="mail")
        >>> @mail
        ... async def welcome(user_id: int) -> None: ...
    """

    def __init__(
        self,
        register: Callable[[Task[..., Any]], None],
        home: Home[Publisher],
        options: TaskOptions | None = None,
    ) -> None:
        self._register = register
        self._home = home
        self._options: TaskOptions = options or {}

    # The first overload of each kind is a guard: without it a type checker takes a
    # first parameter annotated `Any`, or not at all, for a context.
    @overload
    def __call__(
        self, fn: Callable[Concatenate[object, P], Coroutine[Any, Any, R]], /
    ) -> Task[Concatenate[Any, P], R]: ...
    @overload
    def __call__(
        self,
        fn: Callable[Concatenate[Context[ContextStateT], P], Coroutine[Any, Any, R]],
        /,
    ) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[object, P], R], /
    ) -> Task[Concatenate[Any, P], R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[Context[ContextStateT], P], R], /
    ) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, /, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def __call__(
        self,
        fn: Callable[..., object] | None = None,
        /,
        **options: Unpack[TaskOptions],
    ) -> Task[..., Any] | TaskDecorator:
        """Register `fn`, or give a decorator with further options."""
        merged: TaskOptions = {**self._options, **options}
        if fn is None:
            return TaskDecorator(self._register, self._home, merged)
        task = _make(fn, self._home, merged)
        self._register(task)
        return task


def _make(
    fn: Callable[..., object], home: Home[Publisher], options: TaskOptions
) -> Task[..., Any]:
    name = checked_name(fn, options.get("name"), (Task,))
    policy, job_options = _checked(name, options)
    return Task(fn, name, home, Signature(fn, name), policy, job_options)


def _checked(name: str, options: TaskOptions) -> tuple[Policy, JobOptions]:
    """Sort the options by who reads them: the worker, or whoever enqueues."""
    given: dict[str, Any] = {**options}
    given.pop("name", None)
    for_jobs = {key: given.pop(key) for key in _FOR_JOBS if key in given}
    if "expires" in for_jobs:
        for_jobs["expires"] = plain_seconds(for_jobs["expires"])
    return checked_policy(name, given), converted(name, for_jobs, JobOptions)
