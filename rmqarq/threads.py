"""Threads for plain functions, counted until they really end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

R = TypeVar("R")


class Threads:
    """Runs plain functions in threads.

    A thread can't be cancelled: when the caller stops waiting, it goes on.

    Args:
        most: How many run at the same time; those given up do not count.
    """

    def __init__(self, most: int) -> None:
        import anyio  # here: who only enqueues needs none of it

        self._limiter = anyio.CapacityLimiter(most)
        self._lock = threading.Lock()
        self._busy = 0

    @property
    def busy(self) -> int:
        """How many threads run a function, those given up included."""
        return self._busy

    @property
    def given_up(self) -> int:
        """How many threads run a function that nobody waits for any more."""
        return max(0, self._busy - self._limiter.borrowed_tokens)

    async def run(
        self, fn: Callable[..., R], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> R:
        """Run `fn` in a thread and wait for it."""
        import anyio.to_thread  # here: as above

        def counted() -> R:
            self._count(1)
            try:
                return fn(*args, **kwargs)
            finally:
                self._count(-1)

        return await anyio.to_thread.run_sync(
            counted, abandon_on_cancel=True, limiter=self._limiter
        )

    def _count(self, step: int) -> None:
        with self._lock:
            self._busy += step
