"""The state that an App's lifespan makes for the jobs of one process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from rmqarq.context import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rmqarq.app import App


@asynccontextmanager
async def lifespan_of(app: App[Any]) -> AsyncGenerator[Any]:
    """Enter the App's lifespan, or give an empty `State` when it has none."""
    if app.lifespan is None:
        yield State()
    else:
        async with app.lifespan() as state:
            yield state
