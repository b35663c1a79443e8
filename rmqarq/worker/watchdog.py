"""Names the code that keeps the event loop from going on."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

BEAT = 0.5
PATIENCE = 2.0
"""Seconds; well before RabbitMQ takes a silent worker for dead (two heartbeats)."""


class Watchdog:
    """A thread that looks whether the event loop still turns.

    A coroutine that blocks, with `time.sleep` or a long calculation, stops every job,
    acknowledgement and heartbeat of its worker.

    Args:
        name: Says what job an asyncio task runs.

    Attributes:
        blocks: How often it found the event loop blocked.
    """

    def __init__(self, name: Callable[[asyncio.Task[Any] | None], str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._name = name
        self._last_beat = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._over = threading.Event()
        self.blocks = 0

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._beat()
        threading.Thread(
            target=self._watch, name="rmqarq-watchdog", daemon=True
        ).start()

    def stop(self) -> None:
        """End the watch."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        self._last_beat = time.monotonic()
        self._timer = self._loop.call_later(BEAT, self._beat)

    def _watch(self) -> None:
        reported, looked = 0.0, time.monotonic()
        while not self._over.wait(BEAT):
            now = time.monotonic()
            frozen, looked = now - looked > PATIENCE, now
            beat = self._last_beat
            # a process that was stopped as a whole has no code to blame
            if not frozen and now - beat > PATIENCE and beat != reported:
                reported = beat
                self.blocks += 1
                self._report(now - beat)

    def _report(self, seconds: float) -> None:
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        frame = frames.get(self._thread_id)
        stack = "".join(traceback.format_stack(frame)[-8:]).strip() if frame else "?"
        log.warning(
            "the event loop has been blocked for %(seconds).1f s by %(job)s: no job,"
            " ack or heartbeat goes on; it stands at %(stack)s",
            {
                "seconds": seconds,
                "job": self._name(asyncio.current_task(self._loop)),
                "stack": stack,
            },
        )
