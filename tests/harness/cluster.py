"""Several private RabbitMQ nodes that form one cluster on this machine."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.harness.broker import QUEUES, Broker, BrokerError

if TYPE_CHECKING:
    from types import TracebackType

# a node that starts for the first time looks for the first one and joins it
JOIN = """\
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = {first}
"""
PEACE = 3.0
RUNNING = "rabbit_mnesia:cluster_nodes(running)."


class Cluster:
    """Nodes that share queues; quorum queues live on while most of them run.

    Args:
        size: How many nodes.
        config: Further lines of rabbitmq.conf, for every node.

    Example:
        with Cluster(3) as cluster:
            app = App(cluster.url)
            cluster.kill(1)
    """

    def __init__(self, size: int = 3, *, config: str = "") -> None:
        first = Broker(config=config)
        config += JOIN.format(first=first.node)
        others = [Broker(config=config, peer=first) for _ in range(size - 1)]
        self.nodes = [first, *others]

    def __enter__(self) -> Cluster:
        self.start_all()
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
        """The URLs of all nodes, separated by commas."""
        return ",".join(node.url for node in self.nodes)

    def without(self, index: int) -> str:
        """Give the URLs of all nodes but one."""
        others = [node.url for node in self.nodes if node is not self.nodes[index]]
        return ",".join(others)

    def alive(self) -> Broker:
        """Give a node that runs."""
        for node in self.nodes:
            if node.running:
                return node
        raise BrokerError("no node of the cluster is running")

    def start_all(self) -> None:
        """Start every node, and wait until they have found each other."""
        try:
            self.nodes[0].start()
            with ThreadPoolExecutor() as pool:
                list(pool.map(Broker.start, self.nodes[1:]))
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all nodes for good; the first, which maps the ports, as the last."""
        for node in reversed(self.nodes):
            node.stop()

    def kill(self, index: int) -> None:
        """End a node as a crash would; data and ports are kept."""
        self.nodes[index].kill()

    def start(self, index: int) -> None:
        """Start a node again; return when it takes connections."""
        self.nodes[index].start()

    def stop_app(self, index: int) -> None:
        """Stop RabbitMQ inside a node, as an upgrade does."""
        self.nodes[index].stop_app()

    def start_app(self, index: int) -> None:
        """Start RabbitMQ inside a node again."""
        self.nodes[index].start_app()

    def members(self) -> dict[str, int]:
        """Count for each quorum queue how many of its members are online."""
        lines = self.alive().eval(QUEUES.format(items="online")).splitlines()
        # only quorum queues have members
        return {
            name: online.count("@")
            for name, online in zip(lines[::2], lines[1::2], strict=True)
            if online.startswith("[")
        }

    def wait_until_whole(self, seconds: float = 60.0) -> None:
        """Wait until all nodes run and every quorum queue has all its members.

        Only then may the next node be killed: a queue needs most of its members, and a
        leader some peace. RabbitMQ before March 2023 leaves a rung without the process
        that sends its messages on when the leader changes again while that process
        registers (rabbitmq-server#7677).
        """
        deadline = time.monotonic() + seconds
        while not self._whole():
            if time.monotonic() > deadline:
                raise BrokerError(f"the cluster was not whole within {seconds:.0f} s")
            time.sleep(0.1)
        time.sleep(PEACE)

    def _whole(self) -> bool:
        running = self.alive().eval(RUNNING)
        if not all(node.node in running for node in self.nodes):
            return False
        try:
            counts = self.members().values()
        except BrokerError:  # a queue that is just choosing its leader
            return False
        return all(count == len(self.nodes) for count in counts)
