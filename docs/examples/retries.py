import asyncio

from rmqarq import App, Backoff, Context, Reject, Retry, Worker

app = App(queue="retries", burst=True)


class TooBusy(Exception):
    pass


@app.task(max_retries=5, backoff=Backoff(base=0.2, factor=2, maximum=60, jitter=0.1))
async def fetch(ctx: Context, page: int) -> None:
    print("fetch", page, "attempt", ctx.job_try)
    if ctx.job_try < 3:
        raise TooBusy(page)  # waits about 0.2 s, then about 0.4 s


@app.task
async def ask(ctx: Context, question: str) -> None:
    print("ask attempt", ctx.job_try)
    if ctx.job_try == 1:
        raise Retry(defer=0.3)  # a time of its own
    raise Reject("no answer")  # dead at once, whatever max_retries says


@app.task(retry_on=(TooBusy,))
async def parse(text: str) -> int:
    return int(text)  # a ValueError is not worth a retry


async def main() -> None:
    async with app:
        await fetch.enqueue(1)
        await ask.enqueue("why?")
        await parse.enqueue("seven")
        stats = await Worker(app).run()
    print(f"{stats.completed} done, {stats.retried} retries, {stats.failed} failed")


asyncio.run(main())
