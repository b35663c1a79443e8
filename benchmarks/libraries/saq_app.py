"""saq: 10 jobs as it comes; at its best 100, and results are not kept.

It looks once a second for delayed jobs that are due, and no oftener by any setting.
"""

import asyncio
import math

from saq import Queue, Worker

from benchmarks.libraries import AT_ONCE, BEST, CONCURRENCY, REDIS
from benchmarks.libraries.event_loop import loop_factory
from benchmarks.tally import job as tallied

_worker = {"concurrency": CONCURRENCY} if BEST else {}
_job = {"ttl": -1} if BEST else {}


async def job(ctx, *, number, text):
    await tallied(number, text)


class Producer:
    async def __aenter__(self):
        self._queue = Queue.from_url(REDIS)
        await self._queue.connect()
        return self

    async def __aexit__(self, *exc_info):
        await self._queue.disconnect()

    async def enqueue(self, number, **options):
        await self._queue.enqueue("job", number=number, text="x", **_job, **options)

    async def enqueue_many(self, n, **options):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*(self.enqueue(i, **options) for i in numbers))

    async def defer_many(self, n, due):
        await self.enqueue_many(n, scheduled=math.ceil(due))


async def _work():
    queue = Queue.from_url(REDIS)
    await queue.connect()
    try:
        await Worker(queue, [job], **_worker).start()
    finally:
        await queue.disconnect()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work())
