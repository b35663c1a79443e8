"""Scenarios: what is declared, bound, deleted and purged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.devbroker.differential.scenarios import scenario

if TYPE_CHECKING:
    from tests.devbroker.differential.lab import Channel


@scenario
async def declaring_twice_is_declaring_once(ch: Channel) -> Any:
    first = await ch.queue()
    await ch.put("q", "one", "two")
    return [first, await ch.queue(), await ch.queue(passive=True)]


@scenario
async def a_queue_stays_what_it_is(ch: Channel) -> Any:
    await ch.queue(max_length=3, message_ttl=60_000)
    return [
        await ch.refused(ch.queue(max_length=3, message_ttl=60_000, durable=True)),
        await ch.refused(ch.queue(max_length=3, message_ttl=60_000, auto_delete=True)),
        await ch.refused(ch.queue(max_length=4, message_ttl=60_000)),
        await ch.refused(ch.queue(max_length=3)),
        await ch.refused(ch.queue(max_length=3, message_ttl=60_000, expires=60_000)),
        await ch.refused(ch.queue(max_length=3, message_ttl=60_000, unknown=1)),
    ]


@scenario
async def an_exchange_stays_what_it_is(ch: Channel) -> Any:
    await ch.exchange("x", "topic")
    return [
        await ch.refused(ch.exchange("x", "topic")),
        await ch.refused(ch.exchange("x", "direct")),
        await ch.refused(ch.exchange("x", "topic", durable=True)),
        await ch.refused(ch.exchange("x", "topic", internal=True)),
        await ch.refused(ch.exchange("x", "topic", alternate_exchange="y")),
        await ch.refused(ch.exchange("x", "fanout", passive=True)),
    ]


@scenario
async def what_is_not_there_is_not_found(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange()
    return [
        await ch.refused(ch.queue("nil", passive=True)),
        await ch.refused(ch.exchange("nil", passive=True)),
        await ch.refused(ch.bind("nil")),
        await ch.refused(ch.bind("q", "nil")),
        await ch.refused(ch.join("x", "nil")),
        await ch.refused(ch.join("nil", "x")),
        await ch.refused(ch.purge("nil")),
        await ch.refused(ch.get("nil")),
        await ch.refused(ch.consume("nil")),
        await ch.refused(ch.put("", "one", exchange="nil")),
    ]


@scenario
async def removing_what_is_not_there_is_fine(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange()
    return [
        await ch.refused(ch.delete("nil")),
        await ch.refused(ch.delete_exchange("nil")),
        await ch.refused(ch.delete_exchange("nil", unused=True)),
        await ch.refused(ch.unbind("q", "x", "never")),
        await ch.refused(ch.unbind("nil", "x", "never")),
        await ch.refused(ch.unbind("q", "nil", "never")),
        await ch.refused(ch.part("x", "nil")),
        await ch.refused(ch.part("nil", "x")),
    ]


@scenario
async def a_queue_in_use_is_not_deleted_if_unused(ch: Channel) -> Any:
    await ch.queue()
    await ch.consume()
    refused = await ch.refused(ch.delete(unused=True))
    await ch.put("q", "one")
    return [refused, await ch.delete(unused=True), await ch.counts()]


@scenario
async def a_queue_with_messages_is_not_deleted_if_empty(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "one")
    refused = await ch.refused(ch.delete(empty=True))
    await ch.get()
    return [refused, await ch.delete(empty=True), await ch.counts()]


@scenario
async def deleting_tells_how_many_messages_were_ready(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "one", "two", "three")
    await ch.get()
    return [await ch.delete(), await ch.queue()]


@scenario
async def an_exchange_in_use_is_not_deleted_if_unused(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange()
    await ch.bind("q", "x", "k")
    refused = await ch.refused(ch.delete_exchange(unused=True))
    await ch.unbind("q", "x", "k")
    return [refused, await ch.refused(ch.delete_exchange(unused=True))]


@scenario
async def an_exchange_bound_to_another_may_be_deleted_if_unused(ch: Channel) -> Any:
    await ch.exchange("x")
    await ch.exchange("y")
    await ch.join("y", "x")
    return [
        await ch.refused(ch.delete_exchange("x", unused=True)),
        await ch.refused(ch.delete_exchange("y", unused=True)),
        await ch.refused(ch.delete_exchange("x", unused=True)),
    ]


@scenario
async def names_of_the_broker_are_reserved(ch: Channel) -> Any:
    return [
        await ch.refused(ch.queue("amq.mine")),
        await ch.refused(ch.exchange("amq.mine")),
        await ch.refused(ch.delete_exchange("amq.direct")),
        await ch.refused(ch.exchange("amq.direct", durable=True)),
        await ch.refused(ch.exchange("amq.direct", passive=True)),
        await ch.refused(ch.exchange("", durable=True)),
        await ch.refused(ch.bind("q", "")),
    ]


@scenario
async def purging_leaves_what_is_held(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "one", "two", "three")
    await ch.get()
    purged = await ch.purge()
    await ch.nack(1)
    return [purged, await ch.ready(1), await ch.drain(), await ch.purge()]


@scenario
async def binding_twice_is_binding_once(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange()
    await ch.bind("q", "x", "k")
    await ch.bind("q", "x", "k")
    await ch.put("k", "one", exchange="x")
    await ch.unbind("q", "x", "k")
    await ch.put("k", "two", exchange="x")
    return await ch.drain()


@scenario
async def arguments_tell_bindings_apart(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange()
    await ch.bind("q", "x", "k", a=1)
    await ch.bind("q", "x", "k", a=2)
    await ch.unbind("q", "x", "k")
    await ch.unbind("q", "x", "k", a=1)
    await ch.put("k", "one", exchange="x")
    await ch.unbind("q", "x", "k", a=2)
    await ch.put("k", "two", exchange="x")
    return await ch.drain()


@scenario
async def an_exchange_goes_with_its_last_binding(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange(auto_delete=True)
    before = await ch.refused(ch.exchange(passive=True))
    await ch.bind("q", "x", "1")
    await ch.bind("q", "x", "2")
    await ch.unbind("q", "x", "1")
    between = await ch.refused(ch.exchange(passive=True))
    await ch.unbind("q", "x", "2")
    return [before, between, await ch.refused(ch.exchange(passive=True))]


@scenario
async def exchanges_go_one_after_the_other(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange("x", auto_delete=True)
    await ch.exchange("y", auto_delete=True)
    await ch.join("y", "x")
    await ch.bind("q", "y")
    await ch.delete("q")
    return [
        await ch.refused(ch.exchange("y", passive=True)),
        await ch.refused(ch.exchange("x", passive=True)),
    ]


@scenario
async def a_queue_goes_with_its_last_consumer(ch: Channel) -> Any:
    await ch.queue(auto_delete=True)
    await ch.put("q", "one")
    before = await ch.counts()
    await ch.consume(tag="a")
    await ch.consume(tag="b")
    await ch.cancel("a")
    between = await ch.counts()
    await ch.cancel("b")
    return [before, between, await ch.gone()]


@scenario
async def a_queue_goes_with_the_channel_of_its_last_consumer(ch: Channel) -> Any:
    other = await ch.another()
    await ch.queue(auto_delete=True)
    await other.consume()
    await other.leave()
    return await ch.gone()


@scenario
async def an_exclusive_queue_belongs_to_its_connection(ch: Channel) -> Any:
    other = await ch.dial()
    await other.queue("mine", exclusive=True)
    found = [
        await ch.refused(ch.queue("mine", passive=True)),
        await ch.refused(ch.queue("mine")),
        await ch.refused(ch.consume("mine")),
        await ch.refused(ch.get("mine")),
        await ch.refused(ch.purge("mine")),
        await ch.refused(ch.delete("mine")),
        await ch.refused(ch.bind("mine", "amq.direct", "k")),
        await ch.put("mine", "one"),
        await other.drain("mine"),
    ]
    await other.hang_up()
    return [*found, await ch.gone("mine")]


@scenario
async def a_server_makes_up_a_name(ch: Channel) -> Any:
    name, *counts = await ch.queue("", exclusive=True)
    await ch.put(name, "one")
    return [name, counts, await ch.drain(name), await ch.drain("")]


@scenario
async def the_empty_name_is_the_queue_declared_last(ch: Channel) -> Any:
    await ch.queue("p")
    await ch.queue("q")
    await ch.bind("", "amq.direct", ch.name("key"))
    await ch.bind("", "amq.direct", "")
    other = await ch.another()
    found = [
        await ch.put(ch.name("key"), "one", exchange="amq.direct"),
        await ch.put("q", "two", exchange="amq.direct"),
        await ch.put(ch.name("q"), "three", exchange="amq.direct"),
        await ch.drain(""),
        await ch.refused(other.get("")),
    ]
    await ch.unbind("q", "amq.direct", "")
    return found


@scenario
async def quorum_queues_want_to_last(ch: Channel) -> Any:
    quorum = {"queue_type": "quorum"}
    return [
        await ch.refused(ch.queue(durable=False, **quorum)),
        await ch.refused(ch.queue(durable=True, auto_delete=True, **quorum)),
        await ch.refused(ch.queue(durable=True, exclusive=True, **quorum)),
        await ch.refused(ch.queue(max_priority=3, **quorum)),
        await ch.refused(ch.queue("", **quorum)),
    ]


@scenario
async def a_quorum_queue_is_purged_and_deleted(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum")
    await ch.put("q", "one", "two", "three")
    await ch.get()
    counts = await ch.ready(2)
    purged = await ch.purge()
    refused = await ch.refused(ch.delete(unused=True))
    await ch.put("q", "four")
    return [counts, purged, refused, await ch.ready(2), await ch.drain()]


@scenario
async def arguments_are_checked(ch: Channel) -> Any:
    wrong: list[dict[str, Any]] = [
        {"message_ttl": -1},
        {"message_ttl": "100"},
        {"expires": 0},
        {"max_length": -1},
        {"max_length_bytes": "1"},
        {"max_priority": 256},
        {"overflow": "drop-tail"},
        {"dead_letter_exchange": 3},
        {"dead_letter_routing_key": "k"},
        {"queue_type": "fast"},
        {"single_active_consumer": 1},
        {"delivery_limit": 3},
        {"queue_mode": "lazy"},
        {"unheard_of": 1},
    ]
    return [await ch.refused(ch.queue(f"q{n}", **each)) for n, each in enumerate(wrong)]


@scenario
async def nothing_as_an_argument_is_something(ch: Channel) -> Any:
    await ch.queue()
    return await ch.refused(ch.queue(max_length=None))


@scenario
async def the_first_argument_of_its_type_is_complained_about(ch: Channel) -> Any:
    other = {"message_ttl": 1, "max_length": 2, "expires": 9_000}
    await ch.queue("p")
    await ch.queue("q", queue_type="quorum")
    return [
        await ch.refused(ch.queue("p", **other)),
        await ch.refused(ch.queue("q", queue_type="quorum", delivery_limit=1, **other)),
        await ch.refused(
            ch.queue("q", queue_type="quorum", delivery_limit=1, message_ttl=1)
        ),
    ]
