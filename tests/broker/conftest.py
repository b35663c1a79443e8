"""Fixtures for tests on a broker."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import pytest

from rmqarq.wire.delay import DECADES, every_rung
from rmqarq.wire.names import Names
from tests.broker.kit import Node, channel_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.harness.broker import Broker


@pytest.fixture
async def queue(request: pytest.FixtureRequest, broker: Broker) -> AsyncIterator[str]:
    """A queue name that no other test uses; what stands under it is deleted after."""
    words = re.sub("[^a-z0-9]+", "_", request.node.name.lower()).strip("_")
    name = f"{words[:40]}-{secrets.token_hex(4)}"
    yield name
    async with channel_to(broker.url) as channel:
        for each in (name, f"{name}.suspect", f"{name}_dlq"):
            await channel.queue_delete(each)


@pytest.fixture
def node(broker: Broker, queue: str, tmp_path: Path) -> Node:
    """The shared broker with a queue and a ledger of this test."""
    return Node(broker, queue, tmp_path)


@pytest.fixture
async def prefix(broker: Broker) -> AsyncIterator[str]:
    """A prefix of this test, for a ladder of its own; deleted after."""
    name = f"p{secrets.token_hex(4)}"
    yield name
    names = Names(name)
    async with channel_to(broker.url) as channel:
        for rung in every_rung():
            await channel.queue_delete(names.rung(rung.label))
        await channel.queue_delete(names.lost)
        for exchange in (names.due, names.lost, *map(names.ladder, range(DECADES))):
            await channel.exchange_delete(exchange)
