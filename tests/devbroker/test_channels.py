"""Channels: routing, confirms, returns, limits, turns, transactions, replies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiormq
import pytest
from pamqp import commands

from rmqarq.devbroker import Depth
from tests.devbroker.kit import Properties, Received, bodies, get, headers, put, until
from tests.devbroker.refusals import publish, queue

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel

    from rmqarq.devbroker import Broker
    from tests.devbroker.conftest import Dialled, Opened


# --- the way of a message ---


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "", "a.*"]),
        ("a.*", ["a.b", "a."], ["a", "a.b.c", ""]),
        ("*", ["a"], ["", "a.b"]),
        ("#", ["", "a", "a.b.c"], []),
        ("a.#", ["a", "a.b", "a.b.c"], ["b", "b.a", ""]),
        ("#.z", ["z", "a.z", "a.b.z"], ["z.a", ""]),
        ("a.#.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z"]),
        ("*.#", ["a", "a.b"], [""]),
        ("#.*.#", ["a", "a.b"], [""]),
        ("", [""], ["a"]),
    ],
)
async def test_a_topic_exchange_matches_words(
    channel: AbstractChannel, pattern: str, matching: list[str], others: list[str]
) -> None:
    await channel.queue_declare("q")
    await channel.queue_bind("q", "amq.topic", pattern)
    for key in (*matching, *others):
        await put(channel, key, key or "empty", exchange="amq.topic")
    assert await bodies(channel, "q") == [key or "empty" for key in matching]


@pytest.mark.parametrize(
    ("arguments", "given", "matches"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": 1, "b": 2, "x-match": "any"}, {"b": 2}, True),
        ({"a": 1, "x-match": "any"}, {"a": 2}, False),
        ({"a": None}, {"a": "anything"}, True),
        ({"x-other": 1}, {}, True),
        ({"x-other": 1, "x-match": "all-with-x"}, {}, False),
        ({"x-match": "any"}, {"a": 1}, False),
    ],
)
async def test_a_headers_exchange_matches_headers(
    channel: AbstractChannel,
    arguments: dict[str, Any],
    given: dict[str, Any],
    matches: bool,
) -> None:
    await channel.queue_declare("q")
    await channel.queue_bind("q", "amq.headers", arguments=arguments)
    await put(channel, "", "one", exchange="amq.headers", headers=given)
    assert bool(await bodies(channel, "q")) is matches


async def test_exchanges_lead_to_exchanges_and_each_queue_gets_it_once(
    channel: AbstractChannel,
) -> None:
    for name in "ab":
        await channel.exchange_declare(name, exchange_type="fanout")
    await channel.queue_declare("q")
    await channel.exchange_bind("b", "a")
    await channel.exchange_bind("a", "b")
    await channel.queue_bind("q", "a")
    await channel.queue_bind("q", "b")
    await put(channel, "", "one", exchange="a")
    assert await bodies(channel, "q") == ["one"]
    await channel.exchange_unbind("b", "a")
    await channel.queue_unbind("q", "a")
    await put(channel, "", "two", exchange="a")
    assert await bodies(channel, "q") == []


async def test_an_alternate_exchange_gets_what_found_no_way(
    channel: AbstractChannel,
) -> None:
    await channel.exchange_declare("x", arguments={"alternate-exchange": "amq.fanout"})
    await channel.queue_declare("lost")
    await channel.queue_bind("lost", "amq.fanout")
    await put(channel, "nowhere", "one", exchange="x")
    assert await bodies(channel, "lost") == ["one"]


async def test_carbon_copies_go_to_more_queues_and_blind_ones_stay_unseen(
    channel: AbstractChannel,
) -> None:
    for name in "abc":
        await channel.queue_declare(name)
    given = {"CC": ["b"], "BCC": ["c"], "mine": 1.5}
    await put(channel, "a", "one", headers=given)
    for name in "abc":
        assert await headers(channel, name) == {"CC": ["b"], "mine": 1.5}


# --- what the publisher hears ---


async def test_many_messages_are_confirmed_at_once(dialled: Dialled) -> None:
    raw = await dialled()
    await raw.open()
    for frame in (commands.Channel.Open(), queue(), commands.Confirm.Select()):
        raw.send(frame)
        await raw.receive()
    for part in [*publish(key="q")] * 3:
        raw.send(part)
    answer = await raw.receive()
    assert isinstance(answer, commands.Basic.Ack)
    assert (answer.delivery_tag, answer.multiple) == (3, True)


async def test_confirms_come_before_the_answer_to_what_follows(
    dialled: Dialled,
) -> None:
    raw = await dialled()
    await raw.open()
    for frame in (
        commands.Channel.Open(),
        queue(x_max_length=1, x_overflow="reject-publish"),
        commands.Confirm.Select(),
    ):
        raw.send(frame)
        await raw.receive()
    for part in [*publish(key="q")] * 3:
        raw.send(part)
    raw.send(queue(passive=True))
    ack, nack, declared = [await raw.receive() for _ in range(3)]
    assert isinstance(ack, commands.Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (1, False)
    assert isinstance(nack, commands.Basic.Nack)
    assert (nack.delivery_tag, nack.multiple) == (3, True)
    assert declared.message_count == 1


async def test_a_message_is_returned_before_it_is_confirmed(dialled: Dialled) -> None:
    raw = await dialled()
    await raw.open()
    for frame in (commands.Channel.Open(), commands.Confirm.Select()):
        raw.send(frame)
        await raw.receive()
    method, header, body = publish(key="nowhere", message_id="m")
    method.mandatory = True
    for part in (method, header, body):
        raw.send(part)
    returned, back, content, ack = [await raw.receive() for _ in range(4)]
    assert isinstance(returned, commands.Basic.Return)
    assert (returned.reply_code, returned.reply_text) == (312, "NO_ROUTE")
    assert returned.routing_key == "nowhere"
    assert back.properties.message_id == "m"
    assert content.value == b"hi"
    assert isinstance(ack, commands.Basic.Ack)


# --- who gets how many ---


async def test_each_consumer_holds_no_more_than_its_limit(
    channel: AbstractChannel,
) -> None:
    await channel.queue_declare("q")
    await channel.basic_qos(prefetch_count=2)
    first, second = Received(), Received()
    await channel.basic_consume("q", first)
    await channel.basic_consume("q", second)
    await put(channel, "q", *"123456")
    assert await first.wait(2) == ["1", "3"]
    assert await second.wait(2) == ["2", "4"]
    await channel.basic_ack(first.messages[0].delivery.delivery_tag or 0)
    assert await first.wait(3) == ["1", "3", "5"]


async def test_a_common_limit_counts_all_consumers(channel: AbstractChannel) -> None:
    for name in "ab":
        await channel.queue_declare(name)
        await put(channel, name, "1", "2", "3")
    await channel.basic_qos(prefetch_count=3, global_=True)
    received = Received()
    for name in "ab":
        await channel.basic_consume(name, received)
    await received.wait(3)
    await channel.basic_ack(0, multiple=True)
    await received.wait(6)


async def test_consumers_of_a_higher_priority_come_first(
    channel: AbstractChannel,
) -> None:
    await channel.queue_declare("q")
    await channel.basic_qos(prefetch_count=2)
    low, high = Received(), Received()
    await channel.basic_consume("q", low)
    await channel.basic_consume("q", high, arguments={"x-priority": 5})
    await put(channel, "q", "1", "2", "3")
    assert await high.wait(2) == ["1", "2"]
    assert await low.wait(1) == ["3"]


async def test_one_consumer_is_active_until_it_is_gone(
    channel: AbstractChannel,
) -> None:
    await channel.queue_declare("q", arguments={"x-single-active-consumer": True})
    first, second = Received(), Received()
    await channel.basic_consume("q", first, consumer_tag="first", no_ack=True)
    await channel.basic_consume("q", second, no_ack=True)
    await put(channel, "q", "1", "2")
    assert await first.wait(2) == ["1", "2"]
    await channel.basic_cancel("first")
    await put(channel, "q", "3")
    assert await second.wait(1) == ["3"]


async def test_what_a_lost_client_held_goes_to_the_others_in_order(
    dev: Broker, dialled: Dialled, channel: AbstractChannel
) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", *"12345")
    raw = await dialled()
    await raw.open()
    for frame in (
        commands.Channel.Open(),
        commands.Basic.Qos(prefetch_count=3),
        commands.Basic.Consume(queue="q"),
    ):
        raw.send(frame)
        await raw.receive()
    await until(lambda: dev.queues()["q"] == Depth(2, 3, 1))
    raw.writer.transport.abort()
    await until(lambda: dev.queues()["q"] == Depth(5, 0, 0))
    assert await bodies(channel, "q") == [*"12345"]


async def test_a_client_that_does_not_read_gets_no_more(
    dev: Broker, dialled: Dialled, channel: AbstractChannel
) -> None:
    await channel.queue_declare("q")
    for _ in range(40):
        await put(channel, "q", "x" * 1_000_000)
    raw = await dialled()
    await raw.open()
    raw.send(commands.Channel.Open())
    await raw.receive()
    raw.send(commands.Basic.Consume(queue="q"))
    await until(lambda: dev.queues()["q"].unacked)
    await asyncio.sleep(0.05)
    assert dev.queues()["q"].ready > 20
    received = 0
    async with asyncio.timeout(20):
        while received < 40:
            received += isinstance(await raw.receive(), commands.Basic.Deliver)
    assert dev.queues()["q"].ready == 0


# --- transactions ---


async def test_a_transaction_happens_when_it_is_committed(
    opened: Opened, channel: AbstractChannel, dev: Broker
) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", "before")
    async with opened(publisher_confirms=False) as other:
        await other.tx_select()
        await get(other, "q")
        await other.basic_ack(1)
        await other.basic_publish(b"rolled back", routing_key="q")
        await other.tx_rollback()
        await other.basic_ack(1)
        await other.basic_publish(b"committed", routing_key="q")
        assert dev.queues()["q"] == Depth(0, 1, 0)
        await other.tx_commit()
        assert dev.queues()["q"] == Depth(1, 0, 0)
    assert await bodies(channel, "q") == ["committed"]


async def test_what_is_not_committed_is_given_back(
    opened: Opened, channel: AbstractChannel, dev: Broker
) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", "one")
    async with opened(publisher_confirms=False) as other:
        await other.tx_select()
        await get(other, "q")
        await other.basic_ack(1)
    await until(lambda: dev.queues()["q"] == Depth(1, 0, 0))


# --- replies ---


async def test_a_direct_reply_finds_who_asked(
    opened: Opened, channel: AbstractChannel
) -> None:
    await channel.queue_declare("rpc")
    answers = Received()
    await channel.basic_consume("amq.rabbitmq.reply-to", answers, no_ack=True)
    await put(channel, "rpc", "ask", reply_to="amq.rabbitmq.reply-to")
    async with opened() as serving:
        question = await get(serving, "rpc")
        assert question is not None
        where = question.header.properties.reply_to
        assert where is not None
        assert where.startswith("amq.rabbitmq.reply-to.")
        found = await serving.queue_declare(where, passive=True)
        assert (found.message_count, found.consumer_count) == (0, 1)
        await serving.basic_publish(
            b"answer",
            routing_key=where,
            properties=Properties(correlation_id="1"),
            mandatory=False,
        )
    assert await answers.wait(1) == ["answer"]
    assert answers.messages[0].header.properties.correlation_id == "1"


# --- ends ---


async def test_a_refused_channel_gives_back_what_it_held(
    dev: Broker, opened: Opened, channel: AbstractChannel
) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", "one")
    async with opened() as other:
        await get(other, "q")
        with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
            await other.queue_declare("nowhere", passive=True)
        assert dev.queues()["q"] == Depth(1, 0, 0)


async def test_recover_puts_everything_back(channel: AbstractChannel) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", "1", "2")
    await get(channel, "q")
    await get(channel, "q")
    await channel.rpc(commands.Basic.Recover(requeue=True))
    assert await bodies(channel, "q") == ["1", "2"]


async def test_purge_and_delete_tell_how_many_there_were(
    channel: AbstractChannel,
) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", "1", "2")
    assert (await channel.queue_purge("q")).message_count == 2
    await put(channel, "q", "3")
    assert (await channel.queue_delete("q")).message_count == 1
    assert (await channel.queue_delete("q")).message_count == 0
