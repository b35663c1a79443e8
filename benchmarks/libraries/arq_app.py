"""arq: up to 10 jobs, looked for twice a second; at its best 100, every 10 ms."""

import asyncio
from datetime import UTC, datetime

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.libraries import AT_ONCE, BEST, CONCURRENCY, REDIS
from benchmarks.libraries.event_loop import loop_factory
from benchmarks.tally import job as tallied

_settings = RedisSettings.from_dsn(REDIS)
_best = {
    "max_jobs": CONCURRENCY,
    "poll_delay": 0.01,
    "keep_result": 0,
    "log_results": False,
}


async def job(ctx, number, text):
    await tallied(number, text)


class Producer:
    async def __aenter__(self):
        self._pool = await create_pool(_settings)
        return self

    async def __aexit__(self, *exc_info):
        await self._pool.aclose()

    async def enqueue(self, number, **options):
        await self._pool.enqueue_job("job", number, "x", **options)

    async def enqueue_many(self, n, **options):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*(self.enqueue(i, **options) for i in numbers))

    async def defer_many(self, n, due):
        await self.enqueue_many(n, _defer_until=datetime.fromtimestamp(due, UTC))


async def _work():
    further = _best if BEST else {}
    worker = Worker([job], redis_settings=_settings, **further)
    await worker.async_run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work())
