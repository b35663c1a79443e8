"""Opening a connection to one broker: socket, TLS, login, and what may go wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiormq
from aiormq.exceptions import AMQPConnectionError

from rmqarq.errors import ConfigurationError, ConnectionFailed
from rmqarq.wire.connection import Connection, quiet, retrieve
from rmqarq.wire.refusal import refusal
from rmqarq.wire.tap import TapProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from yarl import URL

    from rmqarq.settings import Settings
    from rmqarq.url import Endpoint

    Dial: TypeAlias = Callable[[], Awaitable[socket.socket]]


class _Factory:
    """Opens the socket for aiormq, with our protocol on it."""

    def __init__(self, context: ssl.SSLContext | None, dial: Dial | None) -> None:
        self._context = context
        self._dial = dial
        self.protocol: TapProtocol | None = None

    async def create(
        self, url: URL, **_: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if url.scheme == "amqps" and self._context is None:
            raise ConfigurationError("an amqps URL needs a TLS context")
        loop = asyncio.get_running_loop()
        protocol = TapProtocol(loop)
        self.protocol = protocol
        try:
            if self._dial is not None:
                transport, _protocol = await loop.create_connection(
                    lambda: protocol, sock=await self._dial()
                )
            else:
                transport, _protocol = await loop.create_connection(
                    lambda: protocol, str(url.host), url.port or 0, ssl=self._context
                )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        writer = asyncio.StreamWriter(transport, protocol, protocol.reader, loop)
        return protocol.reader, writer


async def connect(
    endpoint: Endpoint, settings: Settings, role: str, dial: Dial | None = None
) -> Connection:
    """Open a connection to one broker.

    Args:
        endpoint: The broker.
        settings: For timeouts, heartbeat and TLS.
        role: For the connection's name.
        dial: Gives a connected, non-blocking socket; by default one is opened.

    Raises:
        AccessRefused: The broker refuses the user or the virtual host.
        ConfigurationError: Its certificate is not trusted, or our files can't be read.
        ConnectionFailed: It can't be reached within `connect_timeout`.
    """
    name = f"rmqarq:{role}:{socket.gethostname()}:{os.getpid()}"
    heartbeat = endpoint.heartbeat or settings.heartbeat
    factory = _Factory(_tls_context(settings) if endpoint.tls else None, dial)
    loop = asyncio.get_running_loop()

    async def opened() -> aiormq.Connection:
        url = endpoint.url(heartbeat=heartbeat, name=name)
        factory_for_aiormq: Any = factory  # it asks for no base class, only `create`
        return await aiormq.connect(url, transport_factory=factory_for_aiormq)

    task = loop.create_task(opened(), context=quiet())
    try:
        done, _ = await asyncio.wait((task,), timeout=settings.connect_timeout)
    except asyncio.CancelledError:
        await _cancelled(task)
        raise
    if not done:
        await _cancelled(task)
        raise ConnectionFailed(
            "the broker {endpoint} did not answer within {seconds} s",
            endpoint=str(endpoint),
            seconds=settings.connect_timeout,
        )
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is not None:
        _forget_frames(error)
        said = factory.protocol.closed if factory.protocol is not None else None
        raise refusal(endpoint, said, error) from error
    if factory.protocol is None:
        raise ConfigurationError("this aiormq ignores transport_factory; we need 7.2.4")
    return Connection(task.result(), factory.protocol, endpoint)


def _forget_frames(error: BaseException | None) -> None:
    """Drop the frames of an error: the URL with the password stands in them."""
    seen: set[int] = set()  # a chain of contexts may lead back into itself
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _close_unwanted(task: asyncio.Task[aiormq.Connection]) -> None:
    """Close a connection that was made in the very turn in which we gave up."""
    if not task.cancelled() and task.exception() is None:
        closing = asyncio.ensure_future(task.result().close())
        _unwanted.add(closing)
        closing.add_done_callback(retrieve)
        closing.add_done_callback(_unwanted.discard)


_unwanted: set[asyncio.Future[None]] = set()


async def _cancelled(task: asyncio.Task[aiormq.Connection]) -> None:
    task.add_done_callback(_close_unwanted)
    task.cancel()
    with suppress(BaseException):
        await asyncio.wait((task,), timeout=1)


def _tls_context(settings: Settings) -> ssl.SSLContext:
    for name in ("tls_ca", "tls_cert", "tls_key"):
        path = getattr(settings, name)
        if path and not Path(path).is_file():
            raise ConfigurationError(
                "{setting} names no file: {path}", setting=name, path=repr(path)
            )
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_cert:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "the TLS files can't be used: {problem}", problem=str(error)
        ) from error
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
