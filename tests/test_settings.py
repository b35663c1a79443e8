"""Settings: where they come from, what they refuse, what they show."""

from __future__ import annotations

import ast
import inspect
import logging
import os
import types
import typing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec
import pytest

import rmqarq
from rmqarq import App, ConfigurationError, Settings, Worker
from rmqarq.decorator import TaskOptions
from rmqarq.job import EnqueueOptions, JobOptions
from rmqarq.policy import Policy
from rmqarq.settings import SettingsFields
from rmqarq.when import Duration

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(rmqarq.__file__).parent


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RMQARQ_"):
            monkeypatch.delenv(name)


def test_what_is_given_in_code_beats_the_environment_which_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RMQARQ_QUEUE", "from_environment")
    monkeypatch.setenv("RMQARQ_CONCURRENCY", "7")
    app = App(queue="from_code")
    assert app.settings.queue == "from_code"
    assert app.settings.concurrency == 7
    assert app.settings.max_retries == Settings().max_retries


def test_a_whole_settings_value_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RMQARQ_CONCURRENCY", "7")
    given = Settings(queue="mine")
    assert App(given).settings is given
    assert Settings().concurrency == 100


def test_the_url_in_code_beats_that_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RMQARQ_URL", "amqp://environment")
    assert App().settings.url == "amqp://environment"
    assert App("amqp://code").settings.url == "amqp://code"
    assert App(["amqp://a", "amqp://b"]).settings.url == ("amqp://a", "amqp://b")


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("RMQARQ_CONCURRENCY", "7", "concurrency", 7),
        ("RMQARQ_JOB_TIMEOUT", "1.5", "job_timeout", 1.5),
        ("RMQARQ_JOB_TIMEOUT", "null", "job_timeout", None),
        ("RMQARQ_BURST", "true", "burst", True),
        ("RMQARQ_BURST", "1", "burst", True),
        ("RMQARQ_BURST", "false", "burst", False),
        ("RMQARQ_BURST_WAIT", "0", "burst_wait", False),
        ("RMQARQ_QUEUE_TYPE", "classic", "queue_type", "classic"),
        ("RMQARQ_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("RMQARQ_LANGUAGE", "zh", "language", "zh"),
        ("RMQARQ_URL", "amqp://a,amqp://b", "url", "amqp://a,amqp://b"),
        ("RMQARQ_DEAD_LETTER_QUEUE", "dead", "dead_letter_queue", "dead"),
    ],
)
def test_a_variable_is_read_as_the_type_of_its_setting(
    variable: str, text: str, field: str, value: object, monkeypatch: Any
) -> None:
    monkeypatch.setenv(variable, text)
    found = getattr(Settings.from_env(), field)
    assert found == value
    assert type(found) is type(value)


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMQARQ_CONCURRENCY", "")
    monkeypatch.setenv("RMQARQ_NO_SUCH_THING", "")
    assert Settings.from_env() == Settings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RMQARQ_CONCURRENCY", "many"),
        ("RMQARQ_CONCURRENCY", "0"),
        ("RMQARQ_BURST", "maybe"),
        ("RMQARQ_QUEUE_TYPE", "stream"),
        ("RMQARQ_JOB_TIMEOUT", "-1"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError, match=f"{variable} can't be '{text}'"):
        Settings.from_env()


def test_a_mistyped_variable_is_warned_about_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RMQARQ_CONCURENCY", "7")
    assert Settings.from_env().concurrency == 100
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "the environment variable RMQARQ_CONCURENCY is not a setting;"
        " did you mean RMQARQ_CONCURRENCY?"
    )


