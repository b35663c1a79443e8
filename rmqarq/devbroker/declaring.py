"""The methods that make and unmake exchanges, queues and bindings."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.arguments import KNOWN, optional_text, queue_policy
from rmqarq.devbroker.equivalence import assert_same, assert_same_arguments
from rmqarq.devbroker.exchange import TYPES, Destination, Exchange
from rmqarq.devbroker.fields import Reader, Table
from rmqarq.devbroker.frames import Method
from rmqarq.devbroker.host import REPLY_TO
from rmqarq.devbroker.queue import Queue
from rmqarq.devbroker.refusal import (
    Refusal,
    access_refused,
    locked,
    not_found,
    precondition_failed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.devbroker.channel import Channel
    from rmqarq.devbroker.host import Host


# --- names ---


def _plain(name: str) -> str:
    return name.replace("\r", "").replace("\n", "")


def _check_name(kind: str, name: str) -> None:
    if name.startswith("amq."):
        raise access_refused(f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def _not_default(*names: str) -> None:
    if "" in names:
        raise access_refused("operation not permitted on the default exchange")


def named_queue(channel: Channel, name: str) -> str:
    """Give the name of a queue; none means the one declared last on this channel.

    Raises:
        Refusal: There was none.
    """
    if name or channel.last_declared:
        return _plain(name) or channel.last_declared
    raise Refusal(404, "no previously declared queue")


def open_queue(channel: Channel, name: str) -> Queue:
    """Find a queue that this connection may use.

    Raises:
        Refusal: There is none, or it belongs to another connection.
    """
    queue = channel.host.queue(name)
    _check_owner(channel, queue)
    return queue


def _check_owner(channel: Channel, queue: Queue) -> None:
    if queue.owner not in (None, channel.link):
        raise locked(channel.host.queue_words(queue.name))


# --- exchanges ---


def exchange_declare(channel: Channel, reader: Reader) -> None:
    """Declare an exchange, or look whether it is there."""
    reader.short()
    name, kind = _plain(reader.shortstr()), reader.shortstr()
    passive, durable, auto_delete, internal, nowait = reader.bits()
    arguments = reader.table()
    host = channel.host
    if passive:
        _not_default(name)
        host.exchange(name)
    else:
        if kind not in TYPES:
            raise Refusal(503, f"unknown exchange type '{kind}'")
        _not_default(name)
        wanted = Exchange(
            name,
            kind,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
        )
        _declare_exchange(host, wanted)
    if not nowait:
        channel.send(Method(40, 11))


def _declare_exchange(host: Host, wanted: Exchange) -> None:
    what = host.exchange_words(wanted.name)
    known = host.exchanges.get(wanted.name)
    if known is None:
        _check_name("exchange", wanted.name)
        wanted.alternate = optional_text(wanted.arguments, "alternate-exchange", what)
        host.exchanges[wanted.name] = wanted
        return
    assert_same(what, "type", known.type, wanted.type)
    assert_same(what, "durable", known.durable, wanted.durable)
    assert_same(what, "auto_delete", known.auto_delete, wanted.auto_delete)
    assert_same(what, "internal", known.internal, wanted.internal)
    names = ("alternate-exchange",)
    assert_same_arguments(what, names, known.arguments, wanted.arguments)


def exchange_delete(channel: Channel, reader: Reader) -> None:
    """Delete an exchange; that there is none is fine."""
    reader.short()
    name = _plain(reader.shortstr())
    unused, nowait, *_ = reader.bits()
    host = channel.host
    _not_default(name)
    if name.startswith("amq."):
        what = host.exchange_words(name)
        raise access_refused(f"deletion of system {what} not allowed")
    found = host.exchanges.get(name)
    if unused and found is not None and found.used:
        raise precondition_failed(f"{host.exchange_words(name)} in use")
    host.delete_exchange(name)
    if not nowait:
        channel.send(Method(40, 21))


def exchange_bind(channel: Channel, reader: Reader) -> None:
    """Bind an exchange to another."""
    _bind_exchange(channel, reader, channel.host.bind, 31)


def exchange_unbind(channel: Channel, reader: Reader) -> None:
    """Remove a binding between exchanges."""
    _bind_exchange(channel, reader, channel.host.unbind, 51)


def _bind_exchange(
    channel: Channel,
    reader: Reader,
    act: Callable[[str, Destination, str, Table], None],
    answer: int,
) -> None:
    reader.short()
    destination, source = _plain(reader.shortstr()), _plain(reader.shortstr())
    key = reader.shortstr()
    nowait = reader.bits()[0]
    arguments = reader.table()
    _not_default(destination, source)
    act(source, Destination("exchange", destination), key, arguments)
    if not nowait:
        channel.send(Method(40, answer))


# --- queues ---


class _Wish(NamedTuple):
    name: str
    durable: bool
    exclusive: bool
    auto_delete: bool
    arguments: Table


def queue_declare(channel: Channel, reader: Reader) -> None:
    """Declare a queue, or look whether it is there."""
    reader.short()
    name = _plain(reader.shortstr())
    passive, durable, exclusive, auto_delete, nowait = reader.bits()
    wish = _Wish(name, durable, exclusive, auto_delete, reader.table())
    if name.startswith(REPLY_TO):
        if name not in channel.host.replies:
            raise not_found(channel.host.queue_words(name))
        counts = 0, 1
    else:
        queue = _look(channel, name) if passive else _declare_queue(channel, wish)
        name, counts = queue.name, (queue.ready, len(queue.consumers))
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
        _check_name("queue", name)
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


def queue_bind(channel: Channel, reader: Reader) -> None:
    """Bind a queue to an exchange."""
    reader.short()
    given, exchange, key = reader.shortstr(), reader.shortstr(), reader.shortstr()
    nowait = reader.bits()[0]
    _bind_queue(channel, given, (exchange, key), reader.table(), channel.host.bind)
    if not nowait:
        channel.send(Method(50, 21))


def queue_unbind(channel: Channel, reader: Reader) -> None:
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
    exchange, key = _plain(where[0]), where[1]
    if not given and not key:
        key = name
    _not_default(exchange)
    queue = channel.host.queues.get(name)
    if queue is not None and exchange in channel.host.exchanges:
        _check_owner(channel, queue)
    act(exchange, Destination("queue", name), key, arguments)


def queue_purge(channel: Channel, reader: Reader) -> None:
    """Remove the ready messages of a queue."""
    reader.short()
    name = named_queue(channel, reader.shortstr())
    nowait = reader.bits()[0]
    count = open_queue(channel, name).purge()
    if not nowait:
        channel.send(Method(50, 31), fields.long(count))


def queue_delete(channel: Channel, reader: Reader) -> None:
    """Delete a queue; that there is none is fine."""
    reader.short()
    name = named_queue(channel, reader.shortstr())
    unused, empty, nowait, *_ = reader.bits()
    queue = channel.host.queues.get(name)
    count = 0
    if queue is not None:
        _check_owner(channel, queue)
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
    Method(40, 10): exchange_declare,
    Method(40, 20): exchange_delete,
    Method(40, 30): exchange_bind,
    Method(40, 40): exchange_unbind,
    Method(50, 10): queue_declare,
    Method(50, 20): queue_bind,
    Method(50, 30): queue_purge,
    Method(50, 40): queue_delete,
    Method(50, 50): queue_unbind,
}
