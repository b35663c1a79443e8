"""Scenarios: what expires, what does not fit, and where the dead go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.devbroker.differential.scenarios import scenario

if TYPE_CHECKING:
    from tests.devbroker.differential.lab import Channel

DEAD = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
QUORUM = {"queue_type": "quorum"}


async def deaths(ch: Channel, queue: str = "dead") -> Any:
    """Wait for a message and see what is written about its deaths."""
    await ch.ready(1, queue)
    return await ch.get(queue)


@scenario
async def a_message_expires_by_its_queue(ch: Channel) -> Any:
    await ch.queue(message_ttl=60)
    await ch.put("q", "one", "two")
    return [await ch.ready(0), await ch.drain()]


@scenario
async def a_message_expires_by_its_own_time(ch: Channel) -> Any:
    await ch.queue()
    await ch.put("q", "one", expiration="60")
    return [await ch.ready(0), await ch.drain()]


@scenario
async def only_the_first_message_expires(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(**DEAD)
    await ch.put("q", "long", expiration="120")
    await ch.put("q", "short", expiration="30")
    await ch.ready(2, "dead")
    return [await ch.counts(), await ch.drain("dead")]


@scenario
async def a_message_behind_one_that_stays_waits(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(**DEAD)
    await ch.put("q", "stays")
    await ch.put("q", "short", expiration="1")
    await ch.rest(0.05)
    before = await ch.counts()
    await ch.get(no_ack=True)
    return [before, await ch.ready(0), await ch.ready(1, "dead")]


@scenario
async def the_shorter_life_counts(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue("p", message_ttl=50, **DEAD)
    await ch.queue("q", message_ttl=60_000, **DEAD)
    await ch.put("p", "one", expiration="60000")
    first = await deaths(ch)
    await ch.put("q", "two", expiration="50")
    return [first, await deaths(ch)]


@scenario
async def a_message_that_must_not_wait_is_gone(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(message_ttl=0, **DEAD)
    told = await ch.put("q", "one")
    first = [await ch.ready(0), await deaths(ch)]
    await ch.consume()
    await ch.put("q", "two")
    return [told, first, await ch.delivered(1)]


@scenario
async def what_is_held_does_not_expire(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(message_ttl=200, **DEAD)
    await ch.put("q", "one")
    await ch.get()
    await ch.rest(0.25)
    before = await ch.counts("dead")
    await ch.nack(1)
    return [before, await ch.ready(1, "dead"), await ch.counts()]


@scenario
async def an_unused_queue_is_deleted(ch: Channel) -> Any:
    await ch.queue(expires=100)
    await ch.put("q", "one")
    return await ch.gone_by_itself()


@scenario
async def a_used_queue_stays(ch: Channel) -> Any:
    await ch.queue(expires=100)
    await ch.consume()
    await ch.rest(0.2)
    before = await ch.counts()
    await ch.cancel()
    return [before, await ch.gone_by_itself()]


@scenario
async def what_an_expired_queue_held_is_not_dead_lettered(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(expires=50, **DEAD)
    await ch.put("q", "one")
    return [await ch.gone_by_itself(), await ch.counts("dead")]


@scenario
async def a_rejected_message_is_dead_lettered(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(**DEAD)
    await ch.put("q", "one", headers={"mine": 1}, priority=3)
    await ch.get()
    await ch.reject(1)
    return await deaths(ch)


@scenario
async def a_dead_letter_keeps_its_key_by_default(ch: Channel) -> Any:
    await ch.exchange("dlx", "topic")
    await ch.queue("dead")
    await ch.bind("dead", "dlx", "a.*")
    await ch.queue(dead_letter_exchange="dlx")
    await ch.exchange("x", "fanout")
    await ch.bind("q", "x")
    await ch.put("a.b", "one", exchange="x")
    await ch.get()
    await ch.nack(1, requeue=False)
    return await deaths(ch)


@scenario
async def a_new_key_replaces_all_copies(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue("other")
    await ch.queue(**DEAD)
    headers = {"CC": [ch.name("other")], "BCC": [ch.name("third")]}
    await ch.put("q", "one", headers=headers)
    await ch.get()
    await ch.reject(1)
    return [await deaths(ch), await ch.drain("other")]


@scenario
async def copies_are_dead_lettered_too(ch: Channel) -> Any:
    for name in ("a", "b"):
        await ch.queue(name)
    await ch.exchange("dlx")
    await ch.bind("a", "dlx", ch.name("q"))
    await ch.bind("b", "dlx", "copy")
    await ch.queue(dead_letter_exchange="dlx")
    await ch.put("q", "one", headers={"CC": ["copy"], "BCC": ["blind"]})
    await ch.get()
    await ch.reject(1)
    return [await deaths(ch, "a"), await deaths(ch, "b")]


@scenario
async def the_dead_of_a_missing_exchange_are_lost(ch: Channel) -> Any:
    await ch.queue(dead_letter_exchange="nil")
    await ch.put("q", "one")
    await ch.get()
    await ch.reject(1)
    return await ch.counts()


@scenario
async def the_expired_lose_their_expiration(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(**DEAD)
    await ch.put("q", "one", expiration="50", headers={"CC": ["k"]})
    return await deaths(ch)


@scenario
async def the_rejected_lose_their_expiration_too(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(**DEAD)
    await ch.put("q", "one", expiration="60000")
    await ch.get()
    await ch.reject(1)
    return await deaths(ch)


@scenario
async def the_same_death_is_counted(ch: Channel) -> Any:
    await ch.queue("p", dead_letter_exchange="", dead_letter_routing_key="q")
    await ch.queue("q", dead_letter_exchange="", dead_letter_routing_key="p")
    await ch.put("p", "one")
    found: list[Any] = []
    for tag, queue in enumerate(("p", "q", "p", "q", "p"), 1):
        found.append(await deaths(ch, queue))
        await ch.reject(tag)
    return [found, await deaths(ch, "q")]


@scenario
async def deaths_for_different_reasons_stand_side_by_side(ch: Channel) -> Any:
    await ch.queue("p", dead_letter_exchange="", dead_letter_routing_key="q")
    await ch.queue("q", dead_letter_exchange="", dead_letter_routing_key="p")
    await ch.put("p", "one", expiration="50")
    await deaths(ch, "q")
    await ch.reject(1)
    await deaths(ch, "p")
    await ch.reject(2)
    return await deaths(ch, "q")


@scenario
async def a_circle_of_expiries_ends(ch: Channel) -> Any:
    names = {"p": "q", "q": "p"}
    for name, to in names.items():
        way = {"dead_letter_exchange": "", "dead_letter_routing_key": to}
        await ch.queue(name, message_ttl=40, **way)
    await ch.put("p", "one")
    await ch.rest(0.2)
    return [await ch.ready(0, "p"), await ch.ready(0, "q")]


@scenario
async def a_circle_with_a_rejection_goes_on(ch: Channel) -> Any:
    way = {"dead_letter_exchange": "", "dead_letter_routing_key": "q"}
    await ch.queue("wait", message_ttl=50, **way)
    await ch.queue("q", dead_letter_exchange="", dead_letter_routing_key="wait")
    await ch.put("q", "one")
    for tag in (1, 2):
        await ch.ready(1)
        await ch.get()
        await ch.reject(tag)
    return await deaths(ch, "q")


@scenario
async def counts_of_the_client_go_on(ch: Channel) -> Any:
    await ch.queue("dead")
    dead = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
    await ch.queue("q", message_ttl=1, **dead)
    found: list[Any] = []
    for count in (-1, -300, 7, 2**31, 2**63 - 1):
        told = {"queue": ch.name("q"), "reason": "expired", "count": count}
        await ch.put("q", "one", headers={"x-death": [told]})
        await ch.ready(1, "dead")
        found.append(await deaths(ch))
    return found


@scenario
async def what_is_pushed_out_pushes_out_others(ch: Channel) -> Any:
    for name, other in ("ab", "ba"):
        dead = {"dead_letter_exchange": "", "dead_letter_routing_key": other}
        await ch.queue(name, max_length=3, **dead)
    for name in ("a", "b"):
        await ch.put(name, *(f"{name}{number}" for number in range(3)))
    await ch.put("a", "new")
    await ch.rest(0.5)
    return [await ch.drain("a"), await ch.drain("b")]


@scenario
async def x_death_of_the_client_is_read(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(**DEAD)
    found: list[Any] = []
    death = {"queue": ch.name("q"), "reason": "rejected", "count": 4}
    for tag, given in enumerate(([], [death], "nonsense", [death, {"count": 1}]), 1):
        await ch.put("q", "one", headers={"x-death": given})
        await ch.get()
        await ch.reject(2 * tag - 1)
        found.append(await deaths(ch))
    return found


@scenario
async def the_oldest_goes_when_there_are_too_many(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(max_length=2, **DEAD)
    told = await ch.put("q", *"1234")
    return [told, await ch.drain(), await ch.ready(2, "dead"), await deaths(ch)]


@scenario
async def the_oldest_goes_when_there_are_too_many_bytes(ch: Channel) -> Any:
    await ch.queue(max_length_bytes=10)
    await ch.put("q", "12345", "67890")
    first = await ch.counts()
    await ch.put("q", "x")
    second = await ch.counts()
    await ch.put("q", "a body that is too long for it")
    return [first, second, await ch.counts(), await ch.drain()]


@scenario
async def what_is_held_does_not_count(ch: Channel) -> Any:
    await ch.queue(max_length=1)
    await ch.put("q", "1")
    await ch.get()
    await ch.put("q", "2")
    before = await ch.counts()
    await ch.nack(1)
    return [before, await ch.ready(1), await ch.drain()]


@scenario
async def a_queue_of_length_zero_keeps_nothing(ch: Channel) -> Any:
    await ch.queue(max_length=0)
    told = await ch.put("q", "1")
    empty = await ch.counts()
    await ch.consume()
    await ch.put("q", "2")
    return [told, empty, await ch.delivered(1)]


@scenario
async def a_full_queue_rejects_bytes(ch: Channel) -> Any:
    await ch.queue(max_length_bytes=10, overflow="reject-publish")
    told = await ch.put("q", "12345", "67890", "x", "")
    return [told, await ch.drain()]


@scenario
async def what_is_rejected_at_the_door_may_be_dead_lettered(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(max_length=1, overflow="reject-publish-dlx", **DEAD)
    told = await ch.put("q", "1", "2")
    return [told, await ch.drain(), await deaths(ch)]


@scenario
async def the_lowest_priority_goes_when_there_are_too_many(ch: Channel) -> Any:
    await ch.queue(max_length=2, max_priority=3)
    for priority in (1, 3, 2, 3):
        await ch.put("q", str(priority), priority=priority)
    return await ch.drain()


@scenario
async def priorities_expire_by_themselves(ch: Channel) -> Any:
    await ch.queue(max_priority=3)
    await ch.put("q", "stays", priority=2)
    await ch.put("q", "low", priority=1, expiration="40")
    await ch.put("q", "high", priority=3, expiration="40")
    return [await ch.ready(1), await ch.drain()]


@scenario
async def a_dead_letter_may_be_rejected_by_a_full_queue(ch: Channel) -> Any:
    await ch.queue("dead", max_length=1, overflow="reject-publish")
    await ch.queue(**DEAD)
    await ch.put("q", "1", "2")
    for tag in (1, 2):
        await ch.get()
        await ch.reject(tag)
    await ch.ready(1, "dead")
    return [await ch.counts(), await ch.drain("dead")]


@scenario
async def a_quorum_queue_expires_messages(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(message_ttl=60, **QUORUM, **DEAD)
    await ch.put("q", "one")
    return [await deaths(ch), await ch.ready(0)]


@scenario
async def a_quorum_queue_dead_letters_what_came_back_too_often(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(delivery_limit=1, **QUORUM, **DEAD)
    await ch.put("q", "one")
    for tag in (1, 2):
        await ch.get()
        await ch.nack(tag)
    return [await deaths(ch), await ch.settles(0, 0)]


@scenario
async def a_quorum_queue_drops_the_oldest(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(max_length=2, **QUORUM, **DEAD)
    await ch.put("q", *"1234")
    await ch.ready(2, "dead")
    return [await ch.ready(2), await ch.drain(), await ch.drain("dead")]


@scenario
async def dead_letters_arrive_at_least_once(ch: Channel) -> Any:
    await ch.queue("dead", **QUORUM)
    strategy = {"overflow": "reject-publish", "dead_letter_strategy": "at-least-once"}
    await ch.queue(**QUORUM, **DEAD, **strategy)
    await ch.put("q", "one", headers={"mine": 1})
    await ch.get()
    await ch.reject(1)
    return [await deaths(ch), await ch.settles(0, 0)]


@scenario
async def at_least_once_needs_a_queue_that_rejects(ch: Channel) -> Any:
    await ch.queue("dead")
    strategy = {"dead_letter_strategy": "at-least-once"}
    await ch.queue(**QUORUM, **DEAD, **strategy, max_length=1)
    await ch.put("q", "1", "2")
    return [await ch.ready(1), await ch.drain(), await deaths(ch)]


async def ladder(ch: Channel) -> None:
    """Declare two rungs, as the project delays its jobs."""
    await ch.exchange("due")
    await ch.exchange("ladder.0", "topic", alternate_exchange="due")
    await ch.exchange("ladder.1", "topic", alternate_exchange="ladder.0")
    for decade, to in ((1, "ladder.0"), (0, "due")):
        name = f"rung.{decade}"
        await ch.queue(name, message_ttl=50 + decade, dead_letter_exchange=to)
        await ch.bind(name, f"ladder.{decade}", name)
    await ch.queue("jobs")
    await ch.bind("jobs", "due", "jobs")


@scenario
async def a_job_climbs_down_two_rungs(ch: Channel) -> Any:
    await ladder(ch)
    headers = {"CC": ["rung.1", "rung.0"]}
    told = await ch.put(
        "jobs", "one", exchange="ladder.1", headers=headers, mandatory=True
    )
    return [told, await deaths(ch, "jobs"), ch.returns()]


@scenario
async def a_job_skips_a_rung(ch: Channel) -> Any:
    await ladder(ch)
    await ch.put("jobs", "one", exchange="ladder.1", headers={"CC": ["rung.0"]})
    first = await deaths(ch, "jobs")
    await ch.put("jobs", "two", exchange="ladder.1", headers={"CC": ["rung.1"]})
    second = await deaths(ch, "jobs")
    await ch.put("jobs", "three", exchange="ladder.1")
    return [first, second, await deaths(ch, "jobs")]


@scenario
async def what_is_pushed_out_comes_after_what_pushed_it(ch: Channel) -> Any:
    await ch.queue("b")
    await ch.queue(
        "a", max_length=0, dead_letter_exchange="", dead_letter_routing_key="b"
    )
    await ch.exchange("x", "fanout")
    for name in "ab":
        await ch.bind(name, "x")
    await ch.put("", "one", exchange="x")
    await ch.ready(2, "b")
    return [await ch.get("b"), await ch.get("b")]


@scenario
async def a_full_quorum_queue_stops_those_who_filled_it(ch: Channel) -> Any:
    await ch.queue(max_length=5, overflow="reject-publish", **QUORUM)
    first = await ch.put("q", *"12345678")
    await ch.get(no_ack=True)
    await ch.settles(5, 0)
    other = await ch.another()
    found = [first, await ch.put("q", "9"), await other.put("q", "a", "b")]
    await ch.purge()
    return [*found, await ch.put("q", "c"), await other.put("q", "d")]


@scenario
async def a_full_quorum_queue_takes_dead_letters_in(ch: Channel) -> Any:
    await ch.queue("dead", max_length=1, overflow="reject-publish", **QUORUM)
    await ch.queue(**DEAD)
    await ch.put("q", *"1234")
    for tag in range(1, 5):
        await ch.get()
        await ch.reject(tag)
    return [await ch.ready(4, "dead"), await ch.put("dead", "no"), await ch.counts()]


@scenario
async def who_is_gone_gets_no_dead_letters(ch: Channel) -> Any:
    await ch.queue("dead")
    await ch.queue(delivery_limit=0, **QUORUM, **DEAD)
    other = await ch.another()
    await other.consume("q", "c")
    await other.consume("dead", "d")
    await ch.put("q", "1")
    await other.delivered(1)
    await other.leave()
    return [await deaths(ch), await ch.settles(0, 0)]
