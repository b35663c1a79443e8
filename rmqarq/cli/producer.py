"""The command beside a dev broker: a process group that ends when we do.

It knows nothing of us. So a small shell holds a pipe from us, and ends the group when
the pipe ends before it was told that all is over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

GRACE = 5.0
LEFTOVER_GRACE = 1.0
LEASH = """\
trap '' HUP INT TERM
read -r over && exit
kill -s TERM -- "-$1"
tries=0
while kill -s 0 -- "-$1" && [ "$tries" -lt 20 ]; do
  tries=$((tries + 1)); sleep 0.1
done
kill -s KILL -- "-$1"
"""


class Producer:
    """A command that was started.

    Args:
        process: The command; it leads a group of its own.
        leash: The shell that ends the group when we have died.

    Attributes:
        stopped: Whether we have asked it to stop.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, leash: subprocess.Popen[bytes]
    ) -> None:
        self._process = process
        self._leash = leash
        self._kill: asyncio.TimerHandle | None = None
        self.stopped = False

    @classmethod
    async def start(cls, words: Sequence[str], output: int) -> Producer:
        """Start a command.

        Args:
            words: The program and its arguments.
            output: File descriptor for all that it prints.

        Raises:
            OSError: It can't be started.
        """
        # out of the terminal's foreground, it would be stopped when it reads from there
        closed = sys.stdin is None or sys.stdin.isatty()
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL if closed else None,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        return cls(process, _leash(process.pid))

    async def end(self) -> int:
        """Wait until it has ended; end whatever it has left behind.

        Returns:
            Its exit code; that of a shell when a signal has killed it.
        """
        code = await self._process.wait()
        if self._kill is not None:
            self._kill.cancel()
        await self._clear()
        await asyncio.to_thread(self._leash.communicate, b"over\n")
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """Ask it to end, and see to it that it does.

        By SIGTERM, whatever ends us: many programs answer SIGINT with a traceback.
        """
        self.stopped = True
        self._send(signal.SIGTERM)
        if self._kill is None:
            loop = asyncio.get_running_loop()
            self._kill = loop.call_later(GRACE, self._send, signal.SIGKILL)

    def kill(self) -> None:
        """End it at once."""
        self.stopped = True
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> bool:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # none of the group is ours any more
            return False
        return True

    async def _clear(self) -> None:
        last = time.monotonic() + LEFTOVER_GRACE
        number: int = signal.SIGTERM
        while self._send(number) and time.monotonic() < last:
            number = 0
            await asyncio.sleep(0.05)
        self._send(signal.SIGKILL)


def _leash(group: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", LEASH, "rmqarq-leash", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
