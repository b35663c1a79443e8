"""A world of its own for an App: a broker, a worker and time, inside one event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rmqarq.task import Task
from rmqarq.testing.foreign import content_header, payload
from rmqarq.testing.sightings import Dead, Delayed, Done, Enqueued, moment
from rmqarq.testing.spans import epoch_of, seconds_in
from rmqarq.testing.stage import TICK, Stage
from rmqarq.testing.wanted import SightingT, Wanted, unknown_task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self, TypeAlias

    from rmqarq.app import App
    from rmqarq.handler import Handler

    Named: TypeAlias = Task[..., Any] | Handler[Any, Any] | str

END_OF_TIME = 253402300799
"""The last second that a datetime can hold, in seconds since the epoch."""


def world(
    app: App[Any],
    *,
    now: datetime | None = None,
    raises: bool = True,
    limit: int = 1000,
) -> World:
    """Make a world for tests of an App, to be entered with `async with`.

    Inside, the App is connected to a broker in this process, a worker of it is there,
    and time stands still until `advance`. No port is opened and nothing is slept for.
    Jobs travel, retry and die by the very code that runs in production.

    Args:
        app: It must not be connected; afterwards it is as it was before.
        now: When the world begins (a naive datetime is local time); by default at the
            next whole second.
        raises: Whether `run` and `advance` raise what tasks have raised.
        limit: How many more runs than there were jobs may take place at one moment,
            before a chain of jobs is taken for endless.

    Example:
        >>> async with world(app) as w:
        ...     await welcome.defer(3600, "ada@example.com")
        ...     await w.advance(hours=1)
        ...     w.assert_ran(welcome, "ada@example.com")
    """
    return World(app, now=now, raises=raises, limit=limit)


class World:
    """What `world` makes.

    Args:
        app: As for `world`.
        now: As for `world`.
        raises: As for `world`.
        limit: As for `world`.
    """

    def __init__(
        self, app: App[Any], *, now: datetime | None, raises: bool, limit: int
    ) -> None:
        self._app = app
        self._raises = raises
        self._stage = Stage(app, now, limit)
        self._entered = False

    # --- what is there ---

    @property
    def now(self) -> datetime:
        """The time, an aware datetime in UTC."""
        return moment(self._stage.clock.date())

    @property
    def enqueued(self) -> list[Enqueued]:
        """What was enqueued, by the test and by jobs, in order."""
        return list(self._stage.enqueued)

    @property
    def done(self) -> list[Done]:
        """The runs that have ended, in order: each attempt is one."""
        return list(self._stage.witness.done)

    @property
    def delayed(self) -> list[Delayed]:
        """The jobs that wait for their time, the next one first."""
        found = self._stage.delayed()
        return sorted(found, key=lambda each: each.due or self.now)

    @property
    def dead(self) -> list[Dead]:
        """The dead letters, the first one first."""
        found = self._stage.dead()
        return sorted(found, key=lambda each: each.at or self.now)

    # --- what happens ---

    async def run(self) -> None:
        """Run what is due now, and what follows from it at once.

        Raises:
            Exception: What a task has raised since the last call; several come as an
                `ExceptionGroup`.
            RuntimeError: There was no end of it, or the event loop is not that of this
                world.
        """
        __tracebackhide__ = True
        await self.advance()

    async def advance(
        self,
        seconds: float | timedelta = 0,
        *,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
    ) -> None:
        """Let time pass, and run what falls due in it, each at its time.

        Args:
            seconds: How long; a timedelta, too.
            minutes: And so many minutes.
            hours: And so many hours.
            days: And so many days.

        Raises:
            TypeError: An amount is no number; only the first may be a timedelta.
            ValueError: Time does not go back, nor without end.
            Exception: As for `run`.
        """
        __tracebackhide__ = True
        span = seconds_in(seconds, minutes=minutes, hours=hours, days=days)
        if span < 0:
            raise ValueError(
                f"time does not go back: advance() got {span:g} s in all; a world that"
                " begins earlier is world(app, now=...)"
            )
        await self._pass(span)

    async def advance_to(self, when: datetime) -> None:
        """Let time pass until a moment; a naive datetime is local time.

        Raises:
            TypeError: It is no datetime.
            ValueError: It is past.
            Exception: As for `run`.
        """
        __tracebackhide__ = True
        until = epoch_of(when)
        span = until - self._stage.clock.date()
        if span < -TICK:
            raise ValueError(
                f"time does not go back: it is {self.now} in this world, and"
                f" {moment(until)} is past"
            )
        await self._pass(max(0.0, span))

    async def publish(
        self,
        queue: str,
        body: object,
        *,
        content_type: str | None = "application/json",
        headers: Mapping[str, bool | int | str | list[str]] | None = None,
        message_id: str | None = None,
    ) -> None:
        """Put a message into a queue as another producer would, for `@app.consume`.

        Args:
            queue: The queue.
            body: Bytes as they are, text as UTF-8, anything else as JSON.
            content_type: What the producer says that it is; `None` says nothing.
            headers: Its AMQP headers.
            message_id: Its id.

        Raises:
            LookupError: There is no such queue in this world.
            RuntimeError: The event loop is not that of this world.
        """
        self._stage.check_loop()
        raw = payload(body)
        header = content_header(len(raw), content_type, headers or {}, message_id)
        if not self._stage.broker.put(queue, header, raw):
            known = ", ".join(sorted(self._stage.broker.queues()))
            raise LookupError(f"no queue {queue!r} in this world; there are: {known}")
        await asyncio.sleep(0)

    # --- what is asserted ---

    def assert_enqueued(self, task: Named, /, *args: Any, **kwargs: Any) -> Enqueued:
        """Assert that a call was enqueued; without arguments any call of the task.

        Returns:
            The first such job, with its time and queue.

        Raises:
            LookupError: The App has no such task.
            AssertionError: It was not.
        """
        __tracebackhide__ = True
        return _first(self._wanted(task, args, kwargs), "enqueued", self.enqueued)

    def assert_not_enqueued(self, task: Named, /, *args: Any, **kwargs: Any) -> None:
        """Assert that a call was not enqueued; without arguments any of the task.

        Raises:
            LookupError: The App has no such task.
            AssertionError: It was.
        """
        __tracebackhide__ = True
        wanted = self._wanted(task, args, kwargs)
        found = wanted.among(self.enqueued)
        if found:
            raise AssertionError(wanted.unwanted("enqueued", found))

    def assert_ran(self, task: Named, /, *args: Any, **kwargs: Any) -> Done:
        """Assert that a call was run, however it ended.

        Returns:
            Its first run.

        Raises:
            LookupError: The App has no such task.
            AssertionError: It was not.
        """
        __tracebackhide__ = True
        return _first(self._wanted(task, args, kwargs), "run", self.done)

    def assert_dead(self, task: Named, /, *args: Any, **kwargs: Any) -> Dead:
        """Assert that there is a dead letter of a call.

        Returns:
            The first one.

        Raises:
            LookupError: The App has no such task.
            AssertionError: There is none.
        """
        __tracebackhide__ = True
        return _first(self._wanted(task, args, kwargs), "dead-lettered", self.dead)

    # --- its beginning and its end ---

    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            ConfigurationError: The App is connected, or can't be used.
            RuntimeError: A world is entered once.
        """
        if self._entered:
            raise RuntimeError("a world is entered once; make another")
        self._entered = True
        try:
            await self._stage.begin()
        except BaseException:
            await self._stage.end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the worker, and put the App back where it was."""
        await self._stage.end()

    async def _pass(self, seconds: float) -> None:
        __tracebackhide__ = True
        self._stage.check_loop()
        if self._stage.clock.date() + seconds > END_OF_TIME:
            raise ValueError(
                f"time ends with the year 9999; it is {self.now} in this world, and"
                f" {seconds:g} s more are too many"
            )
        await self._stage.pass_time(seconds)
        raised = self._stage.witness.take()
        if not self._raises or not raised:
            return
        if len(raised) == 1:
            raise raised[0]
        raise ExceptionGroup("several runs have failed", raised)

    def _wanted(
        self, task: Named, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Wanted:
        name = task if isinstance(task, str) else task.name
        known = next((each for each in self._app.registry if each.name == name), None)
        if known is None and not self._heard_of(task, name):
            raise LookupError(unknown_task(name, self._app.registry))
        return Wanted(known, name, args, kwargs, self._app.settings.serializer)

    def _heard_of(self, task: Named, name: str) -> bool:
        """Tell whether a task that is not registered may turn up here none the less."""
        if isinstance(task, Task) and task.publisher is self._app:
            return True  # made by `app.ref`
        seen = (*self.enqueued, *self.done, *self.dead)
        return any(each.task == name for each in seen)


def _first(wanted: Wanted, verb: str, seen: Sequence[SightingT]) -> SightingT:
    """Give the first that is wanted, or say what was there instead."""
    __tracebackhide__ = True
    found = wanted.among(seen)
    if not found:  # an assert would show its own words beside ours
        raise AssertionError(wanted.missing(verb, seen))
    return found[0]
