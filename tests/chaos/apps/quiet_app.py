"""Tasks that say nothing of what they were given: each run is one byte in a file.

The file is named by RMQARQ_TEST_LEDGER; queue and broker come from the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
from enum import Enum
from typing import Any

from msgspec import Struct
from pydantic import BaseModel

from rmqarq import App, Backoff, Context, Reject


class Colour(Enum):
    RED = "red"


class Shape(Struct, forbid_unknown_fields=True):
    name: str


class Person(BaseModel):
    name: str
    age: int


def tally(mark: bytes = b".") -> None:
    ledger = os.open(
        os.environ["RMQARQ_TEST_LEDGER"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644
    )
    try:
        os.write(ledger, mark)
    finally:
        os.close(ledger)


async def done(number: int) -> None:
    tally()


async def plain(text: str) -> None:
    tally()


async def failing(text: str) -> None:
    tally(b"f")
    raise RuntimeError("it does not work")


async def rejecting(ctx: Context, text: str) -> None:
    tally(b"r")
    raise Reject("not this one")


async def returning(text: str) -> str:
    tally()
    return text


async def lasting(text: str, seconds: float) -> None:
    tally(b"l")
    await asyncio.sleep(seconds)
    tally(b"L")


async def stubborn(text: str, seconds: float) -> None:
    tally(b"s")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(seconds)


async def deadly(text: str) -> None:
    tally(b"d")
    os.kill(os.getpid(), signal.SIGKILL)


async def coloured(colour: Colour) -> None:
    tally()


async def shaped(shape: Shape) -> None:
    tally()


async def greeting(person: Person) -> None:
    tally()


def make(url: str | None = None, **settings: Any) -> App:
    """Make an App with these tasks; a test makes its own to enqueue."""
    app = App(url, **settings)
    for fn in (done, plain, rejecting, returning, lasting, deadly):
        app.task(fn)
    app.task(coloured)
    app.task(shaped)
    app.task(greeting)
    app.task(max_retries=1, backoff=Backoff(base=0.1, jitter=0))(failing)
    app.task(timeout=0.3, max_retries=0)(stubborn)
    return app


app = make()
