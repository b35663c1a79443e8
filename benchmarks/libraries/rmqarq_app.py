"""rmqarq: with its default settings, and at its best with uvloop and a longer prefetch.

`rmqarq[fast]` brings uvloop, which the worker takes when it is installed.
"""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from benchmarks.libraries import BEST, CONCURRENCY, PREFETCH, QUEUE, URL, VARIANT
from benchmarks.tally import job as tallied
from rmqarq import App, Worker

IMPORT = "from rmqarq import App, Worker"  # names are loaded when asked for
HELP = ("-m", "rmqarq")
CHUNK = 10_000


def _app(run):
    prefetch = 1000 if BEST else PREFETCH
    app = App(
        URL,
        queue=QUEUE,
        queue_type="classic" if VARIANT == "classic" else "quorum",
        concurrency=CONCURRENCY,
        prefetch=prefetch,
    )

    @app.task
    async def job(number: int, text: str) -> None:
        await run(number, text)

    return app, job


app, _ = _app(tallied)


class Producer:
    async def __aenter__(self):
        self._app, self._job = _app(tallied)
        await self._app.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await self._app.__aexit__(*exc_info)

    async def enqueue(self, number):
        await self._job.enqueue(number, "x")

    async def enqueue_many(self, n):
        await self._app.enqueue_many([self._job.job(i, "x") for i in range(n)])

    async def defer_many(self, n, due):
        at = datetime.fromtimestamp(due, UTC)
        if VARIANT == "mapped":
            await self._job.starmap(((i, "x") for i in range(n)), defer=at, chunk=500)
            return
        for start in range(0, n, CHUNK):
            numbers = range(start, min(n, start + CHUNK))
            jobs = [self._job.job(i, "x").defer(at) for i in numbers]
            await self._app.enqueue_many(jobs)


@asynccontextmanager
async def working(run):
    worker = Worker(_app(run)[0])
    running = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await running
