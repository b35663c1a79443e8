import asyncio
from collections.abc import AsyncIterator

from rmqarq import App, Context, Worker

app = App(queue="rows", burst=True)
total = 0


@app.task(max_retries=2, backoff=0.1)
async def add(ctx: Context, number: int) -> None:
    global total
    if number == 4_000 and ctx.job_try == 1:
        raise OSError("only this row runs again")
    total += number


@app.task
async def greet(name: str, language: str) -> None:
    print("你好" if language == "zh" else "hello", name)


async def numbers() -> AsyncIterator[int]:
    for number in range(5_000):  # a cursor of a database, say
        yield number


async def main() -> None:
    async with app:
        print(await add.map(numbers(), chunk=100), "rows")
        await greet.starmap([("Ada", "en"), ("小明", "zh")])
        stats = await Worker(app).run()
    print(stats.completed, "done,", stats.retried, "retry, total", total)


asyncio.run(main())
