"""rmqarq with its default settings."""

import asyncio
from contextlib import asynccontextmanager

from benchmarks.libraries import CONCURRENCY, PREFETCH, QUEUE, URL
from rmqarq import App, Worker

IMPORT = "import rmqarq"
HELP = ("-m", "rmqarq")


def _app(run=None):
    app = App(URL, queue=QUEUE, concurrency=CONCURRENCY, prefetch=PREFETCH)

    @app.task
    async def job(number: int, text: str) -> None:
        await run(number, text)

    return app, job


class Producer:
    async def __aenter__(self):
        self._app, self._job = _app()
        await self._app.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await self._app.__aexit__(*exc_info)

    async def enqueue(self, number):
        await self._job.enqueue(number, "x")

    async def enqueue_many(self, n):
        await self._app.enqueue_many([self._job.job(i, "x") for i in range(n)])


@asynccontextmanager
async def working(run):
    worker = Worker(_app(run)[0])
    running = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await running
