"""FastStream on RabbitMQ: transient messages as it comes; persistent at its best.

It has no delays without a plugin of the broker.
"""

import asyncio

from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from benchmarks.libraries import AT_ONCE, BEST, PREFETCH, QUEUE, URL
from benchmarks.tally import job as tallied

_queue = RabbitQueue(QUEUE, durable=True)
_settings = {"logger": None} if BEST else {}
broker = RabbitBroker(
    URL,
    default_channel=Channel(prefetch_count=PREFETCH) if BEST else None,
    **_settings,
)
app = FastStream(broker)


@broker.subscriber(_queue)
async def job(message: list) -> None:
    await tallied(*message)


class Producer:
    async def __aenter__(self):
        await broker.connect()
        await broker.declare_queue(_queue)
        return self

    async def __aexit__(self, *exc_info):
        await broker.stop()

    async def enqueue(self, number):
        await broker.publish([number, "x"], _queue, persist=BEST)

    async def enqueue_many(self, n):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*map(self.enqueue, numbers))
