"""The methods that make and unmake queues, and bind them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.arguments import KNOWN, optional_text, queue_policy
from rmqarq.devbroker.equivalence import assert_same, assert_same_arguments
from rmqarq.devbroker.exchange import Destination
from rmqarq.devbroker.fields import Reader, Table
from rmqarq.devbroker.frames import Method
from rmqarq.devbroker.host import REPLY_TO
from rmqarq.devbroker.naming import (
    check_free,
    check_owner,
    named_queue,
    not_default,
    open_queue,
    plain,
)
from rmqarq.devbroker.queue import Queue
from rmqarq.devbroker.refusal import Refusal, locked, not_found, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.devbroker.channel import Channel


class _Wish(NamedTuple):
    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Table


def declare(channel: Channel, reader: Reader) -> None:
    """Declare a queue, or look whether it is there."""
    reader.short()
    name = plain(reader.shortstr())
    passive, durable, exclusive, auto_delete, nowait = reader.bits()
    wish = _Wish(name, durable, exclusive, auto_delete, reader.table())
    if name.startswith(REPLY_TO):
        if name not in channel.host.replies:
            raise not_found(channel.host.queue_words(name))
        counts = 0, 1
    else:
        queue = _look(channel, name) if passive else _declare_queue(channel, wish)
        name, counts = queue.name, (queue.ready, queue.attached)
    channel.last_declared = name
    if not nowait:
        numbers = map(fields.long, counts)
        channel.send(Method(50, 11), fields.shortstr(name), *numbers)


def _look(channel: Channel, name: str) -> Queue:
    queue = open_queue(channel, name)
    if not queue.policy.quorum:
        queue.touch()
    return queue


def _declare_queue(channel: Channel, wish: _Wish) -> Queue:
    host = channel.host
    name = wish.name
    if name:
        check_free("queue", name)
    elif _quorum(wish.arguments):
        kind = "rabbit_quorum_queue"
        raise precondition_failed(
            f"Cannot declare a server-named queue for type {kind}"
        )
    else:
        name = f"amq.gen-{secrets.token_urlsafe(16)}"
    known = host.queues.get(name)
    if known is not None:
        _check_equivalence(channel, known, wish)
        if not known.policy.quorum:
            known.touch()
        return known
    what = host.queue_words(name)
    optional_text(wish.arguments, "x-dead-letter-exchange", what)
    policy = queue_policy(what, wish.arguments)
    if policy.quorum:
        _check_quorum(what, wish)
    queue = host.queues[name] = Queue(
        name,
        policy,
        wish.arguments,
        host,
        durable=wish.durable and not wish.exclusive,
        auto_delete=wish.auto_delete,
        owner=channel.link if wish.exclusive else None,
    )
    return queue


def _quorum(arguments: Table) -> bool:
    given = arguments.get("x-queue-type")
    return given is not None and given.value == "quorum"


def _check_quorum(what: str, wish: _Wish) -> None:
    problems = {
        "auto-delete": wish.auto_delete,
        "exclusive-owner": wish.exclusive,
        "non-durable": not wish.durable,
    }
    for problem, there in problems.items():
        if there:
            raise precondition_failed(f"invalid property '{problem}' for {what}")


def _check_equivalence(channel: Channel, known: Queue, wish: _Wish) -> None:
    what = channel.host.queue_words(known.name)
    if known.owner is not (channel.link if wish.exclusive else None):
        raise locked(what)
    assert_same(what, "durable", known.durable, wish.durable and not wish.exclusive)
    assert_same(what, "auto_delete", known.auto_delete, wish.auto_delete)
    names = KNOWN["quorum" if known.policy.quorum else "classic"]
    assert_same_arguments(what, names, known.arguments, wish.arguments)


def bind(channel: Channel, reader: Reader) -> None:
    """Bind a queue to an exchange."""
    reader.short()
    given, exchange, key = reader.shortstr(), reader.shortstr(), reader.shortstr()
    nowait = reader.bits()[0]
    _bind_queue(channel, given, (exchange, key), reader.table(), channel.host.bind)
    if not nowait:
        channel.send(Method(50, 21))


def unbind(channel: Channel, reader: Reader) -> None:
    """Remove a binding of a queue."""
    reader.short()
    given, exchange, key = reader.shortstr(), reader.shortstr(), reader.shortstr()
    _bind_queue(channel, given, (exchange, key), reader.table(), channel.host.unbind)
    channel.send(Method(50, 51))


def _bind_queue(
    channel: Channel,
    given: str,
    where: tuple[str, str],
    arguments: Table,
    act: Callable[[str, Destination, str, Table], None],
) -> None:
    name = named_queue(channel, given)
    exchange, key = plain(where[0]), where[1]
    if not given and not key:
        key = name
    not_default(exchange)
    queue = channel.host.queues.get(name)
    if queue is not None and exchange in channel.host.exchanges:
        check_owner(channel, queue)
    act(exchange, Destination("queue", name), key, arguments)


def purge(channel: Channel, reader: Reader) -> None:
    """Remove the ready messages of a queue."""
    reader.short()
    name = named_queue(channel, reader.shortstr())
    nowait = reader.bits()[0]
    count = open_queue(channel, name).purge()
    if not nowait:
        channel.send(Method(50, 31), fields.long(count))


def delete(channel: Channel, reader: Reader) -> None:
    """Delete a queue; that there is none is fine."""
    reader.short()
    name = named_queue(channel, reader.shortstr())
    unused, empty, nowait, *_ = reader.bits()
    queue = channel.host.queues.get(name)
    count = 0
    if queue is not None:
        check_owner(channel, queue)
        _check_deletion(channel, queue, unused, empty)
        count = channel.host.delete_queue(queue)
    if not nowait:
        channel.send(Method(50, 41), fields.long(count))


def _check_deletion(channel: Channel, queue: Queue, unused: bool, empty: bool) -> None:
    what = channel.host.queue_words(queue.name)
    if queue.policy.quorum and (unused or empty):
        flag = "if-unused" if unused else "if-empty"
        raise Refusal(
            540,
            f"cannot delete {what}. queue.delete operations with {flag} flag set are"
            " not supported by quorum queues",
        )
    if unused and queue.consumers:
        raise precondition_failed(f"{what} in use")
    if empty and queue.ready:
        raise precondition_failed(f"{what} not empty")


METHODS: dict[Method, Callable[[Channel, Reader], None]] = {
    Method(50, 10): declare,
    Method(50, 20): bind,
    Method(50, 30): purge,
    Method(50, 40): delete,
    Method(50, 50): unbind,
}
