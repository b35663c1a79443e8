"""A TCP proxy that fails on demand, for use inside asynchronous tests."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from types import TracebackType

    from tests.harness.broker import Broker

Direction = Literal["both", "up", "down"]

HOST = "127.0.0.1"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for zero seconds


class Proxy:
    """Stands in front of a port of this machine and can spoil what passes.

    Example:
        async with Proxy(broker.port) as proxy:
            connection = await connect(proxy.url(broker))
            proxy.cut()
    """

    def __init__(self, port: int, host: str = HOST) -> None:
        self.target = (host, port)
        self.port = 0
        self.latency = 0.0  # seconds added to every chunk, in each direction
        self.connections = 0  # accepted so far, without the refused ones
        self.cuts = 0  # connections ended by cut()
        self.paused: set[str] = set()
        self.swallowing = False
        self.refusing = False
        self.links: set[Link] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self).client, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        links = list(self.links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.over() for link in links))
        await self._server.wait_closed()

    def url(self, broker: Broker) -> str:
        """Give the broker's URL with this proxy's port in it."""
        return broker.url.replace(f":{broker.port}/", f":{self.port}/")

    def cut(self) -> None:
        """Reset all live connections, as a broken network or firewall does."""
        for link in list(self.links):
            self.cuts += 1
            link.reset()

    def fin(self) -> None:
        """Close all live connections in good order, as a polite peer does."""
        for link in list(self.links):
            link.finish()

    def pause(self, direction: Direction = "both") -> None:
        """Stop reading what comes from the client (up), the server (down) or both."""
        self.paused |= {"up", "down"} if direction == "both" else {direction}
        self._update()

    def blackhole(self) -> None:
        """Swallow all bytes and goodbyes, as a network that lost the route does."""
        self.swallowing = True

    def resume(self) -> None:
        """Let bytes pass again after a pause or a black hole."""
        self.paused.clear()
        self.swallowing = False
        for link in [link for link in self.links if link.stale]:
            link.reset()
        self._update()

    def refuse(self) -> None:
        """Close new connections at once; live ones stay."""
        self.refusing = True

    def accept(self) -> None:
        """Take new connections again."""
        self.refusing = False

    def garbage(self, size: int) -> None:
        """Send random bytes to every client."""
        for link in self.links:
            link.client.write(os.urandom(size))

    def _update(self) -> None:
        for link in self.links:
            link.client.update()
            link.server.update()


class Link:
    """One proxied connection: a client end and a server end."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = End(self, "up")
        self.server = End(self, "down")
        self.finished = False  # both ends have been told goodbye
        self.stale = False  # one end has left, and the other does not know
        self._dial: asyncio.Task[None] | None = None

    def opened(self) -> None:
        """Take the client in and call the server, or turn the client away."""
        self.proxy.links.add(self)
        if self.proxy.refusing:
            self.client.abort()
            return
        self.proxy.connections += 1
        self._dial = asyncio.create_task(self._call_server())
        self._dial.add_done_callback(lambda _: self.closed())

    async def _call_server(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.server, *self.proxy.target)
        except OSError:
            self.client.abort()
        self.client.update()

    def finish(self) -> None:
        """Say goodbye to both ends and drop what they still say."""
        self.finished = True
        self.client.finish()
        self.server.finish()

    def reset(self) -> None:
        """Reset both ends."""
        if self._dial is not None:
            self._dial.cancel()
        self.client.abort()
        self.server.abort()

    def closed(self) -> None:
        """Forget the link once both ends are closed."""
        dialled = self._dial is None or self._dial.done()
        ends = [end for end in (self.client, self.server) if end.transport is not None]
        if dialled and all(end.gone.done() for end in ends):
            self.proxy.links.discard(self)

    async def over(self) -> None:
        """Wait until nothing of the link is left."""
        if self._dial is not None:
            await asyncio.gather(self._dial, return_exceptions=True)
        await self.client.gone
        if self.server.transport is not None:
            await self.server.gone


class End(asyncio.Protocol):
    """One end of a link; `way` is the direction of the bytes that it reads."""

    def __init__(self, link: Link, way: Literal["up", "down"]) -> None:
        self.link = link
        self.way = way
        self.transport: asyncio.Transport | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False  # has said goodbye, and the other end was told
        self._choked = False  # the other end cannot take more for now
        self._due = 0.0
        self._late: deque[bytes | None] = deque()  # None stands for the end

    @property
    def other(self) -> End:
        """The end that gets what this one reads."""
        return self.link.server if self.way == "up" else self.link.client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read only when there is somebody to give it to."""
        self.transport = cast("asyncio.Transport", transport)
        # not at once: some versions of asyncio start to read after a pause made here
        asyncio.get_running_loop().call_soon(self.update)
        if self.way == "up":
            self.link.opened()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, late if there is latency, or swallow them."""
        if not (self.link.proxy.swallowing or self.link.finished):
            self._pass_on(data)

    def eof_received(self) -> bool:
        """Pass the goodbye on, unless everybody knows or nobody may."""
        if self.link.proxy.swallowing:
            self.link.stale = True
        elif not self.link.finished:
            self._pass_on(None)
        return not self.link.finished

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end too: by a reset if this one was reset."""
        self.gone.set_result(None)
        if self.link.proxy.swallowing:
            self.link.stale = True
        elif exc is not None:
            self.other.abort()
        elif not self.link.finished:
            self.other.close()
        self.link.closed()

    def pause_writing(self) -> None:
        """Stop the other end while this one is full."""
        self.other.choke(True)

    def resume_writing(self) -> None:
        """Let the other end go on."""
        self.other.choke(False)

    def choke(self, on: bool) -> None:
        """Stop or go on reading because of what the other end can take."""
        self._choked = on
        self.update()

    def update(self) -> None:
        """Read if nothing speaks against it."""
        if self.transport is None or self.transport.is_closing():
            return
        paused = self.way in self.link.proxy.paused
        if paused or self._choked or self.other.transport is None:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes to whoever is at this end."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """Close this end after what is left to send."""
        if self.transport is not None:
            self.transport.close()

    def finish(self) -> None:
        """Send the end of the stream, and go on reading until the peer ends it."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
            self.transport.resume_reading()

    def abort(self) -> None:
        """Close this end with a reset."""
        if self.transport is None:
            return
        if not self.transport.is_closing():
            with _duplicate(self.transport) as handle:
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    def _pass_on(self, data: bytes | None) -> None:
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time() + self.link.proxy.latency)
        self._late.append(data)
        if self.link.proxy.latency or len(self._late) > 1:
            loop.call_at(self._due, self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        data = self._late.popleft()
        other = self.other.transport
        if other is None or other.is_closing():
            return
        if data is not None:
            other.write(data)
            return
        self.ended = True
        other.write_eof()
        if self.other.ended:
            self.close()
            self.other.close()


def _duplicate(transport: asyncio.Transport) -> socket.socket:
    # options belong to the socket, not to the handle; so this works in every loop
    original = transport.get_extra_info("socket")
    return socket.socket(fileno=os.dup(original.fileno()))
