"""Tools of the tests of commands: modules with an App, and the program itself."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def module(directory: Path, name: str, text: str) -> Path:
    """Write a module, and give the directory it is in."""
    (directory / f"{name}.py").write_text(text)
    return directory


def environment(**given: str) -> dict[str, str]:
    """Give an environment in English without settings, but for a dead broker."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RMQARQ_")}
    inherited |= {"RMQARQ_URL": "amqp://127.0.0.1:1/"}
    return {**inherited, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **given}


def rmqarq(
    *args: str, cwd: Path, typed: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; `typed` is what it reads from standard input."""
    return subprocess.run(
        [sys.executable, "-m", "rmqarq", *args],
        cwd=cwd,
        env=environment(**env),
        input=typed or "",
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Give all that was printed, as one line."""
    return " ".join((done.stdout + done.stderr).split())
