"""What the content type and encoding of a foreign message say about its body."""

from __future__ import annotations

import codecs
import re
from functools import lru_cache

from msgspec import Struct

from rmqarq.errors import DecodeError
from rmqarq.wire.codec import Serializer

# those that take no more time than the text is long
_CHARSETS = re.compile(
    r"ascii|utf-(8|16|32)(-[bl]e)?|iso8859-\d+|cp\d+|koi8-\w|gb\w+|big5\w*"
    r"|shift_jis\w*|euc_\w+"
)
_UNPACKED = ("", "identity", "binary", "7bit", "8bit")
_PACKED = {"gzip": "gzip", "x-gzip": "gzip"}
_JSON = re.compile(r"application/(x-)?json|text/.+|.+\+json|application/octet-stream|")
_MSGPACK = re.compile(r"application/(x-|vnd\.)?msgpack|.+\+msgpack")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)


class Media(Struct, frozen=True):
    """How a body is written.

    Args:
        serializer: `None`: neither JSON nor MessagePack.
        charset: Of a text, as Python names it.
        packing: `gzip`, or `None`.
    """

    serializer: Serializer | None
    charset: str
    packing: str | None


@lru_cache(maxsize=256)
def media_of(content_type: str | None, content_encoding: str | None) -> Media:
    """Read both properties.

    What is said to be text, or nothing, is taken for JSON. Spring and kombu name a
    charset, or `binary`, where AMQP means a compression.

    Raises:
        DecodeError: An encoding or a charset that is not known.
    """
    said = content_type or ""
    encoding = (content_encoding or "").strip().lower()
    packing = _PACKED.get(encoding)
    named = _CHARSET.search(said)
    charset = named[1] if named else "utf-8"
    if packing is None and encoding not in _UNPACKED:
        charset = named[1] if named else encoding
        if _known(encoding) is None:
            raise DecodeError(
                "the content encoding {encoding} is not known",
                encoding=repr(content_encoding),
            )
    known = _known(charset)
    if known is None:
        raise DecodeError("the charset {charset} is not known", charset=repr(charset))
    return Media(_serializer(said), known, packing)


def text_of(body: bytes, charset: str) -> str:
    """Read a text, without the mark that some put before UTF-8.

    Raises:
        DecodeError: It is not written in that charset.
    """
    try:
        return body.decode("utf-8-sig" if charset == "utf-8" else charset)
    except UnicodeError as error:
        raise DecodeError(
            "the body is no text in {charset}", charset=charset
        ) from error


def _known(charset: str) -> str | None:
    """Give Python's name of a charset that may be used."""
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None
    return name if _CHARSETS.fullmatch(name) else None


def _serializer(content_type: str) -> Serializer | None:
    bare = content_type.partition(";")[0].strip().lower()
    if _JSON.fullmatch(bare):
        return "json"
    return "msgpack" if _MSGPACK.fullmatch(bare) else None
