import asyncio
import json
import os
from dataclasses import dataclass

import pika

from rmqarq import App, Context, Incoming, Worker

URL = os.environ.get("RMQARQ_URL", "amqp://guest:guest@localhost:5672/")
app = App(burst=True)


@dataclass
class FollowerEvent:
    user: int
    follower: str


@app.consume("followers", max_retries=5, timeout=60, backoff=0.2)
async def process_followers(ctx: Context, event: FollowerEvent) -> None:
    print(f"{event.follower} follows {event.user}, attempt {ctx.job_try}")
    if event.follower == "bob" and ctx.job_try == 1:
        raise ConnectionError("the database is away")


@app.consume("audit")
def audit(entry: Incoming[bytes]) -> None:  # the bytes, and all that came along
    print(entry.routing_key, entry.properties.type, len(entry.body), "bytes")


def publish() -> None:
    """What the producer does, who knows nothing of rmqarq."""
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        for queue in ("followers", "audit"):
            channel.queue_declare(queue, durable=True)
        as_json = pika.BasicProperties(content_type="application/json")
        for follower in ("ada", "bob"):
            event = {"user": 7, "follower": follower}
            channel.basic_publish("", "followers", json.dumps(event).encode(), as_json)
        channel.basic_publish("", "followers", b"{broken", as_json)
        image = pika.BasicProperties(content_type="image/png", type="screenshot")
        channel.basic_publish("", "audit", b"\x89PNG", image)


async def main() -> None:
    stats = await Worker(app).run()
    print(
        f"{stats.completed} done, {stats.retried} retries, {stats.dead_lettered} dead"
    )


publish()
asyncio.run(main())
