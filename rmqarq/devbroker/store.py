"""The ready messages of a queue, in the order in which they leave it."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.devbroker.message import Entry, Message


class Store:
    """Ready messages: by priority, and within one by their place.

    Args:
        priorities: The highest priority; 0 for a queue without any.
    """

    def __init__(self, priorities: int = 0) -> None:
        self._highest = priorities
        self._lanes: list[deque[Entry]] = [deque() for _ in range(priorities + 1)]
        self._returned: deque[Entry] = deque()  # of quorum queues; it leaves first
        self.count = 0
        self.bytes = 0

    def put(self, entry: Entry) -> None:
        """Add a message at the end."""
        self._lane(entry).append(entry)
        self.count += 1
        self.bytes += len(entry.message.body)

    def restore(self, entries: Iterable[Entry]) -> None:
        """Put messages back where they were before they left."""
        for entry in sorted(entries, key=_place, reverse=True):
            lane = self._lane(entry)
            if not lane or entry.place < lane[0].place:
                lane.appendleft(entry)
            else:
                lane.insert(bisect_left(lane, entry.place, key=_place), entry)
            self.count += 1
            self.bytes += len(entry.message.body)

    def put_returned(self, entry: Entry) -> None:
        """Add a message that came back, before all that have not left yet."""
        self._returned.append(entry)
        self.count += 1
        self.bytes += len(entry.message.body)

    def take(self) -> Entry:
        """Remove the first message; there must be one."""
        return self._out(self._first())

    def first(self) -> Entry | None:
        """Look at the first message."""
        return self._first()[0] if self.count else None

    def peek(self) -> list[Message]:
        """Look at all messages, the first to leave first."""
        lanes = (self._returned, *reversed(self._lanes))
        return [entry.message for lane in lanes for entry in lane]

    def expired(self, now: float) -> list[Entry]:
        """Remove what has expired and would leave next.

        What is behind a message that lives longer waits, as in RabbitMQ, and so does
        what has a lower priority.
        """
        found: list[Entry] = []
        while (first := self.first()) is not None:
            if first.expires is None or first.expires > now:
                break
            found.append(self.take())
        return found

    def next_expiry(self) -> float | None:
        """When the first message expires, if it does."""
        first = self.first()
        return None if first is None else first.expires

    def clear(self) -> int:
        """Remove all; return how many they were."""
        count = self.count
        for lane in (self._returned, *self._lanes):
            lane.clear()
        self.count = self.bytes = 0
        return count

    def _lane(self, entry: Entry) -> deque[Entry]:
        return self._lanes[min(entry.message.priority, self._highest)]

    def _first(self) -> deque[Entry]:
        if self._returned:
            return self._returned
        if not self._highest:
            return self._lanes[0]
        return next(lane for lane in reversed(self._lanes) if lane)

    def _out(self, lane: deque[Entry]) -> Entry:
        entry = lane.popleft()
        self.count -= 1
        self.bytes -= len(entry.message.body)
        return entry


def _place(entry: Entry) -> int:
    return entry.place
