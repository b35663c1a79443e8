"""The tasks of the ledger app, and some that spoil a worker's health."""

from __future__ import annotations

import os
import signal
import time

from tests.broker.apps.ledger_app import make

app = make()


@app.task
async def block(seconds: float) -> None:
    """Let nothing else happen in the event loop."""
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point


@app.task
async def die() -> None:
    """Take the process along."""
    os.kill(os.getpid(), signal.SIGKILL)
