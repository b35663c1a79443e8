"""The event loop of libraries that have no command of their own to start a worker."""

import asyncio
import contextlib
import importlib
import signal
from importlib.util import find_spec

from benchmarks.libraries import BEST


def loop_factory():
    """Give uvloop's, where the best settings have it installed."""
    if BEST and find_spec("uvloop"):
        return importlib.import_module("uvloop").new_event_loop
    return None


def run_forever(work):
    """Run a coroutine function until SIGTERM."""

    async def until_told():
        task = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(until_told())
