"""Fixtures: a dev broker within the test, and clients of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiormq
import pytest

from rmqarq.devbroker import Broker, Clock
from tests.devbroker.refusals import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from aiormq.abc import AbstractChannel

    Dialled = Callable[[], Awaitable[Session]]
    Opened = Callable[..., AbstractAsyncContextManager[AbstractChannel]]


@pytest.fixture
async def dev() -> AsyncIterator[Broker]:
    """A dev broker in this event loop; its time goes by when a test says so."""
    async with Broker(clock=Clock(None)) as broker:
        yield broker


@pytest.fixture
def opened(dev: Broker) -> Opened:
    """Open a channel on a connection of its own, over a pair of sockets."""

    @asynccontextmanager
    async def open_channel(**arguments: Any) -> AsyncIterator[AbstractChannel]:
        factory: Any = dev
        url = "amqp://guest:guest@nowhere/"
        connection = await aiormq.connect(url, transport_factory=factory)
        try:
            yield await connection.channel(**arguments)
        finally:
            await connection.close()

    return open_channel


@pytest.fixture
async def dialled(dev: Broker) -> AsyncIterator[Dialled]:
    """Open connections to be spoken to frame by frame; they are closed after."""
    sessions: list[Session] = []

    async def dial() -> Session:
        sessions.append(Session(*await dev.connect()))
        return sessions[-1]

    yield dial
    for session in sessions:
        await session.close()


@pytest.fixture
async def channel(opened: Opened) -> AsyncIterator[AbstractChannel]:
    async with opened() as channel:
        yield channel
