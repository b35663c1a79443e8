"""Type checkers find every wrong call of the public interface, and no right one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
WRONG = ROOT / "tests" / "typing" / "wrong.py"
MARK = re.compile(r"# EXPECT-ERROR(?:: (\w+))?$")


def expected(checker: str) -> set[int]:
    """The lines that a checker must complain about."""
    return {
        number
        for number, line in enumerate(WRONG.read_text("utf-8").splitlines(), 1)
        if (mark := MARK.search(line)) and mark[1] in (None, checker)
    }


def run(module: str, *arguments: str) -> str:
    """Run a type checker of this very environment."""
    command = [sys.executable, "-m", module, *arguments]
    # basedpyright looks for the packages of the interpreter that it finds first
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def found_by_mypy(cache: Path) -> set[int]:
    shown = run("mypy", "--cache-dir", str(cache), "--no-error-summary", str(WRONG))
    lines: set[int] = set()
    for line in shown.splitlines():
        place = re.match(r"tests/typing/wrong\.py:(\d+): (error|note):", line)
        assert place, line
        lines |= {int(place[1])} if place[2] == "error" else set()
    return lines


def found_by_basedpyright(directory: Path) -> set[int]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    project = directory / "pyrightconfig.json"
    ours = {"include": [str(WRONG)], "exclude": [], "extraPaths": [str(ROOT)]}
    project.write_text(json.dumps({**settings["basedpyright"], **ours}))
    report = json.loads(run("basedpyright", "--outputjson", "--project", str(project)))
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        each["range"]["start"]["line"] + 1
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }


def test_the_file_of_wrong_calls_has_marks() -> None:
    assert len(expected("basedpyright")) > len(expected("mypy")) > 30


def test_mypy_finds_every_wrong_call_and_nothing_else(tmp_path: Path) -> None:
    assert found_by_mypy(tmp_path) == expected("mypy")


def test_basedpyright_finds_every_wrong_call_and_nothing_else(tmp_path: Path) -> None:
    assert found_by_basedpyright(tmp_path) == expected("basedpyright")
