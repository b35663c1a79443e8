"""A task: a function under a name, to run here, enqueue there, or defer till later."""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)

from rmqarq.context import Context
from rmqarq.function import call, checked_name, is_async
from rmqarq.job import EnqueueOptions, Job, JobOptions, JobSpec
from rmqarq.policy import Policy, checked_policy, converted
from rmqarq.signature import Signature
from rmqarq.threads import Threads
from rmqarq.when import plain_seconds

if TYPE_CHECKING:
    from inspect import Parameter
    from typing import Unpack

    from rmqarq.backoff import Backoff
    from rmqarq.when import Duration, When
    from rmqarq.wire.codec import Decoded

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
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


class Publisher(Protocol):
    """What a task needs of its App."""

    async def enqueue(self, spec: JobSpec[R], /) -> Job[R]:
        """Send one call."""
        ...

    def local_context(self, task: str) -> Context[Any]:
        """Make a context for a run right here."""
        ...


class _Home:
    """Where a task is at home; its copies move with it when an App includes another."""

    __slots__ = ("publisher",)

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher


class Task(Generic[P, R_co]):
    """A registered task.

    Attributes:
        name: Its name on the wire.
        fn: The function as it was written.
        policy: How its runs are treated.
        signature: What its function takes; `None` for a task of another codebase.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        publisher: Publisher,
        signature: Signature | None,
        policy: Policy,
        options: JobOptions,
    ) -> None:
        self.fn = fn
        self.name = name
        self.policy = policy
        self.signature = signature
        self.is_async = is_async(fn)
        self._home = _Home(publisher)
        self._options = options

    @property
    def publisher(self) -> Publisher:
        """The App it is enqueued through."""
        return self._home.publisher

    @property
    def priority(self) -> int:
        """The priority of what it enqueues."""
        return self._options.priority

    def move(self, publisher: Publisher, policy: Policy) -> None:
        """Go over to another App, with every copy that `options` has made."""
        self._home.publisher = publisher
        self.policy = policy

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here and now; a plain one runs in a thread.

        A context is made for it if it takes one. No retry, timeout or hook applies.
        """
        given: tuple[Any, ...] = args
        if self.takes_context:
            given = (self.publisher.local_context(self.name), *args)
        return await self.call(given, kwargs, Threads(1))

    async def call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], threads: Threads
    ) -> R_co:
        """Call the function with exactly these arguments.

        Args:
            args: With the context, if it takes one.
            kwargs: Its keyword arguments.
            threads: Where it runs if it is a plain function.
        """
        where = None if self.is_async else threads
        done: R_co = await call(self.fn, args, kwargs, where)
        return done

    @property
    def takes_context(self) -> bool:
        """Whether the function takes a context before its arguments."""
        return self.signature is not None and self.signature.takes_context

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that callers fill."""
        return self.signature.parameters if self.signature is not None else ()

    def decode(self, decoded: Decoded) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments in a message as their annotated types.

        Raises:
            DecodeError: They do not fit, with the name of the argument.
        """
        assert self.signature is not None, "every registered task has one"
        message = decoded.message
        return self.signature.decode(decoded.serializer, message.args, message.kwargs)

    def prepare(self) -> None:
        """Read all annotations now, as a worker does at its start.

        Raises:
            ConfigurationError: One can't be found, or can't be built from a message.
        """
        if self.signature is not None:
            self.signature.prepare()

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R_co]:
        """Send the call to a worker; when this returns the broker has stored it.

        Returns:
            A handle with the job's id.

        Raises:
            TypeError: The function can't be called like that.
            EncodeError: An argument would not arrive as it is.
            TransportError: The broker did not store it before `publish_deadline`;
                the kind says whether it refused or nobody knows.
            ConfigurationError: The broker refuses us, or what we declare.
        """
        return await self.publisher.enqueue(self.job(*args, **kwargs))

    async def defer(
        self, when: When, /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R_co]:
        """Send the call to run later, at `when` rounded up to the next 100 ms.

        Args:
            when: Seconds, a timedelta or a datetime (a naive one is local time).
            *args: For the function.
            **kwargs: For the function.

        Returns:
            A handle with the job's id.

        Raises:
            TypeError: As for `enqueue`, and when `when` is none of the three.
            ValueError: `when` is not finite.
            EncodeError: As for `enqueue`.
            TransportError: As for `enqueue`.
            ConfigurationError: As for `enqueue`.
        """
        return await self.publisher.enqueue(self.job(*args, **kwargs).defer(when))

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R_co]:
        """Make a call for `App.enqueue_many`.

        Raises:
            TypeError: The function can't be called like that.
        """
        bound: tuple[tuple[Any, ...], dict[str, Any]] = (args, kwargs)
        if self.signature is not None:
            bound = self.signature.bind(args, kwargs)
        return JobSpec(self.name, self.signature, *bound, self._options)

    def options(self, **options: Unpack[EnqueueOptions]) -> Task[P, R_co]:
        """Give the same task with other options for what it enqueues.

        Example:
            >>> await process.options(queue="other", job_id="a-1").enqueue(7)

        Raises:
            TypeError: An option that does not exist.
            ConfigurationError: A value of the wrong type or out of range.
        """
        other = copy.copy(self)
        other._options = self._options.merged(self.name, options)
        return other

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


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
        publisher: Publisher,
        options: TaskOptions | None = None,
    ) -> None:
        self._register = register
        self._publisher = publisher
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
            return TaskDecorator(self._register, self._publisher, merged)
        task = _make(fn, self._publisher, merged)
        self._register(task)
        return task


def _make(
    fn: Callable[..., object], publisher: Publisher, options: TaskOptions
) -> Task[..., Any]:
    name = checked_name(fn, options.get("name"), (Task,))
    policy, job_options = _checked(name, options)
    return Task(fn, name, publisher, Signature(fn, name), policy, job_options)


def _checked(name: str, options: TaskOptions) -> tuple[Policy, JobOptions]:
    """Sort the options by who reads them: the worker, or whoever enqueues."""
    given: dict[str, Any] = {**options}
    given.pop("name", None)
    for_jobs = {key: given.pop(key) for key in _FOR_JOBS if key in given}
    if "expires" in for_jobs:
        for_jobs["expires"] = plain_seconds(for_jobs["expires"])
    return checked_policy(name, given), converted(name, for_jobs, JobOptions)
