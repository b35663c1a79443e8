"""The App that a task belongs to, and its calls; it may be included in another."""

from __future__ import annotations

from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT")


class Home(Generic[OwnerT]):
    """Shared by an App, its tasks, their copies and their calls.

    Args:
        owner: The App.

    """

    __slots__ = ("_above", "_owner", "_queue")

    def __init__(self, owner: OwnerT) -> None:
        self._owner = owner
        self._above: Home[OwnerT] | None = None
        self._queue: str | None = None

    @property
    def owner(self) -> OwnerT:
        """The App that sends: the outermost one."""
        return self._owner if self._above is None else self._above.owner

    @property
    def queue(self) -> str | None:
        """Where calls go that name no queue; `None`: to that of the outermost App."""
        if self._above is None:
            return None
        return self._queue or self._above.queue

    def follow(self, other: Home[OwnerT], queue: str | None) -> None:
        """Belong to another App from now on.

        Args:
            other: Its home.
            queue: Where calls go that name no queue; `None`: where those of it go.
        """
        self._above, self._queue = other, queue
