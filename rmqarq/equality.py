"""Whether a value came back from its bytes as it was sent."""

from __future__ import annotations

from typing import Any, cast

from rmqarq.wire.codec import encoder


def same(sent: Any, came: Any) -> bool:
    """Compare a value with what came back; a tuple may have become a list."""
    if isinstance(sent, list | tuple) and isinstance(came, list | tuple):
        if hasattr(cast("object", sent), "_fields"):  # a named tuple keeps its type
            return bool(sent == came)
        ours, theirs = list[Any](sent), list[Any](came)
        pairs = zip(ours, theirs, strict=False)
        return len(ours) == len(theirs) and all(same(*pair) for pair in pairs)
    if isinstance(sent, dict) and isinstance(came, dict):
        mine, yours = cast("dict[Any, Any]", sent), cast("dict[Any, Any]", came)
        return mine.keys() == yours.keys() and all(
            same(value, yours[key]) for key, value in mine.items()
        )
    if type(sent) is type(came) and type(sent).__eq__ is object.__eq__:
        written = encoder("json").encode
        return written(sent) == written(came)
    return bool(sent == came) and isinstance(sent, bool) == isinstance(came, bool)


def brief(value: object) -> str:
    """Show a value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
