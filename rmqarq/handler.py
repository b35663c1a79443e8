"""A consume function: it runs on messages that other producers publish to a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    overload,
)

from rmqarq.body import Body
from rmqarq.context import Context
from rmqarq.function import call, checked_name, is_async
from rmqarq.policy import Policy, checked_policy
from rmqarq.task import Task
from rmqarq.threads import Threads

if TYPE_CHECKING:
    from inspect import Parameter

    from rmqarq.backoff import Backoff
    from rmqarq.when import Duration
    from rmqarq.wire.codec import Decoded

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
BodyT = TypeVar("BodyT")
BodyT_contra = TypeVar("BodyT_contra", contravariant=True)
ContextStateT = TypeVar("ContextStateT")


class ConsumeOptions(TypedDict, total=False):
    """What `@app.consume(queue, ...)` takes besides the queue.

    Times are seconds or a timedelta.

    Args:
        name: Instead of the function's name, for `ctx.task`, logs and dead letters.
        timeout: How long a run may take; `None`: no limit; not given: `job_timeout`.
        max_retries: Further attempts after a failed run.
        backoff: A `Backoff`, or the length of the first wait.
        retry_on: The exceptions that are worth another attempt; all by default.
    """

    name: str
    timeout: Duration | None
    max_retries: int
    backoff: Backoff | Duration
    retry_on: tuple[type[Exception], ...]


class Surroundings(Protocol):
    """What a consume function needs of its App."""

    def local_context(self, task: str) -> Context[Any]:
        """Make a context for a run right here."""
        ...


class Handler(Generic[BodyT_contra, R_co]):
    """A registered consume function. Its messages come from elsewhere: none is sent.

    Attributes:
        name: What it is called in logs, dead letters and `ctx.task`.
        queue: The queue that it consumes.
        fn: The function as it was written.
        policy: How its runs are treated.
        body: The parameter that gets the body of a message.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        queue: str,
        app: Surroundings,
        policy: Policy,
    ) -> None:
        self.fn = fn
        self.name = name
        self.queue = queue
        self.policy = policy
        self.body = Body(fn, name)
        self.is_async = is_async(fn)
        self._app = app

    @property
    def takes_context(self) -> bool:
        """Whether the function takes a context before the body."""
        return self.body.takes_context

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameter that gets the body."""
        return (self.body.parameter,)

    def move(self, app: Surroundings) -> None:
        """Go over to another App, which includes the former one."""
        self._app = app

    async def __call__(self, body: BodyT_contra, /) -> R_co:
        """Run the function here and now; a plain one runs in a thread.

        A context is made for it if it takes one. No retry, timeout or hook applies.
        """
        args = (self._app.local_context(self.name), body)
        return await self.call(args if self.takes_context else args[1:], {}, Threads(1))

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

    def decode(self, decoded: Decoded) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the body of a message as the type of the parameter.

        Raises:
            DecodeError: It is not of that type.
        """
        assert decoded.origin is not None, "read as a foreign message"
        return (self.body.decode(bytes(decoded.message.args), decoded.origin),), {}

    def prepare(self) -> None:
        """Read all annotations now, as a worker does at its start.

        Raises:
            ConfigurationError: One can't be found, or can't be built from a message.
        """
        self.body.prepare()

    def __repr__(self) -> str:
        return f"<Handler {self.name} of {self.queue}>"


Runnable: TypeAlias = Task[..., Any] | Handler[Any, Any]
"""What a worker runs."""


class HandlerDecorator:
    """Registers a function for the messages of one queue; `app.consume(...)` makes it.

    Args:
        register: Called with what was made.
        app: Where it is at home.
        queue: The queue.
        options: How its runs are treated.
    """

    def __init__(
        self,
        register: Callable[[Handler[Any, Any]], None],
        app: Surroundings,
        queue: str,
        options: ConsumeOptions,
    ) -> None:
        self._register = register
        self._app = app
        self._queue = queue
        self._options = options

    @overload
    def __call__(
        self,
        fn: Callable[[Context[ContextStateT], BodyT], Coroutine[Any, Any, R]],
        /,
    ) -> Handler[BodyT, R]: ...
    @overload
    def __call__(
        self, fn: Callable[[BodyT], Coroutine[Any, Any, R]], /
    ) -> Handler[BodyT, R]: ...
    @overload
    def __call__(
        self, fn: Callable[[Context[ContextStateT], BodyT], R], /
    ) -> Handler[BodyT, R]: ...
    @overload
    def __call__(self, fn: Callable[[BodyT], R], /) -> Handler[BodyT, R]: ...
    def __call__(self, fn: Callable[..., object], /) -> Handler[Any, Any]:
        """Register `fn`.

        Raises:
            ConfigurationError: It is no function of one body, or the queue or the name
                is taken.
        """
        given: dict[str, Any] = {**self._options}
        name = checked_name(fn, given.pop("name", None), (Task, Handler))
        policy = checked_policy(name, given)
        handler: Handler[Any, Any] = Handler(fn, name, self._queue, self._app, policy)
        self._register(handler)
        return handler
