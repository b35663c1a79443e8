"""A bar that shows how far a long command has come, on a terminal only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

import typer

if TYPE_CHECKING:
    from types import TracebackType

WORTH_SHOWING = 1000


class Progress:
    """Shows the bar on standard error while it is entered."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._wanted = sys.stderr.isatty()
        self._shown = 0

    def __call__(self, seen: int, there: int) -> None:
        """Take note that so many of so many letters have been looked at."""
        if not self._wanted or there < WORTH_SHOWING:
            return
        if self._bar is None:
            self._bar = typer.progressbar(length=there, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(seen - self._shown)
        self._shown = seen

    def __enter__(self) -> Self:
        """Begin; the bar comes with the first news."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """End the line of the bar."""
        if self._bar is not None:
            self._bar.__exit__(exc_type, exc, tb)
