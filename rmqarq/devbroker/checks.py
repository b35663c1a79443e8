"""Which values an argument of a queue may have; what is wrong, in Erlang's terms.

As `rabbit_amqqueue:declare_args/0` of RabbitMQ 3.10 checks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rmqarq.devbroker.fields import INTEGERS, KIND_NAMES, Field, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Check: TypeAlias = Callable[[Field, Table], str | None]

TEN_YEARS = 315_360_000_000  # milliseconds; RabbitMQ takes none longer
MOST_PRIORITIES = 255


def integer(given: Field, _: Table) -> str | None:
    """Tell what is wrong with a whole number."""
    if given.kind in INTEGERS:
        return None
    return f'"expected integer, got {KIND_NAMES[given.kind]}"'


def _not_negative(given: Field, arguments: Table) -> str | None:
    problem = integer(given, arguments)
    value = given.value
    if problem is None and isinstance(value, int) and value < 0:
        return f"{{value_negative,{value}}}"
    return problem


def too_long(value: int) -> str | None:
    """Tell what is wrong with a time in milliseconds; `None` if nothing is."""
    if value < 0:
        return f"{{value_negative,{value}}}"
    if value > TEN_YEARS:
        return f"{{value_too_large,{value}}}"
    return None


def _ttl(given: Field, arguments: Table) -> str | None:
    problem = integer(given, arguments)
    if problem is None and isinstance(given.value, int):
        return too_long(given.value)
    return problem


def _expires(given: Field, arguments: Table) -> str | None:
    if given.kind in INTEGERS and given.value == 0:
        return "{value_zero,0}"
    return _ttl(given, arguments)


def _max_priority(given: Field, arguments: Table) -> str | None:
    problem = _not_negative(given, arguments)
    value = given.value
    if problem is None and isinstance(value, int) and value > MOST_PRIORITIES:
        return f"{{max_value_exceeded,{value}}}"
    return problem


def _string(given: Field, _: Table) -> str | None:
    return None if given.kind == "S" else _unacceptable(given)


def _dead_letter_key(given: Field, arguments: Table) -> str | None:
    problem = _string(given, arguments)
    if problem is None and "x-dead-letter-exchange" not in arguments:
        return "routing_key_but_no_dlx_defined"
    return problem


def _bool(given: Field, _: Table) -> str | None:
    return None if given.kind == "t" else _unacceptable(given)


def _unacceptable(given: Field) -> str:
    return f"{{unacceptable_type,{KIND_NAMES[given.kind]}}}"


def _one_of(choices: Collection[str], problem: str) -> Check:
    def check(given: Field, _: Table) -> str | None:
        if given.kind != "S":
            return _unacceptable(given)
        if str(given.value) in choices:
            return None
        return problem.format(given.value)

    return check


def _queue_version(given: Field, arguments: Table) -> str | None:
    problem = _not_negative(given, arguments)
    if problem is None and given.value not in (1, 2):
        return f"\"unsupported queue version '{given.value}'\""
    return problem


QUEUE_TYPE = _one_of(("classic", "quorum", "stream"), "\"unsupported queue type '{}'\"")
CHECKS: dict[str, Check] = {
    "x-expires": _expires,
    "x-message-ttl": _ttl,
    "x-dead-letter-exchange": _string,
    "x-dead-letter-routing-key": _dead_letter_key,
    "x-dead-letter-strategy": _one_of(
        ("at-most-once", "at-least-once"), "invalid_dlx_strategy"
    ),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _max_priority,
    "x-overflow": _one_of(
        ("drop-head", "reject-publish", "reject-publish-dlx"), "invalid_overflow"
    ),
    "x-queue-mode": _one_of(("default", "lazy"), "\"unsupported queue mode '{}'\""),
    "x-queue-version": _queue_version,
    "x-single-active-consumer": _bool,
}
