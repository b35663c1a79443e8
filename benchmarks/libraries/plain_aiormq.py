"""aiormq alone, as its documentation shows it: what rmqarq is built on."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiormq

from benchmarks.libraries import AT_ONCE, BEST, PREFETCH, QUEUE, URL
from benchmarks.libraries.event_loop import run_forever
from benchmarks.tally import job

IMPORT = "import aiormq"
BARE_TYPER = """
import typer
from rmqarq import App, Worker
program = typer.Typer(add_completion=False, rich_markup_mode=None)
@program.command()
def run(app: str, queue: str = "", concurrency: int = 100): "Run a worker."
program()
"""
HELP = ("-c", BARE_TYPER)  # the least that a command line of rmqarq could do

PERSISTENT = aiormq.spec.Basic.Properties(
    content_type="application/json", delivery_mode=2
)


class Producer:
    async def __aenter__(self):
        self._connection = await aiormq.connect(URL)
        self._channel = await self._connection.channel(publisher_confirms=True)
        return self

    async def __aexit__(self, *exc_info):
        await self._connection.close()

    async def enqueue(self, number):
        body = json.dumps({"task": "job", "args": [number, "x"]}).encode()
        await self._channel.basic_publish(
            body, routing_key=QUEUE, properties=PERSISTENT, mandatory=True
        )

    async def enqueue_many(self, n):
        for start in range(0, n, AT_ONCE):
            numbers = range(start, min(n, start + AT_ONCE))
            await asyncio.gather(*map(self.enqueue, numbers))


@asynccontextmanager
async def working(run):
    connection = await aiormq.connect(URL)
    channel = await connection.channel()

    async def on_message(message):
        await run(*json.loads(message.body)["args"])
        await channel.basic_ack(message.delivery_tag, wait=not BEST)

    await channel.basic_qos(prefetch_count=PREFETCH)
    await channel.basic_consume(QUEUE, on_message)
    yield
    await asyncio.sleep(0.1)  # the last acks
    await connection.close()


async def _work():
    async with working(job):
        await asyncio.Event().wait()


if __name__ == "__main__":
    run_forever(_work)
