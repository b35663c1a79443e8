import asyncio
from datetime import timedelta

from app import app, process_data


async def main() -> None:
    async with app:
        # when this returns, RabbitMQ has stored the job
        job = await process_data.enqueue(123, "update")
        print("enqueued", job.id)

        # later: seconds, a timedelta or a datetime
        await process_data.defer(timedelta(seconds=1.5), 456, action="sync")

        # with options for this one call
        urgent = process_data.options(job_id="erase-789", headers={"by": "ada"})
        await urgent.enqueue(789, "erase")

        # many at once
        await app.enqueue_many([process_data.job(n, "update") for n in range(3)])

        # a task that another program defines, by its name
        await app.ref("process_data").enqueue(1000, "update")


asyncio.run(main())
