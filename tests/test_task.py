"""Registering functions as tasks, and calling them right here."""

from __future__ import annotations

import functools
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, Backoff, ConfigurationError, Context, State, Task
from rmqarq.decorator import TaskDecorator
from rmqarq.job import JobOptions
from rmqarq.task import Policy

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def app() -> App:
    return App(queue="q")


async def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def plain(a: int) -> tuple[int, threading.Thread]:
    return a, threading.current_thread()


async def with_context(ctx: Context, a: int) -> tuple[Context, int]:
    return ctx, a


def plain_with_context(ctx: Context, a: int) -> tuple[Context, int]:
    return ctx, a


async def received(event: dict[str, str]) -> None: ...


# --- registration ---


def test_a_function_becomes_a_task_under_its_name(app: App) -> None:
    task = app.task(add)
    assert isinstance(task, Task)
    assert task.name == "add"
    assert task.fn is add
    assert app.tasks == {"add": task}
    assert repr(task) == "<Task add>"
    assert task.policy == Policy()


def test_the_options_are_sorted_into_policy_and_job(app: App) -> None:
    task = app.task(
        name="other",
        queue="mail",
        priority=3,
        timeout=30,
        max_retries=5,
        backoff=2,
        retry_on=(OSError, KeyError),
        expires=60,
        compression=True,
    )(add)
    assert task.name == "other"
    assert task.policy == Policy(
        queue="mail",
        timeout=30.0,
        max_retries=5,
        backoff=Backoff(base=2.0),
        retry_on=(OSError, KeyError),
    )
    assert task.job(1).options == JobOptions(priority=3, expires=60.0, compression=True)


def test_times_may_be_timedeltas(app: App) -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    task = app.task(timeout=minute, backoff=minute, expires=hour)(add)
    assert task.policy == Policy(timeout=60.0, backoff=Backoff(base=60.0))
    assert task.job(1).options == JobOptions(expires=3600.0)
    assert task.options(expires=minute).job(1).options == JobOptions(expires=60.0)
    handler = app.consume("theirs", timeout=minute, backoff=hour)(received)
    assert handler.policy == Policy(timeout=60.0, backoff=Backoff(base=3600.0))
    with pytest.raises(ConfigurationError, match="expires"):
        task.options(expires=-minute)
    with pytest.raises(ConfigurationError, match="timeout"):
        app.task(name="other", timeout=timedelta(0))(add)
    with pytest.raises(ConfigurationError, match="priority"):
        task.options(priority=minute)  # type: ignore[typeddict-item]


def test_a_backoff_is_taken_as_it_is(app: App) -> None:
    backoff = Backoff(base=1, factor=3)
    assert app.task(backoff=backoff)(add).policy.backoff is backoff


def test_one_exception_may_stand_for_itself(app: App) -> None:
    retry_on: Any = OSError
    assert app.task(retry_on=retry_on)(add).policy.retry_on == (OSError,)


def test_no_timeout_is_another_thing_than_a_timeout_not_given(app: App) -> None:
    assert not app.task(name="a")(add).policy.no_timeout
    assert app.task(name="b", timeout=None)(add).policy.no_timeout


