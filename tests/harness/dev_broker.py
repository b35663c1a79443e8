"""The dev broker as a process of its own, with the face of a private RabbitMQ node.

As a program it is that process: it tells its port, then answers lines on its input.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq.devbroker import Broker
from tests.harness.broker import HOST, Guardian

if TYPE_CHECKING:
    from types import TracebackType


class DevBroker:
    """What tests use of `tests.harness.broker.Broker`, on the dev broker.

    What needs a real node skips the test that asks for it.
    """

    def __init__(self) -> None:
        self.name = "rmqarq dev broker"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self._guardian: Guardian | None = None

    def __enter__(self) -> DevBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.dev_broker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        self._guardian = Guardian()
        self._guardian.watch([self._process.pid])
        self.port = self._answer()["port"]

    def stop(self) -> None:
        if self._process is not None and self._guardian is not None:
            with self._process:
                self._process.kill()
            self._guardian.dismiss()
            self._process = self._guardian = None

    def queues(self) -> dict[str, dict[str, int]]:
        """Count the messages and consumers of every queue."""
        return self._ask("queues")

    def advance(self, seconds: float) -> None:
        """Skip some time of the broker's clock."""
        self._ask(f"advance {seconds}")

    def ctl(self, *args: str, timeout: float = 60) -> str:
        pytest.skip(f"needs rabbitmqctl {args[0]}")

    def _ask(self, line: str) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        pytest.skip(f"needs a real node: {name}")


async def serve() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    async with Broker() as broker:
        tell({"port": await broker.serve()})
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            word, *rest = line.split()
            if word == "advance":
                await broker.advance(float(rest[0]))
                tell(None)
            else:
                tell(
                    {
                        name: {
                            "messages_ready": depth.ready,
                            "messages_unacknowledged": depth.unacked,
                            "consumers": depth.consumers,
                        }
                        for name, depth in broker.queues().items()
                    }
                )


def tell(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
