"""dramatiq: unconfirmed as it comes; at its best confirmed.

It has no interface for many calls at once. Its actors are synchronous.
"""

import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.libraries import BEST, QUEUE, URL
from benchmarks.tally import blocking_job

broker = RabbitmqBroker(url=URL, confirm_delivery=BEST)
dramatiq.set_broker(broker)
job = dramatiq.actor(blocking_job, actor_name="job", queue_name=QUEUE)


class Producer:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        broker.close()

    async def enqueue(self, number):
        job.send(number, "x")

    async def enqueue_many(self, n):
        for number in range(n):
            job.send(number, "x")

    async def defer_many(self, n, due):
        for number in range(n):
            left = max(0, int((due - time.time()) * 1000))
            job.send_with_options(args=(number, "x"), delay=left)
