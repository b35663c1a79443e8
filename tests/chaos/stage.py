"""Where a run takes place: nodes, networks, workers, a producer, and both records."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from tests.chaos.apps.chaos_app import make
from tests.chaos.fleet import Fleet
from tests.chaos.ledger import LOG_VARIABLE, Account, Log
from tests.chaos.producer import QUEUE, SECRET, SIDE, Producer
from tests.harness.admin import add_user, url_for, write_down
from tests.harness.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from tests.harness.broker import Broker
    from tests.harness.cluster import Cluster

USER, PASSWORD = "chaos", f"{SECRET}-password"
DEADLINE = 20.0  # for each enqueue
MOST_LOGGED = 2_000_000


class Networks:
    """The proxies in front of all nodes, spoiled together."""

    def __init__(self, proxies: list[Proxy]) -> None:
        self.proxies = proxies

    @property
    def cuts(self) -> int:
        """Connections cut so far."""
        return sum(each.cuts for each in self.proxies)

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return sum(each.connections for each in self.proxies)

    @property
    def links(self) -> int:
        """Connections that live."""
        return sum(len(each.links) for each in self.proxies)

    def cut(self) -> None:
        self._each(Proxy.cut)

    def fin(self) -> None:
        self._each(Proxy.fin)

    def pause(self) -> None:
        self._each(Proxy.pause)

    def blackhole(self) -> None:
        self._each(Proxy.blackhole)

    def resume(self) -> None:
        self._each(Proxy.resume)

    def _each(self, action: Callable[[Proxy], None]) -> None:
        for proxy in self.proxies:
            action(proxy)


class Overheard(logging.Handler):
    """Keeps what the producer's own process logs, to search it for secrets."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter())
        self.lines: list[str] = []
        self.size = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self.size < MOST_LOGGED:
            self.lines.append(self.format(record))
            self.size += len(self.lines[-1])


class Stage:
    """All that a run needs, made and cleared away.

    Args:
        cluster: Running nodes, one or more, that may be ill-treated.
        directory: For the log of the tasks.
        rate: Jobs a second.
        seed: Of everything that is left to chance.
        delays: What delayed jobs wait, in seconds.

    Attributes:
        complaints: What went wrong besides the jobs, in words.
    """

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        *,
        rate: float,
        seed: int,
        delays: tuple[float, ...],
    ) -> None:
        self.cluster = cluster
        self.log = Log(directory / "log")
        self.rate = rate
        self.seed = seed
        self.delays = delays
        self.chance = random.Random(seed)
        self.account = Account(DEADLINE)
        self.overheard = Overheard()
        self.complaints: list[str] = []
        self._stack = AsyncExitStack()
        self.networks: Networks
        self.fleet: Fleet
        self.producer: Producer

    async def __aenter__(self) -> Stage:
        nodes = self.cluster.nodes
        add_user(nodes[0], USER, PASSWORD)
        logging.getLogger().addHandler(self.overheard)
        self._stack.callback(logging.getLogger().removeHandler, self.overheard)
        self.networks = Networks(
            [await self._stack.enter_async_context(Proxy(each.port)) for each in nodes]
        )
        url = ",".join(
            url_for(node, USER, PASSWORD, port=proxy.port)
            for node, proxy in zip(nodes, self.networks.proxies, strict=True)
        )
        environment = {
            LOG_VARIABLE: str(self.log.path),
            "RMQARQ_URL": url,
            "RMQARQ_QUEUE": QUEUE,
            "RMQARQ_SHUTDOWN_GRACE": "2",
            "RMQARQ_CANCEL_GRACE": "2",
            "RMQARQ_CONNECT_TIMEOUT": "2",
            "RMQARQ_LANGUAGE": "en",
        }
        self.fleet = await self._stack.enter_async_context(
            Fleet((QUEUE, SIDE), environment, self._chance())
        )
        app = make(
            url,
            queue=QUEUE,
            heartbeat=2,
            connect_timeout=2.0,
            publish_deadline=DEADLINE,
        )
        await self._stack.enter_async_context(app)
        self.producer = Producer(
            app,
            self.account,
            self.rate,
            self._chance(),
            direct=self.cluster.nodes[0].url,
            delays=self.delays,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def _chance(self) -> random.Random:
        """Give a source of its own to each part, so that one does not move another."""
        return random.Random(self.chance.getrandbits(64))

    def some_node(self) -> Broker:
        """Choose a node."""
        return self.chance.choice(self.cluster.nodes)

    def write_down(self) -> None:
        """Let every node write its new queues to disk."""
        for node in self.cluster.nodes:
            write_down(node)

    async def heal(self, workers: int) -> None:
        """Put everything in order after a fault that went wrong itself."""
        self.networks.resume()
        for node in self.cluster.nodes:
            if not node.running:
                await asyncio.to_thread(node.start)
        await asyncio.to_thread(self.cluster.wait_until_whole)
        for worker in self.fleet.workers:
            worker.cont()
        while len(self.fleet.workers) < workers:
            await self.fleet.start()

    def complain(self, about: str) -> None:
        """Note something that should not have been."""
        self.complaints.append(about)

    def secrets(self) -> list[str]:
        """Find every line of any output that holds what nobody may see."""
        texts = [*self.fleet.outputs.values(), *self.overheard.lines]
        return [line for text in texts for line in text.splitlines() if SECRET in line]
