"""The connections of an App: who holds them open, and when they are closed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from rmqarq.errors import ConnectionFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from rmqarq.settings import Settings
    from rmqarq.transports import Transports
    from rmqarq.wire.transport import Transport

log = logging.getLogger(__name__)


class Connected:
    """What can be connected: by `async with`, a web application, or a worker.

    Attributes:
        settings: What applies.
    """

    settings: Settings
    _transports: Transports
    _patience: float

    @property
    def transport(self) -> Transport:
        """The transport of this event loop; each loop and process has its own."""
        return self._transports.here()

    async def __aenter__(self) -> Self:
        """Connect now; without it the first enqueue does.

        Raises:
            ConnectionFailed: No broker could be reached before `publish_deadline`.
            ConfigurationError: The broker refuses us.
        """
        await self._connect(self._patience)
        self.retain()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the connections when nobody else uses them."""
        await self.release()

    @asynccontextmanager
    async def connected(
        self, _web: object = None, /, *, required: bool = True
    ) -> AsyncGenerator[None]:
        """Hold the connections for as long as a web application runs.

        Made to be its lifespan: `FastAPI(lifespan=tasks.connected)`. The `lifespan` of
        this App is another thing: it makes the state of a worker.

        Args:
            _web: The web application; whatever calls a lifespan gives it.
            required: `False` starts it without a broker, too, after `connect_timeout`
                seconds with a warning; the next enqueue tries again.

        Raises:
            ConnectionFailed: No broker could be reached before `publish_deadline`.
            ConfigurationError: The broker refuses us, required or not.
        """
        patience = self._patience if required else self.settings.connect_timeout
        try:
            await self._connect(patience)
        except ConnectionFailed as error:
            if required:
                raise
            log.warning("%(problem)s; starting without", {"problem": error})
        self.retain()
        try:
            yield
        finally:
            await self.release()

    def retain(self) -> None:
        """Keep the connections open until `release`, as a worker does."""
        self.transport.users += 1

    async def release(self) -> None:
        """Give up what `retain` took; the last one closes the connections."""
        self.transport.users -= 1
        if self.transport.users == 0:
            await self.close()

    async def close(self) -> None:
        """Close the connections; the next enqueue makes them anew.

        While a worker, a portal or an `async with` holds them, they are closed when
        that ends: a job may call this, too.
        """
        transport = self.transport
        if transport.users == 0:
            self._transports.forget()
            await transport.close()

    async def _connect(self, patience: float) -> None:
        await self.transport.connect(asyncio.get_running_loop().time() + patience)
