"""The job that every library runs: it notes when it was begun, in shared memory.

Runs in the workers of all libraries, so it needs the standard library alone, and costs
well under a microsecond. The file named by BENCH_TALLY holds one double for each job;
the job -1, which shows that a worker is ready, has the last one.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from pathlib import Path

WIDTH = 8
NAP = float(os.environ.get("BENCH_NAP", "0"))


class Tally:
    """The moments at which jobs were begun, by number, of the monotonic clock.

    Args:
        path: Of the file, which is made for `n` jobs.
        n: How many; taken from the file if not given.
    """

    def __init__(self, path: str, n: int | None = None) -> None:
        if n is not None:
            Path(path).write_bytes(bytes((n + 1) * WIDTH))
        with Path(path).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.moments = memoryview(self._memory).cast("d")

    @property
    def begun(self) -> int:
        """How many jobs have been begun, without the job -1."""
        # no double of a clock is all zeros, nor do two of them hold eight in a row
        zeros = self._memory[:-WIDTH].count(bytes(WIDTH))
        return len(self.moments) - 1 - zeros

    @property
    def ready(self) -> bool:
        """Whether the job -1 has been begun."""
        return self.moments[-1] > 0


def _open() -> memoryview[float]:
    path = os.environ.get("BENCH_TALLY")
    return Tally(path).moments if path else memoryview(bytearray(8)).cast("d")


_moments = _open()


async def job(number: int, text: str) -> None:
    _moments[number] = time.monotonic()
    if NAP:
        await asyncio.sleep(NAP)


def blocking_job(number: int, text: str) -> None:
    _moments[number] = time.monotonic()
    if NAP:
        time.sleep(NAP)
