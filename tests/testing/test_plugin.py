"""The plugin of pytest, in a pytest of its own as users have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]

MAIL = """
import pytest
from rmqarq import App

app = App()
sent = []

@app.task
async def welcome(email: str) -> None:
    sent.append(email)

@pytest.fixture
def rmqarq_app():
    return app

{mark}
async def test_it(rmqarq_world):
    await welcome.defer(3600, "ada")
    await rmqarq_world.advance(hours=1)
    assert sent == ["ada"]
    rmqarq_world.assert_enqueued(welcome, "bob")
"""
OWN_FIXTURE = """
import pytest_asyncio
from rmqarq.testing import world

@pytest_asyncio.fixture
async def rmqarq_world(rmqarq_app):
    async with world(rmqarq_app) as w:
        yield w
"""
ANYIO = ("-p", "anyio")
ASYNCIO = ("-p", "asyncio", "-o", "asyncio_default_fixture_loop_scope=function")


def run(
    directory: Path, text: str, options: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Run a test file with our plugin; give what is said, and what is seen."""
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return run_with(directory, text, ["-p", "rmqarq", *options], alone)


def run_with(
    directory: Path, text: str, options: Sequence[str], environment: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    (directory / "test_it.py").write_text(text, "utf-8")
    seen = directory / "seen.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.testing.watching", *options],
        cwd=directory,
        env={
            **os.environ,
            **environment,
            "PYTHONPATH": str(ROOT),
            "WATCHING": str(seen),
        },
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr, json.loads(seen.read_text("utf-8"))


@pytest.mark.parametrize(
    ("options", "mark", "more"),
    [
        ((*ANYIO, "-o", "anyio_mode=auto"), "", ""),
        (ANYIO, "@pytest.mark.anyio", ""),
        ((*ASYNCIO, "-o", "asyncio_mode=auto"), "", ""),
        (ASYNCIO, "@pytest.mark.asyncio", OWN_FIXTURE),
    ],
    ids=["anyio, auto", "anyio, marked", "pytest-asyncio, auto", "pytest-asyncio"],
)
def test_the_world_is_a_fixture(
    tmp_path: Path, options: tuple[str, ...], mark: str, more: str
) -> None:
    text = MAIL.format(mark=mark) + more
    said, _ = run(tmp_path, text, [*options, "-W", "error"])
    assert "AssertionError: welcome('bob') was not enqueued; enqueued were:" in said
    assert "welcome('ada') on rmqarq, due" in said
    assert "worlds.py" not in said  # the line of the test is what is shown
    assert "1 failed" in said


TWO_LOOPS = """
import pytest
import pytest_asyncio
from rmqarq import App
from rmqarq.testing import world

app = App()

@app.task
async def welcome(email: str) -> None: ...

@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def w():
    async with world(app) as made:
        yield made

{mark}
class TestMail:
    async def test_run(self, w):
        await w.run()

    async def test_enqueue(self, w):
        await welcome.enqueue("ada")
"""


@pytest.mark.parametrize(
    ("mark", "ends"),
    [
        ("@pytest.mark.asyncio", "2 failed"),
        ("@pytest.mark.asyncio(loop_scope='class')", "2 passed"),
    ],
    ids=["another loop for each test", "one loop"],
)
def test_a_fixture_and_its_tests_share_an_event_loop(
    tmp_path: Path, mark: str, ends: str
) -> None:
    text = TWO_LOOPS.format(mark=mark)
    said, seen = run(tmp_path, text, [*ASYNCIO, "-W", "error"])
    assert ends in said
    refusal = "this world was entered on another event loop"
    assert (refusal in said) is (ends == "2 failed")
    assert sum(seen["took"].values()) < 5  # nothing waits for what can't come


def test_a_project_without_an_app_is_told_what_is_missing(tmp_path: Path) -> None:
    text = "async def test_it(rmqarq_world): ..."
    said, _ = run(tmp_path, text, [*ANYIO, "-o", "anyio_mode=auto"])
    assert "rmqarq_world needs a fixture rmqarq_app that returns your App" in said


def test_the_plugin_costs_other_projects_nothing(tmp_path: Path) -> None:
    options = ["--trace-config", "-p", "no:faker", "-p", "no:hypothesispytest"]
    said, seen = run_with(tmp_path, "def test_it(): pass", options, {})
    assert "1 passed" in said
    assert "rmqarq.testing.plugin" in said  # it is loaded, and alone
    loaded = set(seen["modules"])
    assert {name for name in loaded if name.partition(".")[0] == "rmqarq"} == {
        "rmqarq",
        "rmqarq.door",
        "rmqarq.testing",
        "rmqarq.testing.plugin",
    }
    assert loaded & {"msgspec", "aiormq", "pamqp", "typer", "rich"} == set()


def test_ten_tests_of_a_user_take_less_than_a_second_and_open_no_port(
    tmp_path: Path,
) -> None:
    file = ROOT / "tests" / "testing" / "users" / "test_mail.py"
    fastest = 60.0
    for _ in range(3):  # what else the machine does is not their fault
        said, seen = run(
            tmp_path, file.read_text("utf-8"), [*ANYIO, "-o", "anyio_mode=auto"]
        )
        assert "10 passed" in said
        assert len(seen["took"]) == 10
        assert seen["touched"] == []
        fastest = min(fastest, sum(seen["took"].values()))
        if fastest < 1:
            break
    assert fastest < 1


def test_the_watch_sees_a_port(tmp_path: Path) -> None:
    text = "import socket\ndef test_it(): socket.socket().bind(('127.0.0.1', 0))"
    _, seen = run(tmp_path, text)
    assert seen["touched"] == ["socket.bind"]
