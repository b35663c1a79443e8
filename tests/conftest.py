"""Fixtures for all tests."""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.harness.broker import Broker
from tests.harness.dev_broker import DevBroker
from tests.harness.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# how long an example takes says more about the machine than about the code
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

BACKENDS: list[Any] = [pytest.param("asyncio", id="asyncio")]
if os.environ.get("RMQARQ_TEST_UVLOOP") == "1":
    BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what was not tested because nobody offered the plugin it takes."""
    skipped = terminalreporter.stats.get("skipped", [])
    missing = [
        each for each in skipped if "no delayed-message plugin" in str(each.longrepr)
    ]
    if missing:
        terminalreporter.section("not tested", yellow=True)
        terminalreporter.line(
            f"delays by the delayed-message plugin ({len(missing)} tests): set"
            " RMQARQ_TEST_DELAYED_PLUGIN to a directory that has it"
        )


@pytest.fixture(scope="session", params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop of asynchronous tests; RMQARQ_TEST_UVLOOP=1 adds uvloop."""
    return request.param


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A private RabbitMQ node, shared by all tests; an error if there is none.

    RMQARQ_TEST_BROKER=dev takes the dev broker instead: what needs rabbitmqctl, or a
    real node's faults, is skipped then.
    """
    node: Any = DevBroker() if on_dev_broker() else Broker()
    with node:
        yield node


def on_dev_broker() -> bool:
    return os.environ.get("RMQARQ_TEST_BROKER") == "dev"


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    """A network in front of the broker that a test can break."""
    async with Proxy(broker.port) as network:
        yield network


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    """A queue name that no other test uses."""
    name = re.sub("[^a-z0-9]+", "_", request.node.name.lower()).strip("_")
    return f"{name[:51]}-{secrets.token_hex(4)}"
