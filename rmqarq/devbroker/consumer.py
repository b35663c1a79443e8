"""Consumers of a queue, and whose turn it is."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq.devbroker.message import Entry


class Receiver(Protocol):
    """What delivers to a client: a channel."""

    def ready_for(self, consumer: Consumer) -> bool:
        """Whether the channel as a whole may get one more."""
        ...

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        ...

    def cancelled(self, consumer: Consumer) -> None:
        """Tell the client that the queue is gone."""
        ...


class Consumer:
    """One consumer of one queue.

    Args:
        tag: Its name on its channel.
        receiver: The channel.
        no_ack: Deliveries count as acknowledged at once.
        prefetch: How many it may hold; 0 for any number.
        priority: Higher ones get messages first.
        exclusive: Nobody else may consume.
    """

    __slots__ = (
        "exclusive",
        "no_ack",
        "opening",
        "prefetch",
        "priority",
        "receiver",
        "tag",
        "unacked",
        "waiting",
    )

    def __init__(  # as many as basic.consume gives
        self,
        tag: str,
        receiver: Receiver,
        *,
        no_ack: bool,
        prefetch: int,
        priority: int,
        exclusive: bool,
    ) -> None:
        self.tag = tag
        self.receiver = receiver
        self.no_ack = no_ack
        self.prefetch = prefetch
        self.priority = priority
        self.exclusive = exclusive
        self.opening = b""  # how its deliveries begin; the channel knows
        self.unacked = 0
        self.waiting = False  # in line for messages, not held back by a limit

    @property
    def ready(self) -> bool:
        """Whether it may get one more message."""
        if not self.no_ack and 0 < self.prefetch <= self.unacked:
            return False
        return self.receiver.ready_for(self)


class Consumers:
    """The consumers of a queue: higher priorities first, and in turn among equals.

    Args:
        single_active: Only one gets messages, until it is gone.
        quorum: The next one is then who came first, whatever its priority.
    """

    def __init__(self, *, single_active: bool, quorum: bool = False) -> None:
        self._single_active = single_active
        self._quorum = quorum
        self._active: Consumer | None = None
        self._all: list[Consumer] = []
        self._lines: dict[int, deque[Consumer]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(list(self._all))

    @property
    def exclusive(self) -> bool:
        """Whether one wants to be the only one."""
        return any(each.exclusive for each in self._all)

    def add(self, consumer: Consumer) -> None:
        """Let a consumer in."""
        self._all.append(consumer)
        if self._active is None:
            self._active = consumer
        self.line_up(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Let a consumer go."""
        if consumer not in self._all:
            return
        self._all.remove(consumer)
        if consumer.waiting:
            consumer.waiting = False
            self._lines[consumer.priority].remove(consumer)
        if consumer is self._active:
            self._active = self._successor()
            if self._single_active and self._active is not None:
                self.line_up(self._active)

    def _successor(self) -> Consumer | None:
        if not self._all or self._quorum:
            return self._all[0] if self._all else None
        return max(self._all, key=lambda each: each.priority)

    def line_up(self, consumer: Consumer) -> None:
        """Put one that may get messages again behind the others."""
        if consumer.waiting or consumer not in self._all:
            return
        if self._single_active and consumer is not self._active:
            return
        consumer.waiting = True
        line = self._lines.get(consumer.priority)
        if line is None:
            lines = {**self._lines, consumer.priority: deque[Consumer]()}
            self._lines = dict(sorted(lines.items(), reverse=True))
            line = self._lines[consumer.priority]
        line.append(consumer)

    def next(self) -> Consumer | None:
        """Give the one whose turn it is, and put it behind the others."""
        for line in self._lines.values():
            while line:
                consumer = line[0]
                if consumer.ready:
                    line.rotate(-1)
                    return consumer
                line.popleft()
                consumer.waiting = False
        return None
