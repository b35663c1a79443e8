"""The one parameter of a consume function, and the body of a message as its type."""

from __future__ import annotations

from functools import cached_property
from inspect import Parameter
from typing import TYPE_CHECKING, Any, get_args, get_origin

from rmqarq.decoders import decoder_of, misfit
from rmqarq.errors import ConfigurationError, DecodeError
from rmqarq.hints import hint_of, is_context, parameters_of
from rmqarq.incoming import Incoming
from rmqarq.wire.codec import UNREADABLE, problem_of
from rmqarq.wire.media import media_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.wire.codec import Serializer
    from rmqarq.wire.media import Media
    from rmqarq.wire.origin import Origin

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Body:
    """What a consume function takes, looked up when it is first needed.

    Args:
        fn: The function.
        task: Its name, for errors.

    Raises:
        ConfigurationError: A first parameter `ctx` without annotation, or a number of
            parameters that can't be right.
    """

    def __init__(self, fn: Callable[..., Any], task: str) -> None:
        self._fn = fn
        self._task = task
        self._all = parameters_of(fn, task)
        if len(self._all) not in (1, 2):
            raise self._wrong_count()

    @cached_property
    def takes_context(self) -> bool:
        """Whether the first parameter is annotated as a `Context`."""
        return is_context(self._all[0], self._fn, self._task)

    @cached_property
    def parameter(self) -> Parameter:
        """The parameter that gets the body.

        Raises:
            ConfigurationError: There is none, or more than one.
        """
        left = self._all[1:] if self.takes_context else self._all
        if len(left) != 1 or left[0].kind not in _POSITIONAL:
            raise self._wrong_count()
        return left[0]

    def decode(self, raw: bytes, origin: Origin) -> Any:
        """Give what the function gets for a message.

        Args:
            raw: The body, unpacked.
            origin: Where it comes from: its content type says how it is written.

        Raises:
            DecodeError: It is not what the parameter is annotated as.
        """
        found = origin.properties
        media = media_of(found.content_type, found.content_encoding)
        value = self._decoded(raw, media, found.content_type)
        if not self._in_full:
            return value
        return Incoming(
            body=value,
            raw=raw,
            exchange=origin.exchange,
            routing_key=origin.routing_key,
            properties=found,
        )

    def prepare(self) -> None:
        """Read the annotation now, as a worker does at its start.

        Raises:
            ConfigurationError: It can't be found, or can't be built from a message.
        """
        if self._kind not in (bytes, str):
            self._decoder("json")

    @cached_property
    def _hint(self) -> Any:
        return hint_of(self.parameter, self._fn, self._task)

    @cached_property
    def _in_full(self) -> bool:
        """Whether more than the body is asked for."""
        return (get_origin(self._hint) or self._hint) is Incoming

    @cached_property
    def _kind(self) -> Any:
        """The type of the body."""
        if not self._in_full:
            return self._hint
        return next(iter(get_args(self._hint)), Any)

    def _decoded(self, raw: bytes, media: Media, content_type: str | None) -> Any:
        if self._kind is bytes:
            return raw
        if self._kind is str:
            return text_of(raw, media.charset)
        if media.serializer is None:
            raise DecodeError(
                "the content type {content_type} is neither JSON nor MessagePack;"
                " annotate {name} of {task} as bytes to read it yourself",
                content_type=repr(content_type),
                name=repr(self.parameter.name),
                task=self._task,
            )
        if media.serializer == "json":
            raw = text_of(raw, media.charset).encode()
        try:
            return self._decoder(media.serializer).decode(raw)
        except UNREADABLE as error:
            raise misfit(self._task, self.parameter.name, problem_of(error)) from error

    def _decoder(self, serializer: Serializer) -> Any:
        made: dict[Serializer, Any] = self.__dict__.setdefault("_made", {})
        if serializer not in made:
            name = self.parameter.name
            made[serializer] = decoder_of(self._task, name, self._kind, serializer)
        return made[serializer]

    def _wrong_count(self) -> ConfigurationError:
        return ConfigurationError(
            "the function {task} must take one parameter, the body, and before it a"
            " Context if it needs one; it takes: {parameters}",
            task=self._task,
            parameters=", ".join(map(str, self._all)) or "-",
        )
