"""Scenarios: which way a message goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.devbroker.differential.scenarios import scenario

if TYPE_CHECKING:
    from tests.devbroker.differential.lab import Channel

KEYS = ("", ".", "a", "a.", ".a", "a.b", "a..b", "a.b.c", "b", "b.a", "a.a.a.a", "A")


async def matching(ch: Channel, kind: str, patterns: list[str]) -> dict[str, Any]:
    """See which of `KEYS` reach a queue that is bound by a pattern."""
    await ch.exchange("x", kind)
    found: dict[str, Any] = {}
    for number, pattern in enumerate(patterns):
        await ch.queue(f"q{number}")
        await ch.bind(f"q{number}", "x", pattern)
    for key in KEYS:
        await ch.burst(key, "one", exchange="x")
    for number, pattern in enumerate(patterns):
        found[pattern] = await ch.keys(f"q{number}")
    return found


@scenario
async def the_default_exchange_knows_all_queues(ch: Channel) -> Any:
    await ch.queue()
    told = await ch.put("q", "one", mandatory=True)
    told += await ch.put("nil", "two", mandatory=True)
    return [told, ch.returns(), await ch.get()]


@scenario
async def a_direct_exchange_compares_keys(ch: Channel) -> Any:
    return await matching(ch, "direct", ["", ".", "a", "a.b", "#", "*", "A"])


@scenario
async def a_fanout_exchange_ignores_keys(ch: Channel) -> Any:
    return await matching(ch, "fanout", ["", "a", "other"])


@scenario
async def a_topic_exchange_matches_words(ch: Channel) -> Any:
    return await matching(ch, "topic", ["a", "*", "*.*", "a.*", "*.b", "a.*.c", "*a"])


@scenario
async def a_topic_exchange_matches_any_number_of_words(ch: Channel) -> Any:
    return await matching(
        ch, "topic", ["#", "a.#", "#.a", "a.#.a", "#.#", "#.*", "*.#"]
    )


@scenario
async def empty_words_are_words(ch: Channel) -> Any:
    return await matching(ch, "topic", ["", ".", "a.", ".a", "a..b", "*.", ".#", "#."])


async def by_headers(ch: Channel, *sent: Any, **arguments: Any) -> Any:
    """See which headers reach a queue that is bound with arguments."""
    await ch.exchange("x", "headers")
    await ch.queue()
    await ch.bind("q", "x", "ignored", **arguments)
    for number, headers in enumerate(sent):
        await ch.burst("", str(number), exchange="x", headers=headers)
    return await ch.drain()


SENT: list[Any] = [
    {},
    None,
    {"a": 1},
    {"a": 1, "b": "two"},
    {"a": 1, "b": "two", "c": True},
    {"a": 2, "b": "two"},
    {"a": "1", "b": "two"},
    {"a": 1.0, "b": "two"},
    {"b": "two"},
    {"x-c": 1},
    {"a": 1, "b": "two", "x-c": 1},
]


@scenario
async def headers_must_all_match(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="all", a=1, b="two")


@scenario
async def all_headers_is_the_default(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, a=1, b="two")


@scenario
async def any_header_may_match(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="any", a=1, b="two")


@scenario
async def no_headers_are_wanted(ch: Channel) -> Any:
    return [await by_headers(ch, *SENT, x_match="all")]


@scenario
async def any_of_no_headers_is_none(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="any")


@scenario
async def headers_that_begin_with_x_do_not_count(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="all", a=1, x_c=2)


@scenario
async def headers_that_begin_with_x_count_when_told(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="all-with-x", a=1, x_c=1)


@scenario
async def any_header_with_x_may_match(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="any-with-x", a=7, x_c=1)


@scenario
async def a_header_need_only_be_there(ch: Channel) -> Any:
    return await by_headers(ch, *SENT, x_match="all", a=None)


@scenario
async def headers_of_other_types(ch: Channel) -> Any:
    sent = [{"a": each} for each in (True, False, [1], {"b": 1}, "x", 1.5, None)]
    await ch.exchange("x", "headers")
    for number, headers in enumerate(sent):
        await ch.queue(f"q{number}")
        await ch.bind(f"q{number}", "x", "", **headers)
    for number, headers in enumerate(sent):
        await ch.burst("", str(number), exchange="x", headers=headers)
    return [await ch.drain(f"q{number}") for number in range(len(sent))]


@scenario
async def headers_are_compared_as_erlang_does(ch: Channel) -> Any:
    values: list[Any] = [True, 1, 1.0, bytearray(b"x"), "x", [True], [1], {"b": 1}]
    values += [{"b": True}, False, 0, 2**40, bytearray(), "", []]
    await ch.exchange("x", "headers")
    for number, value in enumerate(values):
        await ch.queue(f"q{number}")
        await ch.bind(f"q{number}", "x", "", a=value)
    for number, value in enumerate(values):
        await ch.burst("", str(number), exchange="x", headers={"a": value})
    return [await ch.drain(f"q{number}") for number in range(len(values))]


@scenario
async def nonsense_is_no_way_to_match(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange("x", "headers")
    return [
        await ch.refused(ch.bind("q", "x", "", x_match="some")),
        await ch.refused(ch.bind("q", "x", "", x_match=1)),
    ]


@scenario
async def exchanges_lead_to_exchanges(ch: Channel) -> Any:
    await ch.queue("p")
    await ch.queue("q")
    await ch.exchange("x", "topic")
    await ch.exchange("y", "fanout")
    await ch.join("y", "x", "a.#")
    await ch.bind("q", "y")
    await ch.bind("p", "x", "*")
    for key in KEYS:
        await ch.burst(key, "one", exchange="x")
    got = [await ch.keys("p"), await ch.keys("q")]
    await ch.part("y", "x", "a.#")
    await ch.put("a.b", "two", exchange="x")
    return [got, await ch.drain("q")]


@scenario
async def a_circle_of_exchanges_ends(ch: Channel) -> Any:
    await ch.queue()
    for name in ("x", "y"):
        await ch.exchange(name, "fanout")
        await ch.bind("q", name)
    await ch.join("x", "y")
    await ch.join("y", "x")
    await ch.join("x", "x")
    told = await ch.put("", "one", exchange="x", mandatory=True)
    got = await ch.get()
    return [told, got, await ch.drain()]


@scenario
async def a_queue_gets_a_message_once(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange("x", "topic")
    for key in ("a", "*", "#"):
        await ch.bind("q", "x", key)
    await ch.put("a", "one", exchange="x")
    return await ch.drain()


@scenario
async def an_alternate_exchange_gets_the_rest(ch: Channel) -> Any:
    await ch.queue("p")
    await ch.queue("q")
    await ch.exchange("rest", "fanout")
    await ch.exchange("x", alternate_exchange="rest")
    await ch.bind("p", "x", "p")
    await ch.bind("q", "rest")
    for key in ("p", "q", ""):
        await ch.put(key, "one", exchange="x", mandatory=True)
    return [await ch.keys("p"), await ch.keys("q"), ch.returns()]


@scenario
async def an_alternate_exchange_may_have_one_or_be_missing(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange("x", alternate_exchange="y")
    lost = await ch.put("k", "one", exchange="x", mandatory=True)
    await ch.exchange("y", alternate_exchange="z")
    await ch.exchange("z", "fanout")
    await ch.bind("q", "z")
    await ch.put("k", "two", exchange="x", mandatory=True)
    return [lost, ch.returns(), await ch.get()]


@scenario
async def alternate_exchanges_may_go_in_circles(ch: Channel) -> Any:
    await ch.exchange("x", alternate_exchange="y")
    await ch.exchange("y", alternate_exchange="x")
    return [await ch.put("k", "one", exchange="x", mandatory=True), ch.returns()]


@scenario
async def a_dead_end_behind_a_binding_is_no_reason_for_the_alternate(
    ch: Channel,
) -> Any:
    await ch.queue()
    await ch.exchange("rest", "fanout")
    await ch.bind("q", "rest")
    await ch.exchange("x", alternate_exchange="rest")
    await ch.exchange("y")
    await ch.join("y", "x", "k")
    told = await ch.put("k", "one", exchange="x", mandatory=True)
    return [told, ch.returns(), await ch.drain()]


@scenario
async def an_internal_exchange_is_not_published_to(ch: Channel) -> Any:
    await ch.queue()
    await ch.exchange("in", "fanout", internal=True)
    await ch.bind("q", "in")
    await ch.exchange("x", "fanout")
    await ch.join("in", "x")
    refused = await ch.refused(ch.put("", "one", exchange="in"))
    return [refused, await ch.put("", "two", exchange="x"), await ch.drain()]


@scenario
async def copies_go_to_further_keys(ch: Channel) -> Any:
    for name in ("to", "cc", "bcc"):
        await ch.queue(name)
    cc, bcc = ([ch.name(name), "nil"] for name in ("cc", "bcc"))
    told = await ch.put("to", "one", headers={"CC": cc, "BCC": bcc, "mine": 1})
    return [told, *[await ch.get(name) for name in ("to", "cc", "bcc")]]


@scenario
async def copies_go_through_any_exchange(ch: Channel) -> Any:
    await ch.exchange("x", "topic")
    for name, key in (("a", "a.*"), ("b", "b.*"), ("all", "#")):
        await ch.queue(name)
        await ch.bind(name, "x", key)
    await ch.put("a.1", "one", exchange="x", headers={"CC": ["b.1", "c"]})
    await ch.put("c", "two", exchange="x", headers={"BCC": ["b.2", "a.2"]})
    return [await ch.drain(name) for name in ("a", "b", "all")]


@scenario
async def a_copy_is_enough_to_be_routed(ch: Channel) -> Any:
    await ch.queue("cc")
    headers = {"CC": [ch.name("cc"), ch.name("cc")]}
    told = await ch.put("nil", "one", mandatory=True, headers=headers)
    return [told, ch.returns(), await ch.drain("cc")]


@scenario
async def copies_must_be_a_list(ch: Channel) -> Any:
    return [
        await ch.refused(ch.put("q", "one", headers={"CC": "q"})),
        await ch.refused(ch.put("q", "one", headers={"BCC": 1})),
        await ch.refused(ch.put("q", "one", headers={"CC": []})),
    ]
