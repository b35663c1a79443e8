"""The private RabbitMQ and Redis that libraries are measured on, empty for each one."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiormq

from benchmarks.processes import Resources
from tests.harness.broker import HOST, Broker, free_ports

if TYPE_CHECKING:
    from types import TracebackType

REDIS_SECONDS = 20.0
CTL_SECONDS = 180.0
FRESH = (
    "{drop} rabbit_vhost:add(<<{new!r}>>, <<{user!r}>>),"
    " rabbit_auth_backend_internal:set_permissions("
    "<<{user!r}>>, <<{new!r}>>, <<{all!r}>>, <<{all!r}>>, <<{all!r}>>, <<{user!r}>>)."
)
DROP = "rabbit_vhost:delete(<<{old!r}>>, <<{user!r}>>),"


class Rabbit:
    """RabbitMQ, with a new virtual host for each measurement."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._count = 0
        self.resources = Resources(broker.pid)

    @property
    def address(self) -> tuple[str, str, str]:
        """Host, port and virtual host, for clients that want no URL."""
        return HOST, str(self._broker.port), self._vhost

    @property
    def url(self) -> str:
        """The address of the virtual host that is new."""
        return f"{self._broker.url.rstrip('/')}/{quote(self._vhost)}"

    @property
    def _vhost(self) -> str:
        return f"bench{self._count}"

    def renew(self) -> None:
        """Forget everything: the old virtual host goes, a new one comes."""
        old, self._count = self._vhost, self._count + 1
        words = {"old": old, "new": self._vhost, "user": "guest", "all": ".*"}
        drop = DROP.format(**words) if self._count > 1 else ""
        code = FRESH.format(drop=drop, **words)
        self._broker.ctl("eval", code.replace("'", '"'), timeout=CTL_SECONDS)

    def declare(self, queue: str) -> None:
        """Make a quorum queue, for libraries that bring no declaration of their own."""
        asyncio.run(self._declare(queue))

    async def _declare(self, queue: str) -> None:
        connection = await aiormq.connect(self.url)
        channel = await connection.channel()
        await channel.queue_declare(
            queue, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await connection.close()


class Redis:
    """A Redis that keeps an append-only file, synced each second; empty each time.

    Raises:
        FileNotFoundError: Redis is not installed.
    """

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server; on Debian: apt-get install redis")
        self._directory = TemporaryDirectory(prefix="rmqarq-redis-")
        (self._port,) = free_ports(1)
        self.url = f"redis://{HOST}:{self._port}"
        options = (
            f"--port {self._port} --bind {HOST} --appendonly yes --appendfsync everysec"
        )
        self._process = subprocess.Popen(
            [program, *options.split(), "--save", "", "--dir", self._directory.name],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.resources = Resources(self._process.pid)
        self._wait()

    def renew(self) -> None:
        """Forget everything."""
        if self._say("FLUSHALL") != b"+OK":
            raise RuntimeError("Redis would not be emptied")

    @property
    def version(self) -> str:
        """Its version."""
        return (
            self._say("INFO server", 4096)
            .decode()
            .partition("redis_version:")[2]
            .split()[0]
        )

    def close(self) -> None:
        """End it, and remove its files."""
        self._process.terminate()
        self._process.wait()
        self._directory.cleanup()

    def _wait(self) -> None:
        deadline = time.monotonic() + REDIS_SECONDS
        while True:
            try:
                if self._say("PING") == b"+PONG":
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                self.close()
                raise TimeoutError("Redis was not ready in time")
            time.sleep(0.02)

    def _say(self, command: str, size: int = 64) -> bytes:
        with socket.create_connection((HOST, self._port), timeout=60) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(size).strip()


class Stores:
    """Both of them; Redis only where somebody needs it.

    Args:
        broker: A RabbitMQ that runs.
        with_redis: Whether to start Redis.
    """

    def __init__(self, broker: Broker, *, with_redis: bool) -> None:
        self.rabbit = Rabbit(broker)
        self.redis: Redis | None = None
        self._with_redis = with_redis
        self._stack = ExitStack()

    def __enter__(self) -> Stores:
        if self._with_redis:
            self.redis = Redis()
            self._stack.callback(self.redis.close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def renew(self, *, rabbit: bool) -> dict[str, str]:
        """Empty Redis, and RabbitMQ if needed; give the environment that names them."""
        if rabbit:
            self.rabbit.renew()
        found = {"RMQARQ_URL": self.rabbit.url}
        if self.redis is not None:
            self.redis.renew()
            found["BENCH_REDIS"] = self.redis.url
        return found
