"""The register of scenarios: what both brokers are told, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.devbroker.differential.lab import Channel

Scenario = Callable[[Channel], Awaitable[Any]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    """Register what is played on both brokers; what it returns must be the same."""
    name = getattr(play, "__name__", "")
    assert name not in SCENARIOS
    SCENARIOS[name] = play
    return play
