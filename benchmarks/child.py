"""One measurement in a process of its own: `python -m benchmarks.child LIBRARY WHAT N`.

Runs in the environment of each library, so it needs the standard library alone.

Prints one line of JSON. RMQARQ_URL names the broker, whose queue must exist.
"""

# no other imports up here: `start` and `memory` would count them
import asyncio
import importlib
import json
import os
import sys
import time

NAP = 0.05
PER_SECOND = 50
IDLE = 2.0


class Meter:
    """Wall and CPU time between two moments, or between the first and the last job."""

    def __init__(self, n):
        self.done = asyncio.Event()
        self._n = self._left = n
        self._start()

    def _start(self):
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def stop(self):
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.figures = {"wall": wall, "cpu": cpu / self._n * 1e6}
        self.figures["rate"] = self._n / wall
        return self.figures

    def begin_job(self):
        if self._left == self._n:
            self._start()

    def end_job(self):
        self._left -= 1
        if self._left == 0:
            self.stop()
            self.done.set()


async def fill(library, n):
    async with library.Producer() as producer:
        await producer.enqueue_many(n)
    return {}


async def warm(library, n):
    async with library.Producer() as producer:
        await producer.enqueue(-1)
    return {}


async def paced(library, n):
    sent = []
    async with library.Producer() as producer:
        await producer.enqueue(-1)
        for number in range(n):
            sent.append(time.monotonic())
            await producer.enqueue(number)
            await asyncio.sleep(1 / PER_SECOND)
    return {"sent": sent}


async def deferred(library, n, due):
    async with library.Producer() as producer:
        meter = Meter(n)
        await producer.defer_many(n, float(due))
        return meter.stop()


async def one_by_one(library, n):
    async with library.Producer() as producer:
        await producer.enqueue(-1)
        meter = Meter(n)
        for number in range(n):
            await producer.enqueue(number)
        return meter.stop()


async def gathered(library, n):
    async with library.Producer() as producer:
        await producer.enqueue(-1)
        meter = Meter(n)
        for start in range(0, n, 500):
            numbers = range(start, min(n, start + 500))
            await asyncio.gather(*map(producer.enqueue, numbers))
        return meter.stop()


async def bulk(library, n):
    async with library.Producer() as producer:
        await producer.enqueue(-1)
        meter = Meter(n)
        await producer.enqueue_many(n)
        return meter.stop()


async def drain(library, n):
    meter = Meter(n)

    async def run(number, text):
        meter.begin_job()
        meter.end_job()

    async with library.working(run):
        await meter.done.wait()
    return meter.figures


async def naps(library, n):
    meter = Meter(n)

    async def run(number, text):
        meter.begin_job()
        await asyncio.sleep(NAP)
        meter.end_job()

    async with library.working(run):
        await meter.done.wait()
    ideal = n / importlib.import_module("benchmarks.libraries").CONCURRENCY * NAP
    return {**meter.figures, "ideal": ideal / meter.figures["wall"]}


async def latency(library, n):
    sent, waited, warm = {}, [], asyncio.Event()

    async def run(number, text):
        waited.append(time.perf_counter() - sent[number])
        warm.set()

    async with library.Producer() as producer, library.working(run):
        for number in range(n + 1):
            sent[number] = time.perf_counter()
            await producer.enqueue(number)
            await warm.wait()
            await asyncio.sleep(1 / PER_SECOND)
    ordered = sorted(waited[1:])  # the first one waited for the worker's start
    return {"p50": ordered[n // 2] * 1e3, "p99": ordered[int(n * 0.99)] * 1e3}


async def start(library, n):
    first = asyncio.get_running_loop().create_future()

    async def run(number, text):
        if not first.done():
            first.set_result(time.time())

    async with library.working(run):
        return {"at": await first}


async def memory(library, n):
    meter = Meter(n)

    async def run(number, text):
        meter.end_job()

    async with library.working(run):
        await asyncio.sleep(IDLE)
        idle = _rss()
        await _fill_from_elsewhere(n)
        await meter.done.wait()
        await asyncio.sleep(IDLE)
        return {"idle": idle, "growth": _rss() - idle}


async def _fill_from_elsewhere(n):
    command = (sys.executable, "-m", "benchmarks.child", "rmqarq_app", "fill", str(n))
    sender = await asyncio.create_subprocess_exec(*command, stdout=-3)  # DEVNULL
    if await sender.wait():
        sys.exit("the queue could not be filled")


def _rss():
    with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib takes memory
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(name, what, n, *more):
    library = importlib.import_module(f"benchmarks.libraries.{name}")
    event_loop = importlib.import_module("benchmarks.libraries.event_loop")
    with asyncio.Runner(loop_factory=event_loop.loop_factory()) as runner:
        figures = runner.run(globals()[what](library, int(n), *more))
    print(json.dumps({"n": int(n), **figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
