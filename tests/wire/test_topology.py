"""What is declared, argument by argument: a change here is a 406 for every user."""

from __future__ import annotations

import pytest

from rmqarq import ConfigurationError, Settings
from rmqarq.wire import topology
from rmqarq.wire.delay import DECADES, every_rung
from rmqarq.wire.names import Names
from rmqarq.wire.topology import (
    Binding,
    Exchange,
    Queue,
    Topology,
    check_name,
    dead_letter_queue,
    work,
)

NAMES = Names()
QUORUM = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": "rmqarq.due",
    "x-dead-letter-routing-key": "mail_dlq",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 10_000,
}
CLASSIC = {
    "x-queue-type": "classic",
    "x-dead-letter-exchange": "rmqarq.due",
    "x-dead-letter-routing-key": "mail_dlq",
}
KEPT = {"x-queue-type": "quorum", "x-delivery-limit": 2_147_483_647}


def test_the_foundation_is_the_last_hop_and_the_net_below_it() -> None:
    assert topology.foundation(NAMES) == Topology(
        exchanges=(
            Exchange("rmqarq.lost", "fanout"),
            Exchange("rmqarq.due", "direct", {"alternate-exchange": "rmqarq.lost"}),
        ),
        queues=(Queue("rmqarq.lost", KEPT),),
        bindings=(Binding("rmqarq.lost", "rmqarq.lost", ""),),
    )


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        (Settings(), QUORUM),
        (Settings(queue_type="classic"), CLASSIC),
        (
            Settings(queue_type="classic", max_priority=9),
            CLASSIC | {"x-max-priority": 9},
        ),
        (Settings(queue_type="quorum", max_priority=9), QUORUM),
    ],
)
def test_a_queue_comes_with_its_lane_and_its_dead_letters(
    settings: Settings, arguments: dict[str, object]
) -> None:
    assert work("mail", settings) == Topology(
        queues=(
            Queue("mail_dlq", KEPT),
            Queue("mail", arguments),
            Queue("mail.suspect", arguments),
        ),
        bindings=(
            Binding("mail_dlq", "rmqarq.due", "mail_dlq"),
            Binding("mail", "rmqarq.due", "mail"),
            Binding("mail.suspect", "rmqarq.due", "mail.suspect"),
        ),
    )


def test_another_dead_letter_queue_changes_no_argument_of_the_work_queue() -> None:
    """So renaming it later never meets a queue that exists with other arguments."""
    usual = work("mail", Settings(queue="mail"))
    renamed = work("mail", Settings(queue="mail", dead_letter_queue="graveyard"))
    assert renamed.queues[1:] == usual.queues[1:]
    assert renamed.queues[0] == Queue("graveyard", KEPT)
    assert renamed.bindings[0] == Binding("graveyard", "rmqarq.due", "mail_dlq")


def test_a_configured_dead_letter_queue_is_that_of_the_default_queue_only() -> None:
    settings = Settings(queue="mail", dead_letter_queue="graveyard")
    assert dead_letter_queue("mail", settings) == "graveyard"
    assert dead_letter_queue("night", settings) == "night_dlq"


def test_apps_under_different_prefixes_share_no_exchange() -> None:
    mine = work("mail", Settings(prefix="jobs"))
    assert {each.exchange for each in mine.bindings} == {"jobs.due"}
    assert mine.queues[1].arguments["x-dead-letter-exchange"] == "jobs.due"


def test_each_ladder_exchange_falls_through_to_the_next_lower() -> None:
    ladder = topology.ladder(NAMES)
    assert not ladder.queues
    below = "rmqarq.due"
    for decade, exchange in enumerate(ladder.exchanges[:DECADES]):
        name = f"rmqarq.delay.{decade}"
        assert exchange == Exchange(name, "direct", {"alternate-exchange": below})
        below = name


def test_where_a_delay_begins_nothing_falls_through() -> None:
    entries = topology.ladder(NAMES).exchanges[DECADES:]
    names = [f"rmqarq.delay.{decade}.entry" for decade in range(DECADES)]
    assert entries == tuple(Exchange(name, "direct") for name in names)


def test_a_rung_holds_for_its_time_and_passes_on_one_decade_down() -> None:
    seconds_30 = next(rung for rung in every_rung() if rung.label == "30s")
    assert topology.rung(seconds_30, NAMES) == Topology(
        queues=(
            Queue(
                "rmqarq.delay.30s",
                {
                    "x-queue-type": "quorum",
                    "x-message-ttl": 30_000,
                    "x-dead-letter-exchange": "rmqarq.delay.1",
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            ),
        ),
        bindings=(
            Binding("rmqarq.delay.30s", "rmqarq.delay.2", "rmqarq.delay.30s"),
            Binding("rmqarq.delay.30s", "rmqarq.delay.2.entry", "rmqarq.delay.30s"),
        ),
    )


def test_the_plugins_exchange_passes_on_to_queues_of_their_own_name() -> None:
    """No alternate exchange: all that is delayed would go there at once."""
    assert topology.delayed(NAMES) == Topology(
        exchanges=(
            Exchange(
                "rmqarq.delayed", "x-delayed-message", {"x-delayed-type": "direct"}
            ),
        )
    )
    binding = Binding("mail", "rmqarq.delayed", "mail")
    assert topology.delayed_binding("mail", NAMES) == binding


def test_the_lowest_rungs_pass_on_to_the_last_hop() -> None:
    for rung in every_rung()[:9]:
        (queue,) = topology.rung(rung, NAMES).queues
        assert queue.arguments["x-dead-letter-exchange"] == "rmqarq.due"


def test_no_rung_ever_expires_or_renames_what_it_holds() -> None:
    for rung in every_rung():
        (queue,) = topology.rung(rung, NAMES).queues
        assert "x-expires" not in queue.arguments
        assert "x-dead-letter-routing-key" not in queue.arguments


def test_everything_that_is_bound_is_declared() -> None:
    parts = [topology.foundation(NAMES), work("mail", Settings())]
    parts += [topology.ladder(NAMES), *(topology.rung(r, NAMES) for r in every_rung())]
    exchanges = {each.name for part in parts for each in part.exchanges}
    queues = {each.name for part in parts for each in part.queues}
    for part in parts:
        for binding in part.bindings:
            assert binding.exchange in exchanges
            assert binding.queue in queues
        for exchange in part.exchanges:
            assert {*exchange.arguments.values()} <= exchanges
        for queue in part.queues:
            target = queue.arguments.get("x-dead-letter-exchange")
            assert target is None or target in exchanges


@pytest.mark.parametrize(
    "name", ["a", "mail", "A-b_c.d:e@f#g,h/i+j k", "x" * 240, "amqp", "0"]
)
def test_a_usual_name_is_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 241,
        "amq.gen-1",
        "é",
        "队列",
        "a*b",
        "a\nb",
        "a\n",
        "a\0",
        "a;b",
        None,
        7,
    ],
)
def test_a_name_that_no_broker_would_take_is_refused(name: object) -> None:
    with pytest.raises(ConfigurationError, match=r"the queue name .* can't be used"):
        check_name(name)


def test_the_longest_name_leaves_room_for_every_suffix() -> None:
    longest = "x" * 240
    for queue in work(longest, Settings()).queues:
        assert len(queue.name) <= 255
