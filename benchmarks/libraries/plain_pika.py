"""pika's blocking connection, as its documentation shows it: without asyncio."""

import json
import signal
import sys

import pika

from benchmarks.libraries import PREFETCH, QUEUE, URL
from benchmarks.tally import blocking_job

PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)


class Producer:
    async def __aenter__(self):
        self._connection = pika.BlockingConnection(pika.URLParameters(URL))
        self._channel = self._connection.channel()
        self._channel.confirm_delivery()
        return self

    async def __aexit__(self, *exc_info):
        self._connection.close()

    async def enqueue(self, number):
        body = json.dumps({"task": "job", "args": [number, "x"]}).encode()
        self._channel.basic_publish("", QUEUE, body, PERSISTENT, mandatory=True)

    async def enqueue_many(self, n):
        for number in range(n):
            await self.enqueue(number)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    channel = connection.channel()

    def on_message(_, method, properties, body):
        blocking_job(*json.loads(body)["args"])
        channel.basic_ack(method.delivery_tag)

    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(QUEUE, on_message)
    channel.start_consuming()


if __name__ == "__main__":
    main()
