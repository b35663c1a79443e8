"""Offers messages to a broker that may refuse them, and changes bytes at random."""

from __future__ import annotations

import os
import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from tests.broker.raw import raw_publisher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.broker.raw import RawPublisher
    from tests.harness.broker import Broker

SEED = int(os.environ.get("RMQARQ_CHAOS_SEED", "20240817"))
SPECIAL = (0x00, 0x01, 0x7F, 0x80, 0xC0, 0xC1, 0xDD, 0xFE, 0xFF, *b'"{}[]:,\\0-e')


class Offering:
    """A publisher that opens a new link when the broker has thrown it out.

    Attributes:
        refused: How many messages the broker would not take.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._links = AsyncExitStack()
        self._link: RawPublisher | None = None
        self.refused = 0

    async def offer(self, queue: str, properties: bytes, body: bytes) -> bool:
        """Publish; tell whether the broker has stored it."""
        if self._link is None:
            self._link = await self._links.enter_async_context(
                raw_publisher(self._broker)
            )
        try:
            await self._link.publish(queue, properties, body)
        except (AssertionError, ConnectionError):  # no ack, but a close or a reset
            self.refused += 1
            self._link = None
            await self._links.aclose()
            return False
        return True

    async def close(self) -> None:
        await self._links.aclose()


@asynccontextmanager
async def offering(broker: Broker) -> AsyncIterator[Offering]:
    """Open an offering, closed at the end."""
    it = Offering(broker)
    try:
        yield it
    finally:
        await it.close()


class Mutator:
    """Changes bytes in the ways that break parsers; the same seed, the same bytes."""

    def __init__(self, seed: int = SEED) -> None:
        self._random = random.Random(seed)

    def __call__(self, raw: bytes) -> bytes:
        """Change a few places."""
        changed = bytearray(raw)
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
            self._change(changed)
        return bytes(changed)

    def pick(self, seeds: list[bytes]) -> bytes:
        """Choose one."""
        return self._random.choice(seeds)

    def _change(self, raw: bytearray) -> None:
        at = self._random.randrange(len(raw) + 1)
        more = self._random.randrange(1, 16)
        random_bytes = self._random.randbytes
        part = raw[at : at + more]
        other = self._random.randrange(len(raw) + 1)
        new, instead = self._random.choice(
            (
                (bytes((self._random.choice(SPECIAL),)), 1),  # one byte changed
                (bytes((self._random.choice(SPECIAL),)), 0),  # or put in
                (bytes(each ^ 1 << more % 8 for each in raw[at : at + 1]), 1),
                (b"", more),  # cut out
                (b"", len(raw)),  # cut short
                (part * self._random.choice((2, 3, 50)), more),  # again and again
                (raw[other : other + more], 0),  # from elsewhere
                (random_bytes(more), self._random.choice((0, more))),
                # a size or a number made huge
                (self._random.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"9999")), 4),
            )
        )
        raw[at : at + instead] = new
