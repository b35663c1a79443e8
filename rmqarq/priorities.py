"""What quorum queues make of priorities: said once, by whoever uses some."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmqarq.settings import Settings
    from rmqarq.wire.transport import Transport

log = logging.getLogger(__name__)


class Priorities:
    """Warns once where priorities have no effect.

    Args:
        settings: Say which queues there are.
    """

    def __init__(self, settings: Settings) -> None:
        self._pending = settings.queue_type == "quorum"

    async def mention(self, transport: Transport, deadline: float) -> None:
        """Say that quorum queues before RabbitMQ 4.0 are first in, first out.

        Args:
            transport: Leads to the broker.
            deadline: Time of the event loop.

        Raises:
            ConnectionFailed: No broker could be reached before the deadline.
        """
        if not self._pending:
            return
        self._pending = False
        version = await transport.server_version(deadline)
        if version < (4, 0):
            log.warning(
                "priorities have no effect: quorum queues of RabbitMQ %(version)s are"
                " first in, first out; use queue_type='classic' with max_priority",
                {"version": ".".join(map(str, version))},
            )
