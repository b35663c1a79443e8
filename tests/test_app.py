"""The App: registry, settings and inclusion; nothing here needs a broker."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rmqarq import (
    App,
    ConfigurationError,
    EncodeError,
    Settings,
    TaskAlreadyRegistered,
)
from rmqarq.testing import world


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RMQARQ_"):
            monkeypatch.delenv(name)


async def add(a: int, b: int = 1) -> int:
    return a + b


async def other(a: int) -> int:
    return a


def queue_of(app: App[Any], name: str) -> str:
    return app.queue_of(app.tasks[name])


# --- settings ---


def test_settings_and_a_single_setting_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not both: queue, burst"):
        App(Settings(), queue="x", burst=True)


def test_an_unknown_setting_is_a_type_error() -> None:
    wrong: Any = {"concurency": 5, "burts": True}
    with pytest.raises(TypeError, match="App has no setting burts, concurency"):
        App(**wrong)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"url": "redis://h"}, "must begin with amqp"),
        ({"url": []}, "the broker URL is empty"),
        ({"queue": "amq.x"}, "the queue name 'amq.x'"),
        ({"concurrency": 0}, "the setting concurrency"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_app_is_made(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        App(**given)


def test_an_app_can_be_made_without_an_event_loop() -> None:
    assert App("amqp://h").settings.url == "amqp://h"


def test_a_transport_needs_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        _ = App().transport


async def test_an_app_keeps_one_transport_while_its_loop_runs() -> None:
    app = App()
    assert app.transport is app.transport


async def test_configure_replaces_settings_but_not_under_a_running_app() -> None:
    app = App(queue="before")
    app.configure(Settings(queue="after"))
    assert app.settings.queue == "after"
    with pytest.raises(ConfigurationError):
        app.configure(Settings(queue="amq.bad"))
    app.retain()
    with pytest.raises(ConfigurationError, match="while it is in use"):
        app.configure(Settings())
    await app.release()


# --- registry ---


def test_two_functions_under_one_name_are_refused_with_both_places() -> None:
    app = App()
    app.task(name="same")(add)
    with pytest.raises(TaskAlreadyRegistered) as caught:
        app.task(name="same")(other)
    text = str(caught.value)
    assert f"'same' is taken by {__name__}.add" in text
    assert f"give {__name__}.other another name" in text
    assert app.tasks["same"].fn is add


def test_one_function_may_be_registered_again() -> None:
    app = App()
    app.task(add)
    task = app.task(queue="mail")(add)
    assert app.tasks == {"add": task}


def test_one_function_may_have_two_names() -> None:
    app = App()
    app.task(add)
    app.task(name="add_slowly", queue="slow")(add)
    assert (queue_of(app, "add"), queue_of(app, "add_slowly")) == ("rmqarq", "slow")


# --- inclusion ---


def test_an_included_task_without_a_queue_gets_that_of_its_own_app() -> None:
    outer, inner = App(queue="outer"), App(queue="inner")
    inner.task(add)
    inner.task(queue="mail")(other)
    outer.include(inner)
    assert (queue_of(outer, "add"), queue_of(outer, "other")) == ("inner", "mail")


def test_an_included_task_of_an_app_without_a_queue_gets_the_outer_one() -> None:
    outer, inner = App(queue="outer"), App()
    inner.task(add)
    outer.include(inner)
    assert queue_of(outer, "add") == "outer"


def test_included_tasks_publish_through_the_outer_app() -> None:
    outer, inner = App(), App()
    task = inner.task(add)
    outer.include(inner)
    assert task.publisher is outer
    assert task.options(priority=1).publisher is outer


def test_several_apps_may_be_included_at_once() -> None:
    outer, one, two = App(queue="o"), App(queue="one"), App(queue="two")
    one.task(add)
    two.task(other)
    outer.include(one, two)
    assert {name: queue_of(outer, name) for name in outer.tasks} == {
        "add": "one",
        "other": "two",
    }


def test_a_name_that_both_apps_use_is_refused() -> None:
    outer, inner = App(), App()
    outer.task(name="same")(add)
    inner.task(name="same")(other)
    with pytest.raises(TaskAlreadyRegistered):
        outer.include(inner)


def test_what_is_registered_after_the_inclusion_is_taken_over_too() -> None:
    outer, middle, inner = App(queue="outer"), App(), App(queue="inner")
    outer.include(middle)
    middle.include(inner)
    task = inner.task(add)
    assert task.publisher is outer
    assert queue_of(outer, "add") == queue_of(middle, "add") == "inner"

    @middle.consume("theirs")
    async def event(body: str) -> None: ...

    assert [*outer.registry.handlers] == ["theirs"]


def test_an_app_can_be_included_again_and_never_in_itself() -> None:
    outer, inner = App(), App()
    inner.task(add)
    outer.include(inner)
    outer.include(inner)
    for one, other in ((outer, outer), (inner, outer)):
        with pytest.raises(ConfigurationError, match="can't include itself"):
            one.include(other)


async def test_calls_are_sent_by_the_app_that_their_task_belongs_to() -> None:
    outer, inner, apart = App(queue="outer"), App(queue="inner"), App(queue="apart")
    mine, theirs = outer.task(add), apart.task(other)
    audit = inner.ref("audit")
    outer.include(inner)
    async with world(outer) as w:
        await inner.enqueue_many([mine.job(1, 2), audit.job("a")])
        await inner.enqueue(audit.job("b"))
        assert [each.queue for each in w.enqueued] == ["outer", "inner", "inner"]
        both = [mine.job(1, 2), theirs.job(1)]
        with pytest.raises(ConfigurationError, match="of several Apps"):
            await outer.enqueue_many(both)
        assert await outer.enqueue_many(mine.job(n, n) for n in range(2)) != []
        assert await outer.enqueue_many([]) == []
    async with world(apart) as w:
        await outer.enqueue_many([theirs.job(1)])
        assert [each.queue for each in w.enqueued] == ["apart"]


# --- tasks of other codebases ---


def test_a_ref_names_a_task_of_another_codebase() -> None:
    app = App(queue="q")
    task = app.ref("elsewhere")
    assert task.name == "elsewhere"
    assert "elsewhere" not in app.tasks
    spec = task.job(1, "two", three=[3])
    assert (spec.args, spec.kwargs) == ((1, "two"), {"three": [3]})
    assert task.options(queue="theirs").job().options.queue == "theirs"


def test_a_ref_to_a_task_of_this_app_is_that_task() -> None:
    app = App()
    assert app.ref("add") is not app.task(add)
    assert app.ref("add") is app.tasks["add"]


async def test_a_ref_cannot_be_run_here() -> None:
    with pytest.raises(ConfigurationError, match="'elsewhere' is not part of this"):
        await App().ref("elsewhere")(1)


async def test_a_ref_takes_native_values_only() -> None:
    app = App("amqp://127.0.0.1:1", publish_deadline=0.1)
    with pytest.raises(EncodeError, match="would arrive changed"):
        await app.ref("elsewhere").enqueue({1, 2})
    with pytest.raises(EncodeError, match="the argument 'data' of elsewhere"):
        await app.ref("elsewhere").enqueue(data=b"bytes")


async def test_a_bad_argument_in_a_batch_sends_nothing() -> None:
    app = App("amqp://127.0.0.1:1", publish_deadline=0.1)
    task: Any = app.task(add)
    with pytest.raises(EncodeError, match="'a' of add"):
        await app.enqueue_many([task.job(1), task.job("x")])


async def test_an_empty_batch_is_no_work() -> None:
    assert await App("amqp://127.0.0.1:1").enqueue_many([]) == []


# --- hooks ---


async def test_hooks_are_kept_in_order_and_stay_functions() -> None:
    app = App()

    async def first(_: Any) -> None: ...
    async def second(_: Any) -> None: ...

    for register, kept in (
        (app.on_startup, app.hooks.startup),
        (app.on_shutdown, app.hooks.shutdown),
        (app.on_job_start, app.hooks.job_start),
        (app.on_job_end, app.hooks.job_end),
    ):
        assert register(first) is first
        assert register(second) is second
        assert kept == [first, second]
