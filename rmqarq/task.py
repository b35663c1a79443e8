"""A task: a function under a name, to run here, enqueue there, or defer till later."""

from __future__ import annotations

import copy
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Set,
)
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
)

from rmqarq.context import Context
from rmqarq.errors import ConfigurationError
from rmqarq.function import call, is_async
from rmqarq.job import EnqueueOptions, Job, JobOptions, JobSpec
from rmqarq.policy import Policy
from rmqarq.rows import chunks
from rmqarq.signature import Signature
from rmqarq.threads import Threads

if TYPE_CHECKING:
    from inspect import Parameter

    from rmqarq.home import Home
    from rmqarq.rows import Chunks, Row
    from rmqarq.when import When
    from rmqarq.wire.codec import Decoded

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
ArgT = TypeVar("ArgT")
ArgsT = TypeVarTuple("ArgsT")
ContextStateT = TypeVar("ContextStateT")


class Publisher(Protocol):
    """What a task needs of its App."""

    def enqueue(self, spec: JobSpec[R], /) -> Coroutine[Any, Any, Job[R]]:
        """Send one call."""
        ...

    async def enqueue_many(self, jobs: Iterable[JobSpec[R]], /) -> list[Job[R]]:
        """Send many calls."""
        ...

    async def enqueue_rows(self, spec: JobSpec[Any], chunks: Chunks, /) -> int:
        """Send many calls, some in each message."""
        ...

    def local_context(self, task: str) -> Context[Any]:
        """Make a context for a run right here."""
        ...


class Takes(Protocol[*ArgsT]):
    """A task that can be called with such arguments by position."""

    def job(self, *args: *ArgsT) -> JobSpec[Any]:
        """Make a call."""
        ...


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
        home: Home[Publisher],
        signature: Signature | None,
        policy: Policy,
        options: JobOptions,
    ) -> None:
        self.fn = fn
        self.name = name
        self.policy = policy
        self.signature = signature
        self.is_async = is_async(fn)
        self._home = home
        self._options = options

    @property
    def publisher(self) -> Publisher:
        """The App it is enqueued through."""
        return self._home.owner

    @property
    def priority(self) -> int:
        """The priority of what it enqueues."""
        return self._options.priority

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here and now; a plain one runs in a thread.

        A context is made for it if it takes one. No retry, timeout or hook applies.
        """
        given: tuple[Any, ...] = args
        if self.takes_context:
            given = (self.publisher.local_context(self.name), *args)
        return await self.call(given, kwargs, Threads(1))

    def call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], threads: Threads
    ) -> Awaitable[R_co]:
        """Call the function with exactly these arguments; await what this gives.

        Args:
            args: With the context, if it takes one.
            kwargs: Its keyword arguments.
            threads: Where it runs if it is a plain function.
        """
        return call(self.fn, args, kwargs, None if self.is_async else threads)

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
        """Send the call to run later: not before `when`, and as soon as it can then.

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

    async def map(
        self: Takes[ArgT],
        rows: Iterable[ArgT] | AsyncIterable[ArgT],
        /,
        *,
        chunk: int = 100,
        defer: When | None = None,
    ) -> int:
        """Enqueue a job for each row, many in one message: cheap where rows are many.

        Each job has its own retries and its own dead letter. But the broker has to do
        with the messages: when a worker is killed, the whole chunk runs again.

        Args:
            rows: The first argument of each call; taken as they are sent, so there may
                be any number.
            chunk: The most jobs in a message.
            defer: When to run them: seconds, a timedelta or a datetime.

        Returns:
            How many jobs were enqueued.

        Raises:
            EncodeError: A row would not arrive as it is, or a chunk is above
                `max_body`; it says which, and those before are enqueued.
            PartlyMapped: Some chunks were not stored for certain; it says which.
            TypeError: The function can't be called like that.
            ConfigurationError: The broker refuses us, or what we declare; or
                `options` give a job id, which can't be that of all.

        Example:
            >>> await resize.map(range(1_000_000), chunk=500)
        """
        task = cast("Task[..., Any]", self)
        return await task._map(rows, _alone, chunk, defer)

    async def starmap(
        self: Takes[*ArgsT],
        rows: Iterable[tuple[*ArgsT]] | AsyncIterable[tuple[*ArgsT]],
        /,
        *,
        chunk: int = 100,
        defer: When | None = None,
    ) -> int:
        """Do the same as `map` with rows that hold all arguments of a call.

        Args:
            rows: Tuples.
            chunk: The most jobs in a message.
            defer: When to run them: seconds, a timedelta or a datetime.

        Returns:
            How many jobs were enqueued.

        Raises:
            Exception: As for `map`.

        Example:
            >>> await greet.starmap([("Ada", "en"), ("小明", "zh")])
        """
        task = cast("Task[..., Any]", self)
        return await task._map(rows, _spread, chunk, defer)

    async def _map(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        arguments: Callable[[Any], Row],
        size: int,
        when: When | None,
    ) -> int:
        if type(size) is not int:
            kind = type(size).__name__
            raise TypeError(f"{self.name}: chunk must be a whole number, not {kind}")
        if size < 1:
            raise ValueError(f"{self.name}: a chunk holds at least one job")
        if self._options.job_id is not None:
            raise ConfigurationError(
                "{task}: a job id can't be that of every row", task=self.name
            )

        def bound(row: Any) -> Row:
            args = arguments(row)
            return args if self.signature is None else self.signature.bind(args, {})[0]

        options = self._options
        spec = JobSpec[R_co](
            self._home, self.name, self.signature, (), {}, options, when
        )
        return await self.publisher.enqueue_rows(spec, chunks(rows, size, bound))

    def job(self, *args: P.args, **kwargs: P.kwargs) -> JobSpec[R_co]:
        """Make a call for `App.enqueue_many`.

        Raises:
            TypeError: The function can't be called like that.
        """
        bound: tuple[tuple[Any, ...], dict[str, Any]] = (args, kwargs)
        if self.signature is not None:
            bound = self.signature.bind(args, kwargs)
        return JobSpec(self._home, self.name, self.signature, *bound, self._options)

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


def _alone(row: Any) -> Row:
    return (row,)


_NO_ROWS: tuple[type[Any], ...] = (str, bytes, Mapping, Set)


def _spread(row: Any) -> Row:
    """Take the arguments out of a row; of some that makes no sense, or no order."""
    if isinstance(row, _NO_ROWS):
        raise TypeError(f"a row is a tuple of arguments, not {type(row).__name__}")
    return tuple(row)
