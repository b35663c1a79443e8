import asyncio

from rmqarq import App, Worker

app = App(queue="embedded")
done = asyncio.Event()


@app.task
async def work(n: int) -> None:
    print("job", n)
    if n == 2:
        done.set()


async def main() -> None:
    async with app, asyncio.TaskGroup() as group:
        worker = Worker(app)
        running = group.create_task(worker.run(signals=False))
        await app.enqueue_many([work.job(n) for n in range(3)])
        await done.wait()
        worker.stop()  # in order: running jobs are waited for
        stats = await running
        print(stats.completed, "completed:", worker.ending)


asyncio.run(main())
