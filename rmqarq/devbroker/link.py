"""A connection as its channels see it."""

from __future__ import annotations

from typing import Protocol


class Link(Protocol):
    """Where a channel writes to."""

    frame_max: int
    writable: bool
    """Whether the client keeps up with what is sent to it."""
    user: str
    tells_cancels: bool
    """Whether the client wants to hear that a queue it consumes is gone."""

    def write(self, data: bytes) -> None:
        """Send bytes with the next flush."""
        ...

    def flush_later(self, channel: int) -> None:
        """Let a channel send its confirms with the next flush."""
        ...
