"""Fixtures for tests that break things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker.conftest import node, prefix, queue
from tests.chaos.suspects import Lane
from tests.harness.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["lane", "node", "prefix", "queue", "victim"]


@pytest.fixture(scope="session")
def victim() -> Iterator[Broker]:
    """A node that tests may stop, starve and kill; each leaves it running."""
    with Broker() as broker:
        yield broker


@pytest.fixture
def lane(
    broker: Broker, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Lane:
    """A queue of this test with its suspect lane, and a ledger."""
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("RMQARQ_TEST_LEDGER", str(ledger))
    return Lane(broker, queue, ledger)
