"""Why a worker ended, and the exit code that tells it to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from rmqarq.errors import (
    AppNotFound,
    ConfigurationError,
    NotFound,
    RmqarqError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def code_of(error: RmqarqError) -> int:
    """Give the exit code of a program that an error of ours has ended."""
    if isinstance(error, AppNotFound | NotFound):
        return 2
    if isinstance(error, TransportError):
        return 4
    return 3 if isinstance(error, ConfigurationError) else 1


def worst(codes: Iterable[int]) -> int:
    """Give the one exit code for several processes: the one that asks for most care.

    Args:
        codes: Theirs; the negative number of a signal that killed one.
    """
    ranked = [code if code in (0, 2, 3, 4, 5) else 1 for code in codes]
    return max(ranked, key=(0, 5, 4, 1, 2, 3).index, default=0)
