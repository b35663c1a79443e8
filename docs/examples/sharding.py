import asyncio
from collections import Counter
from zlib import crc32

from rmqarq import App, Context, Worker

SHARDS = [f"bills-{number}" for number in range(4)]
app = App(queue=SHARDS[0], burst=True)
ran: Counter[str] = Counter()


def shard(key: str) -> str:
    """The same key is always in the same queue, in every process."""
    return SHARDS[crc32(key.encode()) % len(SHARDS)]


@app.task
async def bill(ctx: Context, customer: str, number: int) -> None:
    ran[ctx.queue] += 1


async def main() -> None:
    async with app:
        await bill.options(queue=shard("Ada")).enqueue("Ada", 1)
        customers = [f"customer-{number}" for number in range(199)]
        await app.enqueue_many(
            [bill.options(queue=shard(each)).job(each, 1) for each in customers]
        )
        stats = await Worker(app, queues=SHARDS).run()
    print(stats.completed, "jobs from", len(ran), "queues")


if __name__ == "__main__":
    asyncio.run(main())