def test_a_variable_that_resembles_nothing_is_warned_about_without_a_guess(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RMQARQ_PORT_5672_TCP", "tcp://10.0.0.1")
    Settings.from_env()
    assert [each.getMessage() for each in caplog.records] == [
        "the environment variable RMQARQ_PORT_5672_TCP is not a setting and is ignored"
    ]


@pytest.mark.parametrize(
    "variable",
    ["RMQARQ_ENV", "RMQARQ_DEV_URL", "RMQARQ_TEST_X", "RMQARQ_CHAOS_Y", "OTHER_QUEUE"],
)
def test_reserved_and_foreign_variables_are_passed_over_in_silence(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, "x")
    assert Settings.from_env() == Settings()
    assert not caplog.records


@pytest.mark.parametrize(
    "given", [None, "amqp://production.example/", Settings(url="amqp://a.example/")]
)
@pytest.mark.parametrize(
    "dev",
    ["amqp://127.0.0.1:1/", "amqp://localhost", "amqp://[::1]:7/,amqp://127.1.2.3"],
)
def test_the_url_of_rmqarq_dev_beats_the_environment_and_even_the_code(
    given: str | Settings | None, dev: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMQARQ_URL", "amqp://other.example/")
    monkeypatch.setenv("RMQARQ_DEV_URL", dev)
    assert App(given).settings.url == dev
    monkeypatch.setenv("RMQARQ_DEV_URL", "")
    assert App(given).settings.url != dev


def test_the_url_of_rmqarq_dev_beats_that_of_a_worker_s_own_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = Settings(url="amqp://production.example/", concurrency=7)
    assert Worker(App(), given).settings is given
    monkeypatch.setenv("RMQARQ_DEV_URL", "amqp://127.0.0.1:1/")
    app = App()
    worker = Worker(app, given)
    assert worker.settings == Settings(url="amqp://127.0.0.1:1/", concurrency=7)
    assert app.settings is worker.settings
    monkeypatch.setenv("RMQARQ_DEV_URL", "amqp://10.0.0.1/")
    with pytest.raises(ConfigurationError, match="may only name a broker on this"):
        Worker(app, given)


@pytest.mark.parametrize(
    "dev",
    [
        "amqp://guest:secret@production.example/",
        "amqp://10.0.0.1/",
        "amqp://localhost.example/",
        "amqp://127.0.0.1/,amqp://0.0.0.0/",
    ],
)
def test_the_url_of_rmqarq_dev_can_only_name_this_machine(
    dev: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMQARQ_DEV_URL", dev)
    with pytest.raises(ConfigurationError, match="RMQARQ_DEV_URL beats") as caught:
        App()
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("RMQARQ_DEV_URL", "no url")
    with pytest.raises(ConfigurationError, match="'no url' can't be used"):
        App()


def test_another_prefix_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMQARQ_QUEUE", "no")
    monkeypatch.setenv("JOBS_QUEUE", "yes")
    assert Settings.from_env("JOBS_").queue == "yes"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("concurrency", 0),
        ("concurrency", "7"),
        ("concurrency", True),
        ("prefetch", 0),
        ("prefetch", 65536),
        ("max_priority", 0),
        ("max_priority", 256),
        ("heartbeat", 0),
        ("heartbeat", 65536),
        ("heartbeat", 1.5),
        ("max_retries", -1),
        ("job_timeout", 0),
        ("job_timeout", -1.0),
        ("job_timeout", float("nan")),
        ("retry_backoff", -0.1),
        ("burst_check_interval", 0),
        ("queue", None),
        ("queue", 7),
        ("queue_type", "stream"),
        ("declare", "maybe"),
        ("serializer", "pickle"),
        ("language", "fr"),
        ("log_level", "debug"),
        ("log_level", "LOUD"),
        ("validate", "yes"),
        ("url", 7),
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_refused_by_name(
    field: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError, match=f"the setting {field} can't be"):
        Settings(**{field: value})


def test_every_time_may_be_a_timedelta() -> None:
    times = {
        field.name
        for field in msgspec.structs.fields(Settings)
        if float in _kinds(field.type) or field.name == "heartbeat"
    }
    assert len(times) == 11
    for name in times:
        settings = Settings(**{name: timedelta(minutes=2)})
        assert (
            repr(settings)
            == f"Settings({name}=120{'' if name == 'heartbeat' else '.0'})"
        )
        assert getattr(App(**{name: timedelta(minutes=2)}).settings, name) == 120
        changed = msgspec.structs.replace(Settings(), **{name: timedelta(minutes=2)})
        assert changed == settings
    assert typing.get_type_hints(SettingsFields)["job_timeout"] == Duration | None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("job_timeout", timedelta(0)),
        ("shutdown_grace", timedelta(seconds=-1)),
        ("heartbeat", timedelta(milliseconds=1500)),
        ("heartbeat", timedelta(days=1)),
        ("concurrency", timedelta(seconds=1)),
    ],
)
def test_a_timedelta_is_checked_as_a_number_is(field: str, value: timedelta) -> None:
    with pytest.raises(ConfigurationError, match=f"the setting {field} can't be"):
        Settings(**{field: value})  # type: ignore[arg-type]


def test_a_replaced_value_is_checked_too() -> None:
    with pytest.raises(ConfigurationError, match="the setting concurrency"):
        msgspec.structs.replace(Settings(), concurrency=0)


def test_a_setting_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="concurency"):
        Settings(concurency=7)  # type: ignore[call-arg]


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().queue = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("concurrency", "prefetch", "expected"),
    [(100, None, 110), (1, None, 1), (10, None, 11), (65000, None, 65535), (5, 2, 2)],
)
def test_prefetch_is_concurrency_and_a_tenth_unless_it_is_given(
    concurrency: int, prefetch: int | None, expected: int
) -> None:
    settings = Settings(concurrency=concurrency, prefetch=prefetch)
    assert settings.prefetch_count == expected


