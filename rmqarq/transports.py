"""One transport for each event loop of each process, made when it is first needed."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.when import wall_clock
from rmqarq.wire.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from rmqarq.settings import Settings
    from rmqarq.wire.publication import Publication


class Surroundings(NamedTuple):
    """What an App has around it: the world, or one that a test has made.

    Args:
        clock: Gives the time, in seconds since the epoch.
        connect: Makes a transport, for settings and the queues of somebody else.
        note: Called with what was enqueued once the broker has stored it.
    """

    clock: Callable[[], float] = wall_clock
    connect: Callable[[Settings, Container[str]], Transport] = Transport
    note: Callable[[Publication], None] | None = None


class Transports:
    """The transports of an App.

    A connection belongs to the event loop that made it, and a forked child must not
    touch its parent's; so neither is ever shared.

    Args:
        settings: For all of them.
        foreign: Queues of somebody else, which are consumed as they are.
        connect: Makes one.
    """

    def __init__(
        self,
        settings: Settings,
        foreign: Container[str],
        connect: Callable[[Settings, Container[str]], Transport],
    ) -> None:
        self._connect = connect
        self._settings = settings
        self._foreign = foreign
        self._pid = os.getpid()
        self._known: dict[asyncio.AbstractEventLoop, Transport] = {}
        self._last: tuple[asyncio.AbstractEventLoop, Transport] | None = None
        self._of_parents: list[object] = []

    @property
    def in_use(self) -> bool:
        """Whether somebody holds one of them open."""
        return any(transport.users for transport in self._known.values())

    @property
    def connected(self) -> bool:
        """Whether somebody holds one of them, or has left it, open."""
        return self.in_use or any(
            transport.connected
            for loop, transport in self._known.items()
            if not loop.is_closed()
        )

    def here(self) -> Transport:
        """Give the transport of the running event loop."""
        loop = asyncio.get_running_loop()
        last = self._last
        if last is not None and last[0] is loop and self._pid == os.getpid():
            return last[1]
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # kept: what ends, a connection say, would do so on the parent's socket
            self._of_parents.append(self._known)
            self._known = {}
        transport = self._known.get(loop)
        if transport is None:
            for closed in [each for each in self._known if each.is_closed()]:
                del self._known[closed]
            transport = self._known[loop] = self._connect(self._settings, self._foreign)
        self._last = (loop, transport)
        return transport

    def forget(self) -> None:
        """Make a new transport for this loop when it is needed again."""
        self._known.pop(asyncio.get_running_loop(), None)
        self._last = None
