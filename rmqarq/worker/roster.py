"""The jobs under way: their deadlines, and what to make of a redelivery."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from rmqarq.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rmqarq.message import Message
    from rmqarq.wire.codec import Decoded
    from rmqarq.wire.consumer import Consumer, Delivery
    from rmqarq.worker.chunk import Share

Interruption: TypeAlias = Literal["timeout", "shutdown"]
Read: TypeAlias = "Callable[[Delivery], Decoded]"
Key: TypeAlias = tuple[str, str, int, int, float, int]

SWEEP = 0.1
REMEMBERED = 1000
DOUBT = 60.0
"""Seconds after which an ack has surely been handled, or its link found dead; at least:
it takes more where the heartbeat is long."""
BEATS = 4
"""Heartbeats after which that is sure: a dead link is noticed after 2.5 of them."""


class Execution:
    """A function that runs in an asyncio task and may be cancelled once.

    Attributes:
        task: The asyncio task it runs in.
        interrupted: Why it was cancelled, if it was.
        cancelled_at: When, by the clock of the loop.
        settling: The function has ended: nothing may be cancelled any more.
        abandoned: The worker ends: nothing is settled any more.
    """

    __slots__ = ("abandoned", "cancelled_at", "interrupted", "settling", "task")

    task: asyncio.Task[Any]

    def __init__(self) -> None:
        self.interrupted: Interruption | None = None
        self.cancelled_at = 0.0
        self.settling = False
        self.abandoned = False

    def interrupt(self, why: Interruption, now: float) -> None:
        """Cancel the function, once; what follows is the sweeper's business."""
        if self.settling or self.interrupted is not None:
            return
        self.interrupted = why
        self.cancelled_at = now
        self.task.cancel()


class Run(Execution):
    """One job under way.

    Attributes:
        delivery: What will be settled; a redelivery may take its place.
        decoded: The message, once it is read.
        deadline: When it has run too long, by the clock of the loop.
        detached: It ignored its cancellation and was left behind.
    """

    __slots__ = ("deadline", "decoded", "delivery", "detached")

    delivery: Delivery | Share

    def __init__(self, delivery: Delivery | Share) -> None:
        # as Execution does: a call more for each job would be felt
        self.interrupted = None
        self.cancelled_at = 0.0
        self.settling = self.abandoned = False
        self.delivery = delivery
        self.decoded: Decoded | None = None
        self.deadline: float | None = None
        self.detached = False


class Roster:
    """All jobs under way, and the last ones done whose ack may have been lost.

    Args:
        cancel_grace: Seconds a cancelled job may take to end.
        on_stuck: Called for a job that took longer; it is off the roster then.
    """

    def __init__(self, cancel_grace: float, on_stuck: Callable[[Run], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._cancel_grace = cancel_grace
        self._on_stuck = on_stuck
        self._runs: set[Run] = set()
        self._done: deque[tuple[Key, Consumer, float]] = deque(maxlen=REMEMBERED)
        self._doubtful: dict[Key, float] = {}
        self._alert_until = 0.0
        self._sweeping = False
        self._doubt = DOUBT

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs))

    def add(self, run: Run) -> None:
        """Put a job on the roster; its deadline is watched from now on."""
        self._runs.add(run)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP, self._sweep)

    def remove(self, run: Run) -> None:
        """Take a job off the roster."""
        self._runs.discard(run)

    def remember(self, run: Run, message: Message) -> None:
        """Keep in mind that a job is done, for the case that its ack gets lost."""
        if run.decoded is None or not run.decoded.ours:
            return
        key, consumer = _key(run, message), run.delivery.consumer
        now = self._loop.time()
        self._done.append((key, consumer, now))
        if self._alert_until:
            if now >= self._alert_until:
                self._alert_until = 0.0
                self._doubtful.clear()
            elif not consumer.usable:
                self._doubtful[key] = now

    def note_loss(self, heartbeat: float) -> None:
        """Look closely at what is delivered in the next minute: a channel has died.

        Args:
            heartbeat: Of its link, in seconds.
        """
        now = self._loop.time()
        self._doubt = max(DOUBT, BEATS * heartbeat)
        self._alert_until = now + self._doubt
        # picked out once: for a minute each delivery is looked up
        for key, consumer, acked_at in self._done:
            if not consumer.usable:
                self._doubtful[key] = acked_at
        acked = [*self._doubtful.items()][-REMEMBERED:]
        self._doubtful = {key: at for key, at in acked if now - at < self._doubt}

    @property
    def alert(self) -> bool:
        """Whether what is delivered may have been delivered before, unsaid."""
        return self._alert_until > 0 and self._loop.time() < self._alert_until

    def recognise(self, newcomer: Run, message: Message) -> bool:
        """Tell whether a delivered message runs here already, or is done.

        The broker delivers again what was open on a channel that died, and after a
        crash of its own it may not say so. A job that still runs adopts the new
        delivery; one that is done has it acked. Nothing else is ever acked unrun: the
        earlier delivery must be a dead one, and its ack young enough to be in doubt.
        """
        if newcomer.decoded is None or not newcomer.decoded.ours:
            return False  # another foreign message may look the same
        if not (newcomer.delivery.redelivered or self.alert):
            return False
        now = self._loop.time()
        key = _key(newcomer, message)
        for run in self._runs:
            if (
                run is not newcomer
                and run.decoded is not None
                and not run.delivery.alive
                and not run.delivery.settled
                and _key(run, run.decoded.message) == key
            ):
                run.delivery = newcomer.delivery
                return True
        acked_at = self._doubtful.get(key)
        if acked_at is None or now - acked_at >= self._doubt:
            return False
        newcomer.delivery.ack()
        return True

    def adopts(self, delivery: Delivery, read: Read) -> bool:
        """Recognise a delivery for which there is no slot yet.

        It might wait until its job is forgotten, or be given back and run once more
        elsewhere: a chunk waits behind its own jobs.

        Args:
            delivery: What has come.
            read: Decodes it.
        """
        if not (delivery.redelivered or self.alert):
            return False
        newcomer = Run(delivery)
        try:
            newcomer.decoded = read(delivery)
        except DecodeError:
            return False
        return self.recognise(newcomer, newcomer.decoded.message)

    def _sweep(self) -> None:
        now = self._loop.time()
        for run in tuple(self._runs):
            if run.settling:
                continue
            if run.interrupted is not None:
                if now - run.cancelled_at >= self._cancel_grace:
                    run.detached = True
                    self._runs.discard(run)
                    self._on_stuck(run)
            elif run.deadline is not None and now >= run.deadline:
                run.interrupt("timeout", now)
        self._sweeping = bool(self._runs)
        if self._sweeping:
            self._loop.call_later(SWEEP, self._sweep)


def _key(run: Run, message: Message) -> Key:
    """What makes a delivery the same: no retry is, no second enqueue, no suspect."""
    assert run.decoded is not None, "read before it is compared"
    return (
        run.delivery.queue,
        message.id,
        message.job_try,
        message.generation,
        run.decoded.sent_at,
        hash(run.delivery.body),  # two jobs may share an id and a moment
    )
