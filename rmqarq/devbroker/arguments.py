"""Arguments of queues and exchanges: which are valid, what they mean, are they equal.

RabbitMQ 3.10 decides what is checked for which type of queue, and in which words it
refuses: `rabbit_amqqueue:declare_args/0` and `rabbit_misc:assert_args_equivalence/4`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker.checks import CHECKS, QUEUE_TYPE, integer, too_long
from rmqarq.devbroker.fields import KIND_NAMES, Table
from rmqarq.devbroker.refusal import Refusal, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.devbroker.checks import Check

KNOWN = {
    "classic": (
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-queue-version",
        "x-single-active-consumer",
        "x-queue-type",
        "x-queue-master-locator",
    ),
    "quorum": (
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-overflow",
        "x-single-active-consumer",
        "x-queue-type",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-message-ttl",
        "x-queue-leader-locator",
    ),
}
"""Arguments that a type of queue knows; two declarations must agree on them.

The first on which they do not is complained about.
"""
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
    _check(what, arguments, {"x-queue-type": QUEUE_TYPE})
    kind = str(_value(arguments, "x-queue-type") or "classic")
    if kind == "stream":
        # RabbitMQ has them; a queue that only looks like one would be worse than none
        raise Refusal(
            540, f"{what}: streams are not supported by the rmqarq dev broker"
        )
    known = KNOWN[kind]
    _check(what, arguments, {name: CHECKS[name] for name in CHECKS if name in known})
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
    _check(what, arguments, {"x-priority": integer})
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
        problem = too_long(int(given)) or ""
    if problem:
        raise precondition_failed(f"invalid expiration '{given}': {problem}")
    return int(given)


def _check(what: str, arguments: Table, checks: Mapping[str, Check]) -> None:
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
