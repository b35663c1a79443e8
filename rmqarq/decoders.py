"""The typed decoders of a function's arguments for one serializer."""

from __future__ import annotations

import inspect
from inspect import Parameter
from types import GenericAlias
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import UNSET, Raw

from rmqarq.errors import ConfigurationError, DecodeError
from rmqarq.wire.codec import UNREADABLE, is_pydantic, problem_of, typed_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rmqarq.wire.codec import Serializer

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Decoders:
    """Decodes the arguments of one task to their annotated types.

    Args:
        parameters: What callers fill, each with its type.
        task: The task's name, for errors.
        serializer: How the arguments are written.

    Raises:
        ConfigurationError: A type that can't be built from a message.
    """

    def __init__(
        self,
        parameters: Sequence[tuple[Parameter, Any]],
        task: str,
        serializer: Serializer,
    ) -> None:
        self._task = task
        self._bindable = inspect.Signature([each for each, _ in parameters])
        self._parts = typed_decoder(serializer, list[Raw])
        self._names = typed_decoder(serializer, dict[str, Raw])
        self._each = {
            each.name: decoder_of(task, each.name, hint, serializer)
            for each, hint in parameters
        }
        self._by_position = [
            each.name for each, _ in parameters if each.kind in POSITIONAL
        ]
        kinds = {each.kind: each.name for each, _ in parameters}
        self._rest = kinds.get(Parameter.VAR_POSITIONAL)
        self._others = kinds.get(Parameter.VAR_KEYWORD)
        shape: Any = None if self._rest else _shape(parameters)
        self.fast = shape and typed_decoder(serializer, shape)
        rows = GenericAlias(list, (shape,))
        self.fast_rows = shape and typed_decoder(serializer, rows)

    def by_name(self, args: Raw, kwargs: Raw) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode one argument after the other: any mixture of positions and names.

        Raises:
            DecodeError: They do not fit, with the name of the argument.
        """
        try:
            parts: list[Raw] = self._parts.decode(args) if args else []
            names: dict[str, Raw] = self._names.decode(kwargs) if kwargs else {}
            values = tuple(
                self._decode(self._name_at(position), raw)
                for position, raw in enumerate(parts)
            )
            named = {name: self._decode(name, raw) for name, raw in names.items()}
            self._bindable.bind(*values, **named)
        except UNREADABLE as error:
            raise DecodeError(
                "the arguments of {task} do not fit: {problem}",
                task=self._task,
                problem=problem_of(error),
            ) from error
        return values, named

    def _name_at(self, position: int) -> str:
        if position < len(self._by_position):
            return self._by_position[position]
        if self._rest is None:
            msg = f"at most {len(self._by_position)} positional arguments are taken"
            raise TypeError(msg)
        return self._rest

    def _decode(self, name: str, raw: Raw) -> Any:
        decoder = self._each.get(name)
        if decoder is None:
            if self._others is None:
                msg = f"there is no parameter {name!r}"
                raise TypeError(msg)
            decoder = self._each[self._others]
        try:
            return decoder.decode(raw)
        except UNREADABLE as error:
            raise misfit(self._task, name, problem_of(error)) from error


def _shape(parameters: Sequence[tuple[Parameter, Any]]) -> Any:
    """Make one type of all arguments by position; `None` if keywords must be."""
    fields: list[Any] = []
    for each, hint in parameters:
        optional = each.default is not Parameter.empty
        if each.kind in POSITIONAL:
            field = (f"a{len(fields)}", hint)
            fields.append((*field, UNSET) if optional else field)
        elif each.kind is Parameter.KEYWORD_ONLY and not optional:
            return None
    return msgspec.defstruct(
        "Arguments", fields, array_like=True, forbid_unknown_fields=True
    )


def decoder_of(task: str, name: str, hint: Any, serializer: Serializer) -> Any:
    """Make the decoder of one parameter.

    Args:
        task: The name of the task, for errors.
        name: Of the parameter, likewise.
        hint: Its type.
        serializer: How it is written.

    Raises:
        ConfigurationError: A type that can't be built from a message.
    """
    try:
        foreign = _foreign_type(msgspec.inspect.type_info(hint), set())
        decoder = typed_decoder(serializer, hint)
    except Exception as error:
        raise _unbuildable(task, name, str(error)) from error
    if foreign is not None:
        raise _unbuildable(task, name, f"{foreign!r} is a class of its own kind")
    return decoder


def _foreign_type(info: Any, seen: set[int]) -> Any:
    """Find a type inside a hint that neither msgspec nor pydantic can build."""
    if id(info) in seen:
        return None
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return None if is_pydantic(info.cls) else info.cls
    if isinstance(info, tuple | list):
        inside = cast("Iterable[Any]", info)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        inside = [getattr(info, name) for name in info.__struct_fields__]
    else:
        return None
    found = (_foreign_type(each, seen) for each in inside)
    return next((each for each in found if each is not None), None)


def _unbuildable(task: str, name: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        "the annotation of {name} in the task {task} can't be built from a message:"
        " {problem}",
        name=repr(name),
        task=task,
        problem=problem,
    )


def misfit(task: str, name: str, problem: str) -> DecodeError:
    """Make the error for an argument that does not fit its annotation."""
    return DecodeError(
        "the argument {name} of {task} does not fit: {problem}",
        name=repr(name),
        task=task,
        problem=problem,
    )
