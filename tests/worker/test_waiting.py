"""Who begins next."""

from __future__ import annotations

from typing import Any, cast

from rmqarq.worker.waiting import Waiting


class Job:
    """As much of a delivery as counts here."""

    def __init__(self, queue: str, number: int, *, alive: bool = True) -> None:
        self.queue = queue
        self.number = number
        self.alive = alive


def put(waiting: Waiting, *jobs: tuple[str, int]) -> None:
    for queue, number in jobs:
        waiting.add(cast("Any", Job(queue, number)))


def taken(waiting: Waiting) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    while (job := cast("Any", waiting.take())) is not None:
        found.append((job.queue, job.number))
    return found


def test_jobs_of_a_queue_begin_in_the_order_in_which_they_came() -> None:
    waiting = Waiting()
    put(waiting, ("a", 1), ("a", 2), ("a", 3))
    assert len(waiting) == 3
    assert taken(waiting) == [("a", 1), ("a", 2), ("a", 3)]
    assert len(waiting) == 0


def test_queues_take_turns() -> None:
    waiting = Waiting()
    put(waiting, ("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6))
    assert taken(waiting) == [
        ("a", 1),
        ("b", 4),
        ("c", 5),
        ("a", 2),
        ("b", 6),
        ("a", 3),
    ]
    put(waiting, ("b", 7), ("a", 8))
    assert taken(waiting) == [("b", 7), ("a", 8)]


def test_the_rest_of_a_chunk_comes_first_in_its_queue_only() -> None:
    waiting = Waiting()
    put(waiting, ("a", 1), ("b", 2), ("b", 3))
    waiting.add_all("a", cast("Any", [Job("a", 10), Job("a", 11)]))
    assert taken(waiting) == [("a", 10), ("b", 2), ("a", 11), ("b", 3), ("a", 1)]


def test_what_has_died_is_left_out() -> None:
    waiting = Waiting()
    for job in (Job("a", 1, alive=False), Job("a", 2), Job("b", 3, alive=False)):
        waiting.add(cast("Any", job))
    assert taken(waiting) == [("a", 2)]
    for job in (Job("a", 4, alive=False), Job("b", 5)):
        waiting.add(cast("Any", job))
    waiting.drop_dead()
    assert len(waiting) == 1
    assert taken(waiting) == [("b", 5)]
