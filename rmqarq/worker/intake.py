"""Keeps the queues consumed, whatever becomes of links, channels and queues."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING

from rmqarq.errors import QueueMissing, TransportError
from rmqarq.wire.connection import ChannelRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from rmqarq.wire.consumer import Consumer, Delivery, Source
    from rmqarq.wire.transport import Transport

log = logging.getLogger(__name__)

SHORT = 1.0
LOOK = 30.0
_TOO_LONG = "delivery acknowledgement on channel"  # RabbitMQ's words for it


class Intake:
    """One consumer a queue, each on a channel of its own, made anew when it ends.

    Args:
        transport: Where to consume.
        sources: What to consume.
        on_delivery: Called for each message, inside the reader.
        on_loss: Called when a consumer has ended, with its open deliveries and the
            heartbeat of its link.
    """

    def __init__(
        self,
        transport: Transport,
        sources: Sequence[Source],
        on_delivery: Callable[[Delivery], None],
        on_loss: Callable[[int, int], None],
    ) -> None:
        self._transport = transport
        self._sources = sources
        self._on_delivery = on_delivery
        self._on_loss = on_loss
        self._consumers: dict[str, Consumer] = {}
        self._without: dict[str, float] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._wanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def queues(self) -> list[str]:
        """What is consumed, or should be."""
        return [source.queue for source in self._sources]

    @property
    def unconsumed(self) -> dict[str, float]:
        """The queues without a consumer, and for how many seconds that has been so."""
        now = asyncio.get_running_loop().time()
        return {queue: now - since for queue, since in self._without.items()}

    async def start(self) -> None:
        """Consume every queue; returns when all are consumed.

        Raises:
            ConfigurationError: The broker refuses one of them.
        """
        loop = asyncio.get_running_loop()
        self._without = {each.queue: loop.time() for each in self._sources}
        ready = [loop.create_future() for _ in self._sources]
        for source, each in zip(self._sources, ready, strict=True):
            keeper = asyncio.create_task(self._keep(source, each))
            self._keepers.append(keeper)
        await asyncio.gather(*ready)

    def renew(self) -> None:
        """Have every idle consumer renewed now."""
        self._wanted.set_result(None)
        self._wanted = asyncio.get_running_loop().create_future()

    async def failed(self) -> None:
        """Wait until the broker refuses a queue for good.

        Raises:
            ConfigurationError: Why it does.
        """
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in done:
            keeper.result()

    async def cancel(self) -> None:
        """Stop deliveries; none comes after this."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._each(lambda consumer: consumer.cancel())

    async def close(self) -> None:
        """Let the broker handle all acks, then close the channels."""
        if any(consumer.usable for consumer in self._consumers.values()):
            await asyncio.sleep(self._transport.linger)
        await self._each(lambda consumer: consumer.close())

    async def _each(self, act: Callable[[Consumer], Coroutine[Any, Any, None]]) -> None:
        acts = [act(consumer) for consumer in self._consumers.values()]
        for result in await asyncio.gather(*acts, return_exceptions=True):
            if isinstance(result, Exception):  # the link is gone, and all with it
                log.debug("a channel did not end in order: %(why)s", {"why": result})

    async def _keep(self, source: Source, ready: asyncio.Future[None]) -> None:
        """Consume a queue for ever."""
        try:
            while True:
                await self._consume(source, ready)
        except Exception as error:
            if not ready.done():
                ready.set_exception(error)
                return
            raise

    async def _end_of(self, consumer: Consumer) -> str:
        """Wait until a consumer ends, and give the cause.

        A cluster may forget consumers without a word (seen with RabbitMQ 3.10: a queue
        that was deleted after a node had crashed), so an idle one is renewed at times.
        """
        seen = consumer.last_tag
        while True:
            wanted = self._wanted
            await asyncio.wait(
                (consumer.ended, wanted),
                timeout=LOOK,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if consumer.ended.done():
                return consumer.ended.result()
            idle = consumer.last_tag == seen or wanted.done()
            if idle and not consumer.unsettled:
                with suppress(TransportError, ChannelRefused):
                    await consumer.renew()
            seen = consumer.last_tag

    async def _consume(self, source: Source, ready: asyncio.Future[None]) -> None:
        """Consume a queue until its consumer ends.

        Raises:
            ConfigurationError: The broker refuses it.
        """
        try:
            consumer = await self._transport.consume(source, self._on_delivery)
        except (TransportError, QueueMissing) as error:
            if isinstance(error, QueueMissing) and not ready.done():
                raise
            log.warning(
                "%(queue)s can't be consumed at present: %(problem)s",
                {"queue": source.queue, "problem": error},
            )
            await asyncio.sleep(random.uniform(*_pause_after(error)))
            return
        self._consumers[source.queue] = consumer
        self._without.pop(source.queue, None)
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not ready.done():
            ready.set_result(None)
        cause = await self._end_of(consumer)
        self._without[source.queue] = loop.time()
        self._on_loss(consumer.unsettled, consumer.heartbeat)
        log.warning(
            "the consumer of %(queue)s ended (%(cause)s); it is made anew",
            {"queue": source.queue, "cause": cause},
        )
        if _TOO_LONG in cause:
            log.warning(
                "a job of %(queue)s takes longer than consumer_timeout of RabbitMQ"
                " allows; it goes on, but raise that limit or lower the task's timeout",
                {"queue": source.queue},
            )
        with suppress(TransportError, ChannelRefused):
            await consumer.close()
        if loop.time() - began < SHORT:
            await asyncio.sleep(random.uniform(0.05, 0.5))


def _pause_after(error: Exception) -> tuple[float, float]:
    """Say how long to wait, in seconds, from least to most.

    A queue that we do not declare may be away for long: while it is made anew, or while
    the node that holds a classic one is down.
    """
    return (1.0, 3.0) if isinstance(error, QueueMissing) else (0.05, 0.5)
