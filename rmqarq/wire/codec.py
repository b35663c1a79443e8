"""Messages as bytes: JSON or MessagePack, packed or not, never above a limit."""

from __future__ import annotations

import gzip
import re
import zlib
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Raw

from rmqarq.errors import DecodeError, EncodeError
from rmqarq.message import WIRE_VERSION, Message
from rmqarq.when import wall_clock
from rmqarq.wire import properties

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.settings import Settings
    from rmqarq.wire.origin import Origin

Serializer: TypeAlias = Literal["json", "msgpack"]

CONTENT_TYPES: dict[Serializer, str] = {
    "json": "application/json",
    "msgpack": "application/msgpack",
}
_SERIALIZERS: dict[str, Serializer] = {
    "application/json": "json",
    "application/msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}
# msgspec quotes what it found instead of a known value or field
_QUOTED = re.compile(
    r"(Invalid (?:enum )?value|unknown field) .*?(?= - at `[^`]*`$|$)", re.DOTALL
)
UNREADABLE = (
    msgspec.MsgspecError,
    UnicodeError,
    RecursionError,
    ValueError,
    TypeError,
    OverflowError,
)
"""All that msgspec and the types it builds may raise at bytes from outside."""


class Envelope(Message, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A message as it arrives: its arguments still encoded."""

    args: Raw = Raw(b"")
    kwargs: Raw = Raw(b"")
    rows: Annotated[tuple[Raw, ...], Meta(min_length=1)] = ()

    def jobs(self) -> list[Envelope]:
        """Give each job of a chunk as a message of its own.

        Their ids are the same each time the chunk, or what is left of it, comes.
        """
        numbers = self.numbers or range(len(self.rows))
        return [
            Envelope(
                id=f"{self.id}:{number}",
                task=self.task,
                args=row,
                kwargs=self.kwargs,
                job_try=self.job_try,
                enqueued_at=self.enqueued_at,
                eta=self.eta,
                expires=self.expires,
                max_retries=self.max_retries,
                generation=self.generation,
                first_failed_at=self.first_failed_at,
                headers=self.headers,
            )
            for number, row in zip(numbers, self.rows, strict=True)
        ]


class Encoded(NamedTuple):
    """A body ready to be published."""

    content_type: str
    content_encoding: str | None
    body: bytes


class Decoded(NamedTuple):
    """A message that arrived, and how its arguments are written."""

    message: Envelope
    serializer: Serializer
    ours: bool
    """Whether it tells itself from every other one: a foreign one may not."""
    packed: bool = False
    """Whether its body was packed."""
    origin: Origin | None = None
    """Where a message of another producer comes from; `None` for a job."""

    @property
    def sent_at(self) -> float:
        """When it was made, the same at each delivery; 0 when nobody knows."""
        if self.origin is None:
            return self.message.enqueued_at
        return float(self.origin.properties.timestamp or 0)


class Codec:
    """Turns messages into bytes and back.

    Args:
        settings: Set their limits.
        clock: Gives the time of a message that does not tell its own.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = wall_clock
    ) -> None:
        self.clock = clock
        self._serializer: Serializer = settings.serializer
        self._max_body = settings.max_body
        self._compression = settings.compression
        self._pack_above = settings.compression_threshold

    def encode(self, message: Message, compression: bool | None = None) -> Encoded:
        """Encode a message.

        Args:
            message: With its arguments as values, or as `Raw` of the App's serializer.
            compression: Whether to pack it above the threshold; `None`: as the App.

        Raises:
            EncodeError: Something in it can't be encoded, or it is above `max_body`.
        """
        wanted = self._compression if compression is None else compression
        body = self._body(message, self._serializer)
        packed = wanted and len(body) > self._pack_above
        return _encoded(body, self._serializer, packed=packed)

    def encode_again(
        self, message: Message, came: Decoded, *, limited: bool = True
    ) -> Encoded:
        """Encode what follows a message that came, written and packed as it was.

        Args:
            message: With the arguments of the one that came, still `Raw`.
            came: The one that came.
            limited: Whether `max_body` applies.

        Raises:
            EncodeError: It is above `max_body` now.
        """
        body = self._body(message, came.serializer, limited=limited)
        return _encoded(body, came.serializer, packed=came.packed)

    def _body(
        self, message: Message, serializer: Serializer, *, limited: bool = True
    ) -> bytes:
        try:
            body = encoder(serializer).encode(message)
        except UNREADABLE as error:
            raise EncodeError(
                "a message for {task} can't be encoded: {problem}",
                task=message.task,
                problem=str(error),
            ) from error
        if limited and len(body) > self._max_body:
            raise EncodeError(
                "a message for {task} takes {size} bytes; max_body allows {limit}",
                task=message.task,
                size=len(body),
                limit=self._max_body,
            )
        return body

    def decode(self, raw_properties: bytes, body: bytes) -> Decoded:
        """Decode what a queue delivered.

        Raises:
            DecodeError: It is not a message of format version 1.
        """
        try:
            content_type, encoding, _ = properties.decode_head(raw_properties)
            serializer = serializer_of(content_type)
            if encoding or len(body) > self._max_body:
                body = self.unpacked(encoding, body)
            message: Envelope = _DECODERS[serializer].decode(body)
            if message.version != WIRE_VERSION:
                raise DecodeError(
                    "the message has format version {version}; this worker reads 1",
                    version=message.version,
                )
            if message.numbers and len(message.numbers) != len(message.rows):
                raise DecodeError("the message has not as many numbers as rows")
            ours = bool(message.id and message.enqueued_at)
            if not (message.task and ours):
                found = properties.decode(raw_properties)
                message = _completed(message, found, self.clock)
        except UNREADABLE as error:
            raise DecodeError(
                "the message can't be read: {problem}", problem=problem_of(error)
            ) from error
        return Decoded(message, serializer, ours, encoding == "gzip")

    def unpacked(self, encoding: str | None, body: bytes) -> bytes:
        """Give a body as it was before it was packed.

        Raises:
            DecodeError: It is not gzip, or larger than `max_body`.
        """
        if encoding == "gzip":
            body = self._unzipped(body)
        elif encoding:
            raise DecodeError(
                "the content encoding {encoding} is not known", encoding=repr(encoding)
            )
        if len(body) > self._max_body:
            raise self._too_large()
        return body

    def _unzipped(self, body: bytes) -> bytes:
        unzip = zlib.decompressobj(wbits=31)
        try:
            unpacked = unzip.decompress(body, self._max_body + 1)
        except zlib.error as error:
            raise DecodeError(
                "the body is not gzip: {problem}", problem=str(error)
            ) from error
        if len(unpacked) > self._max_body:
            raise self._too_large()
        if not unzip.eof:
            raise DecodeError("the gzip body is cut short")
        return unpacked

    def _too_large(self) -> DecodeError:
        return DecodeError(
            "the body is larger than max_body allows ({limit} bytes)",
            limit=self._max_body,
        )


def _encoded(body: bytes, serializer: Serializer, *, packed: bool) -> Encoded:
    content_type = CONTENT_TYPES[serializer]
    if packed:
        return Encoded(content_type, "gzip", gzip.compress(body, 6, mtime=0))
    return Encoded(content_type, None, body)


def serializer_of(content_type: str | None) -> Serializer:
    """Tell how a body is written; nothing said means JSON.

    Raises:
        DecodeError: A content type that is neither JSON nor MessagePack.
    """
    if content_type is None:
        return "json"
    serializer = _SERIALIZERS.get(content_type)
    if serializer is None:  # parameters such as a charset are rare, so looked at last
        bare = content_type.partition(";")[0].strip().lower()
        serializer = _SERIALIZERS.get(bare)
    if serializer is None:
        raise DecodeError(
            "the content type {content_type} is neither JSON nor MessagePack",
            content_type=repr(content_type),
        )
    return serializer


@cache
def encoder(serializer: Serializer) -> msgspec.json.Encoder | msgspec.msgpack.Encoder:
    """Give the one encoder of a serializer."""
    if serializer == "json":
        return msgspec.json.Encoder(enc_hook=_encode_foreign)
    return msgspec.msgpack.Encoder(enc_hook=_encode_foreign)


def typed_decoder(serializer: Serializer, kind: Any) -> Any:
    """Make a decoder that builds `kind`, pydantic models included.

    Raises:
        TypeError: msgspec can't build such a type.
    """
    module = msgspec.json if serializer == "json" else msgspec.msgpack
    return module.Decoder(kind, dec_hook=_decode_foreign)


_DECODERS: dict[Serializer, Any] = {
    "json": msgspec.json.Decoder(Envelope),
    "msgpack": msgspec.msgpack.Decoder(Envelope),
}


def is_pydantic(kind: Any) -> bool:
    """Tell whether a type is a pydantic model, without importing pydantic."""
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__")


def _encode_foreign(value: Any) -> Any:
    if is_pydantic(type(value)):
        return value.model_dump(mode="json", by_alias=True)
    msg = f"{type(value).__qualname__} can't travel in a message"
    raise TypeError(msg)


def _decode_foreign(kind: type[Any], value: Any) -> Any:
    if is_pydantic(kind):
        return _validated(kind, value)
    msg = f"{kind} can't be built from a message"
    raise NotImplementedError(msg)


def _validated(kind: Any, value: Any) -> Any:
    """Build a pydantic model; its error would quote the input."""
    try:
        return kind.model_validate_json(msgspec.json.encode(value))
    except ValueError as error:
        find: Any = getattr(error, "errors", None)
        if find is None:
            raise
        problems = find(include_url=False, include_input=False, include_context=False)
        text = "; ".join(
            f"{_said(each)} at {_where(each['loc'], kind)}" for each in problems
        )
        raise ValueError(text) from None


def _said(problem: Any) -> str:
    """Give pydantic's sentence, but for the one that quotes a tag from the input."""
    quotes = problem["type"] == "union_tag_invalid"
    return "a tag that is not known" if quotes else problem["msg"]


def _where(place: tuple[int | str, ...], kind: Any) -> str:
    """Name the place: fields of the model; other names are keys of the input."""
    known = kind.model_fields
    names = (part if isinstance(part, int) or part in known else "…" for part in place)
    return ".".join(map(str, names))


def problem_of(error: Exception) -> str:
    """Say what is wrong with a body without a word of it: it may hold secrets."""
    return _QUOTED.sub(r"\1", str(error))


def _completed(
    message: Envelope, found: properties.Properties, clock: Callable[[], float]
) -> Envelope:
    """Fill what a foreign producer left to the AMQP properties."""
    task = message.task or found.type
    if not task:
        raise DecodeError("the message names no task, neither in body nor in 'type'")
    return msgspec.structs.replace(
        message,
        task=task,
        id=message.id or found.correlation_id or found.message_id or "",
        enqueued_at=message.enqueued_at or float(found.timestamp or clock()),
    )
