"""repid on Redis streams (its AMQP is 1.0, for RabbitMQ 4); at its best 100 at once.

Over Redis it has no delays.
"""

import asyncio

from repid import Repid, Router
from repid.connections.redis import RedisServer

from benchmarks.libraries import AT_ONCE, BEST, CONCURRENCY, QUEUE, REDIS
from benchmarks.libraries.event_loop import loop_factory
from benchmarks.tally import job as tallied

_batch = {"batch_size": CONCURRENCY} if BEST else {}
app = Repid()
app.servers.register_server("default", RedisServer(REDIS, **_batch), is_default=True)
router = Router()


@router.actor(channel=QUEUE, name="job")
async def job(number: int, text: str) -> None:
    await tallied(number, text)


app.include_router(router)


class Producer:
    async def __aenter__(self):
        self._connection = app.servers.default.connection()
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await self._connection.__aexit__(*exc_info)

    async def enqueue(self, number):
        payload = {"number": number, "text": "x"}
        await app.send_message_json(
            channel=QUEUE, payload=payload, headers={"topic": "job"}
        )

    async def enqueue_many(self, n):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*map(self.enqueue, numbers))


async def _work():
    limit = {"tasks_limit": CONCURRENCY} if BEST else {}
    async with app.servers.default.connection():
        await app.run_worker(**limit)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work())
