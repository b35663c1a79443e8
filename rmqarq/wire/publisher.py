"""Confirmed publishing: a window of open publishes on one channel, each with an end.

RabbitMQ confirms out of order when several queues are involved and may confirm many at
once; what it can't route it returns first and confirms later (publisher confirms and
`mandatory`, both in RabbitMQ's documentation).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.errors import (
    BrokerBlocked,
    ConnectionFailed,
    ConnectionLost,
    OutcomeUnknown,
    Phrase,
    QueueFull,
    RmqarqError,
    TransportError,
    Unroutable,
)
from rmqarq.wire import frames
from rmqarq.wire.relay import number_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiormq.abc import AbstractChannel

    from rmqarq.wire.connection import Connection
    from rmqarq.wire.frames import Confirm, Event, Returned
    from rmqarq.wire.publication import Publication

WINDOW = 1000
UNSENT = 4 * 1024 * 1024
SWEEP = 0.25
KNOWN_ROUTES = 1024
REFUSALS = (403, 404, 406)
"""Codes with which the broker closes a channel because of what was published on it."""


class Receipt:
    """The fate of publications that were sent together.

    Attributes:
        done: Set when every one is confirmed, refused or given up.
        errors: By position, the error of each that was not stored for certain.
    """

    __slots__ = ("deadline", "done", "errors", "first", "missing")

    def __init__(
        self, done: asyncio.Future[None], first: int, count: int, deadline: float
    ) -> None:
        self.done = done
        self.first = first
        self.missing = count
        self.deadline = deadline
        self.errors: dict[int, RmqarqError] = {}

    def settle(self, tag: int, error: TransportError | None = None) -> None:
        """Note the end of one publication; an earlier error stays."""
        if error is not None:
            self.errors.setdefault(tag - self.first, error)
        self.missing -= 1
        if self.missing == 0 and not self.done.done():
            self.done.set_result(None)

    def note_return(self, tag: int, error: TransportError) -> None:
        """Keep the return until the confirm, which always comes later."""
        self.errors[tag - self.first] = error


class Turn(NamedTuple):
    """Somebody who waits for room.

    Attributes:
        come: True when the room is kept for it, False when there will be none.
        number: How many publications.
        size: The bytes of their bodies.
        deadline: When it is too late, by the clock of the loop.
    """

    come: asyncio.Future[bool]
    number: int
    size: int
    deadline: float


class PublishChannel:
    """One channel in confirm mode, used for nothing else.

    Args:
        connection: The connection it is on.
        channel: It must be open and in confirm mode.
    """

    def __init__(self, connection: Connection, channel: AbstractChannel) -> None:
        self.connection = connection
        self._channel = channel
        self._number = number = channel.number
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._retired = False
        self._close_at = 0.0
        self._open = True
        self._next = 1
        self._low = 1
        self._pending: dict[int, Receipt] = {}
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._room: deque[Turn] = deque()
        self._kept = 0
        self._kept_bytes = 0
        self._routes: dict[tuple[str, str], bytes] = {}
        self._sweeping = False
        self._id = connection.id.encode() + b"."
        connection.tap.register(number, self._on_event)
        connection.watch(self._let_in)
        if not connection.alive:
            self._end(Phrase("the link was lost"))

    @property
    def usable(self) -> bool:
        """Whether something may be written to it now."""
        return self._open and not self._retired and self.connection.alive

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return self._loop.time() - self._opened_at

    def retire(self, linger: float = 0.0) -> None:
        """Close it as soon as all that was sent has its end; send nothing more.

        Args:
            linger: Seconds until then at least: what has met its deadline may still
                be stored, but not after the end of the channel.
        """
        self._retired = True
        self._close_at = self._loop.time() + linger
        self._let_in()
        if linger:
            self._loop.call_later(linger, self._close_if_done)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._retired or self._loop.time() < self._close_at:
            return
        if not self._pending and self._open:
            self._open = False
            self.connection.unwatch(self._let_in)
            self.connection.later(self._close())

    async def _close(self) -> None:
        async with self.connection.throwing_away:
            await self.connection.call(self._channel.close(), vital=False)

    def has_room(self, count: int) -> bool:
        """Whether `count` publications may be sent without waiting."""
        return not self._room and self._fits(count) and not self._held_up

    async def wait_for_room(self, count: int, size: int, deadline: float) -> None:
        """Wait until publications fit, the channel ends, or it is too late.

        They must be sent in the very step in which this returns: the room that was
        kept for them until then is kept no longer.

        Args:
            count: How many.
            size: The bytes of their bodies.
            deadline: Time of the event loop.

        Raises:
            BrokerBlocked: The broker has stopped reading us and did not resume.
            ConnectionFailed: The window stayed full: the broker does not confirm.
        """
        if not self.usable or self.has_room(count):
            return
        turn = Turn(self._loop.create_future(), count, size, deadline)
        self._room.append(turn)
        self._watch_deadlines()
        try:
            has_room = await turn.come
        except asyncio.CancelledError:
            if turn.come.done() and not turn.come.cancelled() and turn.come.result():
                self._keep_no_longer(turn)
            raise
        if has_room:
            self._keep_no_longer(turn)
        elif self.usable:
            raise self.too_late(sent=False)

    def _keep_no_longer(self, turn: Turn) -> None:
        self._kept -= turn.number
        self._kept_bytes -= turn.size
        self._loop.call_soon(self._let_in)  # who comes next, if this one does not send

    def send(self, batch: Sequence[Publication], deadline: float) -> Receipt:
        """Number the publications and write them: now, or at the end of this turn.

        What meets nothing that is unconfirmed is written at once: nobody would join it.
        What comes while others are on their way is gathered for a turn of the loop.

        Must be called only while `usable`.
        """
        first = self._next
        self._next = after = first + len(batch)
        receipt = Receipt(self._loop.create_future(), first, len(batch), deadline)
        parts = [self._encoded(tag, each) for tag, each in enumerate(batch, first)]
        data = b"".join(parts) if len(parts) > 1 else parts[0]
        alone = not self._pending
        self._pending.update(dict.fromkeys(range(first, after), receipt))
        if alone:
            self.connection.write(data)
        else:
            if not self._unsent:
                self._loop.call_soon(self._flush)
            self._unsent.append(data)
            self._unsent_bytes += len(data)
        self._watch_deadlines()
        return receipt

    def _encoded(self, tag: int, publication: Publication) -> bytes:
        properties = publication.template.fill(self._id + b"%d" % tag)
        frame_max = self.connection.frame_max
        return self._method(publication) + frames.content(
            self._number, properties, publication.body, frame_max
        )

    @property
    def _held_up(self) -> bool:
        """Whether the broker does not read us, or the socket takes no more."""
        tap = self.connection.tap
        return tap.blocked is not None or tap.paused

    def _fits(self, count: int) -> bool:
        taken = len(self._pending) + self._kept
        unsent = self._unsent_bytes + self._kept_bytes
        return (taken == 0 or taken + count <= WINDOW) and unsent < UNSENT

    def _method(self, publication: Publication) -> bytes:
        route = (publication.exchange, publication.routing_key)
        method = self._routes.get(route)
        if method is None:
            if len(self._routes) >= KNOWN_ROUTES:
                self._routes.clear()
            mandatory = publication.mandatory  # the same for all of one exchange
            method = frames.publish_method(self._number, *route, mandatory=mandatory)
            self._routes[route] = method
        return method

    def _flush(self) -> None:
        data, self._unsent = self._unsent, []
        self._unsent_bytes = 0
        if self._open and self.connection.alive:
            self.connection.write(b"".join(data) if len(data) > 1 else data[0])
        self._let_in()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, frames.Confirm):
            self._on_confirm(event)
        elif isinstance(event, frames.Returned):
            self._on_returned(event)
        elif isinstance(event, frames.Closed):
            self._end(event.text, event.code)

    def _on_confirm(self, event: Confirm) -> None:
        error = None
        if not event.accepted:
            error = QueueFull(
                "the broker refused a message (basic.nack);"
                " the queue or a queue on its way is full"
            )
        if event.multiple:
            for tag in range(self._low, event.tag + 1):
                if (receipt := self._pending.pop(tag, None)) is not None:
                    receipt.settle(tag, error)
            self._low = max(self._low, event.tag + 1)
        elif (receipt := self._pending.pop(event.tag, None)) is not None:
            receipt.settle(event.tag, error)
        if self._room:
            self._let_in()
        if self._retired:
            self._close_if_done()

    def _on_returned(self, event: Returned) -> None:
        _, _, number = (number_in(event.properties) or "").rpartition(".")
        tag = int(number) if number.isdecimal() else 0
        if (receipt := self._pending.get(tag)) is not None:
            receipt.note_return(tag, _returned(event))

    def _end(self, cause: str, code: int = 0) -> None:
        """Fail all that is open: stored or not, nobody can tell."""
        self._open = False
        self.connection.unwatch(self._let_in)
        pending, self._pending = self._pending, {}
        for tag, receipt in pending.items():
            error = ConnectionLost(
                "the connection to the broker was lost: {cause}", cause=cause
            )
            error.refusal = code if code in REFUSALS else 0
            receipt.settle(tag, error)
        self._let_in()

    def _let_in(self) -> None:
        """Keep room for those who wait, in their order.

        Nobody passes the first one: many small ones would starve a batch.
        """
        if self._held_up and self.usable:
            return
        now = self._loop.time()
        while self._room:
            turn = self._room[0]
            if not turn.come.done():
                in_time = self.usable and turn.deadline > now
                if in_time and not self._fits(turn.number):
                    return
                if in_time:
                    self._kept += turn.number
                    self._kept_bytes += turn.size
                turn.come.set_result(in_time)
            self._room.popleft()

    def _watch_deadlines(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        for turn in self._room:
            if turn.deadline <= now and not turn.come.done():
                turn.come.set_result(False)
        # nobody else takes them out while the broker is blocked
        self._room = deque(turn for turn in self._room if not turn.come.done())
        late = [tag for tag, each in self._pending.items() if each.deadline <= now]
        for tag in late:
            self._pending.pop(tag).settle(tag, self.too_late())
        self._let_in()  # the first one may have gone
        if late:
            self._close_if_done()
        self._sweeping = bool(self._pending or self._room)
        if self._sweeping:
            self._loop.call_later(SWEEP, self._sweep)

    def too_late(self, *, sent: bool = True) -> TransportError:
        """Make the error for a publish that met its deadline, `sent` or not."""
        blocked = self.connection.blocked
        if blocked is not None:
            return BrokerBlocked(
                "the broker has stopped reading publishers ({reason});"
                " what was sent may still be stored when it resumes",
                reason=blocked,
            )
        if not sent:
            return ConnectionFailed(
                "the broker did not get to this job before the deadline; it is not sent"
            )
        return OutcomeUnknown(
            "the broker did not confirm before the deadline;"
            " the job may have been stored or not"
        )


def _returned(event: Returned) -> Unroutable:
    key, text = repr(event.routing_key), event.text
    if not event.exchange:
        return Unroutable(
            "the broker has no queue for {key} ({text})", key=key, text=text
        )
    return Unroutable(
        "the exchange {exchange} has no queue for {key} ({text}): a queue of delays"
        " is missing, or not bound to it",
        exchange=repr(event.exchange),
        key=key,
        text=text,
    )
