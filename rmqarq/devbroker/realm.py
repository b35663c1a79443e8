"""What a session stands on: what all of them share, and its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.devbroker.host import Host


class Realm(NamedTuple):
    """What all connections of a broker share.

    Args:
        users: Names with their passwords.
        hosts: The virtual hosts by name.
    """

    users: Mapping[str, str]
    hosts: Mapping[str, Host]


class Wire(Protocol):
    """What a session needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send bytes with the next flush."""
        ...

    def flush_soon(self) -> None:
        """Flush in this turn of the event loop."""
        ...

    def beat(self, seconds: int) -> None:
        """Send signs of life so often, and expect them."""
        ...

    def leave(self) -> None:
        """Close once all is sent."""
        ...

    def leave_later(self) -> None:
        """Close when the client has had time to read why."""
        ...
