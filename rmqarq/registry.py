"""What an App runs: its tasks by name, and its consume functions by queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rmqarq.errors import ConfigurationError, TaskAlreadyRegistered
from rmqarq.wire.topology import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmqarq.handler import Handler, Runnable
    from rmqarq.task import Task


class Registry:
    """The functions of an App.

    Attributes:
        tasks: The tasks by name.
        handlers: The consume functions by queue.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, Task[..., Any]] = {}
        self.handlers: dict[str, Handler[Any, Any]] = {}

    def __iter__(self) -> Iterator[Runnable]:
        yield from self.tasks.values()
        yield from self.handlers.values()

    def find(self, queue: str, name: str) -> Runnable | None:
        """Give what runs a message of a queue that names a task."""
        return self.handlers.get(queue) or self.tasks.get(name)

    def queue_for(self, task: str, asked: str | None, usual: str) -> str:
        """Give the queue that a job goes to.

        Args:
            task: What it is for.
            asked: The queue that the caller names.
            usual: The queue of tasks that name none, and of those elsewhere.

        Raises:
            ConfigurationError: A consume function has the queue.
        """
        queue = asked or self.queue_named(task, usual)
        handler = self.handlers.get(queue)
        if handler is not None:
            raise ConfigurationError(
                "a job of {task} can't go to {queue}: there {handler} takes messages of"
                " other producers",
                task=task,
                queue=repr(queue),
                handler=handler.name,
            )
        return queue

    def queue_named(self, name: str, usual: str) -> str:
        """Give the queue of the function of this name; `usual` if it is elsewhere."""
        for handler in self.handlers.values():
            if handler.name == name:
                return handler.queue
        task = self.tasks.get(name)
        return usual if task is None else task.policy.queue or usual

    def add_task(self, task: Task[..., Any], usual: str) -> None:
        """Register a task.

        Args:
            task: The task.
            usual: The queue of those that name none.

        Raises:
            TaskAlreadyRegistered: Another function has its name.
            ConfigurationError: A consume function has its queue.
        """
        self._check_name(task)
        if task.policy.queue is not None:
            check_name(task.policy.queue)
        handler = self.handlers.get(task.policy.queue or usual)
        if handler is not None:
            raise _shared(handler, task)
        self.tasks[task.name] = task

    def add_handler(self, handler: Handler[Any, Any], usual: str) -> None:
        """Register a consume function.

        Args:
            handler: The function.
            usual: The queue of tasks that name none.

        Raises:
            TaskAlreadyRegistered: Another function has its name.
            ConfigurationError: Another function, or a task, has its queue.
        """
        self._check_name(handler)
        known = self.handlers.get(handler.queue)
        if known is not None and known.fn is not handler.fn:
            raise ConfigurationError(
                "the queue {queue} is consumed by {known} already; {new} can't consume"
                " it, too: let one function do both",
                queue=repr(handler.queue),
                known=_place(known.fn),
                new=_place(handler.fn),
            )
        for task in self.tasks.values():
            if (task.policy.queue or usual) == handler.queue:
                raise _shared(handler, task)
        self.handlers[handler.queue] = handler

    def check_usual(self, usual: str) -> None:
        """See whether tasks that name no queue may have this one.

        Raises:
            ConfigurationError: A consume function has it.
        """
        handler = self.handlers.get(usual)
        if handler is None:
            return
        for task in self.tasks.values():
            if task.policy.queue is None:
                raise _shared(handler, task)

    def _check_name(self, new: Runnable) -> None:
        for known in self:
            if known.name == new.name and known.fn is not new.fn:
                raise TaskAlreadyRegistered(
                    "the task name {name} is taken by {known}; give {new} another name",
                    name=repr(new.name),
                    known=_place(known.fn),
                    new=_place(new.fn),
                )


def _shared(handler: Handler[Any, Any], task: Task[..., Any]) -> ConfigurationError:
    return ConfigurationError(
        "the queue {queue} is consumed by {handler}, so it can't hold jobs of {task},"
        " too; give the task another queue",
        queue=repr(handler.queue),
        handler=_place(handler.fn),
        task=_place(task.fn),
    )


def _place(fn: Callable[..., Any]) -> str:
    return f"{fn.__module__}.{getattr(fn, '__qualname__', repr(fn))}"
