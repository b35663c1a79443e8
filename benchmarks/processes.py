"""A worker process and its children, seen from outside: CPU time and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.broker import descendants, wait_until_gone

if TYPE_CHECKING:
    from types import TracebackType

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 3.0
TIMES = slice(11, 15)  # user, system, and both of children that were waited for


class Resources:
    """What a process and its descendants use.

    Args:
        pid: Of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pids = [pid]

    def look(self) -> None:
        """Find the descendants anew."""
        self._pids = [self._pid, *descendants(self._pid)]

    @property
    def cpu(self) -> float:
        """Seconds of CPU time, of those found last."""
        return sum(map(_ticks, self._pids)) / TICKS

    @property
    def memory(self) -> dict[str, float]:
        """Resident and proportional memory in MiB, of all there are now."""
        self.look()
        sizes = [_sizes(pid) for pid in self._pids]
        return {
            name: sum(each.get(name, 0) for each in sizes) for name in ("Rss", "Pss")
        }


class Worker:
    """A worker that runs in the block, in a process group of its own.

    Args:
        command: That starts it.
        environment: Of the process.
        log: Where its output goes.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self._command = command
        self._environment = environment
        self._log = log

    def __enter__(self) -> Worker:
        with self._log.open("wb") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.resources = Resources(self._process.pid)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        children = descendants(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        wait_until_gone(children)

    def kill(self) -> None:
        """End it and its children as a crash does."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def ended(self) -> str | None:
        """How it ended, and its last words; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        words = self._log.read_text("utf-8", errors="replace").strip()[-300:]
        return f"the worker ended with code {code}: {words}"


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0  # its parent has it in its own times now
    return sum(map(int, text.rpartition(")")[2].split()[TIMES]))


def _sizes(pid: int) -> dict[str, float]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {}
    rows = (line.split() for line in text.splitlines()[1:])
    return {row[0].rstrip(":"): int(row[1]) / 1024 for row in rows}
