"""The door for code without an event loop: a thread with one awaits for all others."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from rmqarq.errors import ConfigurationError, ConnectionFailed, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from rmqarq.app import App

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

LOOK = 1.0
END_GRACE = 10.0


class Portal:
    """Calls what must be awaited from code that can't await.

    The first call starts a thread with an event loop, which holds the connections;
    any number of threads may call. One Portal is enough for a process. After a fork
    the child starts a thread of its own at its first call.

    Args:
        app: Whose tasks are called; its connections are closed in the end.
        *others: Further Apps, likewise.

    Example:
        >>> portal = Portal(app)
        >>> job = portal.call(send_mail.enqueue, 1, "x")
    """

    def __init__(self, app: App[Any], *others: App[Any]) -> None:
        self._keeper = _Keeper((app, *others))

    def call(
        self,
        fn: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Await `fn(*args, **kwargs)` in the event loop and wait for the result.

        An enqueue takes at most `publish_deadline`; other functions take their time.

        Args:
            fn: A coroutine function such as `task.enqueue` or `app.enqueue_many`.
            *args: For it.
            **kwargs: For it.

        Returns:
            What it returns.

        Raises:
            ConfigurationError: An event loop runs in this thread, which this would
                block: await the function itself there.
            ConnectionFailed: The event loop did not begin the call within
                `publish_deadline` seconds, or the program is ending.
            OutcomeUnknown: The event loop ended, or gave no answer for
                `publish_deadline` seconds, in the middle of the call.
            BaseException: Whatever the function raises, unchanged.
        """
        _refuse_in_event_loop(getattr(fn, "__qualname__", repr(fn)))
        call = _Call(partial(fn, *args, **kwargs))
        try:
            self._keeper.submit(call)
            return call.wait()
        finally:
            call.give_up()  # unless it is done: at Ctrl-C, say

    def close(self) -> None:
        """Wait for calls under way, close the connections, and end the thread.

        At the end of the program this happens by itself. The next call starts anew.

        Raises:
            ConfigurationError: An event loop runs in this thread, which this would
                block.
        """
        _refuse_in_event_loop("Portal.close")
        self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


class _Keeper:
    """Keeps the thread of a Portal: made at the first call, in each process anew.

    Args:
        apps: Whose connections the thread holds.
    """

    def __init__(self, apps: tuple[App[Any], ...]) -> None:
        self._apps = apps
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._ended = False
        _keepers.add(self)

    def submit(self, call: _Call[Any]) -> None:
        """Start a call, and the thread if need be.

        Raises:
            ConnectionFailed: The program is ending, or the thread did not start.
        """
        with self._lock:  # so that no call is given to a thread that was told to end
            if self._ended:
                raise ConnectionFailed("the program is ending; nothing was sent")
            if self._thread is None or not self._thread.is_alive():
                self._thread = _LoopThread(self._apps)
            call.submit(self._thread)

    def close(self) -> None:
        """End the thread in order; the next call makes another."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()

    def end(self) -> None:
        """End the thread for good."""
        with self._lock:
            self._ended = True
        self.close()

    def leave_to_parent(self) -> None:
        """Begin anew in a forked child, with a lock that no other thread holds."""
        self._lock = threading.Lock()
        if self._thread is not None:
            _of_parents.append(self._thread)
        self._thread = None


class _LoopThread:
    """A thread whose event loop runs until `end`.

    Args:
        apps: Whose connections it holds.

    Attributes:
        patience: Seconds without a sign of life after which it is given up.
        heard: When the event loop last gave one.
        calls: What it runs.

    Raises:
        ConnectionFailed: It did not start.
    """

    def __init__(self, apps: tuple[App[Any], ...]) -> None:
        self._apps = apps
        self.patience = max(app.settings.publish_deadline for app in apps)
        self.heard = time.monotonic()
        self.calls: set[asyncio.Task[None]] = set()
        self._started = threading.Event()
        # a daemon, so that `atexit` comes while it still runs and can end it in order
        self._thread = threading.Thread(
            target=self._run, name="rmqarq-portal", daemon=True
        )
        self._thread.start()
        if not self._started.wait(self.patience):
            raise ConnectionFailed(
                "the thread of the portal did not start within {seconds:g} s; nothing"
                " was sent (uWSGI runs threads with --enable-threads only)",
                seconds=self.patience,
            )

    def is_alive(self) -> bool:
        """Whether it can still answer."""
        return self._thread.is_alive() and not self._loop.is_closed()

    def soon(self, callback: Callable[[], object]) -> None:
        """Have something called in the event loop, unless that has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def hear(self) -> None:
        """Note that the event loop turns."""
        self.heard = time.monotonic()

    def end(self) -> None:
        """Wait for the calls under way, then for the thread; leave it if it hangs."""
        self.soon(self._stop.set)
        self._thread.join(self.patience + END_GRACE)
        if self._thread.is_alive():
            log.warning("the thread of the portal does not end; it is left behind")

    def _run(self) -> None:
        # not anyio's: that imports a module here, and a fork at that moment would
        # leave the child with an import that never ends
        runner = asyncio.Runner(loop_factory=_EventLoop)
        with suppress(SystemExit), runner:  # of a task that some call has left behind
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        for app in self._apps:
            app.retain()
        self._started.set()
        try:
            await self._stop.wait()
            if self.calls:
                await asyncio.wait(self.calls, timeout=self.patience)
        finally:
            for app in self._apps:
                await app.release()


