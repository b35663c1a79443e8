"""Whether a message that arrived shall run now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from rmqarq.backoff import Backoff
from rmqarq.outcome import DeadLettered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.message import Message

EARLY = 1.0
"""Seconds; less than that may be the clocks of two machines."""
UNKNOWN_SINCE = "x-rmqarq-unknown-since"
_UNKNOWN_WAIT = Backoff(base=1, factor=2, maximum=60, jitter=0.2)


class Postponed(Struct, frozen=True):
    """The message goes on unrun and comes back.

    Args:
        delay: After so many seconds.
        why: `early`, or `unknown task`: another worker may know it after a deploy.
        unknown_since: When no worker knew its task for the first time, in ms.
    """

    delay: float
    why: Literal["early", "unknown task"]
    unknown_since: int | None = None


def admit(message: Message, now: float) -> DeadLettered | Postponed | None:
    """Decide on a message of a known task; `None` lets it run."""
    if message.expired(now):
        return DeadLettered("expired")
    if message.eta is not None and message.eta - now > EARLY:
        return Postponed(message.eta - now, "early")
    return None


def unknown(
    headers: Mapping[str, Any], now: float, patience: float
) -> DeadLettered | Postponed:
    """Decide on a message whose task is not registered here.

    Args:
        headers: Its AMQP headers: they hold since when it has been unknown.
        now: Seconds since the epoch.
        patience: How long it may wait, in seconds.
    """
    now_ms = int(now * 1000)
    found = headers.get(UNKNOWN_SINCE)
    since = found if isinstance(found, int) else now_ms
    waited = max(0, now_ms - since) / 1000
    if waited >= patience:
        return DeadLettered("unknown task")
    attempt = 1 + max(0, int(waited)).bit_length()
    delay = min(_UNKNOWN_WAIT.delay(attempt), patience - waited)
    return Postponed(delay, "unknown task", since)
