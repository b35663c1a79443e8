"""taskiq on taskiq-aio-pika: at its best with a longer prefetch and uvloop.

A delay is a per-message time to live in one queue (the plugin is not used here).
"""

import asyncio
import time

from taskiq_aio_pika import AioPikaBroker, Queue

from benchmarks.libraries import AT_ONCE, BEST, QUEUE, URL
from benchmarks.tally import job as tallied

broker = AioPikaBroker(
    URL,
    qos=200 if BEST else 10,
    task_queues=[Queue(name=QUEUE)],
    delay_queue=Queue(name=f"{QUEUE}.delay"),
)
job = broker.task(task_name="job")(tallied)


class Producer:
    async def __aenter__(self):
        await broker.startup()
        return self

    async def __aexit__(self, *exc_info):
        await broker.shutdown()

    async def enqueue(self, number):
        await job.kiq(number, "x")

    async def enqueue_many(self, n):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*map(self.enqueue, numbers))

    async def defer_many(self, n, due):
        for start in range(0, n, AT_ONCE):
            later = job.kicker().with_labels(delay=max(0.0, due - time.time()))
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*(later.kiq(number, "x") for number in numbers))
