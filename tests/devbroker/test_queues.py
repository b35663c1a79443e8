"""Queues: order, limits, time, death."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiormq
import pytest

from rmqarq.devbroker import Depth
from tests.devbroker.kit import Received, bodies, get, headers, put, until

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel

    from rmqarq.devbroker import Broker
    from tests.devbroker.conftest import Opened

QUORUM = {"x-queue-type": "quorum"}


async def declare(channel: AbstractChannel, name: str, **arguments: Any) -> None:
    """Declare a durable queue: arguments as `message_ttl` for `x-message-ttl`."""
    given = {f"x-{each.replace('_', '-')}": arguments[each] for each in arguments}
    await channel.queue_declare(name, durable=True, arguments=given)


async def dead_end(channel: AbstractChannel, name: str = "dead") -> dict[str, str]:
    """Declare a queue for the dead; give the arguments that lead there."""
    await declare(channel, name)
    return {"dead_letter_exchange": "", "dead_letter_routing_key": name}


async def test_two_full_queues_swap_all_that_they_hold(
    dev: Broker, channel: AbstractChannel
) -> None:
    for name, other in ("ab", "ba"):
        arguments = {"dead_letter_exchange": "", "dead_letter_routing_key": other}
        await declare(channel, name, max_length=500, **arguments)
        for _ in range(500):
            dev.put(name, b"\x00\x3c" + bytes(12), name.encode())
    await put(channel, "a", "new")
    assert [each.body for each in dev.peek("a")] == [b"b"] * 500
    assert [each.body for each in dev.peek("b")] == [*[b"a"] * 499, b"new"]


# --- time ---


async def test_an_hour_passes_at_once(dev: Broker, channel: AbstractChannel) -> None:
    dead = await dead_end(channel)
    await declare(channel, "rung", message_ttl=3_600_000, **dead)
    await put(channel, "rung", "one")
    await dev.advance(3599)
    assert await bodies(channel, "dead") == []
    await dev.advance(1)
    assert await bodies(channel, "dead") == ["one"]


async def test_only_the_head_of_a_queue_expires(
    dev: Broker, channel: AbstractChannel
) -> None:
    await declare(channel, "q", **await dead_end(channel))
    await put(channel, "q", "long", expiration="6000")
    await put(channel, "q", "short", expiration="500")
    await dev.advance(1)
    assert dev.queues()["q"].ready == 2
    await dev.advance(5)
    assert await bodies(channel, "dead") == ["long", "short"]


async def test_the_shorter_of_two_lives_counts(
    dev: Broker, channel: AbstractChannel
) -> None:
    await declare(channel, "q", message_ttl=5000)
    await put(channel, "q", "one", expiration="1000")
    await dev.advance(1)
    assert dev.queues()["q"].ready == 0


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_message_that_must_not_wait_reaches_who_waits_for_it(
    dev: Broker, channel: AbstractChannel, kind: str
) -> None:
    await declare(channel, "q", message_ttl=0, queue_type=kind)
    await put(channel, "q", "nobody waits")
    await dev.advance(0.001)
    received = Received()
    await channel.basic_consume("q", received, no_ack=True)
    await put(channel, "q", "somebody waits")
    assert await received.wait(1) == ["somebody waits"]


async def test_an_unused_queue_is_deleted_and_use_renews_it(
    dev: Broker, channel: AbstractChannel
) -> None:
    await declare(channel, "q", expires=1000)
    for _ in range(3):
        await dev.advance(0.9)
        await channel.queue_declare("q", passive=True)
    await dev.advance(0.9)
    await get(channel, "q")
    await dev.advance(0.9)
    await channel.basic_consume("q", Received(), consumer_tag="c")
    await dev.advance(3600)
    assert "q" in dev.queues()
    await channel.basic_cancel("c")
    await dev.advance(0.9)
    assert "q" in dev.queues()
    await dev.advance(0.2)
    assert "q" not in dev.queues()


async def test_a_requeued_message_keeps_the_time_it_has_left(
    dev: Broker, channel: AbstractChannel
) -> None:
    await declare(channel, "q", message_ttl=1000)
    await put(channel, "q", "one")
    message = await get(channel, "q")
    assert message is not None
    await dev.advance(5)
    assert message.delivery.delivery_tag is not None
    await channel.basic_nack(message.delivery.delivery_tag)
    assert await bodies(channel, "q") == []


# --- order ---


async def test_a_requeued_message_takes_its_old_place(channel: AbstractChannel) -> None:
    await declare(channel, "q")
    await put(channel, "q", "1", "2", "3", "4")
    for _ in range(3):
        await get(channel, "q")
    await channel.basic_nack(2)
    await channel.basic_nack(3)
    await channel.basic_nack(1)
    again = await get(channel, "q")
    assert again is not None
    assert (again.body, again.delivery.redelivered) == (b"1", True)
    assert await bodies(channel, "q") == ["2", "3", "4"]


async def test_higher_priorities_leave_first(channel: AbstractChannel) -> None:
    await declare(channel, "q", max_priority=5)
    for body, priority in (("low", 1), ("none", None), ("high", 5), ("higher", 200)):
        await put(channel, "q", body, priority=priority)
    assert await bodies(channel, "q") == ["high", "higher", "low", "none"]


@pytest.mark.parametrize(("limit", "order"), [(5, ["1", "2"]), (None, ["2", "1"])])
async def test_a_quorum_queue_puts_back_in_front_only_when_it_counts(
    channel: AbstractChannel, limit: int | None, order: list[str]
) -> None:
    counted = {} if limit is None else {"delivery_limit": limit}
    await declare(channel, "q", queue_type="quorum", **counted)
    await put(channel, "q", "1", "2")
    await get(channel, "q")
    await channel.basic_nack(1)
    assert await bodies(channel, "q") == order


async def test_a_quorum_queue_counts_deliveries_and_lets_go_at_the_limit(
    channel: AbstractChannel,
) -> None:
    dead = await dead_end(channel)
    await declare(channel, "q", queue_type="quorum", delivery_limit=2, **dead)
    await put(channel, "q", "one", headers={"mine": 1}, content_type="text/plain")
    for count in range(3):
        message = await get(channel, "q")
        assert message is not None
        found = message.header.properties.headers
        assert found == {"mine": 1, "x-delivery-count": count}
        assert message.delivery.redelivered is (count > 0)
        await channel.basic_nack(message.delivery.delivery_tag or 0)
    assert await bodies(channel, "q") == []
    death = (await headers(channel, "dead"))["x-death"][0]
    assert death["reason"] == "delivery_limit"


# --- limits ---


async def test_the_oldest_is_dropped_when_there_are_too_many(
    channel: AbstractChannel,
) -> None:
    await declare(channel, "q", max_length=2, **await dead_end(channel))
    await put(channel, "q", "1", "2", "3")
    assert await bodies(channel, "q") == ["2", "3"]
    assert (await headers(channel, "dead"))["x-death"][0]["reason"] == "maxlen"


async def test_bytes_are_limited_too(channel: AbstractChannel) -> None:
    await declare(channel, "q", max_length_bytes=10)
    await put(channel, "q", "12345", "67890", "x")
    assert await bodies(channel, "q") == ["67890", "x"]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
async def test_a_full_queue_rejects_what_is_published(
    channel: AbstractChannel, overflow: str
) -> None:
    dead = await dead_end(channel)
    await declare(channel, "q", max_length=1, overflow=overflow, **dead)
    await put(channel, "q", "1")
    with pytest.raises(aiormq.exceptions.DeliveryError):
        await put(channel, "q", "2")
    assert await bodies(channel, "q") == ["1"]
    letters = ["2"] if overflow == "reject-publish-dlx" else []
    assert await bodies(channel, "dead") == letters


async def test_a_full_quorum_queue_rejects_one_too_late_and_opens_below_its_limit(
    channel: AbstractChannel,
) -> None:
    limits = {"max_length": 5, "overflow": "reject-publish"}
    await declare(channel, "q", queue_type="quorum", **limits)
    await put(channel, "q", *"123456")
    with pytest.raises(aiormq.exceptions.DeliveryError):
        await put(channel, "q", "7")
    await get(channel, "q", no_ack=True)
    with pytest.raises(aiormq.exceptions.DeliveryError):
        await put(channel, "q", "8")
    await get(channel, "q", no_ack=True)
    await put(channel, "q", "9")


# --- death ---


async def test_a_death_is_written_down(channel: AbstractChannel, dev: Broker) -> None:
    await channel.exchange_declare("x")
    await declare(channel, "q", message_ttl=9000, **await dead_end(channel))
    await channel.queue_bind("q", "x", "key")
    await put(
        channel,
        "key",
        "one",
        exchange="x",
        headers={"mine": 1, "CC": ["copy"]},
        expiration="1000",
    )
    await dev.advance(1)
    letter = await get(channel, "dead")
    assert letter is not None
    assert letter.header.properties.expiration is None
    found = letter.header.properties.headers
    assert found is not None
    deaths: Any = found.pop("x-death")
    (death,) = deaths
    assert abs(death.pop("time").timestamp() - dev.clock.date()) < 5
    assert death == {
        "count": 1,
        "reason": "expired",
        "queue": "q",
        "exchange": "x",
        "routing-keys": ["key", "copy"],
        "original-expiration": "1000",
    }
    assert found == {
        "mine": 1,
        "x-first-death-reason": "expired",
        "x-first-death-queue": "q",
        "x-first-death-exchange": "x",
    }


async def test_deaths_of_a_kind_are_counted_and_the_newest_stands_first(
    channel: AbstractChannel,
) -> None:
    await declare(channel, "a", dead_letter_exchange="", dead_letter_routing_key="b")
    await declare(channel, "b", dead_letter_exchange="", dead_letter_routing_key="a")
    await put(channel, "a", "one")
    for queue in "abab":
        message = await get(channel, queue)
        assert message is not None
        await channel.basic_reject(message.delivery.delivery_tag or 0, requeue=False)
    deaths = (await headers(channel, "a"))["x-death"]
    assert [(each["queue"], each["count"]) for each in deaths] == [("b", 2), ("a", 2)]


async def test_a_circle_without_a_rejection_ends_the_message(
    dev: Broker, channel: AbstractChannel
) -> None:
    await declare(
        channel,
        "q",
        message_ttl=1000,
        dead_letter_exchange="",
        dead_letter_routing_key="q",
    )
    await put(channel, "q", "one")
    await dev.advance(1)
    assert dev.queues()["q"].ready == 0


async def test_all_keys_are_kept_unless_there_is_one_for_the_dead(
    dev: Broker, channel: AbstractChannel
) -> None:
    """The delay ladder stands on this."""
    await channel.exchange_declare("low", exchange_type="direct")
    await channel.exchange_declare(
        "high", exchange_type="direct", arguments={"alternate-exchange": "low"}
    )
    await declare(channel, "rung", message_ttl=1000, dead_letter_exchange="high")
    await declare(channel, "rung2", message_ttl=1000, dead_letter_exchange="low")
    await declare(channel, "work")
    await channel.queue_bind("rung", "low", "rung")
    await channel.queue_bind("rung2", "high", "rung2")
    await channel.queue_bind("work", "low", "work")
    rungs = {"CC": ["rung2", "rung"]}
    await put(channel, "work", "one", exchange="high", headers=rungs)
    assert dev.queues()["rung2"].ready == 1
    assert dev.queues()["work"].ready == 0
    await dev.advance(1)
    assert (dev.queues()["rung"].ready, dev.queues()["work"].ready) == (1, 1)


async def test_dead_letters_without_a_queue_are_kept_and_tried_again(
    dev: Broker, channel: AbstractChannel
) -> None:
    await declare(
        channel,
        "q",
        queue_type="quorum",
        message_ttl=1000,
        overflow="reject-publish",
        dead_letter_exchange="",
        dead_letter_routing_key="later",
        dead_letter_strategy="at-least-once",
    )
    await put(channel, "q", *(str(number) for number in range(40)))
    await dev.advance(1)
    assert dev.queues()["q"].ready == 0
    await declare(channel, "later")
    assert await bodies(channel, "later") == []
    await dev.advance(180)
    assert len(await bodies(channel, "later")) == 40


# --- whose it is, and when it ends ---


async def test_an_exclusive_queue_is_its_connections_alone(
    dev: Broker, opened: Opened, channel: AbstractChannel
) -> None:
    async with opened() as owner:
        await owner.queue_declare("mine", exclusive=True)
        with pytest.raises(aiormq.exceptions.ChannelLockedResource):
            await channel.queue_declare("mine", passive=True)
    await until(lambda: "mine" not in dev.queues())


async def test_an_auto_delete_queue_goes_with_its_last_consumer(
    dev: Broker, channel: AbstractChannel
) -> None:
    await channel.queue_declare("q", auto_delete=True)
    for tag in "ab":
        await channel.basic_consume("q", Received(), consumer_tag=tag)
    await channel.basic_cancel("a")
    assert dev.queues()["q"] == Depth(0, 0, 1)
    await channel.basic_cancel("b")
    assert "q" not in dev.queues()


async def test_an_auto_delete_exchange_goes_with_its_last_binding(
    channel: AbstractChannel,
) -> None:
    await channel.exchange_declare("x", auto_delete=True)
    await declare(channel, "q")
    await channel.queue_bind("q", "x", "k")
    await channel.queue_delete("q")
    with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
        await channel.exchange_declare("x", passive=True)


async def test_the_broker_names_a_queue_and_knows_which_was_the_last(
    channel: AbstractChannel,
) -> None:
    declared = await channel.queue_declare("")
    assert declared.queue is not None
    assert declared.queue.startswith("amq.gen-")
    await channel.queue_bind("", "amq.fanout")
    await put(channel, "", "one", exchange="amq.fanout")
    assert await bodies(channel, "") == ["one"]


async def test_consumers_hear_that_their_queue_is_gone(
    opened: Opened, channel: AbstractChannel
) -> None:
    await declare(channel, "q")
    async with opened() as consuming:
        await consuming.basic_consume("q", Received(), consumer_tag="c")
        assert "c" in consuming.consumers
        await channel.queue_delete("q")
        await until(lambda: "c" not in consuming.consumers)


async def test_a_stream_is_refused(channel: AbstractChannel) -> None:
    with pytest.raises(aiormq.exceptions.ConnectionNotImplemented, match="streams"):
        await declare(channel, "s", queue_type="stream")