def test_only_what_differs_from_the_default_is_shown() -> None:
    assert repr(Settings()) == "Settings()"
    shown = repr(Settings(queue="mail", burst=True))
    assert shown == "Settings(queue='mail', burst=True)"


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:S3CRET@h",
        "amqp://u:S3CRET@h,amqp://u:S3CRET@i",
        ("amqp://u:S3CRET@h", "amqp://i"),
        ["amqp://u:S3CRET@h"],
    ],
)
def test_a_password_is_in_no_repr(url: Any) -> None:
    settings = Settings(url=url)
    assert "S3CRET" not in repr(settings)
    assert "S3CRET" not in str(settings)
    assert "S3CRET" not in repr(settings.__rich_repr__())
    assert "***" in repr(settings)
    assert "***" in repr(settings.__rich_repr__())


def test_a_password_is_in_no_error_about_the_url() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(url=("amqp://u:S3CRET@h", 7))  # type: ignore[arg-type]
    assert "S3CRET" not in str(caught.value)
    assert "***" in str(caught.value)


def test_the_keywords_of_an_app_are_the_settings_but_for_the_url() -> None:
    fields = {each.name: each.type for each in msgspec.structs.fields(Settings)}
    keywords = get_type_hints(SettingsFields)
    assert list(keywords) == [name for name in fields if name != "url"]
    for name, hint in keywords.items():
        assert _kinds(hint) - {timedelta} == _kinds(fields[name]), name


def test_every_setting_is_described_in_order() -> None:
    text = inspect.getdoc(Settings) or ""  # the same indentation on every Python
    described = [
        line.partition(":")[0].strip()
        for line in text.partition("Args:")[2].partition("Raises:")[0].splitlines()
        if line.startswith("    ") and not line.startswith("     ")
    ]
    assert described == list(Settings.__struct_fields__)


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nobody reads does nothing, whatever its documentation says."""
    read: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name != "settings.py":
            tree = ast.parse(path.read_text("utf-8"))
            read |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Load)
                and _is_settings(node.value)
            }
    read |= {"prefetch"} if "prefetch_count" in read else set()
    assert set(Settings.__struct_fields__) - read == set()


def _attributes_of(*owners: str) -> set[str]:
    """What the package reads of `policy`, say, or of `<anything>.policy`."""
    read: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = getattr(owner, "id", getattr(owner, "attr", ""))
                read |= {node.attr} if name.strip("_") in owners else set()
    return read


def test_every_option_of_a_task_and_of_a_call_is_read_somewhere() -> None:
    assert set(Policy.__struct_fields__) - _attributes_of("policy") == set()
    assert set(JobOptions.__struct_fields__) - _attributes_of("options") == set()


def test_every_option_ends_up_in_what_is_read() -> None:
    of_calls = set(EnqueueOptions.__annotations__)
    assert of_calls == set(JobOptions.__struct_fields__)
    of_tasks = set(TaskOptions.__annotations__) - {"name"}
    kept = {*Policy.__struct_fields__, *JobOptions.__struct_fields__}
    assert of_tasks - kept == set()
    assert set(Policy.__struct_fields__) - of_tasks == {"no_timeout"}


def _commands() -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions whose parameters are the flags of a command."""
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{path.stem}.{node.name}", node


def test_every_flag_of_a_command_is_read() -> None:
    """A flag that its command does not look at does nothing."""
    unread: list[str] = []
    for name, command in _commands():
        used = {
            node.id
            for node in ast.walk(ast.Module(command.body, []))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        flags = {each.arg for each in (*command.args.args, *command.args.kwonlyargs)}
        unread += [f"{name}: {flag}" for flag in flags - used]
    # both have been read before the command is called
    assert sorted(unread) == ["main.options: language", "main.options: show_version"]
    assert "run.run" in dict(_commands())


def _is_settings(node: ast.expr) -> bool:
    """Recognise `settings` and `<anything>.settings`, with or without underscore."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.strip("_") == "settings"


def _kinds(hint: Any) -> frozenset[Any]:
    """Give what a setting may be, without the limits."""
    plain = _plain(hint)
    return plain if isinstance(plain, frozenset) else frozenset({plain})


def _plain(hint: Any) -> Any:
    """Take the limits off a type."""
    if typing.get_origin(hint) is typing.Annotated:
        return hint.__origin__
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return frozenset(map(_plain, typing.get_args(hint)))
    return hint
