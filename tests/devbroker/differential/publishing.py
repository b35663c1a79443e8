"""Scenarios: confirms and returns, and what becomes of properties."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pamqp import commands
from pamqp.body import ContentBody

from tests.devbroker.differential.client import message
from tests.devbroker.differential.scenarios import scenario

if TYPE_CHECKING:
    from tests.devbroker.differential.lab import Channel


@scenario
async def every_message_is_confirmed_once(ch: Channel) -> Any:
    await ch.queue()
    return [await ch.burst("q", *"123456789"), await ch.drain()]


@scenario
async def what_goes_nowhere_is_confirmed_too(ch: Channel) -> Any:
    return [await ch.put("nil", "one", "two"), ch.story()]


@scenario
async def a_return_comes_before_its_confirm(ch: Channel) -> Any:
    await ch.put("nil", "one", "two", mandatory=True)
    return [ch.story(), ch.returns()]


@scenario
async def a_burst_of_returns_keeps_its_order(ch: Channel) -> Any:
    await ch.burst("nil", *"123456", mandatory=True)
    told = ch.story()
    return [[each for each in told if each.startswith("return")], sorted(told)]


@scenario
async def returns_and_confirms_take_turns(ch: Channel) -> Any:
    await ch.queue()
    for key in ("q", "nil", "q", "nil"):
        await ch.put(key, key, mandatory=True)
    return ch.story()


@scenario
async def a_rejection_is_told_for_its_message_alone(ch: Channel) -> Any:
    await ch.queue(max_length=2, overflow="reject-publish")
    told = await ch.put("q", "one", "two", "three")
    await ch.get(no_ack=True)
    return [told, await ch.put("q", "four", "five"), await ch.drain()]


@scenario
async def one_of_two_queues_rejects(ch: Channel) -> Any:
    await ch.exchange("x", "fanout")
    await ch.queue("full", max_length=0, overflow="reject-publish")
    await ch.queue("q")
    await ch.bind("full", "x")
    await ch.bind("q", "x")
    told = await ch.put("", "one", exchange="x")
    return [told, await ch.drain("full"), await ch.drain("q")]


@scenario
async def properties_arrive_as_they_were(ch: Channel) -> Any:
    await ch.queue()
    await ch.put(
        "q",
        "one",
        content_type="text/plain",
        content_encoding="utf-8",
        headers={
            "text": "é",
            "list": [1, "a", {"b": None}],
            "no": False,
            "n": -(2**40),
        },
        delivery_mode=2,
        priority=9,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
        message_type="t",
        user_id="guest",
        app_id="a",
        cluster_id="",
    )
    return await ch.get()


@scenario
async def an_empty_body_is_a_body(ch: Channel) -> Any:
    await ch.queue()
    return [await ch.put("q", ""), await ch.get()]


@scenario
async def a_large_body_arrives_whole(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "0123456789" * 30_000)
    got = await ch.take()
    return got is not None and [len(got.body), got.body == b"0123456789" * 30_000]


@scenario
async def a_false_name_is_refused(ch: Channel) -> Any:
    return [
        await ch.refused(ch.put("nil", "one", user_id="somebody")),
        await ch.refused(ch.put("nil", "one", expiration="soon")),
        await ch.refused(ch.put("nil", "one", expiration="-1")),
        await ch.refused(ch.put("nil", "one", expiration="")),
        await ch.refused(ch.put("nil", "one", expiration="0")),
    ]


@scenario
async def a_reply_goes_straight_back(ch: Channel) -> Any:
    await ch.queue("server")
    tag = await ch.consume("amq.rabbitmq.reply-to", "", no_ack=True)
    asked = await ch.put("server", "question", reply_to="amq.rabbitmq.reply-to")
    got = await ch.take("server", no_ack=True)
    assert got is not None
    other = await ch.another()
    address = got.properties.reply_to
    told = await other.put(address, "answer", mandatory=True, correlation_id="c")
    answers = [each.split(":")[1] for each in await ch.delivered(1)]
    await ch.cancel(tag)
    late = await other.put(address, "late", mandatory=True)
    return [asked, address, told, answers, late, other.returns()]


@scenario
async def replies_have_their_rules(ch: Channel) -> Any:
    name = "amq.rabbitmq.reply-to"
    twice = await ch.another()
    await twice.consume(name, "a", no_ack=True)
    return [
        await ch.refused(ch.put("nil", "one", reply_to=name)),
        await ch.refused(ch.consume(name, "c")),
        await ch.refused(twice.consume(name, "b", no_ack=True)),
        await ch.refused(ch.queue(f"{name}.nobody", passive=True)),
    ]


@scenario
async def a_transaction_is_done_or_undone(ch: Channel) -> Any:
    await ch.queue()
    raw = await ch.raw.connection.channel()
    other = type(ch)(ch.lab, raw)
    await other.call(commands.Tx.Select())
    other.publish("q", "one")
    await other.call(commands.Tx.Rollback())
    other.publish("q", "two")
    before = await ch.counts()
    await other.call(commands.Tx.Commit())
    after = await ch.ready(1)
    await other.take()
    raw.send(commands.Basic.Ack(1))
    await other.call(commands.Tx.Rollback())
    raw.send(commands.Basic.Nack(1, False, True))
    await other.call(commands.Tx.Commit())
    found = [before, after, await ch.ready(1), await ch.drain()]
    await other.leave()
    return found


async def in_transaction(ch: Channel) -> Channel:
    """Open another channel, with a transaction."""
    other = type(ch)(ch.lab, await ch.raw.connection.channel())
    await other.call(commands.Tx.Select())
    return other


@scenario
async def a_transaction_is_routed_before_it_is_committed(ch: Channel) -> Any:
    await ch.exchange("x", "fanout")
    for name in ("early", "late"):
        await ch.queue(name)
    await ch.bind("early")
    other = await in_transaction(ch)
    other.publish("", "one", exchange="x")
    await other.queue("early", passive=True)
    await ch.unbind("early")
    await ch.bind("late")
    await ch.delete_exchange("x")
    await other.call(commands.Tx.Commit())
    return [await ch.ready(1, "early"), await ch.counts("late")]


@scenario
async def a_transaction_goes_to_the_queues_that_are_left(ch: Channel) -> Any:
    for name in ("gone", "anew"):
        await ch.queue(name)
    other = await in_transaction(ch)
    for name in ("gone", "anew"):
        other.publish(name, name, mandatory=True)
    await other.queue("gone", passive=True)
    for name in ("gone", "anew"):
        await ch.delete(name)
    await ch.queue("anew")
    await other.call(commands.Tx.Commit())
    return [other.returns(), await ch.ready(1, "anew")]


@scenario
async def a_reply_waits_for_no_commit(ch: Channel) -> Any:
    await ch.queue("server")
    await ch.consume("amq.rabbitmq.reply-to", "", no_ack=True)
    await ch.put("server", "question", reply_to="amq.rabbitmq.reply-to")
    got = await ch.take("server", no_ack=True)
    assert got is not None
    other = await in_transaction(ch)
    other.raw.send(*message(b"answer", "", got.properties.reply_to, False))
    return [each.split(":")[1] for each in await ch.delivered(1)]


@scenario
async def a_reply_is_looked_at_before_the_user(ch: Channel) -> Any:
    both = {"user_id": "somebody", "reply_to": "amq.rabbitmq.reply-to"}
    return await ch.refused(ch.put("nil", "one", **both))


@scenario
async def a_body_longer_than_it_said_never_ends(ch: Channel) -> Any:
    await ch.queue()
    own = await ch.dial()
    method, header, _ = message(b"hi", "", ch.name("q"), False)
    own.raw.send(method, header, ContentBody(b"too long"))
    return [await own.end(own.take()), await ch.counts()]


MALFORMED = {
    "no flags": bytes(12),
    "property": bytes(12) + b"\x80\x00\x05a",
    "further bytes": bytes(12) + b"\x80\x00\x01abc",
    "table": bytes(12) + b"\x20\x00\x00\x00\x00\x03\x01a?",
    "table in a table": bytes(12)
    + b"\x20\x00\x00\x00\x00\x0a\x01aF\x00\x00\x00\x03\x01b?",
    "array": bytes(12) + b"\x20\x00\x00\x00\x00\x09\x01aA\x00\x00\x00\x02I\x00",
}


@scenario
async def what_is_malformed_goes_nowhere(ch: Channel) -> Any:
    await ch.queue()
    found: dict[str, Any] = {}
    for name, header in MALFORMED.items():
        own = await ch.dial()
        own.raw.send(commands.Basic.Publish(routing_key=ch.name("q")))
        own.raw.send_raw(2, b"\x00\x3c" + header[2:])
        found[name] = (await own.end(own.sync()))[0]
    return [found, await ch.counts()]


@scenario
async def a_method_that_is_malformed_is_not_understood(ch: Channel) -> Any:
    found: list[Any] = []
    declare, publish = b"\x00\x32\x00\x0a\x00\x00", b"\x00\x3c\x00\x28\x00\x00"
    no_text = b"\x02\xff\xfe\x01" + bytes(4)
    for method in (b"\x00", declare + b"\x05a", publish + b"\x05a", declare + no_text):
        own = await ch.dial()
        own.raw.send_raw(1, method)
        found.append(await own.end(own.sync()))
    return found


@scenario
async def confirms_and_transactions_do_not_mix(ch: Channel) -> Any:
    return [
        await ch.refused(ch.call(commands.Tx.Select())),
        await ch.refused(ch.call(commands.Tx.Commit())),
    ]
