import asyncio

from rmqarq import App, Context, Retry, State

app = App(queue="from_rabbitmq_arq", max_retries=5)  # the URL: RMQARQ_URL


@app.on_startup
async def startup(state: State) -> None:
    state["site"] = "example.org"


@app.on_job_end
async def ended(ctx: Context) -> None:
    print(ctx.task, "ended:", type(ctx.outcome).__name__)


@app.task
async def fetch(ctx: Context, page: int, lang: str = "en") -> None:
    if page == 3 and ctx.job_try == 1:
        raise Retry(defer=ctx.job_try * 0.2)
    print("page", page, lang, "of", ctx.state["site"], "in run", ctx.job_try)


async def send() -> None:
    async with app:
        job = await fetch.enqueue(1)
        await fetch.defer(0.5, 2, lang="zh")
        jobs = await app.enqueue_many([fetch.job(3), fetch.job(4).defer(0.3)])
        print("sent", job.id, "and", len(jobs) + 1, "more")


if __name__ == "__main__":
    asyncio.run(send())
