"""A process that is there for one worker, and ends with its exit code."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from rmqarq.worker.event_loop import run_to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rmqarq.settings import Settings
    from rmqarq.worker.worker import Worker


def replaced(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """Put the flags that were given over the settings.

    Raises:
        ConfigurationError: A value out of range.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    return msgspec.structs.replace(settings, **given)


def work(
    worker: Worker, at_end: Callable[[], None] | None = None, *, signals: bool = True
) -> int:
    """Run a worker in an event loop of its own; ends the process if code is left over.

    Args:
        worker: It has not run before.
        at_end: Called when it has ended.
        signals: As for `Worker.run`.

    Returns:
        The exit code for the process.

    Raises:
        ConfigurationError: As for `Worker.run`.
    """
    run_to_the_end(partial(_work, worker, at_end, signals))
    return _exit_code(worker)


async def _work(
    worker: Worker, at_end: Callable[[], None] | None, signals: bool
) -> None:
    await worker.run(signals=signals)
    if at_end is not None:
        at_end()
    if worker.left_behind:
        # code that ignores its cancellation would hold up the end of the event
        # loop, or a thread the end of the interpreter, for as long as it likes
        logging.shutdown()
        sys.stdout.flush()
        os._exit(_exit_code(worker))


def _exit_code(worker: Worker) -> int:
    return worker.ending.exit_code if worker.ending is not None else 1
