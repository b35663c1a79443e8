import asyncio
from datetime import UTC, datetime, timedelta

from rmqarq import App, Context, Worker

app = App(queue="delays", max_jobs=3)


@app.task
async def ring(ctx: Context, name: str) -> None:
    waited = datetime.now(UTC) - ctx.enqueued_at
    print(name, "after", round(waited.total_seconds(), 1), "s")


async def main() -> None:
    async with app:
        await ring.defer(6, "third")
        await ring.defer(timedelta(milliseconds=800), "first")
        await ring.defer(datetime.now() + timedelta(seconds=1.6), "second")  # local
        await Worker(app).run()


asyncio.run(main())
