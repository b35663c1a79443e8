"""A connection that is made anew when it is needed and lost."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from rmqarq.errors import (
    ConfigurationError,
    ConnectionFailed,
    Phrase,
    TransportError,
)
from rmqarq.wire.connection import Connection
from rmqarq.wire.opening import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.settings import Settings
    from rmqarq.url import Endpoint
    from rmqarq.wire.opening import Dial

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT, LATER_WAIT = 0.05, 1.0, 2.0
FIRST_MINUTE = 60.0

_clock = time.monotonic


class Link:
    """Finds a live connection among several brokers.

    Args:
        endpoints: Brokers that serve the same queues, tried in random order.
        settings: For timeouts, heartbeat and TLS.
        role: `publish` or `consume`, for the connection's name.
        dial: Gives a connected socket; by default one is opened.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        settings: Settings,
        role: str,
        dial: Dial | None = None,
    ) -> None:
        self._endpoints = random.sample(endpoints, len(endpoints))
        self._settings = settings
        self._role = role
        self._dial = dial
        self._current: Connection | None = None
        self._attempt: asyncio.Task[Connection] | None = None
        self._waiting = 0
        self._closed = False
        self._last_error: TransportError | None = None
        self._changed_at: float | None = None
        self.connects = 0

    @property
    def current(self) -> Connection | None:
        """The connection that is up now, if any."""
        current = self._current
        return current if current is not None and current.alive else None

    @property
    def standing(self) -> tuple[bool, float]:
        """Whether there is a connection, and for how many seconds that has been so."""
        since = self._changed_at
        return self.current is not None, 0.0 if since is None else _clock() - since

    async def connection(self, deadline: float | None = None) -> Connection:
        """Give the live connection; make one first if there is none.

        Args:
            deadline: Time of the event loop at which to give up; `None`: never.

        Raises:
            ConnectionFailed: No broker could be reached by then, or it was closed.
            ConfigurationError: A broker was reached and refuses us.
        """
        if (current := self.current) is not None:
            return current
        if self._closed:
            raise ConnectionFailed("the connection was closed by this program")
        if self._attempt is None or self._attempt.done():
            self._changed_at = self._changed_at or _clock()
            self._attempt = asyncio.get_running_loop().create_task(self._connect())
            self._attempt.add_done_callback(_look_at)
        return await self._wait_for(self._attempt, deadline)

    async def close(self) -> None:
        """Close the connection, if there is one; none is made after that."""
        self._closed = True
        await self.drop()

    async def drop(self) -> None:
        """Close the connection, if there is one."""
        if self._attempt is not None and not self._attempt.done():
            self._attempt.cancel()
            await asyncio.wait((self._attempt,))
        current, self._current = self._current, None
        if current is not None:
            await current.close()

    async def _wait_for(
        self, attempt: asyncio.Task[Connection], deadline: float | None
    ) -> Connection:
        now = asyncio.get_running_loop().time()
        left = None if deadline is None else max(0.0, deadline - now)
        self._waiting += 1
        try:
            await asyncio.wait((attempt,), timeout=left)
        finally:
            self._waiting -= 1
            if not attempt.done() and not self._waiting:
                attempt.cancel()
                self._attempt = None  # whoever comes next must not join this one
        if attempt.done() and not attempt.cancelled():
            return attempt.result()
        last = self._last_error
        raise ConnectionFailed(
            "no broker could be reached in time: {cause}",
            cause=last or Phrase("no answer"),
        ) from last

    async def _connect(self) -> Connection:
        """Try one broker after the other until one takes us."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        tries = 0
        while True:
            endpoint = self._endpoints[tries % len(self._endpoints)]
            tries += 1
            try:
                return await self._try(endpoint)
            except ConfigurationError:
                raise
            except TransportError as error:
                self._last_error = error
                self._report(tries, error)
            await asyncio.sleep(_pause(tries, loop.time() - began))

    async def _try(self, endpoint: Endpoint) -> Connection:
        connection = await connect(endpoint, self._settings, self._role, self._dial)
        if self.connects:
            log.info("connected again to %(broker)s", {"broker": endpoint})
        self.connects += 1
        self._current = connection
        self._note_change()
        connection.end.add_done_callback(self._note_change)
        return connection

    def _note_change(self, *_: object) -> None:
        self._changed_at = _clock()

    def _report(self, tries: int, error: TransportError) -> None:
        level = (
            logging.WARNING if tries in (1, 10) or tries % 60 == 0 else logging.DEBUG
        )
        log.log(
            level,
            "attempt %(tries)d: %(problem)s",
            {"tries": tries, "problem": error},
        )


def _look_at(attempt: asyncio.Task[Connection]) -> None:
    """Take note of a failure even when nobody waits for the attempt any more."""
    if not attempt.cancelled():
        attempt.exception()


def _pause(tries: int, elapsed: float) -> float:
    """Full jitter, so that many clients do not return in step."""
    ceiling = LONGEST_WAIT if elapsed < FIRST_MINUTE else LATER_WAIT
    wait = min(ceiling, FIRST_WAIT * (1 << min(tries, 10)))
    return random.uniform(0.2, 1) * wait
