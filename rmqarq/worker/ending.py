"""Why a worker ended, and the exit code that tells it to others."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

Why: TypeAlias = Literal[
    "asked to stop",
    "enough jobs",
    "queues empty",
    "burst timeout",
    "broker unreachable",
    "forced",
]


class Ending(Struct, frozen=True):
    """The end of a worker.

    Args:
        why: What ended it.
        signal: The signal that asked it to stop, such as `SIGTERM`.
        dead_letters: Whether jobs were dead-lettered and that counts as a failure.
    """

    why: Why
    signal: str | None = None
    dead_letters: bool = False

    @property
    def exit_code(self) -> int:
        """0 done; 4 burst cut short or no broker; 5 dead letters; 130, 143 forced."""
        if self.why == "forced":
            return 130 if self.signal == "SIGINT" else 143
        if self.why in ("burst timeout", "broker unreachable"):
            return 4
        return 5 if self.dead_letters else 0
