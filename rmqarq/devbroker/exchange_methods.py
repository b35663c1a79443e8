"""The methods that make and unmake exchanges, and bind them to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.devbroker.arguments import optional_text
from rmqarq.devbroker.equivalence import assert_same, assert_same_arguments
from rmqarq.devbroker.exchange import TYPES, Destination, Exchange
from rmqarq.devbroker.fields import Reader, Table
from rmqarq.devbroker.frames import Method
from rmqarq.devbroker.naming import check_free, not_default, plain
from rmqarq.devbroker.refusal import Refusal, access_refused, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.devbroker.channel import Channel
    from rmqarq.devbroker.host import Host


def declare(channel: Channel, reader: Reader) -> None:
    """Declare an exchange, or look whether it is there."""
    reader.short()
    name, kind = plain(reader.shortstr()), reader.shortstr()
    passive, durable, auto_delete, internal, nowait = reader.bits()
    arguments = reader.table()
    host = channel.host
    if passive:
        not_default(name)
        host.exchange(name)
    else:
        if kind not in TYPES:
            raise Refusal(503, f"unknown exchange type '{kind}'")
        not_default(name)
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
        check_free("exchange", wanted.name)
        wanted.alternate = optional_text(wanted.arguments, "alternate-exchange", what)
        host.exchanges[wanted.name] = wanted
        return
    assert_same(what, "type", known.type, wanted.type)
    assert_same(what, "durable", known.durable, wanted.durable)
    assert_same(what, "auto_delete", known.auto_delete, wanted.auto_delete)
    assert_same(what, "internal", known.internal, wanted.internal)
    names = ("alternate-exchange",)
    assert_same_arguments(what, names, known.arguments, wanted.arguments)


def delete(channel: Channel, reader: Reader) -> None:
    """Delete an exchange; that there is none is fine."""
    reader.short()
    name = plain(reader.shortstr())
    unused, nowait, *_ = reader.bits()
    host = channel.host
    not_default(name)
    if name.startswith("amq."):
        what = host.exchange_words(name)
        raise access_refused(f"deletion of system {what} not allowed")
    found = host.exchanges.get(name)
    if unused and found is not None and found.used:
        raise precondition_failed(f"{host.exchange_words(name)} in use")
    host.delete_exchange(name)
    if not nowait:
        channel.send(Method(40, 21))


def bind(channel: Channel, reader: Reader) -> None:
    """Bind an exchange to another."""
    _bind_exchange(channel, reader, channel.host.bind, 31)


def unbind(channel: Channel, reader: Reader) -> None:
    """Remove a binding between exchanges."""
    _bind_exchange(channel, reader, channel.host.unbind, 51)


def _bind_exchange(
    channel: Channel,
    reader: Reader,
    act: Callable[[str, Destination, str, Table], None],
    answer: int,
) -> None:
    reader.short()
    destination, source = plain(reader.shortstr()), plain(reader.shortstr())
    key = reader.shortstr()
    nowait = reader.bits()[0]
    arguments = reader.table()
    not_default(destination, source)
    act(source, Destination("exchange", destination), key, arguments)
    if not nowait:
        channel.send(Method(40, answer))


METHODS: dict[Method, Callable[[Channel, Reader], None]] = {
    Method(40, 10): declare,
    Method(40, 20): delete,
    Method(40, 30): bind,
    Method(40, 40): unbind,
}
