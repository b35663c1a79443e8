import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from rmqarq import App, Context, Message, Middleware, Worker


@dataclass
class Shop:
    """What every job of a worker shares."""

    name: str


@asynccontextmanager
async def lifespan() -> AsyncGenerator[Shop]:
    print("open the shop")
    yield Shop("corner shop")
    print("close the shop")


class Timed(Middleware):
    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        began = time.perf_counter()
        try:
            return await call_next()
        finally:
            quick = time.perf_counter() - began < 1
            print(ctx.task, "was", "quick" if quick else "slow")

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        print("sending", message.task, message.args)
        await call_next(message)


app = App(queue="hooks", lifespan=lifespan, middleware=[Timed()], burst=True)


@app.task
async def sell(ctx: Context[Shop], item: str) -> None:
    print(f"{ctx.state.name} sells {item}")


@app.on_startup
async def ready(shop: Shop) -> None:
    print("ready:", shop.name)


@app.on_job_start
async def started(ctx: Context[Any]) -> None:
    print("start", ctx.task, ctx.job_try)


@app.on_job_end
async def ended(ctx: Context[Any]) -> None:
    print("end", ctx.task, type(ctx.outcome).__name__)


async def main() -> None:
    async with app:
        await sell.enqueue("tea")
        await Worker(app).run()


asyncio.run(main())
