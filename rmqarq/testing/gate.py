"""Holds deliveries back, so that nothing runs before the test says so."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rmqarq.wire import declare
from rmqarq.wire.topology import Queue, Topology
from rmqarq.wire.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator, Iterable

    from rmqarq.settings import Settings
    from rmqarq.wire.consumer import Consumer, Delivery, Source
    from rmqarq.wire.opening import Dial


class Gate:
    """Lets deliveries through while it is open, and keeps them in order meanwhile."""

    def __init__(self) -> None:
        self._is_open = False
        self._held: list[tuple[Callable[[Delivery], None], Delivery]] = []

    @contextmanager
    def opened(self) -> Generator[None]:
        """Stand open for a while."""
        self._is_open = True
        held, self._held = self._held, []
        for take, delivery in held:
            if delivery.alive:  # else the broker delivers it again
                take(delivery)
        try:
            yield
        finally:
            self._is_open = False

    def before(self, take: Callable[[Delivery], None]) -> Callable[[Delivery], None]:
        """Stand before what takes deliveries."""

        def arrive(delivery: Delivery) -> None:
            if self._is_open:
                take(delivery)
            else:
                self._held.append((take, delivery))

        return arrive


class GatedTransport(Transport):
    """The transport of production, over a dialled socket and with a gate.

    Args:
        settings: What is declared.
        foreign: Queues of somebody else.
        dial: Gives a connected socket.
        gate: What each delivery must pass.
    """

    linger = 0.0  # the dev broker loses no ack

    def __init__(
        self, settings: Settings, foreign: Container[str], dial: Dial, gate: Gate
    ) -> None:
        super().__init__(settings, foreign, dial)
        self._gate = gate
        self._patience = settings.publish_deadline

    async def consume(
        self, source: Source, on_delivery: Callable[[Delivery], None]
    ) -> Consumer:
        """Start to consume a queue; it raises what that does in production."""
        return await super().consume(source, self._gate.before(on_delivery))

    async def provide(self, queues: Iterable[str]) -> None:
        """Declare the queues of somebody else, who is not here to do it."""
        deadline = asyncio.get_running_loop().time() + self._patience
        connection = await self._publish_link.connection(deadline)
        made = tuple(map(Queue, queues))
        await declare.declare(connection, Topology(queues=made))
