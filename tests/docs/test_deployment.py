"""Whether docs/deployment.md tells what the package and its tools really do."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rmqarq import App, Settings
from rmqarq.wire.delay import every_rung
from rmqarq.worker import reports
from tests.docs.pages import DOCS, code_blocks, rows

PAGE = DOCS / "deployment.md"
TEXT = PAGE.read_text("utf-8")
FOR_THE_REST = 30
"""What the page says to leave beyond the two graces."""


def block(language: str, having: str) -> str:
    """Give the one block of a language that holds a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (only,) = [each for each in found if having in each]
    return str(only)


UNIT = block("ini", "[Service]")
MANIFEST = block("yaml", "kind: Deployment")
DOCKERFILE = block("dockerfile", "FROM")


def unit(key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def manifest(key: str) -> str:
    (value,) = re.findall(rf"^ *(?:- )?{key}: (.*)$", MANIFEST, re.MULTILINE)
    return str(value)


def test_every_manager_waits_for_both_graces_and_the_rest() -> None:
    settings = Settings()
    needed = settings.shutdown_grace + settings.cancel_grace + FOR_THE_REST
    waits = [unit("TimeoutStopSec"), manifest("terminationGracePeriodSeconds")]
    waits += re.findall(r"--stop-timeout (\d+)", TEXT)
    waits += re.findall(r"stop_grace_period: (\d+)s", TEXT)
    waits += re.findall(r"\*\*(\d+) seconds\*\*", TEXT)
    assert [int(wait) for wait in waits] == [needed] * 5


def test_every_variable_on_the_page_is_a_setting_or_said_to_be_none() -> None:
    known = {f"RMQARQ_{name.upper()}" for name in Settings.__struct_fields__}
    named = set(re.findall(r"RMQARQ_[A-Z_]+", TEXT))
    assert named - known == {"RMQARQ_PORT"}


def test_the_figures_for_the_memory_are_the_defaults() -> None:
    settings = Settings()
    assert f"up to `prefetch` ({settings.prefetch_count} by default)" in TEXT
    assert f"`max_body` ({settings.max_body / 2**20:.0f} MiB)" in TEXT
    assert f"`shutdown_grace` ({settings.shutdown_grace:g})" in TEXT
    assert f"`cancel_grace` ({settings.cancel_grace:g})" in TEXT
    assert f"`unknown_task_wait` ({settings.unknown_task_wait:g} s)" in TEXT


def test_the_script_makes_as_many_rungs_as_the_page_says() -> None:
    ((_, code),) = code_blocks(PAGE)
    found = re.search(r"^DIGITS = (\d+)  # .* up to ([\d .]+) s", code, re.MULTILINE)
    assert found
    digits, longest = found.groups()
    made = [each for each in every_rung() if each.decade < int(digits)]
    assert len(made) == 9 * int(digits)
    nines = [each for each in made if each.digit == 9]
    assert sum(each.ttl_ms for each in nines) == float(longest.replace(" ", "")) * 1000


async def test_the_worker_warns_with_the_command_of_the_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App(queue="mails")

    async def fn() -> None: ...

    app.task(name="minutes", timeout=60)(fn)
    app.task(name="endless", timeout=None)(fn)
    app.task(name="near", timeout=1400)(fn)  # and 10 % of that in the prefetch
    command = block("sh", "consumer-timeout").strip()
    with caplog.at_level(logging.WARNING, "rmqarq"):
        reports.hello(app, ["mails"], app.settings)
    warned = [each for each in caplog.messages if command in each]
    assert {each.split()[0] for each in warned} == {"endless", "near"}


def test_the_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("there is no systemd-analyze")
    file = tmp_path / "mails-worker@1.service"
    # the program of the page is not on this machine
    file.write_text(UNIT.replace(unit("ExecStart"), "/bin/true"))
    done = subprocess.run(
        [verifier, "verify", str(file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_all_start_the_worker_by_the_same_command() -> None:
    program, *arguments = shlex.split(unit("ExecStart"))
    assert program.endswith("/rmqarq")
    assert arguments == re.findall(r'"([^"]+)"', manifest("args"))
    assert f"CMD {manifest('args')}" in DOCKERFILE
    done = subprocess.run(
        [sys.executable, "-m", "rmqarq", *arguments],
        cwd=DOCS,  # there is no App here
        capture_output=True,
        text=True,
        check=False,
    )
    assert "app:app" in done.stderr  # it was looked for, so the command is right
    assert done.returncode == 2


def test_the_unit_gives_up_at_the_codes_that_a_restart_does_not_cure() -> None:
    codes = {cells[0]: cells[1] for cells in rows(DOCS / "cli.md")}
    assert unit("RestartPreventExitStatus").split() == ["2", "3"]
    assert "usage" in codes["2"]
    assert "configuration" in codes["3"]
