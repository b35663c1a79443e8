import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rmqarq import App, Backoff, Context, Middleware, Retry


class Announce(Middleware):
    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        print("before", ctx.task)
        return await call_next()


app = App(middleware=[Announce()])


@app.task(
    queue="from_dramatiq",
    max_retries=20,
    backoff=Backoff(base=0.2, maximum=7 * 24 * 3600),
    timeout=600,
    expires=3600,
)
def resize(ctx: Context, name: str, width: int) -> None:
    if width == 0 and ctx.job_try == 1:
        raise Retry(defer=0.1)  # seconds, not milliseconds
    print(f"{name} at {width} in run {ctx.job_try}")


async def send() -> None:
    async with app:
        await resize.enqueue("cat", 100)
        await resize.defer(0.3, "dog", 50)
        await app.enqueue_many([resize.job("owl", 0), resize.job("fox", 80)])


if __name__ == "__main__":
    asyncio.run(send())
