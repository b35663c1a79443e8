"""The App: a registry of tasks, its settings, and the way to the broker."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, Unpack

import msgspec

from rmqarq.connected import Connected
from rmqarq.context import Context, State, StateT
from rmqarq.decorator import TaskDecorator
from rmqarq.errors import ConfigurationError
from rmqarq.handler import HandlerDecorator
from rmqarq.home import Home
from rmqarq.job import Job, JobOptions, JobSpec, new_job_id
from rmqarq.message import Message
from rmqarq.middleware import Hooks, Middleware
from rmqarq.policy import Policy
from rmqarq.registry import Registry
from rmqarq.sending import Sending
from rmqarq.settings import Settings, SettingsFields, chosen_settings
from rmqarq.signature import Signature
from rmqarq.task import Task
from rmqarq.transports import Surroundings, Transports
from rmqarq.url import parse_urls, refuse_plain
from rmqarq.wire.topology import check_name, check_names

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterable,
        Sequence,
    )
    from contextlib import AbstractAsyncContextManager

    from rmqarq.handler import ConsumeOptions, Handler
    from rmqarq.middleware import JobHook
    from rmqarq.rows import Chunks
    from rmqarq.task import Publisher

    Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[StateT]]
    StateHook: TypeAlias = Callable[[StateT], Awaitable[None]]

R = TypeVar("R")

log = logging.getLogger(__name__)


class App(Connected, Generic[StateT]):
    """What producers and workers share.

    Args:
        url: The broker's URL, or a whole `Settings`; by default `RMQARQ_URL`, else a
            RabbitMQ on this machine.
        lifespan: Makes the state of a worker: `ctx.state` is what it yields.
        middleware: Wraps enqueueing and running, the first outermost.
        **settings: Any field of `Settings`; it beats the environment.

    Raises:
        ConfigurationError: A setting or the URL can't be used.

    Attributes:
        settings: What applies.
        registry: The registered functions.
        hooks: The functions that watch.
        clock: Gives the time, in seconds since the epoch.
        state: What the lifespan or the hooks of a running worker made, else `None`.

    Example:
        >>> app = App(queue="my_queue")
        >>> @app.task(max_retries=3)
        ... async def add(a: int, b: int) -> int:
        ...     return a + b
        >>> async with app:
        ...     await add.enqueue(1, 2)
    """

    def __init__(
        self,
        url: str | Sequence[str] | Settings | None = None,
        *,
        lifespan: Lifespan[StateT] | None = None,
        middleware: Sequence[Middleware] = (),
        **settings: Unpack[SettingsFields],
    ) -> None:
        self.settings = chosen_settings(url, settings)
        self.lifespan = lifespan
        self.hooks = Hooks()
        self.registry = Registry()
        self._home: Home[Publisher] = Home(self)
        self._outer: App[Any] | None = None
        self.task = TaskDecorator(self._register, self._home)
        self._own_queue = "queue" in settings or isinstance(url, Settings)
        self.middleware: tuple[Middleware, ...] = tuple(middleware)
        self.state: StateT | None = None
        self._surroundings = Surroundings()
        self._apply()

    @property
    def tasks(self) -> dict[str, Task[..., Any]]:
        """The registered tasks by name."""
        return self.registry.tasks

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that a worker consumes unless it is told: those of all functions.

        An App without any has its own.
        """
        of_tasks = dict.fromkeys(map(self.queue_of, self.tasks.values()))
        return (*of_tasks, *self.registry.handlers) or (self.settings.queue,)

    def configure(self, settings: Settings) -> None:
        """Replace the settings, as the command line does before a worker starts.

        Raises:
            ConfigurationError: They can't be used, or the App is connected already.
        """
        if self._transports.in_use:
            raise ConfigurationError("an App can't be configured while it is in use")
        self.settings = settings
        self._apply()

    @contextmanager
    def elsewhere(
        self,
        surroundings: Surroundings,
        settings: Settings,
        middleware: Sequence[Middleware],
    ) -> Generator[None]:
        """Live elsewhere for a while, as `rmqarq.testing` wants it.

        Raises:
            ConfigurationError: The App is connected, or elsewhere already.
        """
        if self._transports.connected or self._surroundings != Surroundings():
            raise ConfigurationError(
                "an App can't enter a world of tests while it is connected, or in"
                " another one; close it first: await app.close()"
            )
        home = self.settings, self.middleware
        self._surroundings, self.settings = surroundings, settings
        self.middleware = tuple(middleware)
        try:
            self._apply()
            yield
        finally:
            self._surroundings = Surroundings()
            self.settings, self.middleware = home
            self._apply()

    def consume(
        self, queue: str, /, **options: Unpack[ConsumeOptions]
    ) -> HandlerDecorator:
        """Run a function on the messages that other producers publish to a queue.

        The queue must exist and is consumed as it is. The function takes the body as
        the type that its parameter is annotated with; `Incoming[...]` gives more.

        Args:
            queue: The queue; no task of this App may use it.
            **options: How the runs are treated.

        Raises:
            ConfigurationError: A queue name that can't be used.

        Example:
            >>> @app.consume("followers", max_retries=5, timeout=60)
            ... async def process_followers(ctx: Context, event: Follower) -> None: ...
        """
        check_name(queue)
        return HandlerDecorator(self._register_handler, self, queue, options)

    def include(self, *others: App[Any]) -> None:
        """Take over the functions of other Apps; tasks publish through this one then.

        A task that names no queue gets the queue that was given to its own App, else
        this App's. Lifespan, hooks, middleware and settings of this App apply, also to
        what is registered there, or sent through there, from now on.

        Raises:
            TaskAlreadyRegistered: Two functions have the same name.
            ConfigurationError: Two functions that can't share their queue; or an App
                that would include itself.
        """
        for other in others:
            if other in self._lineage():
                raise ConfigurationError("an App can't include itself")
            if other._outer not in (None, self):
                log.warning(
                    "an App that another one had included is included once more: its"
                    " tasks are sent by the last one"
                )
            if other.lifespan or other.middleware or other.hooks:
                log.warning(
                    "lifespan, hooks and middleware of an included App do not apply"
                )
            queue = other.settings.queue if other._own_queue else None
            for task in other.tasks.values():
                self._adopt(task, queue)
            for handler in other.registry.handlers.values():
                self._register_handler(handler)
            other._outer = self
            other._home.follow(self._home, queue)

    def ref(self, name: str) -> Task[..., Any]:
        """Name a task that lives in another codebase; JSON-native arguments only.

        Args:
            name: The name it is registered under there. A task of this App is found
                under its name, too, and keeps its checks.
        """
        known = self.tasks.get(name)
        if known is not None:
            return known

        def elsewhere(*args: Any, **kwargs: Any) -> None:
            raise ConfigurationError(
                "the task {name} is not part of this program", name=repr(name)
            )

        signature = Signature(elsewhere, name)
        return Task(elsewhere, name, self._home, signature, Policy(), JobOptions())

    def enqueue(self, spec: JobSpec[R], /) -> Coroutine[Any, Any, Job[R]]:
        """Send one call; `task.enqueue(...)` and `task.defer(...)` end here.

        Raises:
            EncodeError: An argument would not arrive as it is.
            TransportError: The broker did not store it before `publish_deadline`.
            ConfigurationError: The broker refuses us, or what we declare.
        """
        owner: Publisher = spec.home.owner
        if owner is not self:
            return owner.enqueue(spec)
        # what is awaited is the sending itself: one coroutine less for each job
        return self._sending.one(spec, self._queue_for(spec))

    async def enqueue_many(self, jobs: Iterable[JobSpec[R]], /) -> list[Job[R]]:
        """Send many calls at once, deferred ones mixed in.

        All are encoded before the first is sent, so a bad argument sends nothing.

        Args:
            jobs: Made by `task.job(...)`, with `.defer(when)` where they shall wait;
                those of another App are sent by that one.

        Returns:
            A handle for each, in the given order.

        Raises:
            EncodeError: As for `enqueue`; nothing was sent.
            PartlyEnqueued: Some were not stored; it holds the errors by position.
            ConfigurationError: The broker refuses us, or what we declare; or the jobs
                are of several Apps.

        Example:
            >>> await app.enqueue_many([add.job(i, 1) for i in range(1000)])
        """
        jobs = [*jobs]
        owners: set[Publisher] = {spec.home.owner for spec in jobs} or {self}
        if len(owners) > 1:
            raise ConfigurationError(
                "the jobs of one enqueue_many are of several Apps; send those of each"
                " App by themselves, or include one App in the other"
            )
        if self not in owners:
            return await owners.pop().enqueue_many(jobs)
        return await self._sending.many(jobs, [*map(self._queue_for, jobs)])

    async def enqueue_rows(self, spec: JobSpec[Any], chunks: Chunks, /) -> int:
        """Send many calls, some in each message; `task.map(...)` ends here."""
        return await self._sending.rows(spec, self._queue_for(spec), chunks)

    def local_context(self, task: str) -> Context[Any]:
        """Make a context for a task that is called right here."""
        if self.lifespan is not None and self.state is None:
            raise ConfigurationError(
                "the task {task} takes a context, whose state the lifespan makes in a"
                " worker; call its fn with a Context of your own",
                task=task,
            )
        now = self.clock()
        message = Message(id=new_job_id(now), task=task, enqueued_at=now)
        state: Any = State() if self.state is None else self.state
        return Context(
            message, state, self.registry.queue_named(task, self.settings.queue)
        )

    def on_startup(self, fn: StateHook[StateT]) -> StateHook[StateT]:
        """Call `fn` with the state before a worker takes its first job."""
        self.hooks.startup.append(fn)
        return fn

    def on_shutdown(self, fn: StateHook[StateT]) -> StateHook[StateT]:
        """Call `fn` with the state after a worker's last job."""
        self.hooks.shutdown.append(fn)
        return fn

    def on_job_start(self, fn: JobHook) -> JobHook:
        """Call `fn` with the context before each run."""
        self.hooks.job_start.append(fn)
        return fn

    def on_job_end(self, fn: JobHook) -> JobHook:
        """Call `fn` with the context, `ctx.outcome` set, after each run."""
        self.hooks.job_end.append(fn)
        return fn

    def _apply(self) -> None:
        endpoints = parse_urls(self.settings.url)
        if self._surroundings == Surroundings():
            refuse_plain(endpoints, self.settings.tls_files)
        check_names(self.settings)
        self.registry.check_usual(self.settings.queue)
        around, handlers = self._surroundings, self.registry.handlers
        self.clock = around.clock
        self._transports = Transports(self.settings, handlers, around.connect)
        self._sending = Sending(
            self.settings, self.middleware, self._transports, around
        )
        self._patience = self.settings.publish_deadline

    def _lineage(self) -> Generator[App[Any]]:
        """Give this App and those that include it."""
        yield self
        if self._outer is not None:
            yield from self._outer._lineage()

    def _adopt(self, task: Task[..., Any], queue: str | None) -> None:
        if task.policy.queue is None and queue is not None:
            task.policy = msgspec.structs.replace(task.policy, queue=queue)
        self._register(task)

    def _register(self, task: Task[..., Any]) -> None:
        self.registry.add_task(task, self.settings.queue)
        if self._outer is not None:
            self._outer._adopt(task, self._home.queue)

    def _register_handler(self, handler: Handler[Any, Any]) -> None:
        self.registry.add_handler(handler, self.settings.queue)
        handler.move(self)
        if self._outer is not None:
            self._outer._register_handler(handler)

    def queue_of(self, task: Task[..., Any]) -> str:
        """The queue that jobs of a task go to unless they say otherwise."""
        return task.policy.queue or self.settings.queue

    def _queue_for(self, spec: JobSpec[Any]) -> str:
        usual = spec.home.queue or self.settings.queue
        return self.registry.queue_for(spec.task, spec.options.queue, usual)
