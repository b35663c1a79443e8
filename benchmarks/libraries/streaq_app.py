"""streaq: 16 jobs as it comes; at its best 100 and a longer prefetch."""

from datetime import UTC, datetime

from streaq import Worker

from benchmarks.libraries import AT_ONCE, BEST, CONCURRENCY, REDIS
from benchmarks.tally import job as tallied

_best = {"concurrency": CONCURRENCY, "prefetch": 200} if BEST else {}
worker = Worker(redis_url=REDIS, **_best)


@worker.task(**({"ttl": 0} if BEST else {}))
async def job(number: int, text: str) -> None:
    await tallied(number, text)


class Producer:
    async def __aenter__(self):
        await worker.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await worker.__aexit__(*exc_info)

    async def enqueue(self, number):
        await job.enqueue(number, "x")

    async def enqueue_many(self, n):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await worker.enqueue_many([job.enqueue(i, "x") for i in numbers])

    async def defer_many(self, n, due):
        at = datetime.fromtimestamp(due, UTC)
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            jobs = [job.enqueue(i, "x").start(schedule=at) for i in numbers]
            await worker.enqueue_many(jobs)
