"""What is refused, in which words: those of RabbitMQ 3.10.8, captured there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import aiormq
import pytest

from tests.conftest import on_dev_broker
from tests.devbroker.refusals import REFUSALS, Refused, clean, refusal_of

if TYPE_CHECKING:
    from rmqarq.devbroker import Broker
    from tests.harness.broker import Broker as Node

CAPTURED = json.loads(
    Path(__file__).with_name("refusals-3.10.8.json").read_text("utf-8")
)


def captured(name: str) -> Refused:
    where, code, text, method = CAPTURED[name]
    return Refused(where, code, text, tuple(method))


def test_each_refusal_was_captured() -> None:
    assert list(CAPTURED) == list(REFUSALS)


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_that_of_rabbitmq(name: str, dev: Broker) -> None:
    assert await refusal_of(await dev.serve(), REFUSALS[name]) == captured(name)


@pytest.mark.skipif(on_dev_broker(), reason="looks at RabbitMQ itself")
async def test_rabbitmq_still_says_what_was_captured(broker: Node) -> None:
    connection = await aiormq.connect(broker.url)
    version = str(connection.server_properties["version"])
    await connection.close()
    if not version.startswith("3.10."):
        pytest.skip(f"the words of RabbitMQ {version} may be others")
    different: dict[str, Refused | None] = {}
    for name, calls in REFUSALS.items():
        found = await refusal_of(broker.port, calls)
        await clean(broker.port)
        if found != captured(name):
            different[name] = found
    assert different == {}
