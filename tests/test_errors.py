"""The tree of errors and what survives a trip to another process."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import rmqarq
from rmqarq import errors
from rmqarq.errors import (
    CodecError,
    ConfigurationError,
    ConnectionLost,
    JobSignal,
    PartlyEnqueued,
    QueueFull,
    Reject,
    Retry,
    RmqarqError,
    TransportError,
)

TREE: dict[str, list[str]] = {
    "RmqarqError": [
        "ConfigurationError",
        "NotFound",
        "Unhealthy",
        "CodecError",
        "TransportError",
    ],
    "ConfigurationError": [
        "TaskAlreadyRegistered",
        "AppNotFound",
        "TopologyMismatch",
        "QueueMissing",
        "AccessRefused",
    ],
    "CodecError": ["EncodeError", "DecodeError"],
    "TransportError": [
        "ConnectionFailed",
        "ConnectionLost",
        "QueueFull",
        "Unroutable",
        "BrokerBlocked",
        "OutcomeUnknown",
        "PartlyEnqueued",
        "PartlyMapped",
    ],
    "JobSignal": ["Retry", "Reject"],
}
CLASSES: list[type[RmqarqError]] = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RmqarqError)
]


def test_the_tree_is_the_one_that_is_drawn() -> None:
    for parent, children in TREE.items():
        below = getattr(errors, parent).__subclasses__()
        ours = [kind.__name__ for kind in below if kind.__module__ == errors.__name__]
        assert ours == children
    drawn = errors.__doc__ or ""
    for name in {*TREE, *(child for below in TREE.values() for child in below)}:
        assert name in drawn.split(), name


def test_every_error_can_be_imported_from_the_package() -> None:
    for kind in (*CLASSES, Retry, Reject):
        assert getattr(rmqarq, kind.__name__) is kind


def test_a_transport_error_is_a_connection_error_and_the_others_are_not() -> None:
    assert issubclass(TransportError, ConnectionError)
    assert not issubclass(ConfigurationError, OSError)
    assert not issubclass(CodecError, OSError)


def test_the_signals_are_not_errors_of_the_framework() -> None:
    assert not issubclass(JobSignal, RmqarqError)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_says_its_sentence_in_english(kind: type[RmqarqError]) -> None:
    error = kind("the queue {queue} is {state}", queue="'q'", state="full")
    assert str(error) == "the queue 'q' is full"
    assert error.args == ("the queue 'q' is full",)
    assert (error.template, error.params) == (
        "the queue {queue} is {state}",
        {"queue": "'q'", "state": "full"},
    )


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("trip", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_survives_a_trip(kind: type[RmqarqError], trip: Any) -> None:
    sent = kind("{n} of {total} jobs", n=1, total=2)
    came = trip(sent)
    assert type(came) is kind
    assert str(came) == "1 of 2 jobs"
    assert (came.template, came.params) == (sent.template, sent.params)


def test_braces_without_parameters_are_taken_as_they_are() -> None:
    assert str(QueueFull("{not a placeholder}")) == "{not a placeholder}"


def test_braces_in_a_parameter_are_taken_as_they_are() -> None:
    assert str(ConnectionLost("lost: {cause}", cause="{x} {0}")) == "lost: {x} {0}"


def test_the_failures_of_a_batch_survive_a_trip() -> None:
    error = PartlyEnqueued("{failed} of 2", failed=1)
    error.failures, error.jobs = {0: QueueFull("full")}, [None, "job"]
    came = pickle.loads(pickle.dumps(error))
    assert str(came.failures[0]) == "full"
    assert came.jobs == [None, "job"]


@pytest.mark.parametrize(
    ("defer", "text"),
    [
        (None, ""),
        (10, "10"),
        (timedelta(seconds=3), "0:00:03"),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01 00:00:00+00:00"),
    ],
)
def test_a_retry_carries_its_time(defer: Any, text: str) -> None:
    signal = Retry(defer)
    assert signal.defer == defer
    assert str(signal) == text
    assert pickle.loads(pickle.dumps(signal)).defer == defer


def test_a_rejection_carries_its_reason() -> None:
    signal = Reject("no such user")
    assert signal.reason == str(signal) == "no such user"
    assert pickle.loads(pickle.dumps(signal)).reason == "no such user"
    assert str(Reject()) == ""
