"""The event loop of a worker process, which no job can stop."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

log = logging.getLogger(__name__)


def run_to_the_end(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop of its own, uvloop's where it is installed.

    asyncio lets a `SystemExit` or `KeyboardInterrupt` out of the loop when a task of
    a task raises it. The job that waits for that task fails; the worker goes on.

    Args:
        main: Makes the coroutine.

    Returns:
        What the coroutine returns.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        task = loop.create_task(main())
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done():
                    raise
                log.error(  # noqa: TRY400
                    "a job tried to end the process (%(error)s); the worker goes on",
                    {"error": repr(error)},
                )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    module: Any = importlib.import_module("uvloop")
    return cast("Callable[[], asyncio.AbstractEventLoop]", module.new_event_loop)
