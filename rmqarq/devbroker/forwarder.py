"""At-least-once dead lettering: what finds no queue is kept and tried again.

As `rabbit_fifo_dlx_worker` of RabbitMQ 3.10: it holds up to 32 letters at a time, and
while it holds so many, nothing else leaves the queue this way.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from rmqarq.devbroker.clock import Clock, Timer
    from rmqarq.devbroker.message import Message
    from rmqarq.devbroker.queue import Queue

PREFETCH = 32  # dead_letter_worker_consumer_prefetch
TRY_AGAIN = 180.0  # dead_letter_worker_publisher_confirm_timeout, in seconds


class Dead(NamedTuple):
    """A message that died, and why."""

    message: Message
    reason: str


class Mail(Protocol):
    """What the forwarder needs of the host."""

    clock: Clock

    def send_dead(
        self, queue: Queue, victim: Dead, publisher: object | None = None
    ) -> bool:
        """Dead-letter a message; whether all that it was routed to have it."""
        ...


class Forwarder:
    """Takes the dead letters of one queue to where they belong.

    Args:
        queue: Whose.
        mail: How they are sent.
    """

    def __init__(self, queue: Queue, mail: Mail) -> None:
        self._queue = queue
        self._mail = mail
        self._held: list[Dead] = []
        self._waiting: deque[Dead] = deque()
        self._timer: Timer | None = None

    def forward(self, victim: Dead) -> None:
        """Send a message, now or when it can be."""
        self._waiting.append(victim)
        self._go_on()

    def close(self) -> None:
        """Drop what is left: the queue is deleted."""
        self._held.clear()
        self._waiting.clear()
        self._count()

    def _go_on(self) -> None:
        while self._waiting and len(self._held) < PREFETCH:
            victim = self._waiting.popleft()
            if not self._mail.send_dead(self._queue, victim, self):
                self._held.append(victim)
        self._count()

    def _try_again(self) -> None:
        self._timer = None
        held, self._held = self._held, []
        self._held = [
            victim
            for victim in held
            if not self._mail.send_dead(self._queue, victim, self)
        ]
        self._go_on()

    def _count(self) -> None:
        self._queue.limits.held_dead = len(self._held) + len(self._waiting)
        if self._held and self._timer is None:
            clock = self._mail.clock
            self._timer = clock.call_at(clock.now() + TRY_AGAIN, self._try_again)
        elif not self._held and self._timer is not None:
            self._timer.cancel()
            self._timer = None
