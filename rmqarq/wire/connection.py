"""One live connection to one broker: aiormq for its control plane, the tap for content.

Every call into aiormq goes through `call`: aiormq answers a lost link with a bare
`CancelledError` or not at all, and cancelling one of its calls closes a channel.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import secrets
import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import aiormq
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ProbableAuthenticationError,
)

from rmqarq.errors import AccessRefused, ConfigurationError, ConnectionFailed
from rmqarq.errors import ConnectionLost as Lost
from rmqarq.wire.tap import TapProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from aiormq.abc import AbstractChannel
    from yarl import URL

    from rmqarq.settings import Settings
    from rmqarq.url import Endpoint
    from rmqarq.wire.delay import Rung

T = TypeVar("T")

RPC_TIMEOUT = 20.0
CLOSE_TIMEOUT = 3.0

_ours = contextvars.ContextVar("rmqarq_connection", default=False)


def _not_ours(_: logging.LogRecord) -> bool:
    """Drop aiormq's own log of our connections: we report, and hide the bodies."""
    return not _ours.get()


for _name in ("aiormq.connection", "aiormq.channel", "aiormq.base"):
    logging.getLogger(_name).addFilter(_not_ours)


class ChannelRefused(Exception):
    """The broker closed a channel in answer to a call.

    Attributes:
        code: AMQP's reply code: 403, 404, 405 or 406; 0 for any other.
        text: The broker's own words.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


_CODES: dict[type[AMQPError], int] = {
    ChannelAccessRefused: 403,
    ChannelNotFoundEntity: 404,
    ChannelLockedResource: 405,
    ChannelPreconditionFailed: 406,
}


class Connection:
    """A connection that is open until `end` is done; it is never opened again.

    Attributes:
        id: Unique; the first word of the number of each publish.
        end: Done when the link is lost or closed, with the cause.
        ensured: What has been declared through this connection.
        frame_max: The largest frame, in bytes; 0 means no limit.
        endpoint: The broker it leads to.
        server_version: The version that the broker tells, such as `(3, 10, 8)`.
    """

    def __init__(
        self, amqp: aiormq.Connection, protocol: TapProtocol, endpoint: Endpoint
    ) -> None:
        loop = asyncio.get_running_loop()
        self.id = secrets.token_hex(4)
        self.end: asyncio.Future[str] = loop.create_future()
        self.ensured: set[str | Rung] = set()
        self.frame_max = int(amqp.connection_tune.frame_max or 0)
        self.tap = protocol
        self.endpoint = endpoint
        self.server_version = _version(amqp.server_properties)
        self._amqp = amqp
        self._background: set[asyncio.Task[Any]] = set()
        self._watchers: list[Callable[[], None]] = []
        protocol.limit_frames(self.frame_max)
        protocol.on_lost = self._on_lost
        protocol.on_change = self._on_change
        if protocol.transport.is_closing():
            self._on_lost(None)

    @property
    def alive(self) -> bool:
        """Whether the link is up as far as anybody knows."""
        return not self.end.done() and self.tap.closed is None

    @property
    def blocked(self) -> str | None:
        """Why the broker does not read us at present, or `None`."""
        return self.tap.blocked

    def write(self, data: bytes) -> None:
        """Write whole frames, in order with aiormq's own."""
        self.tap.transport.write(data)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back when the link is unblocked, writable again, or lost."""
        self._watchers.append(callback)

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel.

        Raises:
            ConnectionLost: The link broke or the broker did not answer.
        """
        opened = self._amqp.channel(publisher_confirms=confirms)
        try:
            return await self.call(opened, orphaned=lambda channel: channel.close())
        except ChannelRefused as error:
            self.abort(error.text)
            raise self.lost() from error

    def later(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a call of aiormq in the background, its outcome unimportant."""
        task = asyncio.get_running_loop().create_task(coroutine, context=_quiet())
        self._background.add(task)
        task.add_done_callback(_retrieve)
        task.add_done_callback(self._background.discard)

    async def call(
        self,
        coroutine: Coroutine[Any, Any, T],
        timeout: float = RPC_TIMEOUT,
        orphaned: Callable[[T], Coroutine[Any, Any, Any]] | None = None,
    ) -> T:
        """Run one call of aiormq to its end, whatever becomes of the link.

        It is never cancelled: when we stop waiting it goes on by itself.

        Args:
            coroutine: The call.
            timeout: Seconds after which the link is taken for dead.
            orphaned: What to do with a result that nobody waits for any more.

        Raises:
            ConnectionLost: The link broke, or no answer came within `timeout` seconds.
            ChannelRefused: The broker closed the channel in answer.
        """
        task = asyncio.get_running_loop().create_task(coroutine, context=_quiet())
        task.add_done_callback(_retrieve)
        try:
            await asyncio.wait(
                (task, self.end), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            if orphaned is not None:
                task.add_done_callback(partial(self._clean_up, orphaned))
            raise
        if not task.done():
            if not self.end.done() and self.blocked is None:
                self.abort(f"no answer within {timeout:g} s")
            raise self.lost()
        if task.cancelled():  # aiormq's word for a heartbeat missed
            raise self.lost()
        error = task.exception()
        if error is None:
            return task.result()
        raise self._translated(error)

    def _clean_up(
        self,
        orphaned: Callable[[T], Coroutine[Any, Any, Any]],
        task: asyncio.Task[T],
    ) -> None:
        if self.alive and not task.cancelled() and task.exception() is None:
            self.later(orphaned(task.result()))

    def lost(self) -> Lost:
        """Make the error that tells why this connection is gone."""
        cause = self.end.result() if self.end.done() else "the link is closing"
        return Lost("the connection to the broker was lost: {cause}", cause=cause)

    def abort(self, cause: str) -> None:
        """Cut the link now, without a word to the broker."""
        if not self.end.done():
            self.end.set_result(cause)
        self.tap.transport.abort()

    async def close(self) -> None:
        """Close in order; cut the link when the broker does not answer in 3 s."""
        closing = asyncio.get_running_loop().create_task(
            self._amqp.close(), context=_quiet()
        )
        closing.add_done_callback(_retrieve)
        try:
            await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT)
        finally:
            self.abort("closed by us")

    def _translated(self, error: BaseException) -> Exception:
        for kind, code in _CODES.items():
            if isinstance(error, kind):
                return ChannelRefused(code, _text(error))
        if isinstance(error, AMQPConnectionError) or not self.alive:
            return self.lost()
        if isinstance(error, AMQPError | RuntimeError):
            return ChannelRefused(0, _text(error))
        return error if isinstance(error, Exception) else self.lost()

    def _on_change(self) -> None:
        for watcher in self._watchers:
            watcher()

    def _on_lost(self, error: BaseException | None) -> None:
        closed = self.tap.closed
        cause = closed.text if closed else str(error or "closed by the other side")
        if not self.end.done():
            self.end.set_result(cause)
        self._on_change()


class _Factory:
    """Opens the socket for aiormq, with our protocol on it."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
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
            transport, _protocol = await loop.create_connection(
                lambda: protocol, str(url.host), url.port or 0, ssl=self._context
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        writer = asyncio.StreamWriter(transport, protocol, protocol.reader, loop)
        return protocol.reader, writer


async def connect(endpoint: Endpoint, settings: Settings, role: str) -> Connection:
    """Open a connection to one broker.

    Raises:
        AccessRefused: The broker refuses the user or the virtual host.
        ConfigurationError: Its certificate is not trusted, or our files can't be read.
        ConnectionFailed: It can't be reached within `connect_timeout`.
    """
    name = f"rmqarq:{role}:{socket.gethostname()}:{os.getpid()}"
    heartbeat = endpoint.heartbeat or settings.heartbeat
    factory = _Factory(_tls_context(settings) if endpoint.tls else None)
    loop = asyncio.get_running_loop()

    async def opened() -> aiormq.Connection:
        url = endpoint.url(heartbeat=heartbeat, name=name)
        factory_for_aiormq: Any = factory  # it asks for no base class, only `create`
        return await aiormq.connect(url, transport_factory=factory_for_aiormq)

    task = loop.create_task(opened(), context=_quiet())
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
        raise _connect_error(endpoint, factory.protocol, error) from error
    if factory.protocol is None:
        raise ConfigurationError("this aiormq ignores transport_factory; we need 7.2.4")
    return Connection(task.result(), factory.protocol, endpoint)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.add_done_callback(_retrieve)
    task.cancel()
    with suppress(BaseException):
        await asyncio.wait((task,), timeout=1)


def _connect_error(
    endpoint: Endpoint, protocol: TapProtocol | None, error: BaseException | None
) -> Exception:
    closed = protocol.closed if protocol is not None else None
    text = closed.text if closed else _text(error)
    passing = " limit " in text or " down" in text  # it ends without a change of ours
    refused = closed is not None and closed.code in (403, 530) and not passing
    if refused or isinstance(error, ProbableAuthenticationError):
        return AccessRefused(
            "the broker {endpoint} refuses us: {text}; check user, password,"
            " virtual host and permissions",
            endpoint=str(endpoint),
            text=text,
        )
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(getattr(error, "__cause__", None), ssl.SSLCertVerificationError):
        return ConfigurationError(
            "the certificate of {endpoint} is not trusted: {text};"
            " name its authority with tls_ca",
            endpoint=str(endpoint),
            text=text,
        )
    return ConnectionFailed(
        "the broker {endpoint} can't be reached: {text}",
        endpoint=str(endpoint),
        text=text,
    )


def _version(server: Mapping[str, Any] | None) -> tuple[int, ...]:
    parts = str((server or {}).get("version", "")).split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def _tls_context(settings: Settings) -> ssl.SSLContext:
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


def _quiet() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(_ours.set, True)
    return context


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the exception, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()


def _text(error: BaseException | None) -> str:
    if error is None:
        return "the link was cut"
    return ", ".join(str(arg) for arg in error.args) or type(error).__name__
