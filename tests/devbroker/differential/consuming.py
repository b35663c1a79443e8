"""Scenarios: who gets a message, in which order, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.devbroker.differential.scenarios import scenario

if TYPE_CHECKING:
    from tests.devbroker.differential.lab import Channel


@scenario
async def getting_tells_what_is_left(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "one", "two")
    return [await ch.get(), await ch.get(), await ch.get(), await ch.counts()]


@scenario
async def what_is_acknowledged_is_gone(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"1234")
    for _ in range(3):
        await ch.get()
    await ch.ack(2, multiple=True)
    other = await ch.refused(ch.ack(2))
    return [other, await ch.ready(2), await ch.drain()]


@scenario
async def tags_that_nobody_gave_are_unknown(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "one")
    return [
        await ch.refused(ch.ack(1)),
        await ch.refused(ch.nack(7, multiple=True)),
        await ch.refused(ch.reject(0)),
        await ch.refused(ch.ack(0, multiple=True)),
        await ch.refused(ch.nack(0, multiple=True)),
        await ch.refused(ch.ack(0)),
    ]


@scenario
async def what_is_given_back_takes_its_old_place(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"12345")
    for _ in range(4):
        await ch.get()
    await ch.nack(3)
    await ch.reject(1, requeue=True)
    await ch.nack(4)
    await ch.put("q", "6")
    return [await ch.get(), await ch.drain()]


@scenario
async def many_are_given_back_in_order(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"12345")
    for _ in range(4):
        await ch.get()
    await ch.nack(3, multiple=True)
    return [await ch.ready(4), await ch.drain()]


@scenario
async def all_are_given_back_or_dropped(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"1234")
    await ch.get()
    await ch.get()
    await ch.nack(0, multiple=True)
    first = await ch.ready(4)
    await ch.get()
    await ch.get()
    await ch.nack(0, multiple=True, requeue=False)
    return [first, await ch.ready(2), await ch.drain()]


@scenario
async def recovering_gives_everything_back(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"123")
    await ch.get()
    await ch.get()
    await ch.recover()
    return [await ch.ready(3), await ch.get(), await ch.drain()]


@scenario
async def a_closed_channel_gives_everything_back(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"123")
    other = await ch.another()
    await other.get()
    await other.get()
    await other.leave()
    return [await ch.ready(3), await ch.drain()]


@scenario
async def consumers_take_turns(ch: Channel) -> Any:
    await ch.queue()
    for tag in "abc":
        await ch.consume(tag=tag)
    await ch.put("q", *"123456")
    return await ch.delivered(6)


@scenario
async def what_is_ready_goes_to_who_comes_first(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", *"123")
    await ch.consume(tag="a")
    await ch.delivered(3)
    await ch.consume(tag="b")
    await ch.put("q", "4", "5")
    return await ch.delivered(5)


@scenario
async def a_consumer_holds_no_more_than_it_may(ch: Channel) -> Any:
    await ch.queue()
    await ch.prefetch(2)
    await ch.consume()
    await ch.put("q", *"12345")
    first = [await ch.ready(3), await ch.delivered(2)]
    await ch.ack(1)
    second = [await ch.ready(2), await ch.delivered(3)]
    await ch.ack(3, multiple=True)
    return [first, second, await ch.ready(0), await ch.delivered(5)]


@scenario
async def a_limit_is_for_consumers_to_come(ch: Channel) -> Any:
    await ch.queue("p")
    await ch.queue("q")
    await ch.prefetch(1)
    await ch.consume("p", "a")
    await ch.prefetch(2)
    await ch.consume("q", "b")
    await ch.put("p", *"123")
    await ch.put("q", *"123")
    return [await ch.ready(2, "p"), await ch.ready(1, "q")]


@scenario
async def a_limit_for_all_counts_all(ch: Channel) -> Any:
    await ch.queue("p")
    await ch.queue("q")
    await ch.prefetch(2, everybody=True)
    await ch.consume("p", "a")
    await ch.consume("q", "b")
    await ch.put("p", *"123")
    await ch.put("q", "4")
    first = [await ch.ready(1, "p"), await ch.ready(1, "q")]
    await ch.ack(2, multiple=True)
    return [first, await ch.ready(0, "p"), await ch.ready(0, "q")]


@scenario
async def no_limit_holds_who_acknowledges_nothing(ch: Channel) -> Any:
    await ch.queue()
    await ch.prefetch(1)
    await ch.consume(no_ack=True)
    await ch.put("q", *"1234")
    return [await ch.delivered(4), await ch.counts()]


@scenario
async def what_was_got_does_not_count_for_limits(ch: Channel) -> Any:
    await ch.queue()
    await ch.prefetch(1)
    await ch.put("q", *"123")
    await ch.get()
    await ch.consume()
    return [await ch.ready(1), await ch.delivered(1)]


@scenario
async def a_quorum_queue_knows_no_limit_for_all(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum")
    await ch.prefetch(2, everybody=True)
    return await ch.refused(ch.consume())


@scenario
async def higher_priorities_get_messages_first(ch: Channel) -> Any:
    await ch.queue()
    await ch.prefetch(1)
    for tag, priority in (("low", -1), ("high", 5), ("none", None)):
        given = {} if priority is None else {"priority": priority}
        await ch.consume(tag=tag, **given)
    await ch.put("q", *"1234")
    first = await ch.delivered(3)
    await ch.ack(2)
    return [first, await ch.delivered(4)]


@scenario
async def a_consumer_priority_is_a_number(ch: Channel) -> Any:
    await ch.queue()
    return await ch.refused(ch.consume(priority="high"))


@scenario
async def an_exclusive_consumer_is_alone(ch: Channel) -> Any:
    await ch.queue()
    await ch.consume(tag="a", exclusive=True)
    other = await ch.another()
    refused = [
        await other.refused(other.consume(tag="b")),
        await other.refused(other.consume(tag="b", exclusive=True)),
    ]
    await ch.cancel("a")
    await other.consume(tag="b")
    return [refused, await ch.refused(ch.consume(tag="a", exclusive=True))]


@scenario
async def one_consumer_is_active(ch: Channel) -> Any:
    await ch.queue(single_active_consumer=True)
    for tag in "abc":
        await ch.consume(tag=tag)
    await ch.put("q", "1", "2")
    first = await ch.delivered(2)
    await ch.cancel("a")
    await ch.put("q", "3", "4")
    return [first, await ch.delivered(4), await ch.counts()]


@scenario
async def one_consumer_of_a_quorum_queue_is_active(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum", single_active_consumer=True)
    await ch.prefetch(10)
    for tag in "ab":
        await ch.consume(tag=tag)
    await ch.put("q", "1", "2")
    first = await ch.delivered(2)
    await ch.ack(2, multiple=True)
    await ch.cancel("a")
    await ch.put("q", "3")
    return [first, await ch.delivered(3), await ch.refused(ch.get())]


@scenario
async def the_next_active_consumer_gets_what_lies_there(ch: Channel) -> Any:
    await ch.queue("q", single_active_consumer=True)
    await ch.prefetch(1)
    for tag in ("a", "b"):
        await ch.consume("q", tag)
    await ch.put("q", "one", "two")
    await ch.delivered(1)
    await ch.cancel("a")
    await ch.ack(1)
    await ch.rest(0.5)
    return await ch.delivered(1)


@scenario
async def single_active_is_never_exclusive(ch: Channel) -> Any:
    await ch.queue(single_active_consumer=True)
    return await ch.refused(ch.consume(exclusive=True))


@scenario
async def consumers_learn_that_their_queue_is_gone(ch: Channel) -> Any:
    await ch.queue()
    for tag in "ab":
        await ch.consume(tag=tag)
    await ch.put("q", "1")
    await ch.delivered(1)
    deleted = await ch.delete()
    told = await ch.cancelled(2)
    await ch.ack(1)
    return [deleted, told, await ch.queue(), await ch.counts()]


@scenario
async def a_cancelled_consumer_may_still_acknowledge(ch: Channel) -> Any:
    await ch.queue()
    await ch.consume()
    await ch.put("q", "1", "2")
    await ch.delivered(2)
    await ch.cancel()
    await ch.ack(1)
    held = await ch.counts()
    await ch.nack(2)
    return [held, await ch.ready(1), await ch.drain()]


@scenario
async def a_tag_is_used_once(ch: Channel) -> Any:
    await ch.queue()
    other = await ch.dial()
    await other.consume()
    return [await ch.cancel("nobody"), await other.end(other.consume())]


@scenario
async def what_one_gives_back_another_gets(ch: Channel) -> Any:
    await ch.queue()
    await ch.consume(tag="a")
    await ch.put("q", "1")
    await ch.delivered(1)
    await ch.consume(tag="b")
    await ch.nack(1)
    return (await ch.delivered(2))[1:]


@scenario
async def what_a_lost_consumer_held_comes_again(ch: Channel) -> Any:
    await ch.queue()
    other = await ch.dial()
    await other.consume()
    await ch.put("q", *"123")
    await other.delivered(3)
    await other.ack(2)
    await other.hang_up()
    return [await ch.ready(2), await ch.drain()]


@scenario
async def higher_message_priorities_leave_first(ch: Channel) -> Any:
    await ch.queue(max_priority=3)
    for priority in (1, None, 3, 9, 2, 0, 3):
        await ch.put("q", str(priority), priority=priority)
    return [await ch.counts(), await ch.drain()]


@scenario
async def priorities_hold_for_what_is_given_back(ch: Channel) -> Any:
    await ch.queue(max_priority=3)
    for priority in (1, 1, 2, 2):
        await ch.put("q", str(priority), priority=priority)
    for _ in range(3):
        await ch.get()
    await ch.nack(3)
    await ch.nack(1)
    await ch.put("q", "3", priority=3)
    return [await ch.ready(4), await ch.drain()]


@scenario
async def a_quorum_queue_counts_deliveries(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum", delivery_limit=2)
    await ch.put("q", "one", headers={"mine": 1})
    found: list[Any] = []
    for tag in range(1, 4):
        await ch.ready(1)
        found.append(await ch.get())
        await ch.nack(tag)
    return [found, await ch.settles(0, 0), await ch.get()]


@scenario
async def a_quorum_queue_without_limit_puts_behind(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum")
    await ch.put("q", *"123")
    await ch.get()
    await ch.get()
    await ch.nack(1)
    await ch.nack(2)
    return [await ch.ready(3), await ch.get(), await ch.drain()]


@scenario
async def a_quorum_queue_with_a_limit_puts_in_front(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum", delivery_limit=5)
    await ch.put("q", *"1234")
    for _ in range(3):
        await ch.get()
    await ch.nack(3)
    await ch.nack(1)
    await ch.nack(2)
    return [await ch.ready(4), await ch.drain()]


@scenario
async def a_quorum_queue_takes_back_from_the_lost(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum")
    await ch.put("q", *"123")
    other = await ch.another()
    await other.consume()
    await other.delivered(3)
    await other.leave()
    return [await ch.ready(3), await ch.get(), await ch.drain()]


@scenario
async def a_quorum_queue_takes_back_many(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum", delivery_limit=3)
    await ch.put("q", *"1234")
    for _ in range(3):
        await ch.get()
    await ch.nack(2, multiple=True)
    first = await ch.settles(3, 1)
    await ch.reject(3, requeue=True)
    return [first, await ch.settles(4, 0), await ch.get(), await ch.drain()]


@scenario
async def a_quorum_queue_counts_from_the_second_delivery_on(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum")
    await ch.consume()
    await ch.put("q", "one", headers={"mine": 1})
    await ch.delivered(1)
    await ch.nack(1)
    await ch.delivered(2)
    return [each.properties.headers for each in ch.deliveries()]


@scenario
async def what_was_got_is_settled_before_what_was_delivered(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(dead_letter_exchange="", dead_letter_routing_key="dead")
    await ch.put("q", *"123")
    await ch.prefetch(1)
    await ch.consume(tag="b")
    await ch.consume(tag="a")
    await ch.delivered(2)
    await ch.get()
    await ch.nack(0, multiple=True, requeue=False)
    return [await ch.ready(3, "dead"), await ch.drain("dead")]


@scenario
async def a_quorum_queue_takes_back_by_consumer_tag(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum")
    await ch.put("q", *"abcdefghijk")
    other = await ch.another()
    for _ in range(11):
        await other.get()
    await other.leave()
    return [await ch.settles(11, 0), await ch.drain()]


@scenario
async def a_quorum_queue_does_not_count_who_waits(ch: Channel) -> Any:
    await ch.queue(queue_type="quorum", single_active_consumer=True)
    await ch.prefetch(10)
    for tag in "abc":
        await ch.consume(tag=tag)
    await ch.put("q", "1")
    await ch.delivered(1)
    before = await ch.counts()
    await ch.cancel("a")
    await ch.put("q", "2")
    await ch.delivered(2)
    held = await ch.counts()
    await ch.ack(1)
    return [before, held, await ch.settles(0, 1), await ch.delivered(2)]


@scenario
async def the_next_active_consumer_has_the_highest_priority(ch: Channel) -> Any:
    found: list[Any] = []
    for name, kind in (("p", "classic"), ("q", "quorum")):
        await ch.queue(name, queue_type=kind, durable=True, single_active_consumer=True)
        await ch.prefetch(10)
        for tag, priority in (("a", 0), ("b", 0), ("c", 5)):
            await ch.consume(name, name + tag, priority=priority)
        await ch.cancel(name + "a")
        await ch.put(name, "1")
        found.append(await ch.delivered(len(found) + 1))
    return found
