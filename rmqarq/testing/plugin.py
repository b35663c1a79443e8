"""The pytest plugin: fixtures, and nothing that costs a run that does not use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import testing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rmqarq.app import App
    from rmqarq.testing.worlds import World


@pytest.fixture
def rmqarq_app() -> App[Any]:
    """Give the App whose world `rmqarq_world` is; every project has its own."""
    raise pytest.UsageError(
        "rmqarq_world needs a fixture rmqarq_app that returns your App; put one into"
        " conftest.py"
    )


@pytest.fixture
async def rmqarq_world(rmqarq_app: App[Any]) -> AsyncGenerator[World]:
    """Give a world for `rmqarq_app`, as `rmqarq.testing.world` makes it."""
    async with testing.world(rmqarq_app) as world:
        yield world
