"""Sees to it, once per connection, that what a message needs on its way is there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rmqarq.wire import declare, topology
from rmqarq.wire.names import Names

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from rmqarq.settings import Settings
    from rmqarq.wire.connection import Connection
    from rmqarq.wire.delay import Rung
    from rmqarq.wire.topology import Topology

FOUNDATION, LADDER = "\0foundation", "\0ladder"


class Declarer:
    """Declares work queues and rungs, or only checks them when it may not.

    Args:
        settings: Say how queues are declared, and whether at all.
        foreign: Queues of somebody else, which must be there.
    """

    def __init__(self, settings: Settings, foreign: Container[str]) -> None:
        self._settings = settings
        self._foreign = foreign
        self._names = Names(settings.prefix)
        self._declaring = asyncio.Lock()

    async def ensure(self, connection: Connection, needs: Iterable[str | Rung]) -> None:
        """Declare what has not been declared through this connection yet.

        Args:
            connection: Where to.
            needs: Work queues, with all that belongs to them, and rungs.

        Raises:
            ConfigurationError: The broker refuses, or with `passive` it is not there.
            QueueMissing: A queue of somebody else is not there.
            ConnectionLost: The link broke.
        """
        if connection.ensured.issuperset(needs):
            return
        async with self._declaring:
            for need in needs:
                if need not in connection.ensured:
                    await self._declare(connection, need)
                    connection.ensured.add(need)

    async def _declare(self, connection: Connection, need: str | Rung) -> None:
        if isinstance(need, str) and need in self._foreign:
            await declare.require_foreign(connection, need)
        if self._settings.declare == "passive":
            queue = need if isinstance(need, str) else self._names.rung(need.label)
            await declare.require(connection, queue)
            return
        if FOUNDATION not in connection.ensured:
            await declare.declare(connection, topology.foundation(self._names))
            connection.ensured.add(FOUNDATION)
        await declare.declare(connection, await self._wanted(connection, need))

    async def _wanted(self, connection: Connection, need: str | Rung) -> Topology:
        if isinstance(need, str):
            made = topology.beside if need in self._foreign else topology.work
            return made(need, self._settings)
        await self._ensure_ladder(connection)
        return topology.rung(need, self._names)

    async def _ensure_ladder(self, connection: Connection) -> None:
        if LADDER not in connection.ensured:
            await declare.declare(connection, topology.ladder(self._names))
            connection.ensured.add(LADDER)
