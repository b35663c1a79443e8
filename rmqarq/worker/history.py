"""What a message has been through: how often it came back unfinished, and crashed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from rmqarq.wire.properties import PropertyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.wire.consumer import Delivery
    from rmqarq.wire.properties import Header
    from rmqarq.worker.chunk import Share

RETURNS, CRASHES = "x-rmqarq-returns", "x-rmqarq-crashes"
MOST_RETURNS = 3
"""A job that ends its worker each time has ended three by then."""
MOST_CRASHES = 2
_MARK = RETURNS.encode()

# either tells a quorum queue: the one counts failures, the other, since RabbitMQ 4.3,
# everything that came back
_DELIVERY_COUNT, _ACQUIRED_COUNT = "x-delivery-count", "x-acquired-count"


class History(Struct, frozen=True):
    """What the headers of a delivery tell.

    Args:
        returns: How often it came back unfinished, as far as that counts.
        crashes: How often it ended a process that ran nothing else.
        counted: Whether the queue counts returns itself; a classic one does not.
    """

    returns: int = 0
    crashes: int = 0
    counted: bool = True

    def headers(self) -> dict[str, Header]:
        """Give what a further message of the same job must carry."""
        found: dict[str, Header] = {}
        if self.returns:
            found[RETURNS] = self.returns
        if self.crashes:
            found[CRASHES] = self.crashes
        return found


NEW = History()


class Detour(Struct, frozen=True):
    """The message goes on unrun, at once.

    Args:
        history: What it has to carry.
        suspect: Whether it goes to the suspect lane, or back to its own queue.
    """

    history: History
    suspect: bool


def history_of(delivery: Delivery | Share) -> History:
    """Read what a delivery has been through; unreadable headers tell nothing."""
    try:
        return history_in(delivery.headers, redelivered=delivery.redelivered)
    except PropertyError:
        return NEW


def came_back(delivery: Delivery | Share) -> bool:
    """Tell, without reading the headers, whether an earlier delivery had no end."""
    return delivery.redelivered or delivery.suspect or _MARK in delivery.properties


def history_in(headers: Mapping[str, Any], *, redelivered: bool) -> History:
    """Add what the broker counts to what the message carries.

    RabbitMQ does not say why a delivery came back: up to 4.2 a graceful return, a cut
    link and a dead worker raise `x-delivery-count` alike (quorum queues); a classic
    queue only says that there was an earlier delivery.
    """
    counted = _DELIVERY_COUNT in headers or _ACQUIRED_COUNT in headers
    returns = _count(headers, RETURNS)
    if redelivered:
        returns += _count(headers, _DELIVERY_COUNT) if counted else 1
    return History(returns, _count(headers, CRASHES), counted)


def detour(history: History) -> Detour | None:
    """Decide on a message that has come back; `None` lets it run.

    From the third return on it is a suspect. Before, on a queue that does not count,
    the count must be written down before the message runs again.
    """
    if history.returns >= MOST_RETURNS:
        return Detour(history, suspect=True)
    if not history.counted:
        return Detour(history, suspect=False)
    return None


def _count(headers: Mapping[str, Any], name: str) -> int:
    found = headers.get(name)
    return found if type(found) is int and 0 < found < 2**31 else 0
