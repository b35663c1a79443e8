"""Arguments of queues and exchanges: which are valid, what they mean, are they equal.

RabbitMQ 3.10 decides what is checked for which type of queue, and in which words it
refuses: `rabbit_amqqueue:declare_args/0` and `rabbit_misc:assert_args_equivalence/4`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker.fields import INTEGERS, KIND_NAMES, Field, Table
from rmqarq.devbroker.refusal import Refusal, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TEN_YEARS = 315_360_000_000  # milliseconds; RabbitMQ takes none longer
MOST_PRIORITIES = 255

_COMMON = (
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
)
KNOWN = {
    "classic": (
        *_COMMON,
        "x-max-priority",
        "x-queue-mode",
        "x-queue-version",
        "x-queue-master-locator",
    ),
    "quorum": (
        *_COMMON,
        "x-dead-letter-strategy",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-queue-leader-locator",
    ),
}
"""Arguments that a type of queue knows; two declarations must agree on them."""
OTHERS = {
    "classic": frozenset(
        {*KNOWN["quorum"], "x-max-age", "x-stream-max-segment-size-bytes"}
        | {"x-initial-cluster-size"}
    )
    - frozenset(KNOWN["classic"]),
    "quorum": frozenset(
        {*KNOWN["classic"], "x-max-age", "x-stream-max-segment-size-bytes"}
        | {"x-initial-cluster-size"}
    )
    - frozenset(KNOWN["quorum"]),
}
"""Arguments that belong to other types only, and are refused."""


class Policy(NamedTuple):
    """What the arguments of a queue say."""

    quorum: bool = False
    ttl: int | None = None
    expires: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_key: str | None = None
    at_least_once: bool = False
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = "drop-head"
    max_priority: int | None = None
    single_active: bool = False
    delivery_limit: int | None = None


# --- validity ---


def queue_policy(what: str, arguments: Table) -> Policy:
    """Check the arguments of a queue and say what they mean.

    Args:
        what: The queue, as RabbitMQ's sentences name it.
        arguments: As the client gave them.

    Raises:
        Refusal: One is not valid, or not for this type of queue.
    """
    _check(what, arguments, {"x-queue-type": _queue_type})
    kind = str(_value(arguments, "x-queue-type") or "classic")
    if kind == "stream":
        # RabbitMQ has them; a queue that only looks like one would be worse than none
        raise Refusal(
            540, f"{what}: streams are not supported by the rmqarq dev broker"
        )
    known = KNOWN[kind]
    _check(what, arguments, {name: _CHECKS[name] for name in _CHECKS if name in known})
    for name in arguments:
        if name in OTHERS[kind]:
            raise precondition_failed(
                f"invalid arg '{name}' for {what} of queue type rabbit_{kind}_queue"
            )
    return _policy(kind, arguments)


def _policy(kind: str, arguments: Table) -> Policy:
    overflow = _text(arguments, "x-overflow") or "drop-head"
    quorum = kind == "quorum"
    if quorum and overflow == "reject-publish-dlx":
        overflow = "drop-head"  # rabbit_quorum_queue:overflow/3 falls back, and warns
    at_least_once = _text(arguments, "x-dead-letter-strategy") == "at-least-once"
    return Policy(
        quorum=quorum,
        ttl=_number(arguments, "x-message-ttl"),
        expires=_number(arguments, "x-expires"),
        dead_letter_exchange=_text(arguments, "x-dead-letter-exchange"),
        dead_letter_key=_text(arguments, "x-dead-letter-routing-key"),
        at_least_once=at_least_once and overflow == "reject-publish",
        max_length=_number(arguments, "x-max-length"),
        max_bytes=_number(arguments, "x-max-length-bytes"),
        overflow=overflow,
        max_priority=_number(arguments, "x-max-priority"),
        single_active=_value(arguments, "x-single-active-consumer") is True,
        delivery_limit=_number(arguments, "x-delivery-limit") if quorum else None,
    )


def consumer_priority(what: str, arguments: Table) -> int:
    """Check the arguments of a consumer and give its priority.

    Raises:
        Refusal: One is not valid.
    """
    _check(what, arguments, {"x-priority": _integer})
    return _number(arguments, "x-priority") or 0


def optional_text(arguments: Table, name: str, what: str) -> str | None:
    """Read an argument that names something.

    Raises:
        Refusal: It is no text.
    """
    given = arguments.get(name)
    if given is not None and given.kind != "S":
        kind = KIND_NAMES[given.kind]
        raise precondition_failed(f"invalid type '{kind}' for arg '{name}' in {what}")
    return _text(arguments, name)


def expiration(given: str) -> int:
    """Read the `expiration` of a message, in milliseconds.

    Raises:
        Refusal: It is none.
    """
    digits = given[1:] if given[:1] in ("+", "-") else given
    count = len(digits) - len(digits.lstrip("0123456789"))
    rest = digits[count:]
    if count == 0:
        problem = "no_integer"
    elif rest:
        problem = f'{{leftover_string,"{rest}"}}'
    else:
        problem = _too_long(int(given)) or ""
    if problem:
        raise precondition_failed(f"invalid expiration '{given}': {problem}")
    return int(given)


def _check(
    what: str, arguments: Table, checks: dict[str, Callable[[Field, Table], str | None]]
) -> None:
    for name, check in checks.items():
        given = arguments.get(name)
        problem = None if given is None else check(given, arguments)
        if problem is not None:
            raise precondition_failed(f"invalid arg '{name}' for {what}: {problem}")


def _value(arguments: Table, name: str) -> object:
    given = arguments.get(name)
    return None if given is None else given.value


def _number(arguments: Table, name: str) -> int | None:
    value = _value(arguments, name)
    return value if isinstance(value, int) else None


def _text(arguments: Table, name: str) -> str | None:
    value = _value(arguments, name)
    return value if isinstance(value, str) else None


# --- one check for each argument; each gives the problem in Erlang's terms ---


def _integer(given: Field, _: Table) -> str | None:
    if given.kind in INTEGERS:
        return None
    return f'"expected integer, got {KIND_NAMES[given.kind]}"'


def _not_negative(given: Field, arguments: Table) -> str | None:
    problem = _integer(given, arguments)
    value = given.value
    if problem is None and isinstance(value, int) and value < 0:
        return f"{{value_negative,{value}}}"
    return problem


def _too_long(value: int) -> str | None:
    if value < 0:
        return f"{{value_negative,{value}}}"
    if value > TEN_YEARS:
        return f"{{value_too_large,{value}}}"
    return None


def _ttl(given: Field, arguments: Table) -> str | None:
    problem = _integer(given, arguments)
    if problem is None and isinstance(given.value, int):
        return _too_long(given.value)
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


def _one_of(
    choices: Iterable[str], problem: str
) -> Callable[[Field, Table], str | None]:
    def check(given: Field, _: Table) -> str | None:
        if given.kind != "S":
            return _unacceptable(given)
        if given.value in choices:
            return None
        return problem.format(given.value)

    return check


def _queue_version(given: Field, arguments: Table) -> str | None:
    problem = _not_negative(given, arguments)
    if problem is None and given.value not in (1, 2):
        return f"\"unsupported queue version '{given.value}'\""
    return problem


_queue_type = _one_of(
    ("classic", "quorum", "stream"), "\"unsupported queue type '{}'\""
)
_CHECKS: dict[str, Callable[[Field, Table], str | None]] = {
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
