"""The broker: in process over a socket pair, or on a port of this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from rmqarq.devbroker.clock import Clock
from rmqarq.devbroker.connection import Connection
from rmqarq.devbroker.host import Host
from rmqarq.devbroker.message import Message
from rmqarq.devbroker.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from types import TracebackType

LOCALHOST = "127.0.0.1"
GOODBYE = "broker forced connection closure with reason 'shutdown'"
TURNS = 3  # of the event loop, until what was sent can have been read


class Depth(NamedTuple):
    """How much there is in a queue.

    Args:
        ready: Messages that wait.
        unacked: Messages that clients hold.
        consumers: Who consumes it.
    """

    ready: int
    unacked: int
    consumers: int


class Broker:
    """An AMQP 0-9-1 broker in memory, for trial and tests; not for production.

    It belongs to the event loop that it is first used in.

    Args:
        clock: Its time: of TTLs, leases and retries, not of heartbeats. Default: a
            clock that goes by itself, and can be advanced.
        users: Names with their passwords. Default: guest with guest.
        vhosts: Its virtual hosts. Default: `/`.

    Example:
        async with Broker() as broker:
            reader, writer = await broker.connect()
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        users: Mapping[str, str] | None = None,
        vhosts: Collection[str] = ("/",),
    ) -> None:
        self.clock = clock or Clock()
        hosts = {name: Host(name, self.clock) for name in vhosts}
        self._realm = Realm(users or {"guest": "guest"}, hosts)
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> Broker:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def serve(
        self, host: str = LOCALHOST, port: int = 0, *, any_host: bool = False
    ) -> int:
        """Listen on a port.

        Args:
            host: An address of this machine.
            port: 0 takes a free one.
            any_host: Allow an address that other machines reach. There is no TLS, and
                the password is known to everybody.

        Returns:
            The port.

        Raises:
            ValueError: Others reach the address, and `any_host` is not set.
            OSError: The port is taken, or the address is not of this machine.
        """
        if not any_host and not _is_loopback(host):
            raise ValueError(f"{host} is no loopback address; any_host=True allows it")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._connection, host, port)
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
        return found

    async def dial(self) -> socket.socket:
        """Connect without a port; give the client's end of a pair of sockets."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.create_connection(self._connection, sock=ours)
        return theirs

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect without a port; give the client's streams."""
        return await asyncio.open_connection(sock=await self.dial())

    async def create(
        self, url: object, **_: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect without a port: the broker is a `transport_factory` of aiormq."""
        return await self.connect()

    def queues(self, vhost: str = "/") -> dict[str, Depth]:
        """Look at all queues of a virtual host."""
        return {
            name: Depth(queue.ready, queue.unacked, len(queue.consumers))
            for name, queue in self._realm.hosts[vhost].queues.items()
        }

    def peek(self, queue: str, vhost: str = "/") -> list[Message]:
        """Look at the messages that wait in a queue, the first to leave it first."""
        found = self._realm.hosts[vhost].queues.get(queue)
        return [] if found is None else found.store.peek()

    def put(self, queue: str, header: bytes, body: bytes, vhost: str = "/") -> bool:
        """Put a message into a queue, as if a client had published it there.

        Args:
            queue: The queue.
            header: The payload of its content header frame.
            body: Its body.
            vhost: The virtual host.

        Returns:
            Whether there is such a queue, and it has taken it.
        """
        found = self._realm.hosts[vhost].queues.get(queue)
        return found is not None and found.publish(Message("", queue, header, body))

    async def advance(self, seconds: float) -> None:
        """Skip some time: what falls due in it happens now, in order.

        Clients have been sent what follows from it when this returns, but have not
        answered to it: advance step by step where the answers matter.

        Args:
            seconds: How much.
        """
        self.clock.advance(seconds)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End all connections, and forget everything."""
        for server in self._servers:
            server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.close(GOODBYE)
        if connections:
            await asyncio.wait([each.gone for each in connections], timeout=1)
        for connection in connections:
            connection.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        self.clock.close()

    def _connection(self) -> Connection:
        return Connection(self._realm, self._connections)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
