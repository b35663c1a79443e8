"""One live connection to one broker: aiormq for its control plane, the tap for content.

Every call into aiormq goes through `call`: aiormq answers a lost link with a bare
`CancelledError` or not at all, and cancelling one of its calls closes a channel.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from rmqarq.errors import ConnectionLost as Lost
from rmqarq.errors import Phrase
from rmqarq.wire.pulse import Pulse
from rmqarq.wire.tap import TapProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    import aiormq
    from aiormq.abc import AbstractChannel

    from rmqarq.url import Endpoint
    from rmqarq.wire.delay import Rung
    from rmqarq.wire.topology import Binding

T = TypeVar("T")

RPC_TIMEOUT = 20.0
CLOSE_TIMEOUT = 3.0
LAST_WORDS = 1.0
LAST_TURNS = 10

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
        fresh: The rungs among these that have not been there for long, perhaps, and
            until when that holds, by the clock of the loop.
        plugin: Whether delays go by the delayed-message plugin here; `None` until
            somebody has looked.
        throwing_away: Held while a throw-away channel is open.
        frame_max: The largest frame, in bytes; 0 means no limit.
        heartbeat: What was agreed upon, in seconds; 0 for none.
        endpoint: The broker it leads to.
        server_version: The version that the broker tells, such as `(3, 10, 8)`.
        product: What the broker calls itself, such as `RabbitMQ`.
    """

    def __init__(
        self, amqp: aiormq.Connection, protocol: TapProtocol, endpoint: Endpoint
    ) -> None:
        loop = asyncio.get_running_loop()
        self.id = os.urandom(4).hex()
        self.end: asyncio.Future[str] = loop.create_future()
        self.ensured: set[str | Rung | Binding] = set()
        self.plugin: bool | None = None
        self.fresh: dict[Rung, float] = {}
        self.throwing_away = asyncio.Lock()
        self.frame_max = int(amqp.connection_tune.frame_max or 0)
        self.tap = protocol
        self.endpoint = endpoint
        self.server_version = _version(amqp.server_properties)
        self.product = str((amqp.server_properties or {}).get("product", ""))
        self._amqp = amqp
        self._background: set[asyncio.Task[Any]] = set()
        self._watchers: list[Callable[[], None]] = []
        self.heartbeat = int(amqp.connection_tune.heartbeat or 0)
        self._pulse = Pulse(protocol, self.heartbeat, self.abort)
        protocol.limit_frames(self.frame_max)
        protocol.on_lost = self._on_lost
        protocol.on_change = self._on_change
        if protocol.transport.is_closing():
            self._on_lost(None)
        self.later(self._outlive())

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
        transport = self.tap.transport
        try:
            transport.write(data)
        except RuntimeError as error:  # aiormq has ended its side already
            self.abort(str(error))

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back when the link is unblocked, writable again, or lost."""
        self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Call back no more."""
        if callback in self._watchers:
            self._watchers.remove(callback)

    def distrust_stalls(self) -> None:
        """Trust no delivery that was in the socket while this process stood still."""
        self._pulse.distrust_stalls()

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
        task = asyncio.get_running_loop().create_task(coroutine, context=quiet())
        self._background.add(task)
        task.add_done_callback(retrieve)
        task.add_done_callback(self._background.discard)

    async def call(
        self,
        coroutine: Coroutine[Any, Any, T],
        timeout: float = RPC_TIMEOUT,
        orphaned: Callable[[T], Coroutine[Any, Any, Any]] | None = None,
        *,
        vital: bool = True,
    ) -> T:
        """Run one call of aiormq to its end, whatever becomes of the link.

        It is never cancelled: when we stop waiting it goes on by itself.

        Args:
            coroutine: The call.
            timeout: Seconds after which the link is taken for dead.
            orphaned: What to do with a result that nobody waits for any more.
            vital: `False` spares the link: it is one queue that may not answer, for
                want of its leader or node.

        Raises:
            ConnectionLost: The link broke, or no answer came within `timeout` seconds.
            ChannelRefused: The broker closed the channel in answer.
        """
        task = asyncio.get_running_loop().create_task(coroutine, context=quiet())
        task.add_done_callback(retrieve)
        try:
            await asyncio.wait(
                (task, self.end), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            if orphaned is not None:
                task.add_done_callback(partial(self._clean_up, orphaned))
            raise
        if not task.done():
            silence = Phrase("no answer within {seconds:g} s", seconds=timeout)
            if self.alive and not vital:
                raise Lost("the broker does not get to it: {cause}", cause=silence)
            if not self.end.done() and self.blocked is None:
                self.abort(silence)
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
        closing = Phrase("the link is closing")
        cause = self.end.result() if self.end.done() else closing
        return Lost("the connection to the broker was lost: {cause}", cause=cause)

    def abort(self, cause: str) -> None:
        """Cut the link now, without a word to the broker."""
        if not self.end.done():
            self.end.set_result(cause)
        self.tap.transport.abort()

    async def close(self) -> None:
        """Close in order; cut the link when the broker does not answer in 3 s."""
        closing = asyncio.get_running_loop().create_task(
            self._amqp.close(), context=quiet()
        )
        closing.add_done_callback(retrieve)
        try:
            await asyncio.wait((closing,), timeout=CLOSE_TIMEOUT)
        finally:
            self.abort(Phrase("closed by us"))

    def _translated(self, error: BaseException) -> Exception:
        for kind, code in _CODES.items():
            if isinstance(error, kind):
                return ChannelRefused(code, text_of(error))
        if isinstance(error, AMQPConnectionError) or not self.alive:
            return self.lost()
        if isinstance(error, AMQPError | RuntimeError):
            return ChannelRefused(0, text_of(error))
        return error if isinstance(error, Exception) else self.lost()

    async def _outlive(self) -> None:
        """End after aiormq has ended, when an event loop ends with the link open.

        `asyncio.run` cancels all tasks once and waits for those. In answer aiormq
        starts one more, which the loop would drop unfinished, with a warning.
        """
        try:
            await asyncio.wait((self.end,))
        except asyncio.CancelledError:
            closing: asyncio.Future[Any] = cast("Any", self._amqp).closing
            await asyncio.wait((closing,), timeout=LAST_WORDS)
            for _ in range(LAST_TURNS):
                await asyncio.sleep(0)
            raise

    def _on_change(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()

    def _on_lost(self, error: BaseException | None) -> None:
        closed = self.tap.closed
        gone = str(error) if error else Phrase("closed by the other side")
        cause = closed.text if closed else gone
        if not self.end.done():
            self.end.set_result(cause)
        self._pulse.stop()
        self._on_change()


def _version(server: Mapping[str, Any] | None) -> tuple[int, ...]:
    parts = str((server or {}).get("version", "")).split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def quiet() -> contextvars.Context:
    """Make a context in which aiormq's own log is not heard."""
    context = contextvars.copy_context()
    context.run(_ours.set, True)
    return context


def retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the exception, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()


def text_of(error: BaseException | None) -> str:
    """Give the words of an error of aiormq, which are its arguments."""
    if error is None:
        return "the link was cut"
    return ", ".join(str(arg) for arg in error.args) or type(error).__name__
