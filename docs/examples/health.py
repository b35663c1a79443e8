import asyncio
import sys
from http.client import HTTPConnection

from rmqarq import App, Context, Worker

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 9100
app = App(queue="health", health_port=PORT)
done = asyncio.Event()


@app.task
async def add(a: int, b: int) -> int:
    return a + b


@app.on_job_end
async def note(ctx: Context) -> None:
    done.set()


def read(path: str) -> str:
    connection = HTTPConnection("127.0.0.1", PORT, timeout=5)
    connection.request("GET", path)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


async def main() -> None:
    worker = Worker(app)
    running = asyncio.create_task(worker.run())
    await add.enqueue(1, 2)
    await done.wait()
    print("alive:", await asyncio.to_thread(read, "/livez"), end="")
    for line in (await asyncio.to_thread(read, "/metrics")).splitlines():
        if line.startswith("rmqarq_jobs_total"):
            print(line)
    worker.stop()
    await running


if __name__ == "__main__":
    asyncio.run(main())
