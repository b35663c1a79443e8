"""What is counted and timed, and whether Prometheus could read it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from rmqarq.message import Message
from rmqarq.outcome import Reason
from rmqarq.stats import Stats
from rmqarq.worker.health import Facts, Load
from rmqarq.worker.metrics import BOUNDS, Histogram, Metrics
from tests.harness.exposition import Exposition


def run(task: str | None, queue: str = "mail") -> Any:
    """What is known of a job: its message, if it could be read, and its queue."""
    decoded = None if task is None else SimpleNamespace(message=Message(task=task))
    return SimpleNamespace(decoded=decoded, delivery=SimpleNamespace(home=queue))


def read(metrics: Metrics, **facts: Any) -> Exposition:
    return Exposition(metrics.text(Facts(**facts), Stats(stuck=3), ready=True))


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[1], BOUNDS[-1], BOUNDS[-1] + 1):
        histogram.observe(seconds)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert sum(histogram.counts) == 5


def test_a_fresh_worker_can_be_read() -> None:
    found = read(
        Metrics({}, ()), load=Load(running=1, waiting=2, slots=7, left_behind=4)
    )
    assert found.value("rmqarq_jobs_in_progress") == 1
    assert found.value("rmqarq_jobs_waiting") == 2
    assert found.value("rmqarq_slots") == 7
    assert found.value("rmqarq_jobs_left_behind") == 4
    assert found.value("rmqarq_stuck_total") == 3
    assert found.value("rmqarq_connected") == found.value("rmqarq_ready") == 1
    assert len(found.series("rmqarq_build_info")) == 1


def test_names_out_of_messages_make_no_series() -> None:
    metrics = Metrics({"known": "mail"}, ["mail"])
    for number in range(1000):
        metrics.settled(run(f"stranger-{number}"), "deferred")
    metrics.settled(run(None), "dead", "undecodable")
    metrics.settled(run("known"), "succeeded")
    found = read(metrics)
    jobs = {
        (dict(labels)["task"], dict(labels)["outcome"]): count
        for labels, count in found.series("rmqarq_jobs_total").items()
    }
    assert jobs == {
        ("unknown", "deferred"): 1000,
        ("unknown", "dead"): 1,
        ("known", "succeeded"): 1,
        ("known", "retried"): 0,
        ("known", "dead"): 0,
    }
    dead = found.value("rmqarq_dead_letters_total", queue="mail", reason="undecodable")
    assert dead == 1


def test_what_is_likely_to_come_stands_at_nought_from_the_start() -> None:
    found = read(Metrics({"here": "mail", "elsewhere": "other"}, ["mail"]))
    jobs = [dict(labels) for labels in found.series("rmqarq_jobs_total")]
    assert {each["task"] for each in jobs} == {"here"}
    assert {each["outcome"] for each in jobs} == {"succeeded", "retried", "dead"}
    dead = [dict(labels) for labels in found.series("rmqarq_dead_letters_total")]
    assert {(each["queue"], each["reason"]) for each in dead} == {
        ("mail", reason) for reason in get_args(Reason)
    }


def test_any_name_of_a_task_can_be_read() -> None:
    odd = 'a "quoted" \\ name\nin two lines 任务'
    metrics = Metrics({odd: "mail"}, ())
    metrics.settled(run(odd), "succeeded")
    metrics.end(odd, metrics.begin(odd, Message(task=odd, enqueued_at=1.0)))
    found = read(metrics)
    (labels,) = found.series("rmqarq_jobs_total")
    escaped = odd.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    assert dict(labels)["task"] == escaped


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ({"enqueued_at": 1.0}, None),
        ({"enqueued_at": 1.0, "eta": 253402300799.0}, 0.005),  # never less than nothing
    ],
)
def test_a_wait_is_counted_from_when_the_job_was_due(
    message: dict[str, float], most: float | None
) -> None:
    metrics = Metrics({"known": "mail"}, ["mail"])
    metrics.begin("known", Message(task="known", **message))
    found = read(metrics)
    name = "rmqarq_job_wait_seconds"
    assert found.value(f"{name}_count", task="known") == 1
    if most is not None:
        assert found.value(f"{name}_bucket", task="known", le=repr(most)) == 1
    else:
        assert found.value(f"{name}_bucket", task="known", le="1800.0") == 0
