"""Celery: prefork and unconfirmed as it comes; at its best threads, confirmed.

On quorum queues it has delays by itself, which want topic exchanges.

It has no interface for many calls at once. Its tasks are synchronous.
"""

from datetime import UTC, datetime

from celery import Celery

from benchmarks.libraries import BEST, QUEUE, URL, VARIANT
from benchmarks.tally import blocking_job

app = Celery("benchmark", broker=URL)
app.conf.task_default_queue = QUEUE
if BEST:
    app.conf.broker_transport_options = {"confirm_publish": True}
    app.conf.task_ignore_result = True
    app.conf.worker_prefetch_multiplier = 4
    app.conf.worker_send_task_events = False
if VARIANT == "quorum":
    app.conf.task_default_queue_type = "quorum"
    app.conf.task_default_exchange_type = "topic"

job = app.task(name="job")(blocking_job)


class Producer:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        app.close()

    async def enqueue(self, number):
        job.delay(number, "x")

    async def enqueue_many(self, n):
        for number in range(n):
            job.delay(number, "x")

    async def defer_many(self, n, due):
        eta = datetime.fromtimestamp(due, UTC)
        for number in range(n):
            job.apply_async((number, "x"), eta=eta)