class _EventLoop(asyncio.SelectorEventLoop):
    """One that starts no thread to end: Python 3.12 allows none at its own end."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Leave the threads that look up host names to `close`."""


class _Call(Generic[T]):
    """One call on its way through a thread."""

    def __init__(self, fn: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._fn = fn
        self._future: Future[T] = Future()
        self._task: asyncio.Task[None] | None = None
        self._asked = 0.0

    def submit(self, thread: _LoopThread) -> None:
        """Have it started."""
        self._thread = thread
        self._asked = time.monotonic()
        thread.soon(self._start)

    def wait(self) -> T:
        """Wait for the result, for as long as the event loop turns."""
        future = self._future
        while not future.done():
            with suppress(TimeoutError):
                future.exception(LOOK)
            if not future.done():
                self._look_after()
        return future.result()

    def give_up(self) -> None:
        """End it unless it has ended."""
        if not self._future.done() and not self._future.cancel():
            self._thread.soon(self._cancel)

    def _look_after(self) -> None:
        thread = self._thread
        now = time.monotonic()
        if thread.heard >= self._asked:
            self._asked = now
            thread.soon(thread.hear)
        silence = now - self._asked
        if thread.is_alive() and silence < thread.patience:
            return
        if self._future.cancel():
            raise ConnectionFailed(
                "the event loop of the portal did not begin a call within"
                " {seconds:.0f} s, something blocks it; nothing was sent",
                seconds=silence,
            )
        raise OutcomeUnknown(
            "the event loop of the portal gave no answer for {seconds:.0f} s in the"
            " middle of a call",
            seconds=silence,
        )

    def _start(self) -> None:
        """Begin, in the event loop."""
        self._thread.hear()
        if self._future.set_running_or_notify_cancel():
            calls = self._thread.calls
            self._task = asyncio.get_running_loop().create_task(self._run())
            calls.add(self._task)
            self._task.add_done_callback(calls.discard)

    async def _run(self) -> None:
        """Do it; whatever ends it, `SystemExit` included, is the caller's alone."""
        try:
            result = await self._fn()
        except asyncio.CancelledError:
            self._future.set_exception(
                OutcomeUnknown("a call through the portal was cancelled before its end")
            )
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    def _cancel(self) -> None:
        assert self._task is not None, "it is running"
        self._task.cancel()


def _refuse_in_event_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        "{name} through a portal would block the event loop that runs in this thread;"
        " await it here instead",
        name=name,
    )


_keepers: weakref.WeakSet[_Keeper] = weakref.WeakSet()
_of_parents: list[_LoopThread] = []
"""Kept: what ends, a connection say, would do so on the parent's socket."""


def _end_all() -> None:
    for keeper in list(_keepers):
        keeper.end()


def _leave_to_parent() -> None:
    for keeper in list(_keepers):
        keeper.leave_to_parent()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_leave_to_parent)