def test_the_decorator_is_a_value_whose_options_can_be_refined(app: App) -> None:
    mail = app.task(queue="mail", max_retries=1)
    assert isinstance(mail, TaskDecorator)
    assert mail(add).policy.queue == "mail"
    refined = mail(name="second", max_retries=9)(add)
    assert (refined.policy.queue, refined.policy.max_retries) == ("mail", 9)
    again = mail(name="third")(add)
    assert (again.policy.queue, again.policy.max_retries) == ("mail", 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": None, "priority": 256}, "priority"),
        ({"priority": -1}, "priority"),
        ({"expires": -1}, "expires"),
        ({"compression": 1}, "compression"),
        ({"queue": 7}, "queue"),
        ({"retry_on": ("ValueError",)}, "retry_on of the task add"),
        ({"retry_on": (ValueError, 7)}, "not 7"),
        ({"retry_on": KeyboardInterrupt}, "KeyboardInterrupt"),
        ({"queue": "amq.reserved"}, "amq.reserved"),
        ({"queue": ""}, "''"),
        ({"name": "x" * 256}, "255 bytes"),
        ({"name": "漢" * 86}, "255 bytes"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(
    options: dict[str, Any], named: str, app: App
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        app.task(**options)(add)
    assert named in str(caught.value)
    assert not app.tasks


@pytest.mark.parametrize(
    "options",
    [
        {"backoff": "5"},
        {"backoff": True},
        {"backoff": -1},
    ],
    ids=repr,
)
def test_a_wrong_retry_policy_is_refused_where_it_is_written(
    options: dict[str, Any], app: App
) -> None:
    with pytest.raises(ConfigurationError):
        app.task(**options)(add)


def test_an_option_that_does_not_exist_is_a_type_error(app: App) -> None:
    wrong: Any = {"retries": 3, "max_retry": 1}
    with pytest.raises(TypeError, match="the task add has no option max_retry, retr"):
        app.task(**wrong)(add)


class NotAFunction:
    """A class is no task, though it can be called."""


@pytest.mark.parametrize("thing", [NotAFunction, int, "add", 7, None.__class__])
def test_only_functions_can_be_tasks(thing: Any, app: App) -> None:
    with pytest.raises(ConfigurationError, match="a task must be a function"):
        app.task(thing)


def test_a_task_cannot_be_a_task_again(app: App) -> None:
    with pytest.raises(ConfigurationError, match="not <Task add>"):
        app.task(app.task(add))  # type: ignore[call-overload]


def test_a_function_without_a_name_needs_one(app: App) -> None:
    nameless = functools.partial(add, b=2)
    with pytest.raises(ConfigurationError, match="needs a name of 1 to 255 bytes"):
        app.task(nameless)
    assert app.task(name="add2")(nameless).name == "add2"


# --- calling it here ---


async def test_a_coroutine_function_runs_where_it_is_called(app: App) -> None:
    assert await app.task(add)(1, b=2) == 3


async def test_a_plain_function_runs_in_a_thread(app: App) -> None:
    result, thread = await app.task(plain)(7)
    assert result == 7
    assert thread is not threading.current_thread()


@pytest.mark.parametrize("fn", [with_context, plain_with_context])
async def test_a_function_that_wants_a_context_gets_one(
    fn: Callable[..., Any], app: App
) -> None:
    ctx, number = await app.task(fn)(7)
    assert number == 7
    assert isinstance(ctx, Context)
    assert isinstance(ctx.state, State)
    assert (ctx.task, ctx.job_try, ctx.redelivered) == (fn.__name__, 1, False)
    assert len(ctx.job_id) == 36
    assert ctx.queue == "q"


async def test_a_local_context_names_the_queue_of_its_task(app: App) -> None:
    ctx, _ = await app.task(queue="mail")(with_context)(7)
    assert ctx.queue == "mail"


async def test_an_exception_comes_out_as_it_is(app: App) -> None:
    @app.task
    def fails() -> None:
        msg = "oops"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="oops"):
        await fails()


async def test_a_coroutine_behind_a_plain_wrapper_is_awaited(app: App) -> None:
    @functools.wraps(add)
    def wrapper(*args: Any) -> Any:
        return add(*args)

    assert await app.task(wrapper)(1, 2) == 3


async def test_a_partial_coroutine_function_is_awaited(app: App) -> None:
    assert await app.task(name="add2")(functools.partial(add, b=2))(1) == 3


def test_a_coroutine_around_a_plain_function_is_awaited(app: App) -> None:
    @functools.wraps(plain)
    async def wrapper(a: int) -> Any:
        return plain(a)

    assert app.task(wrapper).is_async


def test_an_object_with_an_asynchronous_call_is_awaited_or_refused(app: App) -> None:
    class Adder:
        """Can be called like a coroutine function."""

        async def __call__(self, a: int) -> int:
            return a + 1

    try:
        task = app.task(name="adder")(Adder())
    except ConfigurationError:
        return
    assert task.is_async


# --- options and calls ---


def test_options_make_a_copy(app: App) -> None:
    task = app.task(priority=1)(add)
    other = task.options(priority=9).options(job_id="a-1")
    assert other is not task
    assert type(other) is Task
    assert (other.fn, other.name, other.policy) == (task.fn, task.name, task.policy)
    assert task.job(1).options == JobOptions(priority=1)
    assert other.job(1).options == JobOptions(priority=9, job_id="a-1")
    assert app.tasks == {"add": task}


def test_a_queue_among_the_options_is_checked(app: App) -> None:
    with pytest.raises(ConfigurationError):
        app.task(add).options(queue="amq.reserved")


def test_a_call_is_bound_when_it_is_made(app: App) -> None:
    task = app.task(add)
    spec = task.job(b=2, a=1)
    assert (spec.task, spec.args, spec.kwargs) == ("add", (1, 2), {})
    assert spec.defer(timedelta(hours=1)).when == timedelta(hours=1)
    wrong: Any = task.job
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'a'"):
        wrong()
    with pytest.raises(TypeError, match=r"add\(\) got an unexpected keyword"):
        wrong(1, c=2)
    with pytest.raises(TypeError, match=r"add\(\) too many positional arguments"):
        wrong(1, 2, 3)


async def test_a_wrong_call_never_reaches_for_the_broker(app: App) -> None:
    enqueue: Any = app.task(add).enqueue
    with pytest.raises(TypeError, match="missing a required argument"):
        await enqueue()
    defer: Any = app.task(name="other")(add).defer
    with pytest.raises(TypeError, match="a time must be"):
        await defer("60", 1)
    with pytest.raises(ValueError, match="finite"):
        await defer(float("inf"), 1)
