"""A real worker process, as a user would start it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from tests.harness.broker import Guardian

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType


class WorkerProcess:
    """``python -m rmqarq run MODULE:APP ...`` as a process of its own.

    Example:
        with WorkerProcess("jobs:app", ["--burst"], cwd=tmp_path) as worker:
            assert worker.wait(20) == 0, worker.output
    """

    def __init__(
        self,
        app: str,
        args: Iterable[str] = (),
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [sys.executable, "-m", "rmqarq", "run", app, *args]
        self.cwd = cwd
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self._guardian: Guardian | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._silent = False  # the output has ended

    def __enter__(self) -> WorkerProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process, once started."""
        assert self._process is not None, "the worker has not been started"
        return self._process

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self.process.pid

    @property
    def output(self) -> str:
        """All that the worker has written so far, errors included."""
        with self._news:
            return "".join(self._lines)

    def start(self) -> None:
        """Start the worker; it may need a moment before it consumes."""
        self._process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._guardian = Guardian()
        self._guardian.watch([self.pid])
        self._reader.start()

    def wait(self, timeout: float) -> int:
        """Wait until the worker has ended and return its exit code.

        Raises:
            TimeoutError: it was still running; the message holds its output.
        """
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the worker was still running after {timeout} s:\n{self.output}"
            ) from None
        self._reader.join(1.0)  # for the last words, unless a child holds the pipe
        return code

    def wait_for(self, text: str, timeout: float) -> None:
        """Wait until the worker has written a text.

        Raises:
            TimeoutError: it has not, or it ended before; the message holds its output.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            while text not in self.output:
                left = deadline - time.monotonic()
                if self._silent or left <= 0:
                    how = "ended without" if self._silent else f"{timeout} s without"
                    raise TimeoutError(f"worker: {how} {text!r}:\n{self.output}")
                self._news.wait(left)

    def terminate(self) -> None:
        """Ask the worker to stop in good order (SIGTERM)."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker as a crash would (SIGKILL)."""
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """Freeze the worker (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """Let a frozen worker go on (SIGCONT)."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill what is left of the worker and its children."""
        if self._process is None or self._guardian is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._guardian.dismiss()
        self._guardian = None

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()
