import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from rmqarq import App, Context, Retry, State


@asynccontextmanager
async def lifespan() -> AsyncGenerator[State]:
    yield State(site="example.org")  # and what follows is on_shutdown


app = App(queue="from_arq", lifespan=lifespan, concurrency=10)


@app.task(max_retries=4, timeout=20, retry_on=())  # max_tries counted the first run
async def fetch(ctx: Context, page: int) -> None:
    if page == 13:
        raise ValueError("no such page")  # dead at once, as in arq
    if ctx.job_try == 1:
        raise Retry(defer=0.2)
    print("page", page, "of", ctx.state["site"], "in run", ctx.job_try)


async def send() -> None:
    async with app:
        await fetch.enqueue(1)
        await fetch.enqueue(13)
        await fetch.defer(timedelta(milliseconds=300), 2)
        named = fetch.options(job_id="page-3", expires=60)
        print("sent", (await named.enqueue(3)).id)


if __name__ == "__main__":
    asyncio.run(send())
