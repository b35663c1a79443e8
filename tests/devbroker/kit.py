"""Shorthands of the dev broker's tests, over aiormq."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from pamqp import commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import AbstractChannel, DeliveredMessage

Properties = commands.Basic.Properties


async def put(
    channel: AbstractChannel,
    key: str,
    *bodies: str,
    exchange: str = "",
    **properties: Any,
) -> None:
    """Publish messages, one after the other, confirmed."""
    for body in bodies:
        await channel.basic_publish(
            body.encode(),
            exchange=exchange,
            routing_key=key,
            properties=Properties(**properties),
        )


async def get(
    channel: AbstractChannel, queue: str, *, no_ack: bool = False
) -> DeliveredMessage | None:
    """Take a message; `None` if there is none."""
    got = await channel.basic_get(queue, no_ack=no_ack)
    return None if isinstance(got.delivery, commands.Basic.GetEmpty) else got


async def bodies(channel: AbstractChannel, queue: str) -> list[str]:
    """Take the bodies of all messages."""
    found: list[str] = []
    while (got := await get(channel, queue, no_ack=True)) is not None:
        found.append(got.body.decode())
    return found


async def headers(channel: AbstractChannel, queue: str) -> dict[str, Any]:
    """Take a message and give its headers."""
    got = await get(channel, queue, no_ack=True)
    assert got is not None
    return dict(got.header.properties.headers or {})


class Received:
    """What consumers got; they acknowledge nothing by themselves."""

    def __init__(self) -> None:
        self.messages: list[DeliveredMessage] = []

    async def __call__(self, message: DeliveredMessage) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[str]:
        return [message.body.decode() for message in self.messages]

    async def wait(self, count: int) -> list[str]:
        """Wait until so many are there, and no more come at once."""
        await until(lambda: len(self.messages) >= count)
        await asyncio.sleep(0.02)
        assert len(self.messages) == count, self.bodies
        return self.bodies


async def until(condition: Callable[[], object]) -> None:
    """Poll a condition; fail when it does not become true in time."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
