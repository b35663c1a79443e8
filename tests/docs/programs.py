"""Programs of the documentation, run as a user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.docs.pages import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

WORKER = ("-m", "rmqarq", "run")
SECONDS = 40


def start(
    url: str, *arguments: str, prefix: str = "docs", cwd: Path = EXAMPLES
) -> subprocess.Popen[str]:
    """Start Python in the directory of the examples."""
    command = [sys.executable, "-W", "error", *arguments]
    return launch(command, url, prefix=prefix, cwd=cwd)


def launch(
    command: list[str], url: str, *, prefix: str = "docs", cwd: Path = EXAMPLES
) -> subprocess.Popen[str]:
    """Start a program that finds the broker, and no other setting, in its variables."""
    env = {key: text for key, text in os.environ.items() if key[:7] != "RMQARQ_"}
    env |= {"RMQARQ_URL": url, "RMQARQ_PREFIX": prefix, "LC_ALL": "C.UTF-8"}
    env["PYTHONUNBUFFERED"] = "1"  # so that print and log keep their order
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def end(process: subprocess.Popen[str], code: int = 0) -> str:
    """Give what a program printed; it must end well, or with this code."""
    try:
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == code, output
    return output
