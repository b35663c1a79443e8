"""Whether a second declaration says what the first one did, in RabbitMQ's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.devbroker.fields import INTEGERS, KIND_NAMES, Field, Table
from rmqarq.devbroker.refusal import precondition_failed

if TYPE_CHECKING:
    from collections.abc import Iterable


def assert_same(what: str, name: str, ours: object, theirs: object) -> None:
    """Refuse a property that is another than when the thing was declared first.

    Args:
        what: The queue or exchange, as RabbitMQ's sentences name it.
        name: Of the property.
        ours: What it is.
        theirs: What it shall be.
    """
    if ours != theirs:
        _refuse(what, name, f"'{_plain(theirs)}'", f"'{_plain(ours)}'")


def assert_same_arguments(
    what: str, names: Iterable[str], ours: Table, theirs: Table
) -> None:
    """Refuse arguments that are others than when the thing was declared first."""
    for name in names:
        first, second = ours.get(name), theirs.get(name)
        if _same(name, first, second):
            continue
        if first is None or second is None:
            _refuse(what, name, _typed(second), _typed(first))
        else:
            assert_same(what, name, first.value, second.value)
            # the same value of another kind is shown like this, too
            _refuse(what, name, f"'{second.value}'", f"'{first.value}'")


def _same(name: str, first: Field | None, second: Field | None) -> bool:
    if first is None or second is None:
        given = first or second
        # a classic queue needs no type: rabbit_misc:assert_field_equivalence/4
        classic = name == "x-queue-type" and given == Field("S", "classic")
        return given is None or classic
    return _class(first) == _class(second) and first.value == second.value


def _class(field: Field) -> str:
    if field.kind in INTEGERS:
        return "integer"
    return "float" if field.kind in "df" else field.kind


def _typed(field: Field | None) -> str:
    if field is None:
        return "none"
    return f"the value '{_plain(field.value)}' of type '{KIND_NAMES[field.kind]}'"


def _plain(value: object) -> str:
    if value is None:
        return "undefined"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(what: str, name: str, theirs: str, ours: str) -> None:
    raise precondition_failed(
        f"inequivalent arg '{name}' for {what}: received {theirs} but current is {ours}"
    )
