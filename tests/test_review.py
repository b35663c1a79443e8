"""What the doctor tells of an App without a broker: each conflict, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from rmqarq import App, delays
from rmqarq.case import Attempt, Case, Sight
from rmqarq.diagnosis import brokers
from rmqarq.review import CHECKS
from rmqarq.url import parse_url
from rmqarq.wire.probe import Place, Presence


def make(**settings: Any) -> App:
    app = App("amqp://localhost/", **{"queue": "mails", **settings})

    @app.task
    async def work() -> None: ...

    return app


def trouble(app: App, version: tuple[int, ...] = ()) -> list[tuple[str, str]]:
    """Give the level and place of what is not in order; each has a fix."""
    attempt = Attempt(parse_url("amqp://localhost/"), None, "RabbitMQ", version)
    case = Case("jobs:app", app, (attempt,), Sight(attempt))
    findings = [each for check in CHECKS for each in check(case)]
    for each in findings:
        assert "{" not in str(each.what)
        assert each.fix is not None or each.level == "ok"
    return [(each.level, each.where) for each in findings if each.level != "ok"]


def test_the_defaults_are_in_order() -> None:
    assert trouble(make()) == []


@pytest.mark.parametrize(
    ("settings", "level", "where"),
    [
        ({"heartbeat": 600}, "warning", "heartbeat"),
        ({"shutdown_grace": 120}, "note", "shutdown_grace"),
        ({"connect_timeout": 60}, "warning", "connect_timeout"),
        ({"burst": True, "burst_timeout": 10}, "warning", "work"),
        ({"burst_timeout": 10}, "note", "work"),
        ({"prefetch": 5}, "warning", "prefetch"),
        ({"max_priority": 5}, "warning", "max_priority"),
        ({"processes": 3, "health_port": 8000}, "note", "health_port"),
        ({"processes": 3, "health_port": 65534}, "error", "health_port"),
        ({"tls_ca": "ca.pem"}, "warning", "tls_ca"),
        ({"queue": "rmqarq.lost"}, "error", "rmqarq.lost"),
        ({"queue": "rmqarq.delay.1s"}, "error", "rmqarq.delay.1s"),
    ],
)
def test_settings_that_conflict_are_named(
    settings: dict[str, Any], level: str, where: str
) -> None:
    assert trouble(make(**settings)) == [(level, where)]


def test_a_task_without_a_timeout_outlasts_a_delivery_and_a_burst() -> None:
    app = make(job_timeout=None)
    assert trouble(app) == [("warning", "work"), ("note", "work")]
    classic = make(job_timeout=None, queue_type="classic", burst_timeout=None)
    assert trouble(classic, (4, 2, 5)) == [("warning", "work")]
    assert trouble(classic, (4, 3, 0)) == []


@pytest.mark.parametrize(
    ("version", "fix"), [((3, 10, 8), "rabbitmq.conf"), ((3, 12, 0), "set_policy")]
)
def test_deliveries_stay_open_by_a_policy_where_there_is_one(
    version: tuple[int, ...], fix: str
) -> None:
    attempt = Attempt(parse_url("amqp://localhost/"), None, "RabbitMQ", version)
    case = Case("jobs:app", make(job_timeout=7200), (attempt,), Sight(attempt))
    findings = [each for check in CHECKS for each in check(case) if each.fix]
    assert fix in str(findings[0].fix)


def test_consume_functions_are_judged_like_tasks() -> None:
    app = App("amqp://localhost/", burst=True, burst_timeout=10)

    @app.consume("legacy", timeout=7200)
    async def take(body: bytes) -> None: ...

    expected = [("warning", "take"), ("warning", "take")]
    assert trouble(app) == expected
    app = App("amqp://localhost/", queue_type="classic", burst_timeout=None)
    app.consume("legacy", timeout=7200)(take.fn)
    assert trouble(app, (4, 3, 0)) == expected[:1]  # theirs may be of another type


@pytest.mark.parametrize(
    ("settings", "plugin", "there", "levels"),
    [
        ({"delays": "plugin"}, "enabled", True, []),
        ({"delays": "plugin"}, "enabled", False, ["error"]),
        ({"delays": "plugin"}, "missing", True, ["error"]),
        ({"delays": "plugin", "declare": "passive"}, "refused", False, ["error"]),
        ({}, "enabled", None, ["note"]),
        ({}, "refused", None, []),
        ({}, "refused", True, ["note"]),
        ({}, "missing", True, ["warning"]),
        ({}, "missing", None, []),
    ],
)
def test_the_plugin_is_there_where_it_is_needed_and_known_where_it_is_used(
    settings: dict[str, Any], plugin: Presence, there: bool | None, levels: list[str]
) -> None:
    attempt = Attempt(parse_url("amqp://localhost/"), None, "RabbitMQ", (3, 13, 7))
    name = "rmqarq.delayed"
    places = {} if there is None else {name: Place(name, there)}
    sight = Sight(attempt, places, plugin=plugin)
    findings = list(
        delays.plugin(Case("jobs:app", make(**settings), (attempt,), sight))
    )
    assert [each.level for each in findings] == levels
    assert all(each.fix for each in findings)


def test_priorities_need_levels() -> None:
    for settings, version, troubled in (
        ({}, (3, 13, 7), True),
        ({}, (4, 0, 5), False),
        ({"queue_type": "classic"}, (4, 0, 5), True),
        ({"queue_type": "classic", "max_priority": 5}, (3, 10, 8), False),
    ):
        app = make(**settings)

        @app.task(priority=9)
        async def urgent() -> None: ...

        expected = [("warning", "urgent")] if troubled else []
        assert trouble(app, version) == expected


def test_a_queue_of_jobs_is_no_dead_letter_queue() -> None:
    app = make()
    app.task(name="buried", queue="mails_dlq")(make().tasks["work"].fn)
    assert trouble(app) == [("error", "mails_dlq")]


def test_two_queues_with_one_dead_letter_queue_are_named() -> None:
    app = make(dead_letter_queue="other_dlq")
    app.task(name="other", queue="other")(make().tasks["work"].fn)
    assert trouble(app) == [("warning", "other_dlq")]


def test_an_app_without_tasks_is_an_error() -> None:
    assert trouble(App("amqp://localhost/")) == [("error", "jobs:app")]


def test_a_guest_from_elsewhere_is_warned_about() -> None:
    app = make()
    app.configure(App("amqp://broker.example/").settings)
    assert trouble(app) == [("warning", "amqp://guest:***@broker.example:5672/")]


@pytest.mark.parametrize(
    ("product", "version", "levels"),
    [
        ("RabbitMQ", (4, 2, 5), ["ok"]),
        ("RabbitMQ", (4, 0, 5), ["ok", "note"]),
        ("RabbitMQ", (3, 9, 1), ["ok", "error"]),
        ("LavinMQ", (2, 4, 0), ["warning"]),
        ("rmqarq dev broker", (3, 10, 8), ["note"]),
    ],
)
def test_the_broker_is_one_that_rmqarq_is_made_for(
    product: str, version: tuple[int, ...], levels: list[str]
) -> None:
    attempt = Attempt(parse_url("amqp://localhost/"), None, product, version)
    case = Case("jobs:app", make(), (attempt,))
    assert [each.level for each in brokers(case)] == levels


def test_bodies_that_rabbitmq_4_refuses_are_named() -> None:
    attempt = Attempt(parse_url("amqp://localhost/"), None, "RabbitMQ", (4, 2, 0))
    case = Case("jobs:app", make(max_body=32 * 1024 * 1024), (attempt,))
    (_, finding) = brokers(case)
    assert str(finding.fix) == "max_message_size = 33554432 in rabbitmq.conf"
