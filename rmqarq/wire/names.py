"""The names of our own exchanges and queues under one prefix."""

from __future__ import annotations

from msgspec import Struct

SUSPECT = ".suspect"


class Names(Struct, frozen=True):
    """The names of our own objects.

    Args:
        prefix: Their first word; apps under different prefixes share nothing.
    """

    prefix: str = "rmqarq"

    @property
    def due(self) -> str:
        """The exchange that is the last hop of every delay."""
        return f"{self.prefix}.due"

    @property
    def lost(self) -> str:
        """The exchange and queue for what was due for a queue that is gone."""
        return f"{self.prefix}.lost"

    @property
    def delayed(self) -> str:
        """The exchange of the delayed-message plugin, where the broker has it."""
        return f"{self.prefix}.delayed"

    def ladder(self, decade: int) -> str:
        """The exchange before the rungs of a decade; below 0 it is `due`."""
        return self.due if decade < 0 else f"{self.prefix}.delay.{decade}"

    def entry(self, decade: int) -> str:
        """The exchange where a delay begins whose first rung is of this decade."""
        return f"{self.prefix}.delay.{decade}.entry"

    def rung(self, label: str) -> str:
        """The queue of the rung that people call `label`, such as `30s`."""
        return f"{self.prefix}.delay.{label}"


def suspect_lane(queue: str) -> str:
    """The name of the lane for jobs of `queue` that must run in isolation."""
    return queue + SUSPECT


def dead_letter_key(queue: str) -> str:
    """The fixed routing key of the dead letters of `queue`, whatever their queue."""
    return f"{queue}_dlq"
