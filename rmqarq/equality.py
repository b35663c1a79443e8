"""Whether a value came back from its bytes as it was sent."""

from __future__ import annotations

from typing import Any

from rmqarq.errors import Phrase
from rmqarq.wire.codec import encoder


def same(sent: object, came: object) -> bool:
    """Compare a value with what came back; a tuple may have become a list."""
    kind: Any = type(sent)
    is_same_kind = kind is type(came)
    if isinstance(sent, list | tuple) and isinstance(came, list | tuple):
        return _same_items(sent, came)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(sent, dict) and isinstance(came, dict):
        return _same_entries(sent, came)  # pyright: ignore[reportUnknownArgumentType]
    if is_same_kind and not _compares(kind):
        written = encoder("json").encode
        return written(sent) == written(came)
    return sent == came and isinstance(sent, bool) == isinstance(came, bool)


def difference(sent: object, came: object) -> str:
    """Say what has become of a value, without a word of it: it may hold secrets."""
    was, became = type(sent).__name__, type(came).__name__
    if was == became:
        return Phrase("the {kind} would not be the same", kind=was)
    return Phrase("the {kind} would be a {other}", kind=was, other=became)


def _compares(kind: type[Any]) -> bool:
    """Tell whether equal values of a class are equal, or only the same one."""
    own: Any = getattr(kind, "__eq__", None)
    return own is not object.__eq__


def _same_items(
    sent: list[Any] | tuple[Any, ...], came: list[Any] | tuple[Any, ...]
) -> bool:
    if hasattr(sent, "_fields"):  # a named tuple keeps its type
        return sent == came
    pairs = zip(sent, came, strict=False)
    return len(sent) == len(came) and all(same(*pair) for pair in pairs)


def _same_entries(sent: dict[Any, Any], came: dict[Any, Any]) -> bool:
    return sent.keys() == came.keys() and all(
        same(value, came[key]) for key, value in sent.items()
    )
