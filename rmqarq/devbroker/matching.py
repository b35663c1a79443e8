"""How topic and headers exchanges match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.devbroker.fields import KIND_NAMES, Field, Table
from rmqarq.devbroker.refusal import precondition_failed

if TYPE_CHECKING:
    from collections.abc import Sequence

_MATCHES = ("all", "any", "all-with-x", "any-with-x")


def topic_matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Match words against a pattern with `*` for one word and `#` for any number."""
    # reached[n]: the pattern so far matches the first n words
    reached = [True] + [False] * len(words)
    for part in pattern:
        if part == "#":
            first = reached.index(True) if True in reached else len(reached)
            reached = [at >= first for at in range(len(reached))]
        else:
            steps = [
                before and part in ("*", word)
                for before, word in zip(reached, words, strict=False)
            ]
            reached = [False, *steps]
    return reached[-1]


def words_of(key: str) -> list[str]:
    """Split a key into words; the empty key has none."""
    return key.split(".") if key else []


def check_headers_binding(arguments: Table) -> None:
    """Refuse a binding that says nothing sensible about how to match.

    Raises:
        Refusal: `x-match` is none of RabbitMQ's.
    """
    given = arguments.get("x-match")
    if given is None or (given.kind == "S" and given.value in _MATCHES):
        return
    if given.kind == "S":
        raise precondition_failed(
            f'Invalid x-match field value <<"{given.value}">>;'
            " expected all, any, all-with-x, or any-with-x"
        )
    raise precondition_failed(
        f"Invalid x-match field type {KIND_NAMES[given.kind]} (value {given.value});"
        " expected longstr"
    )


def headers_match(arguments: Table, headers: Table) -> bool:
    """Match the headers of a message against the arguments of a binding."""
    how = arguments.get("x-match", Field("S", "all")).value
    wanted = {
        name: field
        for name, field in arguments.items()
        if name != "x-match" and (how in _MATCHES[2:] or not name.startswith("x-"))
    }
    found = [
        name in headers and (field.kind == "V" or _equal(headers[name], field))
        for name, field in wanted.items()
    ]
    return any(found) if how in ("any", "any-with-x") else all(found)


def _equal(first: Field, second: Field) -> bool:
    """Compare as Erlang does: a number is no bool, and a binary is a text."""
    if "t" in (first.kind, second.kind) and first.kind != second.kind:
        return False
    return _plain(first) == _plain(second)


def _plain(field: Field) -> object:
    if field.kind == "x" and isinstance(field.value, bytes):
        return field.value.decode("utf-8", "surrogateescape")
    return field.value
