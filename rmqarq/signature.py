"""What a function takes: read once, checked at enqueue, decoded in the worker."""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw

from rmqarq.decoders import POSITIONAL, Decoders, misfit
from rmqarq.equality import difference, same
from rmqarq.errors import DecodeError, EncodeError
from rmqarq.hints import hint_of, is_context, parameters_of
from rmqarq.wire.codec import UNREADABLE, encoder, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rmqarq.wire.codec import Serializer

_INDEX = re.compile(r" - at `\$\[(\d+)\](.*)`$")


class Signature:
    """The parameters of a function, without the context.

    Annotations are looked up one by one, and only when they are first needed, so
    that a task may stand above the classes it takes.

    Args:
        fn: The function.
        task: The task's name, for errors.

    Raises:
        ConfigurationError: A first parameter `ctx` without annotation.
    """

    def __init__(self, fn: Callable[..., Any], task: str) -> None:
        self._fn = fn
        self._task = task
        self._all = parameters_of(fn, task)

    @cached_property
    def takes_context(self) -> bool:
        """Whether the first parameter is annotated as a `Context`."""
        return bool(self._all) and is_context(self._all[0], self._fn, self._task)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that callers fill."""
        return tuple(self._all[1:] if self.takes_context else self._all)

    def bind(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check names and count; give what can stand by position as positional.

        Raises:
            TypeError: The function can't be called like that.
        """
        fewest, most = self._count
        if not kwargs and fewest <= len(args) <= most:
            return args, kwargs
        try:
            bound = self._bindable.bind(*args, **kwargs)
        except TypeError as error:
            msg = f"{self._task}() {error}"
            raise TypeError(msg) from None
        return bound.args, bound.kwargs

    def encode(
        self,
        serializer: Serializer,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        validate: bool,
    ) -> tuple[Raw, Raw]:
        """Encode bound arguments; with `validate`, decode them again and compare.

        Raises:
            EncodeError: An argument that would not arrive as it is, by name.
        """
        encode = encoder(serializer).encode
        try:
            raw_args = Raw(encode(args))
            raw_kwargs = Raw(encode(kwargs)) if kwargs else Raw(b"")
            if validate:
                came_args, came_kwargs = self.decode(serializer, raw_args, raw_kwargs)
                if came_args != args or came_kwargs != kwargs:
                    self._compare(args, kwargs, came_args, came_kwargs)
        except DecodeError as error:
            raise EncodeError(error.template, **error.params) from error
        except UNREADABLE as error:
            raise self._blame(serializer, args, kwargs, error) from error
        return raw_args, raw_kwargs

    def encode_rows(
        self, serializer: Serializer, rows: Sequence[tuple[Any, ...]], *, validate: bool
    ) -> Raw:
        """Encode the arguments of many calls as `encode` does, but all at once.

        Raises:
            EncodeError: One would not arrive as it is; it says in which row.
        """
        try:
            raw = Raw(encoder(serializer).encode(rows))
            fast = self._decoders(serializer).fast_rows
            if not validate or (fast and [*map(_values, fast.decode(raw))] == [*rows]):
                return raw
        except UNREADABLE:
            pass  # one by one, to find out which
        for number, row in enumerate(rows):
            try:
                self.encode(serializer, row, {}, validate=validate)
            except EncodeError as error:
                error.row = number
                raise
        return Raw(encoder(serializer).encode(rows))

    def decode(
        self, serializer: Serializer, args: Raw, kwargs: Raw
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode arguments to their annotated types.

        Raises:
            DecodeError: They do not fit, with the name of the argument.
        """
        decoders = self._decoders(serializer)
        if kwargs or not args or decoders.fast is None:
            return decoders.by_name(args, kwargs)
        try:
            return _values(decoders.fast.decode(args)), {}
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    def prepare(self) -> None:
        """Read all annotations now, as a worker does at its start.

        Raises:
            ConfigurationError: One can't be found, or can't be built from a message.
        """
        self._decoders("json")

    @cached_property
    def _bindable(self) -> inspect.Signature:
        return inspect.Signature(list(self.parameters))

    @cached_property
    def _count(self) -> tuple[int, float]:
        """The fewest and the most positional arguments of a call without keywords."""
        kinds = [each.kind for each in self.parameters]
        by_position = [each for each in self.parameters if each.kind in POSITIONAL]
        fewest = sum(each.default is Parameter.empty for each in by_position)
        most = float(len(by_position))
        if Parameter.VAR_POSITIONAL in kinds:
            most = float("inf")
        if any(
            each.kind is Parameter.KEYWORD_ONLY and each.default is Parameter.empty
            for each in self.parameters
        ):
            most = -1.0  # a keyword is missing: let `bind` say which
        return fewest, most

    def _decoders(self, serializer: Serializer) -> Decoders:
        made: dict[Serializer, Decoders] = self.__dict__.setdefault("_made", {})
        if serializer not in made:
            typed = [
                (each, hint_of(each, self._fn, self._task)) for each in self.parameters
            ]
            made[serializer] = Decoders(typed, self._task, serializer)
        return made[serializer]

    def _unreadable(self, error: Exception) -> DecodeError:
        text = problem_of(error)
        found = _INDEX.search(text)
        if found is None:
            return DecodeError(
                "the arguments of {task} do not fit: {problem}",
                task=self._task,
                problem=text,
            )
        name = self.parameters[int(found[1])].name
        where = f" - at `{name}{found[2]}`" if found[2] else ""
        return misfit(self._task, name, text[: found.start()] + where)

    def _compare(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        came_args: tuple[Any, ...],
        came_kwargs: Mapping[str, Any],
    ) -> None:
        sent = self._named(args, kwargs)
        came = self._named(came_args, came_kwargs)
        for name, value in sent.items():
            if name not in came or not same(value, came[name]):
                raise EncodeError(
                    "the argument {name} of {task} would arrive changed: {difference};"
                    " annotate it with its type",
                    name=repr(name),
                    task=self._task,
                    difference=difference(value, came.get(name)),
                )

    def _named(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Name the arguments of a call as their parameters are named."""
        named: dict[str, Any] = {}
        names = [each.name for each in self.parameters if each.kind in POSITIONAL]
        for position, value in enumerate(args):
            in_order = position < len(names)
            named[names[position] if in_order else f"argument {position + 1}"] = value
        return {**named, **kwargs}

    def _blame(
        self,
        serializer: Serializer,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        error: Exception,
    ) -> EncodeError:
        """Find the argument that can't be encoded."""
        encode = encoder(serializer).encode
        for name, value in self._named(args, kwargs).items():
            try:
                encode(value)
            except UNREADABLE as its_own:
                return EncodeError(
                    "the argument {name} of {task} can't be encoded: {problem}",
                    name=repr(name),
                    task=self._task,
                    problem=str(its_own),
                )
        return EncodeError(
            "the arguments of {task} can't be encoded: {problem}",
            task=self._task,
            problem=str(error),
        )


def _values(arguments: Any) -> tuple[Any, ...]:
    """Give decoded arguments without those that were left to their defaults."""
    values = msgspec.structs.astuple(arguments)
    while values and values[-1] is UNSET:
        values = values[:-1]
    return values
