"""Many dead letters under a running worker, and commands that are killed half-way.

RMQARQ_TEST_LETTERS and RMQARQ_TEST_KILLS make it larger: 10000 letters and 20 kills
take about two minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App
from tests.broker.kit import declared, until, wait_for_count
from tests.cli.kit import environment, module, rmqarq
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.harness.broker import Broker

LETTERS = int(os.environ.get("RMQARQ_TEST_LETTERS", "600"))
KILLS = int(os.environ.get("RMQARQ_TEST_KILLS", "4"))
KINDS = 20
EACH = LETTERS // KINDS
HALF = LETTERS // 2
DROPPED = EACH // 5
MODULE = """
import os
from pathlib import Path

from rmqarq import App, Context

app = App(max_retries=0)
ledger = os.open("ledger", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

async def work(ctx: Context, number: int) -> None:
    if not Path("open").exists():
        raise ValueError(f"number {{number}} comes too early")
    os.write(ledger, f"{{number}}\\n".encode())

for kind in range({kinds}):
    app.task(name=f"kind.{{kind}}")(work)
"""


class Shop:
    """A worker whose jobs die until it is open, and commands about their letters."""

    def __init__(self, broker: Broker, queue: str, directory: Path) -> None:
        module(directory, "shop", MODULE.format(kinds=KINDS))
        self.url, self.queue, self.directory = broker.url, queue, directory
        self.variables = {"RMQARQ_URL": broker.url, "RMQARQ_QUEUE": queue}
        self.env = environment(**self.variables)
        self.ids = [f"job-{number}" for number in range(LETTERS)]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return rmqarq("dlq", *args, cwd=self.directory, **self.variables)

    def listed(self, *args: str) -> list[dict[str, Any]]:
        done = self.run("list", "--all", "--json", *args)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "rmqarq", "dlq", *args]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self.directory, env=self.env, **quiet)

    def done(self) -> list[int]:
        return [int(line) for line in (self.directory / "ledger").read_text().split()]

    async def die(self) -> None:
        """Let every job become a dead letter."""
        app = App(self.url, queue=self.queue)
        async with app:
            await app.enqueue_many(
                [
                    app.ref(f"kind.{number % KINDS}").options(job_id=job_id).job(number)
                    for number, job_id in enumerate(self.ids)
                ]
            )
        await wait_for_count(self.url, f"{self.queue}_dlq", ready=LETTERS, timeout=120)

    async def dead(self) -> int:
        dead, _ = await declared(self.url, f"{self.queue}_dlq")
        return dead or 0

    async def at_rest(self, least: int) -> int:
        """Wait until all letters are back and nothing moves; count them."""
        looks: list[tuple[int, int]] = []
        async with asyncio.timeout(60):
            while len(looks) < 4 or looks[-1][1] < least or len(set(looks[-4:])) > 1:
                await asyncio.sleep(0.2)
                waiting, _ = await declared(self.url, self.queue)
                dead, _ = await declared(self.url, f"{self.queue}_dlq")
                looks.append((waiting or 0, dead or 0))
        assert looks[-1][0] == 0
        return looks[-1][1]


@pytest.fixture
async def shop(broker: Broker, queue: str, tmp_path: Path) -> AsyncIterator[Shop]:
    shop = Shop(broker, queue, tmp_path)
    worker = WorkerProcess("shop:app", ["-l", "error"], cwd=tmp_path, env=shop.env)
    with worker:
        await wait_for_count(broker.url, queue, consumers=1)
        await shop.die()
        yield shop


@pytest.mark.timeout(600)
async def test_counts_are_exact_and_kills_lose_nothing(shop: Shop) -> None:
    assert len(shop.listed("--task", "kind.3")) == EACH
    assert len(shop.listed("--task", "kind.1?", "--error", "too early")) == HALF
    assert shop.run("show", "job-7").returncode == 0

    began = time.monotonic()
    assert f"requeued {HALF} of" in shop.run("requeue", "--task", "kind.1?").stdout
    takes = time.monotonic() - began
    total = await shop.at_rest(LETTERS)
    assert total == LETTERS
    killed = 0
    while killed < KILLS:
        command = shop.start("requeue", "--task", "kind.1?")
        while await shop.dead() == total and command.poll() is None:
            pass  # until it holds the letters
        await asyncio.sleep(random.uniform(0, takes / 2))
        command.kill()
        if command.wait() == -9:
            killed += 1
        else:  # it was done before; be quicker the next time
            takes *= 0.8
        total = await shop.at_rest(LETTERS)
    letters = shop.listed()
    assert Counter(each["id"] for each in letters).keys() == set(shop.ids)
    print(f"killed {killed} times half-way, {total - LETTERS} duplicates")

    (shop.directory / "open").touch()
    again = total - HALF
    done = shop.run("requeue", "--task", "kind.1?")
    assert done.stdout == f"{shop.queue}: requeued {again} of {total}\n"
    await until(lambda: len(shop.done()) == again, timeout=60)
    assert set(shop.done()) == {n for n in range(LETTERS) if n % KINDS >= 10}
    done = shop.run("drop", "--task", "kind.0", "--limit", str(DROPPED), "--yes")
    assert done.stdout == f"{shop.queue}: dropped {DROPPED} of {HALF}\n"
    left = [each["id"] for each in shop.listed()]
    others = {f"job-{n}" for n in range(LETTERS) if n % KINDS < 10}
    gone = others.difference(left)
    assert len(left) == len(set(left)) == HALF - DROPPED
    assert len(gone) == DROPPED
    assert {int(each[4:]) % KINDS for each in gone} == {0}
