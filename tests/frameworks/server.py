"""A web server process that serves an example of the documentation."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.broker.kit import ROOT
from tests.docs.pages import EXAMPLES

if TYPE_CHECKING:
    from types import TracebackType

SECONDS = 40
APPS = ROOT / "tests" / "frameworks" / "apps"
ASGI = ("-m", "uvicorn", "--port", "0", "--no-access-log")
WSGI = (str(APPS / "wsgi_server.py"),)


def spawn(url: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start Python among the examples, with these settings and no others."""
    env = {key: text for key, text in os.environ.items() if key[:7] != "RMQARQ_"}
    env |= {"RMQARQ_URL": url, "PYTHONUNBUFFERED": "1", "PYTHONPATH": "."}
    env |= {f"RMQARQ_{name.upper()}": text for name, text in settings.items()}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=EXAMPLES,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


class Server:
    """Serves the `web` of a module until it is stopped.

    Args:
        url: Of the broker.
        module: Among the examples.
        kind: `ASGI` or `WSGI`.
        **settings: Of its Apps.
    """

    def __init__(
        self, url: str, module: str, kind: tuple[str, ...] = ASGI, **settings: str
    ) -> None:
        what = f"{module}:web" if kind is ASGI else module
        self.process = spawn(url, *kind, what, **settings)
        self._lines: list[str] = []
        self._news = threading.Condition(threading.RLock())
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.wait()

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until something is printed."""
        with self._news:
            self._news.wait_for(
                lambda: re.search(pattern, self.output) or "" in self._lines, SECONDS
            )
            found = re.search(pattern, self.output)
        assert found, self.output
        return found

    def ask(self, path: str, method: str = "POST") -> tuple[int, Any]:
        """Send a request; give the status, and the JSON of the answer if it is good."""
        root = self.wait_for(r"running on (http://[\w.:]+)")[1]
        request = urllib.request.Request(root + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def stop(self) -> int:
        """Ask it to stop, wait for its end, and give the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, and give the exit code."""
        code = self.process.wait(SECONDS)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._lines.append("")
            self._news.notify_all()
