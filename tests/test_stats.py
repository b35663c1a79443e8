"""The counters of a worker."""

from __future__ import annotations

from rmqarq import Stats


def test_a_number_that_is_not_known_is_a_question_mark() -> None:
    assert Stats().values()["pending"] == "?"
    assert Stats(pending=0).values()["pending"] == 0


def test_the_counters_of_processes_are_added_up_but_for_what_is_left() -> None:
    total = Stats(completed=1, retried=2, pending=7)
    total.add(Stats(completed=3, crashed=1, pending=4))
    total.add(Stats(completed=5))
    assert total == Stats(completed=9, retried=2, crashed=1, pending=4)


def test_every_counter_has_a_value_by_its_name() -> None:
    values = Stats(completed=3, failed=2, retried=1).values()
    assert list(values) == list(Stats.__struct_fields__)
    assert (values["completed"], values["failed"], values["retried"]) == (3, 2, 1)
