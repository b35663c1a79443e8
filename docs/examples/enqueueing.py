import asyncio

from rmqarq import App, TransportError

app = App(queue="enqueueing")


@app.task(expires=3600)
async def resize(path: str, width: int = 100) -> None: ...


async def main() -> None:
    async with app:
        job = await resize.enqueue("cat.png", width=20)
        print(job.task, "on", job.queue)

        # options of one call; the task itself is not changed
        nightly = resize.options(queue="enqueueing_night", expires=600, max_retries=0)
        print(await nightly.options(job_id="dog-1").enqueue("dog.png"))

        # many calls: encoded first, then sent and confirmed together
        jobs = await app.enqueue_many(
            [resize.job("a.png"), resize.job("b.png", 50).defer(0.5)]
        )
        print(len(jobs), "more")

        try:
            await resize.enqueue()  # type: ignore[call-arg]
        except TypeError as error:
            print(error)

    nobody = App("amqp://127.0.0.1:9", publish_deadline=0.5)  # nobody listens there
    try:
        await nobody.ref("resize").enqueue("cat.png")
    except TransportError as error:
        print(type(error).__name__)


asyncio.run(main())
