"""A transport that sends nothing: what is published is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.wire.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from rmqarq.errors import RmqarqError
    from rmqarq.settings import Settings
    from rmqarq.wire.publication import Publication


class PaperTransport(Transport):
    """Takes every publication, and reaches no broker.

    Args:
        settings: Of the App.
        foreign: Queues of somebody else.
        take: Called with each publication.
    """

    def __init__(
        self,
        settings: Settings,
        foreign: Container[str],
        take: Callable[[Publication], None],
    ) -> None:
        super().__init__(settings, foreign)
        self._take = take

    async def connect(self, deadline: float | None = None) -> None:
        """Do nothing: there is nothing to reach."""

    async def server_version(self, deadline: float | None = None) -> tuple[int, ...]:
        """Stand in for a broker that has everything."""
        return (4, 0)

    async def publish(self, publication: Publication, deadline: float) -> None:
        """Write one down."""
        self._take(publication)

    async def publish_many(
        self, publications: Sequence[Publication], patience: float
    ) -> dict[int, RmqarqError]:
        """Write all down."""
        for publication in publications:
            self._take(publication)
        return {}
