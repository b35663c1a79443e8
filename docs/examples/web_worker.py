import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from rmqarq import App, Worker

tasks = App(queue="web_worker")


@tasks.task
async def resize(picture: str) -> None:
    print("resize", picture, flush=True)
    await asyncio.sleep(1)
    print("resized", picture, flush=True)


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncGenerator[None]:
    async with tasks:
        worker = Worker(tasks)
        running = asyncio.create_task(worker.run(signals=False))  # the server has them
        web.state.running = running
        try:
            yield
        finally:
            worker.stop()  # in order: running jobs are waited for
            stats = await running
            print(stats.completed, "completed", flush=True)


web = FastAPI(lifespan=lifespan)


@web.post("/pictures/{name}")
async def upload(name: str) -> str:
    return (await resize.enqueue(name)).id


@web.get("/health")
async def health() -> bool:
    return not web.state.running.done()  # the worker is at work
