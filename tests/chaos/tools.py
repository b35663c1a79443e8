"""Tools of the fault tests: counting tasks, odd servers, what a process holds open."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness.proxy import HOST
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rmqarq import App, Task
    from tests.broker.kit import Node

ROOT = Path(__file__).parents[2]
FAULT_APP = "tests.chaos.apps.fault_app:app"


class Counted:
    """A task that counts its runs by number, and one that waits for the test."""

    def __init__(self, app: App) -> None:
        self.runs: dict[int, int] = {}
        self.entered = 0
        self.left = 0
        self.cancelled = 0
        self.open = asyncio.Event()
        self.count: Task[[int], None] = app.task(name="count")(self._count)
        self.wait: Task[[], None] = app.task(name="wait")(self._wait)

    async def _count(self, number: int) -> None:
        self.runs[number] = self.runs.get(number, 0) + 1

    async def _wait(self) -> None:
        self.entered += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.left += 1


class Served:
    """A server on a free port; its connections are closed with it."""

    def __init__(
        self, serve: Callable[[StreamReader, StreamWriter], Awaitable[None]]
    ) -> None:
        self._serve = serve
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._take, HOST, 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _take(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Accept connections and say nothing; gives a URL and what clients have said."""
    heard: list[bytes] = []

    async def listen(reader: StreamReader, _: StreamWriter) -> None:
        while data := await reader.read(1024):
            heard.append(data)

    async with Served(listen) as port:
        yield f"amqp://guest:guest@{HOST}:{port}/", heard


@asynccontextmanager
async def dripping(target: int, size: int) -> AsyncIterator[int]:
    """Pass bytes on to a port, `size` at a time; gives the port to connect to."""

    async def copy(source: StreamReader, sink: StreamWriter) -> None:
        while data := await source.read(4096):
            for start in range(0, len(data), size):
                sink.write(data[start : start + size])
                await asyncio.sleep(0)
        sink.close()

    async def link(reader: StreamReader, writer: StreamWriter) -> None:
        above, below = await asyncio.open_connection(HOST, target)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(copy(reader, below))
                ways.create_task(copy(above, writer))
        except* OSError:
            pass
        finally:
            below.close()

    async with Served(link) as port:
        yield port


def fault_worker(
    node: Node, *args: str, url: str | None = None, **env: str
) -> WorkerProcess:
    """Make a worker process of the fault app; settings may be variables."""
    given = {f"RMQARQ_{name.upper()}": value for name, value in env.items()}
    return WorkerProcess(
        FAULT_APP,
        args,
        cwd=ROOT,
        env={
            "RMQARQ_URL": url or node.broker.url,
            "RMQARQ_QUEUE": node.queue,
            "RMQARQ_TEST_LEDGER": str(node.ledger.path),
            **given,
        },
    )


def resident(pid: int | str = "self") -> int:
    """Give the bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sockets(pid: int | str = "self") -> int:
    """Count the sockets that a process holds open."""
    found = 0
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += str(handle.readlink()).startswith("socket:")
    return found
