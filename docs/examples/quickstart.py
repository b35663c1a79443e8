"""The tour behind docs/quickstart: send jobs, have them run, see what became of them.

It takes place in `rmqarq dev`, or, where RMQARQ_URL names a RabbitMQ, on that one.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from dead_letters import dead_letters

from rmqarq import App, Backoff, Context, DeadLettered, Job, Reject, Retried, Retry

app = App(queue="quickstart")
DEV = ["rmqarq", "dev", "quickstart:app", "--burst", "--", "python", "quickstart.py"]
WORKER = ["rmqarq", "run", "quickstart:app", "--burst", "--wait-delayed"]


# --- the tasks: what a worker runs ---


@app.task
async def greet(name: str) -> str:
    return f"Hello, {name}"


@app.task
def add(a: int, b: int) -> int:  # a plain function runs in a thread
    return a + b


@app.task
async def remind(text: str) -> str:
    return f"Remember: {text}"


@app.task
async def fetch(ctx: Context, page: int) -> int:
    if ctx.job_try < 3:
        raise Retry(defer=0.5)  # not there yet: ask again in half a second
    return page


@app.task(max_retries=2, backoff=Backoff(base=0.3, jitter=0))
async def deliver(address: str) -> None:
    raise ConnectionError(f"nobody answers at {address}")  # fails every time


@app.task
async def refund(amount: int) -> None:
    raise Reject(f"{amount} is above the limit")  # no use in trying again


# --- a diary: hooks write down when each run began and how it ended ---


def diary() -> Path:
    return Path(os.environ.get("QUICKSTART_DIARY", "quickstart.diary"))


def note(ctx: Context, what: str, **more: Any) -> None:
    line = {"id": ctx.job_id, "what": what, "at": time.time(), **more}
    with diary().open("a") as file:
        file.write(json.dumps(line) + "\n")


def read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in diary().read_text().splitlines()]


@app.on_job_start
async def began(ctx: Context) -> None:
    note(ctx, "began")


@app.on_job_end
async def ended(ctx: Context) -> None:
    match ctx.outcome:
        case Retried(delay):
            note(ctx, "retry", delay=delay)
        case DeadLettered(reason):
            note(ctx, "dead", reason=reason)
        case _:
            note(ctx, "done")


# --- the tour ---


class Sent:
    """A job that was sent, and when it shall run."""

    def __init__(self, call: str, job: Job[Any], planned: float, delay: float) -> None:
        self.call, self.job, self.planned, self.delay = call, job, planned, delay


async def send() -> list[Sent]:
    sent: list[Sent] = []

    async def keep(call: str, sending: Awaitable[Job[Any]], delay: float = 0) -> None:
        planned = time.time() + delay
        sent.append(Sent(call, await sending, planned, delay))
        print(f"  await {call}")

    async with app:
        await keep("greet.enqueue('Ada')", greet.enqueue("Ada"))
        await keep("remind.defer(1, 'tea')", remind.defer(1, "tea"), 1)
        await keep("remind.defer(2.5, 'cake')", remind.defer(2.5, "cake"), 2.5)
        await keep("fetch.enqueue(7)", fetch.enqueue(7))
        await keep("deliver.enqueue('Elm St')", deliver.enqueue("Elm St"))
        await keep("refund.enqueue(900)", refund.enqueue(900))
        planned = time.time()
        jobs = await app.enqueue_many([add.job(n, n) for n in range(3)])
        print("  await app.enqueue_many([add.job(n, n) for n in range(3)])")
        sent += [Sent(f"add.job({n}, {n})", j, planned, 0) for n, j in enumerate(jobs)]
    return sent


def run(command: list[str]) -> int:
    """Run a command as a user would type it."""
    print(f"$ {' '.join(command)}", flush=True)
    words = {"rmqarq": [sys.executable, "-m", "rmqarq"], "python": [sys.executable]}
    whole = [word for each in command for word in words.get(each, [each])]
    here = Path(__file__).parent
    return subprocess.run(whole, cwd=here, stderr=subprocess.STDOUT).returncode


async def watch(sent: list[Sent]) -> None:
    """Wait until the worker has ended all jobs and buried the dead ones."""
    for _ in range(600):
        await asyncio.sleep(0.1)
        ends = list({each["id"]: each["what"] for each in read()}.values())
        dead = ends.count("dead")
        if ends.count("done") + dead < len(sent):
            continue
        if len(await dead_letters("quickstart_dlq")) == dead:
            return


def story(sent: Sent, notes: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Tell how late a job ran, in how many attempts, and how it ended."""
    mine = [each for each in notes if each["id"] == sent.job.id]
    starts = [each["at"] for each in mine if each["what"] == "began"]
    retries = [each for each in mine if each["what"] == "retry"]
    if not mine:
        return "never", "-", "not run"
    # an attempt fails at once, so the next is due a delay after its beginning
    planned = [at + each["delay"] for at, each in zip(starts, retries, strict=False)]
    if sent.delay:
        planned.insert(0, sent.planned)
        starts = starts[:1]
    else:
        starts = starts[1:]
    late = [f"{(s - p) * 1000:.0f}" for s, p in zip(starts, planned, strict=False)]
    end = mine[-1]
    ending = "done" if end["what"] == "done" else f"dead: {end['reason']}"
    return ", ".join(late) + " ms" if late else "", str(len(retries) + 1), ending


def summary(sent: list[Sent], notes: list[dict[str, Any]]) -> None:
    row = "  {:<27}{:>7}{:>10}  {:<12}{}".format
    print(row("job", "delay", "attempts", "late by", "end"))
    for each in sent:
        late, attempts, ending = story(each, notes)
        delay = f"{each.delay:g} s" if each.delay else "-"
        print(row(each.call, delay, attempts, late, ending))


async def tour() -> None:
    diary().touch()
    print("\n1. Send jobs")
    sent = await send()

    print("\n2. A worker runs them until nothing is left to do", flush=True)
    if os.environ.get("RMQARQ_DEV_URL"):
        await watch(sent)  # `rmqarq dev` has started one
    elif code := run(WORKER):
        sys.exit(code)
    notes = read()
    diary().unlink()

    print("\n3. What became of them")
    summary(sent, notes)

    letters = await dead_letters("quickstart_dlq")
    print(f"\n4. The dead-letter queue quickstart_dlq holds {len(letters)} messages")
    for letter in letters:
        print(
            f"  {letter['task']}: {letter['x-rmqarq-reason']}"
            f" (attempts: {letter['x-rmqarq-attempts']}),"
            f" {letter['x-rmqarq-error']}: {letter['x-rmqarq-message']}"
        )

    ended = [story(each, notes)[2].partition(":")[0] for each in sent]
    done, dead = ended.count("done"), ended.count("dead")
    retries = sum(each["what"] == "retry" for each in notes)
    print(
        f"\n{len(sent)} jobs sent: {done} done, {dead} dead,"
        f" {retries} retries, {len(sent) - done - dead} lost"
    )
    if (done, dead, retries, len(letters)) != (7, 2, 4, 2):
        sys.exit("this is not what was expected: please report it")


def main() -> None:
    if os.environ.get("RMQARQ_DEV_URL"):
        asyncio.run(tour())
        return
    with tempfile.TemporaryDirectory() as directory:
        os.environ["QUICKSTART_DIARY"] = str(Path(directory) / "diary")
        if os.environ.get("RMQARQ_URL"):
            asyncio.run(tour())
        else:
            sys.exit(run(DEV))


if __name__ == "__main__":
    main()
