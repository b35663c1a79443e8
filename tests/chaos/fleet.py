"""The worker processes of a run: started, ended in every way, and replaced."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[2]
APP = "tests.chaos.apps.chaos_app:app"
STARTED = "worker started"
START_SECONDS = 30.0


@dataclass(frozen=True)
class End:
    """How a worker ended: by which means, with which code, after how many seconds."""

    how: str
    code: int
    seconds: float


class Fleet:
    """Workers of the same queues.

    Args:
        queues: What each worker consumes.
        environment: The variables of every worker.
        chance: Chooses the victims.

    Attributes:
        workers: The ones that run.
        retired: The ones that have ended.
        stopped: Process ids of those that were told to stop.
        ends: How the retired ones ended, in order.
    """

    def __init__(
        self,
        queues: Iterable[str],
        environment: Mapping[str, str],
        chance: random.Random,
    ) -> None:
        self.flags = [word for queue in queues for word in ("--queue", queue)]
        self.environment = dict(environment)
        self.chance = chance
        self.workers: list[WorkerProcess] = []
        self.retired: list[WorkerProcess] = []
        self.stopped: set[int] = set()
        self.ends: list[End] = []
        self._number = 0

    async def __aenter__(self) -> Fleet:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in (*self.workers, *self.retired):
            worker.close()

    @property
    def outputs(self) -> dict[int, str]:
        """What each worker wrote, by process id."""
        return {each.pid: each.output for each in (*self.retired, *self.workers)}

    def heard(self, text: str) -> int:
        """Count how often the workers wrote a text."""
        return sum(output.count(text) for output in self.outputs.values())

    async def start(self, *args: str) -> WorkerProcess:
        """Start one more worker and wait until it consumes.

        Their heartbeats are one and two seconds in turn.
        """
        self._number += 1
        heartbeat = {"RMQARQ_HEARTBEAT": str(1 + self._number % 2)}
        worker = WorkerProcess(
            APP, [*self.flags, *args], cwd=ROOT, env={**self.environment, **heartbeat}
        )
        self.workers.append(worker)
        worker.start()
        await asyncio.to_thread(worker.wait_for, STARTED, START_SECONDS)
        return worker

    def any(self) -> WorkerProcess:
        """Choose one that runs."""
        return self.chance.choice(self.workers)

    async def kill(self, worker: WorkerProcess) -> End:
        """End a worker as a crash would."""
        worker.kill()
        return await self.ended(worker, "killed")

    async def terminate(self, worker: WorkerProcess) -> End:
        """Let a worker end in good order."""
        self.stopped.add(worker.pid)
        worker.terminate()
        return await self.ended(worker, "terminated")

    async def ended(self, worker: WorkerProcess, how: str) -> End:
        """Wait for the end of a worker and note it."""
        began = asyncio.get_running_loop().time()
        code = await asyncio.to_thread(worker.wait, 60.0)
        end = End(how, code, asyncio.get_running_loop().time() - began)
        self.ends.append(end)
        self.workers.remove(worker)
        self.retired.append(worker)
        return end
