"""Job ids, handles and options."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from rmqarq import ConfigurationError, Job, JobSpec
from rmqarq.home import Home
from rmqarq.job import EnqueueOptions, JobOptions, new_job_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    text = new_job_id()
    number = UUID(text)
    assert str(number) == text
    assert number.version == 7
    assert number.variant == RFC_4122


def test_an_id_begins_with_the_time_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = UUID(new_job_id()).int >> 80
    assert before <= made <= time.time_ns() // 1_000_000


def test_ids_sort_by_their_time() -> None:
    first = new_job_id()
    time.sleep(0.002)
    assert first < new_job_id()


def test_ids_are_unique() -> None:
    made = [new_job_id() for _ in range(20_000)]
    assert len(set(made)) == len(made)
    random_parts = {UUID(each).int & (2**62 - 1) for each in made}
    assert len(random_parts) == len(made)


def test_ids_are_unique_across_a_fork() -> None:
    """A child must not draw the random numbers of its parent again."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(new_job_id()[15:] for _ in range(50)).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    in_child = {text[at : at + 21] for at in range(0, len(text), 21)}
    in_parent = {new_job_id()[15:] for _ in range(50)}
    assert len(in_child) == len(in_parent) == 50
    assert not in_child & in_parent


def test_a_handle_shows_task_id_and_queue() -> None:
    assert repr(Job[int]("j-1", "add", "mail")) == "<Job add j-1 on mail>"


def test_a_deferred_call_is_a_copy_with_a_time_of_its_own() -> None:
    now = JobSpec[int](Home(None), "add", None, (1,), {"b": 2}, JobOptions())
    later = now.defer(30).defer(60)
    assert (now.when, later.when) == (None, 60)
    assert later.home is now.home
    assert (later.task, later.args, later.kwargs) == ("add", (1,), {"b": 2})
    assert repr(later) == "<JobSpec add>"


def test_given_options_replace_and_the_others_stay() -> None:
    options = JobOptions().merged("add", {"priority": 5, "job_id": "a"})
    options = options.merged("add", {"job_id": "b", "headers": {"k": "v"}})
    assert options == JobOptions(priority=5, job_id="b", headers={"k": "v"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": -1},
        {"priority": 256},
        {"priority": 1.5},
        {"priority": "high"},
        {"job_id": ""},
        {"job_id": "x" * 256},
        {"job_id": 7},
        {"expires": -1},
        {"expires": "1h"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"headers": {"a": 1}},
        {"headers": "a"},
    ],
)
def test_an_option_out_of_range_or_of_another_type_is_refused_by_name(
    wrong: Any,
) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"an option of add .*`\$\.{name}"):
        JobOptions().merged("add", wrong)


@pytest.mark.parametrize("queue", [7, None, "", "amq.reserved", "é"])
def test_a_queue_that_no_broker_would_take_is_refused(queue: Any) -> None:
    with pytest.raises(ConfigurationError, match="the queue name"):
        JobOptions().merged("add", {"queue": queue})


def test_an_option_that_does_not_exist_is_a_type_error() -> None:
    unknown: Any = {"prority": 1, "delay": 3}
    with pytest.raises(TypeError, match=r"add\.options\(\) has no option delay, pror"):
        JobOptions().merged("add", unknown)


def test_the_keywords_are_the_fields() -> None:
    assert tuple(EnqueueOptions.__annotations__) == JobOptions.__struct_fields__
