"""What is seen of a worker, and what follows for its liveness and readiness."""

from __future__ import annotations

from typing import Any

import pytest

from rmqarq.worker.health import UNCONSUMED, Facts, Load, deadly, hindrances

LONG = UNCONSUMED + 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"starting": True}, "starting: not all queues are consumed yet"),
        (
            {"stopping": True, "load": Load(running=2)},
            "stopping: 2 jobs are under way",
        ),
        (
            {"connected": False, "standing": 7.4},
            "not connected to the broker for 7 s",
        ),
        ({"unconsumed": {"mail": 1.0}}, "not consumed: mail"),
        (
            {"blocked": "low on disk"},
            "the broker takes no messages at present: low on disk",
        ),
    ],
)
def test_what_passes_makes_it_not_ready_and_leaves_it_alive(
    facts: dict[str, Any], reason: str
) -> None:
    seen = Facts(**facts)
    assert [str(each) for each in hindrances(seen)] == [reason]
    assert deadly(seen) == []


def test_a_healthy_worker_has_nothing_to_say() -> None:
    busy = Facts(load=Load(running=5, waiting=9, slots=5, left_behind=4), standing=LONG)
    assert hindrances(busy) == deadly(busy) == []


def test_as_many_runs_left_behind_as_slots_are_deadly() -> None:
    facts = Facts(load=Load(slots=2, left_behind=2))
    (reason,) = map(str, deadly(facts))
    assert reason.startswith("2 runs that ignored their cancellation still go on")
    assert reason in map(str, hindrances(facts))


def test_a_queue_that_stays_without_consumer_on_a_good_connection_is_deadly() -> None:
    facts = Facts(standing=LONG + 5, unconsumed={"mail": LONG, "new": 2.0})
    (reason,) = map(str, deadly(facts))
    assert reason == "for 301 s there has been a connection, and no consumer of mail"


@pytest.mark.parametrize(
    "facts",
    [
        {"standing": 5.0},  # the connection is young
        {"connected": False, "standing": LONG},
        {"standing": LONG, "stopping": True},
    ],
)
def test_a_queue_without_consumer_is_not_deadly_where_there_is_a_reason(
    facts: dict[str, Any],
) -> None:
    assert deadly(Facts(unconsumed={"mail": LONG}, **facts)) == []


def test_no_outage_is_so_long_that_it_is_deadly() -> None:
    facts = Facts(connected=False, standing=1e6, unconsumed={"mail": 1e6})
    assert deadly(facts) == []
    (reason,) = map(str, hindrances(facts))
    assert reason == "not connected to the broker for 1000000 s"
