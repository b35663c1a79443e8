"""The names that clients give: which may be used, and what they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.devbroker.refusal import Refusal, access_refused, locked

if TYPE_CHECKING:
    from rmqarq.devbroker.channel import Channel
    from rmqarq.devbroker.queue import Queue


def plain(name: str) -> str:
    """Leave out line ends, as RabbitMQ does."""
    return name.replace("\r", "").replace("\n", "")


def check_free(kind: str, name: str) -> None:
    """Refuse a name that is kept for the broker's own things.

    Raises:
        Refusal: It is.
    """
    if name.startswith("amq."):
        raise access_refused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def not_default(*names: str) -> None:
    """Refuse the default exchange.

    Raises:
        Refusal: One of the names is its.
    """
    if "" in names:
        raise access_refused("operation not permitted on the default exchange")


def named_queue(channel: Channel, name: str) -> str:
    """Give the name of a queue; none means the one declared last on this channel.

    Raises:
        Refusal: There was none.
    """
    if name or channel.last_declared:
        return plain(name) or channel.last_declared
    raise Refusal(404, "no previously declared queue")


def open_queue(channel: Channel, name: str) -> Queue:
    """Find a queue that this connection may use.

    Raises:
        Refusal: There is none, or it belongs to another connection.
    """
    queue = channel.host.queue(name)
    check_owner(channel, queue)
    return queue


def check_owner(channel: Channel, queue: Queue) -> None:
    """Refuse a queue that belongs to another connection.

    Raises:
        Refusal: It does.
    """
    if queue.owner not in (None, channel.link):
        raise locked(channel.host.queue_words(queue.name))
