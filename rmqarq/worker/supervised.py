"""A worker process that has a supervisor: does what it says, and reports to it.

Each runs a worker of its own. When the supervisor is gone, it stops in order.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from rmqarq import logs
from rmqarq.errors import AppNotFound, RmqarqError
from rmqarq.loader import load
from rmqarq.records import masked
from rmqarq.stats import Stats
from rmqarq.worker.ending import code_of
from rmqarq.worker.line import (
    DEVELOPMENT_GRACE,
    Count,
    Ended,
    Finish,
    Force,
    Halt,
    Loaded,
    Serving,
    Start,
    ToSupervisor,
    ToWorker,
    hurried,
    time_to_stop,
    to_worker,
)
from rmqarq.worker.pipe import LENGTH, pack
from rmqarq.worker.process import replaced, work
from rmqarq.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from rmqarq.settings import Settings

BEAT = 0.25
SIGNALS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger(__name__)


class Line:
    """The socket to the supervisor.

    Args:
        number: Its file descriptor.
    """

    def __init__(self, number: int) -> None:
        self._owner = os.getpid()
        self._socket = socket.socket(fileno=number)
        self._socket.set_inheritable(False)  # what a task starts must not hold it
        self._turn = threading.Lock()

    @property
    def ours(self) -> bool:
        """Whether this is the process it was made for, and not a fork of a job."""
        return os.getpid() == self._owner

    def send(self, word: ToSupervisor) -> None:
        """Send one frame; a supervisor that is gone hears nothing."""
        if self.ours:
            with self._turn, suppress(OSError):
                self._socket.sendall(pack(word))

    def receive(self) -> ToWorker | None:
        """Wait for the next frame; `None` when the supervisor is gone."""
        length = self._read(LENGTH)
        body = self._read(int.from_bytes(length, "big")) if length else b""
        return to_worker(body) if body else None

    def listen(self, hear: Callable[[ToWorker | None], None]) -> None:
        """Pass on each frame, at last `None`, from a thread of its own."""

        def listen() -> None:
            word: ToWorker | None = Halt()
            while word is not None:
                word = self.receive()
                hear(word)

        threading.Thread(target=listen, name="rmqarq-line", daemon=True).start()

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            try:
                part = self._socket.recv(size - len(found))
            except OSError:
                part = b""
            if not part:
                return b""
            found += part
        return found


class Control:
    """Brings what the supervisor and signals ask for to the worker.

    A signal only ever stops it in order, however often it comes: Ctrl-C in a terminal
    and many service managers send theirs to the supervisor and to all its processes,
    and only the supervisor knows whether it is the second one.

    Args:
        line: To the supervisor.

    Attributes:
        doomed: Whether the broker is gone when the supervisor is.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.doomed = False
        self._worker: Worker | None = None
        self._over = threading.Event()
        self._finish = threading.Event()

    def handle_signals(self) -> None:
        """Take the signals, those included that came since the process was made."""
        for number in SIGNALS:
            signal.signal(number, self._signalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def begin(self, worker: Worker) -> None:
        """Steer this worker, and report what it does."""
        self._worker = worker
        if self._finish.is_set():  # it was said while the App was loaded
            worker.finish()
        threading.Thread(
            target=self._report, args=(worker,), name="rmqarq-report", daemon=True
        ).start()

    def end(self) -> None:
        """Report how the worker ended."""
        self._over.set()
        if self._worker is not None:
            self._line.send(Ended(self._worker.ending, self._worker.stats))

    def hear(self, word: ToWorker | None) -> None:
        """Do what the supervisor says; stop in order when it is gone."""
        if isinstance(word, Finish):
            self._finish.set()
        worker = self._worker
        if worker is None and isinstance(word, Finish):
            return
        if worker is None:
            os._exit(0)  # the App is still being loaded: there is nothing to put right
        with suppress(RuntimeError):  # the event loop has ended
            if word is None:
                self._go_alone(worker)
            elif isinstance(word, Force):
                worker.heed(word.signal, force=True)
            elif isinstance(word, Halt) and word.signal is not None:
                worker.heed(word.signal)
            elif isinstance(word, Finish):
                worker.finish()
            else:
                worker.stop()

    def _go_alone(self, worker: Worker) -> None:
        log.warning("the supervisor is gone, stopping")
        worker.sums_up = True
        if self.doomed:
            worker.heed("SIGTERM", force=True)
            time.sleep(DEVELOPMENT_GRACE)
        else:
            worker.stop()
            time.sleep(time_to_stop(worker.settings))
        os._exit(1)  # nobody else would end it

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._line.ours:
            self.hear(Halt(signal.Signals(number).name))
        else:  # a job has forked, and somebody wants to end that process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _report(self, worker: Worker) -> None:
        told, serving = Stats(), False
        while not self._over.wait(BEAT):
            if worker.serving and not serving:
                serving = True
                self._line.send(Serving())
            if worker.stats != told:
                told = msgspec.structs.replace(worker.stats)
                self._line.send(Count(told))


def _settings(given: Settings, start: Start) -> Settings:
    """Give the settings of this process; `start.number` tells it from the others."""
    in_a_hurry = start.reload or start.doomed
    settings = replaced(hurried(given) if in_a_hurry else given, start.flags)
    if settings.health_port is None:
        return settings
    port = settings.health_port + start.number - 1
    return msgspec.structs.replace(settings, health_port=port)


def _run(start: Start, line: Line, control: Control) -> int:
    with logs.held(start.language, start.log_format):
        app = load(start.path)
        settings = _settings(app.settings, start)
        logs.set_up(
            settings.log_level, settings.language, settings.log_format, start.number
        )
    line.send(Loaded(settings))
    app.configure(settings)  # by hand: --url beats RMQARQ_DEV_URL
    worker = Worker(app, queues=start.queues, path=start.path)
    worker.sums_up = False  # the supervisor does, for all
    worker.patient = start.patient
    control.handle_signals()  # the module of the App may have its own
    control.begin(worker)
    return work(worker, control.end, signals=False)


def _complain(error: RmqarqError, start: Start) -> int:
    cause = error.__cause__ if isinstance(error, AppNotFound) else None
    if not logs.tell(error, cause):
        if cause is not None:
            sys.stderr.write(masked("".join(traceback.format_exception(cause))))
        sentence = masked(logs.render(error, start.language))
        sys.stderr.write(f"[{start.number}] rmqarq: {sentence}\n")
    return code_of(error)


def main() -> None:
    """Run a worker under a supervisor.

    The command line holds the number of our end of the socket, the process id of the
    supervisor, this package, and where the supervisor finds modules.
    """
    line = Line(int(sys.argv[1]))
    control = Control(line)
    control.handle_signals()
    start = line.receive()
    if not isinstance(start, Start):  # the supervisor is gone already
        sys.exit(0)
    control.doomed = start.doomed
    # a file that changes twice in a second passes for what was compiled between
    sys.dont_write_bytecode = start.reload or sys.dont_write_bytecode
    line.listen(control.hear)
    sys.path[:] = sys.argv[4:]
    del sys.argv[1:]
    try:
        code = _run(start, line, control)
    except RmqarqError as error:
        code = _complain(error, start)
    sys.exit(code)
