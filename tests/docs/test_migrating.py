"""Whether docs/migrating.md brings people of other systems here: its programs, run,
and its names, looked up on both sides."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

import rmqarq
from rmqarq import App, Context, Job, Settings
from rmqarq.task import Task
from tests.docs.pages import DOCS, code_blocks, section, table
from tests.docs.programs import WORKER, end, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.broker import Broker

PAGE = DOCS / "migrating.md"
MIGRATED = ("from_rabbitmq_arq", "from_arq", "from_celery", "from_dramatiq")

# what the README of RabbitMQ-ARQ shows
NAMES = """
    JobContext RabbitMQSettings RabbitMQClient Retry Worker.run WorkerSettings functions
    rabbitmq_settings ctx.job_id ctx.job_try defer on_startup on_shutdown on_job_start
    on_job_end client.connect client.close client.enqueue_job client.enqueue_jobs
    function args kwargs _defer_by _defer_until job.job_id
"""
OPTIONS = """
    rabbitmq_url rabbitmq_queue rabbitmq_dlq max_retries retry_backoff job_timeout
    prefetch_count burst_mode burst_timeout burst_check_interval burst_wait_for_tasks
    enable_compression health_check_interval log_level
"""
COMMAND_LINE = """
    --burst -b --burst-timeout --burst-check-interval --no-wait-tasks --rabbitmq-url -u
    --queue -q --prefetch-count -p --log-level -l worker queue-info purge-queue
