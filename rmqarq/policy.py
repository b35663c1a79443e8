"""How the runs of a function are treated: its options, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from rmqarq.backoff import Backoff
from rmqarq.errors import ConfigurationError
from rmqarq.when import plain_seconds

if TYPE_CHECKING:
    from rmqarq.when import Duration

T = TypeVar("T")


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the runs of a task are treated; `None` leaves it to the settings."""

    queue: str | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None
    no_timeout: bool = False
    max_retries: Annotated[int, Meta(ge=0)] | None = None
    backoff: Backoff | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)


def checked_policy(name: str, options: dict[str, Any]) -> Policy:
    """Make the policy that these options say.

    Args:
        name: Of the task, for errors.
        options: Those of `Policy`; a backoff may be a duration, a timeout `None`.

    Raises:
        TypeError: An option that does not exist.
        ConfigurationError: A value of the wrong type or out of range.
    """
    given = {**options}
    retry_on = _exceptions(name, given.pop("retry_on", (Exception,)))
    backoff = _backoff(name, given.pop("backoff", None))
    if "timeout" in given:
        given["no_timeout"] = given["timeout"] is None
        given["timeout"] = plain_seconds(given["timeout"])
    unknown = given.keys() - set(Policy.__struct_fields__)
    if unknown:
        msg = f"the task {name} has no option {', '.join(sorted(unknown))}"
        raise TypeError(msg)
    policy = converted(name, given, Policy)
    return msgspec.structs.replace(policy, backoff=backoff, retry_on=retry_on)


def converted(name: str, given: dict[str, Any], kind: type[T]) -> T:
    """Turn options into a value.

    Raises:
        ConfigurationError: One is of the wrong type or out of range.
    """
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            "an option of the task {task} can't be used: {problem}",
            task=name,
            problem=str(error),
        ) from None


def _backoff(name: str, given: Backoff | Duration | None) -> Backoff | None:
    if given is None or isinstance(given, Backoff):
        return given
    try:
        return Backoff.beginning(msgspec.convert(plain_seconds(given), float))
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigurationError(
            "the backoff of the task {task} must be a Backoff or seconds: {problem}",
            task=name,
            problem=str(error),
        ) from None


def _exceptions(
    name: str, given: tuple[Any, ...] | type[Any]
) -> tuple[type[Exception], ...]:
    kinds: tuple[Any, ...] = given if isinstance(given, tuple) else (given,)
    for kind in kinds:
        shown = repr(kind)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigurationError(
                "retry_on of the task {task} must be exception classes, not {what}",
                task=name,
                what=shown,
            )
    return kinds
