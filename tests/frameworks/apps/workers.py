"""Run what several programs have enqueued: `workers.py MODULE...`, till all is done."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import msgspec

from rmqarq import App, Worker


def apps(module: str) -> list[App[Any]]:
    found = vars(importlib.import_module(module)).values()
    return [each for each in found if isinstance(each, App)]


async def main(modules: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for module in modules:
            for app in apps(module):
                settings = msgspec.structs.replace(app.settings, burst=True)
                group.create_task(Worker(app, settings).run(signals=False))


asyncio.run(main(sys.argv[1:]))
