"""The dev broker does what RabbitMQ 3.10 does, scenario by scenario."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq.devbroker import Broker
from tests.conftest import on_dev_broker
from tests.devbroker.differential import (  # noqa: F401 - they register scenarios
    consuming,
    declaring,
    dying,
    publishing,
    routing,
)
from tests.devbroker.differential.client import connect
from tests.devbroker.differential.explained import EXPLAINED
from tests.devbroker.differential.lab import Lab
from tests.devbroker.differential.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.broker import Broker as Node

pytestmark = pytest.mark.skipif(on_dev_broker(), reason="looks at RabbitMQ itself")
AT_ONCE = 8  # scenarios
TIME = 20  # seconds for one scenario on a busy machine

Outcomes = dict[str, "asyncio.Task[tuple[Any, Any]]"]


@pytest.fixture(scope="module")
async def outcomes(
    broker: Node, request: pytest.FixtureRequest
) -> AsyncIterator[Outcomes]:
    """Play all scenarios that are asked for, some at a time, on both brokers."""
    asked = {
        each.callspec.params.get("name")
        for each in request.session.items
        if isinstance(each, pytest.Function) and hasattr(each, "callspec")
    }
    async with Broker() as dev:
        ports = broker.port, await dev.serve()
        turns = asyncio.Semaphore(AT_ONCE)
        played: Outcomes = {}
        connection = await connect(broker.port)
        version = str(connection.properties["version"])
        await connection.close()
        if version.startswith("3.10."):
            for name in SCENARIOS:
                if name in asked:
                    played[name] = asyncio.create_task(compared(name, ports, turns))
        yield played
        await asyncio.gather(*played.values())


async def compared(
    name: str, ports: tuple[int, int], turns: asyncio.Semaphore
) -> tuple[Any, Any]:
    """Play a scenario on both brokers, both at the same time."""
    async with turns:
        real, dev = await asyncio.gather(*(played(name, port) for port in ports))
    return real, dev


async def played(name: str, port: int) -> Any:
    """Play a scenario and give its plain result, or how it failed."""
    lab = Lab(port, await connect(port), f"{name}-")
    try:
        async with asyncio.timeout(TIME):
            return lab.plain(await SCENARIOS[name](await lab.open()))
    except Exception as error:  # it is the result
        return f"{error!r}\n{traceback.format_exc()}"
    finally:
        await lab.clean()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_dev_broker_does_what_rabbitmq_does(
    name: str, outcomes: Outcomes
) -> None:
    if not outcomes:
        pytest.skip("another version of RabbitMQ may do otherwise")
    real, dev = await outcomes[name]
    assert "Traceback" not in str(real), real
    if name in EXPLAINED:
        assert dev != real, "it is listed, but does not differ"
    else:
        assert dev == real
