"""What a test asserts about jobs, and what it says when there are others."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from rmqarq.errors import DecodeError, EncodeError
from rmqarq.task import Task
from rmqarq.testing.sightings import Sighting, body_of, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rmqarq.handler import Runnable
    from rmqarq.wire.codec import Serializer

SightingT = TypeVar("SightingT", bound=Sighting)
SHOWN = 20


class Wanted:
    """A call that is looked for; without arguments any call of the task.

    Args:
        task: The task or consume function; `None` for one that is not registered.
        name: Its name.
        args: Its positional arguments.
        kwargs: Its named arguments.
        serializer: How arguments travel.

    Raises:
        TypeError: The function can't be called like that.
    """

    def __init__(
        self,
        task: Runnable | None,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        serializer: Serializer,
    ) -> None:
        self._task = task
        self._name = name
        self._any = not (args or kwargs)
        self._args, self._kwargs = args, dict(kwargs)
        if not self._any and isinstance(task, Task) and task.signature is not None:
            self._args, self._kwargs = task.signature.bind(args, self._kwargs)
        self._serializer: Serializer = serializer

    def __str__(self) -> str:
        if self._any:
            return self._name
        return written(self._name, self._args, self._kwargs)

    def among(self, seen: Sequence[SightingT]) -> list[SightingT]:
        """Pick those that it is."""
        return [each for each in seen if self._fits(each)]

    def missing(self, verb: str, seen: Sequence[Sighting]) -> str:
        """Say that it is not there, and what is there instead."""
        return f"{self} was not {verb}; {_listed(verb, seen)}"

    def unwanted(self, verb: str, seen: Sequence[Sighting]) -> str:
        """Say that it is there."""
        return f"{self} was {verb}; {_listed(verb, seen)}"

    def _fits(self, seen: Sighting) -> bool:
        if seen.task != self._name:
            return False
        if self._any:
            return True
        found = self._named(tuple(map(body_of, seen.args)), seen.kwargs)
        if found == self._named(self._args, self._kwargs):
            return True
        arrived = self._arrived()
        return arrived is not None and found == self._named(*arrived)

    def _named(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Name all arguments, defaults included."""
        if self._task is not None and self._task.parameters:
            signature = inspect.Signature(list(self._task.parameters))
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:  # written by somebody else, for another function
                return {"": args, **kwargs}
            bound.apply_defaults()
            return bound.arguments
        return {"": list(args), **kwargs}

    def _arrived(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give the arguments as they arrive: a tuple may come as a list."""
        signature = self._task.signature if isinstance(self._task, Task) else None
        if signature is None:
            return None
        try:
            raw = signature.encode(
                self._serializer, self._args, self._kwargs, validate=False
            )
            return signature.decode(self._serializer, *raw)
        except (EncodeError, DecodeError):
            return None


def unknown_task(name: str, known: Iterable[Runnable]) -> str:
    """Say that an App has no task of a name, and which it has, similar ones first."""
    names = [each.name for each in known]
    near = difflib.get_close_matches(name, names, n=SHOWN)
    others = [each for each in names if each not in near]
    shown = ", ".join([*near, *others][:SHOWN]) or "none"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"this App has no task {name!r}; it has: {shown}{more}. A task of another"
        f" program is app.ref({name!r})"
    )


def _listed(verb: str, seen: Sequence[Sighting]) -> str:
    if not seen:
        return f"nothing was {verb}"
    shown = [f"  {each}" for each in seen[-SHOWN:]]
    more = len(seen) - len(shown)
    head = f"{verb} were:" if not more else f"{verb} were {len(seen)}, the last:"
    return "\n".join((head, *shown))
