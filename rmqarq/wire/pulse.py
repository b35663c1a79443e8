"""Ends a link on which nothing is heard any more, or where we were not heard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rmqarq.errors import Phrase

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.wire.tap import TapProtocol

PATIENCE = 2.5
"""Heartbeats; RabbitMQ sends two in each (AMQP 0-9-1, "Heartbeats", in its docs)."""
SECOND_LOOK = 0.5
LONGEST_STALL = 1.5
"""Heartbeats; RabbitMQ gives up a mute client after two to three."""


class Pulse:
    """Listens whether the other side still sends, bytes of any kind.

    aiormq gives up after three heartbeats and three seconds; half-open links, where
    the network swallows everything, shall be noticed sooner.

    Args:
        protocol: Knows when it was heard last.
        heartbeat: The negotiated heartbeat in seconds; 0 means that there is none.
        on_silence: Called once, with a sentence for people to read.
    """

    def __init__(
        self,
        protocol: TapProtocol,
        heartbeat: int,
        on_silence: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._heartbeat = heartbeat
        self._on_silence = on_silence
        self._suspicious = False
        self._timer: asyncio.TimerHandle | None = None
        if heartbeat:
            self._wait(heartbeat / 2)

    def distrust_stalls(self) -> None:
        """End the link, too, when this process has stood still for too long."""
        if self._heartbeat:
            self._protocol.longest_stall = LONGEST_STALL * self._heartbeat

    def stop(self) -> None:
        """Listen no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._protocol.turn()
        silence = self._loop.time() - self._protocol.heard_at
        if silence <= PATIENCE * self._heartbeat:
            self._suspicious = False
            self._wait(self._heartbeat / 2)
        elif self._suspicious:
            self._on_silence(
                Phrase("nothing was heard for {seconds:.1f} s", seconds=silence)
            )
        else:
            # a process that was busy or frozen may have what was sent before it still
            self._suspicious = True
            self._wait(SECOND_LOOK)
