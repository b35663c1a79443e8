"""rabbitmq-arq: results in Redis and 10 jobs as it comes; at its best no results, 100.

Its probe for the delayed-message plugin costs the connection where that is missing, and
its worker cannot start. The two classes below leave the probe out and take the way that
it takes then: a per-message time to live in one queue. Its messages are not persistent.
"""

import asyncio
from datetime import UTC, datetime

from rabbitmq_arq import RabbitMQClient, RabbitMQSettings, Worker, WorkerSettings

from benchmarks.libraries import AT_ONCE, BEST, CONCURRENCY, PREFETCH, QUEUE, REDIS, URL
from benchmarks.libraries.event_loop import run_forever
from benchmarks.tally import job as tallied

_DELAYS = f"delay.{QUEUE}"
_TO_QUEUE = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": QUEUE}
_settings = RabbitMQSettings(URL, prefetch_count=PREFETCH if BEST else 100)


async def job(ctx, number, text):
    await tallied(number, text)


class MendedClient(RabbitMQClient):
    async def _detect_delay_mechanism_for_queue(self, queue_name):
        await self.channel.declare_queue(_DELAYS, durable=True, arguments=_TO_QUEUE)
        found = {"use_delayed_exchange": False, "delay_queue_name": _DELAYS}
        self._delay_mechanisms[queue_name] = found


class MendedWorker(Worker):
    async def _setup_delay_mechanism(self):
        await self.channel.declare_queue(_DELAYS, durable=True, arguments=_TO_QUEUE)
        self._use_delayed_exchange = False
        self._delay_mechanism_detected = True


class Producer:
    async def __aenter__(self):
        self._client = MendedClient(_settings, result_store_url=f"{REDIS}/0")
        if BEST:
            self._client.result_store = None
        await self._client.connect()
        return self

    async def __aexit__(self, *exc_info):
        await self._client.close()

    async def enqueue(self, number, **options):
        await self._client.enqueue_job("job", number, "x", queue_name=QUEUE, **options)

    async def enqueue_many(self, n, **options):
        await self.enqueue(-1, **options)  # its first call declares the queues
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*(self.enqueue(i, **options) for i in numbers))

    async def defer_many(self, n, due):
        await self.enqueue_many(n, _defer_until=datetime.fromtimestamp(due, UTC))


def _worker():
    further = {"max_concurrent_jobs": CONCURRENCY} if BEST else {}
    settings = WorkerSettings(
        rabbitmq_settings=_settings,
        functions=[job],
        queue_name=QUEUE,
        job_result_store_url=f"{REDIS}/0",
        **further,
    )
    worker = MendedWorker(settings)
    if BEST:
        worker.result_store = None  # it stores whatever enable_job_result_storage says
    return worker


if __name__ == "__main__":
    run_forever(lambda: _worker().main())