"""

HERE = {
    "health checks": lambda: "health_port" in Settings.__struct_fields__,
    "foreign messages": lambda: hasattr(App, "consume"),
    "more processes": lambda: "--processes" in flags(),
    "reloading": lambda: "--reload" in flags(),
    "synchronous callers": lambda: hasattr(rmqarq, "Portal"),
    "results": lambda: hasattr(Job, "result"),
    "aborting": lambda: hasattr(Job, "abort"),
    "schedules": lambda: hasattr(App, "cron"),
}
"""Whether a thing that the page says is not there yet has come meanwhile."""


@cache
def help_of(*command: str) -> str:
    """Give what the program prints about itself or one of its commands."""
    return subprocess.run(
        [sys.executable, "-m", "rmqarq", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def flags() -> set[str]:
    """Give the flags of `rmqarq run`, long and short."""
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of("run")))


def commands() -> set[str]:
    """Give the commands of `rmqarq`."""
    _, _, listed = help_of().partition("Commands")
    return set(re.findall(r"^\W*(\w+)", listed, re.MULTILINE))


def words(cell: str) -> set[str]:
    """Give the names and flags in the code of a cell."""
    code = " ".join(re.findall(r"`([^`]*)`", cell))
    return set(
        re.findall(r"(?<![\w-])--?[a-z][a-z-]*|[a-z_]\w*(?:[.-]\w+)*", code, re.I)
    )


@pytest.fixture(scope="module")
def senders(broker: Broker) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The programs as producers, started together."""
    started = {
        name: start(broker.url, f"{name}.py", prefix=f"docs-{name}")
        for name in MIGRATED
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.fixture
def printed(
    request: pytest.FixtureRequest,
    broker: Broker,
    senders: dict[str, subprocess.Popen[str]],
) -> list[str]:
    """What a program sends, and what the worker of its section then writes."""
    name = request.param
    sent = end(senders[name])
    text = PAGE.read_text("utf-8")
    (command,) = re.findall(rf"^rmqarq run ({name}:app.*?) +# after$", text, re.M)
    burst = [*command.split(), "--burst", "--wait-delayed"]
    done = end(start(broker.url, *WORKER, *burst, prefix=f"docs-{name}"))
    return (sent + done).splitlines()


def program(name: str) -> pytest.MarkDecorator:
    """Say whose lines a test is about."""
    return pytest.mark.parametrize("printed", [name], indirect=True)


def test_every_section_shows_its_program() -> None:
    assert [name for name, _ in code_blocks(PAGE) if name] == [
        f"{name}.py" for name in MIGRATED
    ]


@program("from_rabbitmq_arq")
def test_the_program_from_rabbitmq_arq_runs(printed: list[str]) -> None:
    assert re.fullmatch(r"sent [0-9a-f-]{36} and 3 more", printed[0])
    for line in (
        "page 1 en of example.org in run 1",
        "page 2 zh of example.org in run 1",
        "page 3 en of example.org in run 2",
        "page 4 en of example.org in run 1",
        "fetch ended: Retried",
    ):
        assert printed.count(line) == 1, printed
    assert printed.count("fetch ended: Succeeded") == 4
    assert "4 completed ◆ 0 failed ◆ 1 retried ◆ 0 dead-lettered" in printed[-1]


@program("from_arq")
def test_the_program_from_arq_runs(printed: list[str]) -> None:
    assert printed[0] == "sent page-3"
    for page in (1, 2, 3):
        assert printed.count(f"page {page} of example.org in run 2") == 1, printed
    assert any("not retryable" in line and "no such page" in line for line in printed)
    assert "3 completed ◆ 1 failed ◆ 3 retried ◆ 1 dead-lettered" in printed[-1]


@program("from_celery")
def test_the_program_from_celery_runs(printed: list[str]) -> None:
    for item, retries in (
        ("tea", 0),
        ("cake", 0),
        ("bread", 1),
        ("milk", 0),
        ("jam", 0),
    ):
        line = f"{item} ordered after {retries} retries"
        assert "".join(printed).count(line) == 1, printed  # threads share a line
    assert any("rejected" in line and "not for sale" in line for line in printed)
    assert "5 completed ◆ 1 failed ◆ 1 retried ◆ 1 dead-lettered" in printed[-1]


@program("from_dramatiq")
def test_the_program_from_dramatiq_runs(printed: list[str]) -> None:
    for line in (
        "cat at 100 in run 1",
        "dog at 50 in run 1",
        "owl at 0 in run 2",
        "fox at 80 in run 1",
    ):
        assert "".join(printed).count(line) == 1, printed
    assert printed.count("before resize") == 5
    assert "4 completed ◆ 0 failed ◆ 1 retried ◆ 0 dead-lettered" in printed[-1]


def test_what_stood_before_is_python() -> None:
    shown = code_blocks(PAGE, "py")
    assert len(shown) == 7
    for _, code in shown:
        ast.parse(code)


@pytest.mark.parametrize(
    ("title", "names"),
    [("Names", NAMES), ("Settings", OPTIONS), ("Command line", COMMAND_LINE)],
)
def test_every_name_of_the_original_has_its_line(title: str, names: str) -> None:
    left = table(section(PAGE, title))[1:]
    found = set().union(*(words(row[0]) for row in left))
    missing = {name for name in names.split() if name not in found}
    assert not missing


def test_every_setting_named_on_our_side_is_one() -> None:
    for there, here in table(section(PAGE, "Settings"))[1:]:
        named = words(here) - {"timeout"}  # of a task
        assert named, there
        assert named <= set(Settings.__struct_fields__), there


def test_every_flag_named_on_our_side_is_one() -> None:
    named = {
        word
        for row in table(PAGE.read_text("utf-8"))
        for word in words(row[1])
        if word.startswith("-")
    }
    assert {"--burst", "-c", "--url"} <= named
    assert named <= flags()


def test_every_attribute_named_on_our_side_is_one() -> None:
    owners = {"ctx": Context, "app": App(), "f": Task, "job": Job}
    ours = "\n".join(row[1] for row in table(PAGE.read_text("utf-8")))
    named = set(re.findall(r"\b(ctx|app|f|job)\.(\w+)", ours))
    assert ("ctx", "job_try") in named
    for owner, name in named:
        assert hasattr(owners[owner], name), f"{owner}.{name}"


def test_what_is_said_to_be_missing_has_its_advice_and_no_more() -> None:
    title = "What is not there yet"
    listed = [row[0] for row in table(section(PAGE, title))[1:]]
    said = re.findall(r"\*\*not yet\*\*: ([^|;,]+)", PAGE.read_text("utf-8"))
    assert {f"{each.strip()}" for each in said} == set(listed)
    assert set(listed) <= set(HERE)


@pytest.mark.parametrize("name", HERE)
def test_what_is_said_to_be_missing_is_missing(name: str) -> None:
    listed = [row[0] for row in table(section(PAGE, "What is not there yet"))[1:]]
    # when this fails, the page has to tell how the thing is done here
    assert HERE[name]() is (name not in listed)
