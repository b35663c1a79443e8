"""`rmqarq dev`: a broker, a worker that follows the code, and a command beside them."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import signal
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmqarq.cli import output
from rmqarq.cli.broker import LOCALHOST, PORT, listen, url_of
from rmqarq.cli.producer import Producer
from rmqarq.cli.stream import BROKER, COMMAND, WORKER, Record, Stream
from rmqarq.devbroker import Broker
from rmqarq.errors import ConfigurationError
from rmqarq.settings import DEV_URL
from rmqarq.worker.line import Start
from rmqarq.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOOK = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)

AppPath = Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the App is.")]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- COMMAND",
        show_default=False,
        help="A program that sends jobs, with its arguments.",
    ),
]
BurstMode = Annotated[
    bool,
    typer.Option(
        "--burst",
        "-b",
        help="End when COMMAND has ended and no job is left, delayed ones included.",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=65535,
        show_default=False,
        help="Port of the broker; by default 5672, or a free one where it is taken.",
    ),
]
FailOnDead = Annotated[
    bool,
    typer.Option(
        "--fail-on-dead", help="With --burst: exit with 5 when jobs were dead-lettered."
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", "-l", help="debug, info, warning or error."),
]


def dev(
    app: AppPath,
    command: Command = None,
    *,
    burst: BurstMode = False,
    port: Port = None,
    fail_on_dead: FailOnDead = False,
    log_level: LogLevel = None,
) -> None:
    """Run all that it takes to try out an App: no RabbitMQ is needed.

    Starts a broker in memory, a worker of the App that starts anew when Python files
    change, and COMMAND, if there is one: it and the worker find the broker whatever URL
    their code names. A COMMAND that fails ends all; after one that succeeds the worker
    works on, unless --burst is given.

    For development only: when it ends, all jobs are gone.

    Exit codes: that of COMMAND if it fails; else 0 stopped, or done; 2 usage, or no
    such App; 3 configuration; 4 a burst cut short; 5 dead letters with --fail-on-dead;
    130 or 143 forced by a second signal.
    """
    if command:
        _refuse_what_can_not_start(command[0])
    flags = {
        "burst": burst,
        "wait_delayed": burst,
        "burst_check_interval": LOOK if burst else None,  # it costs this broker nothing
        "fail_on_dead": fail_on_dead or None,
        "log_level": log_level.upper() if log_level else None,
        "language": output.asked_for.get(),
    }
    given = {name: value for name, value in flags.items() if value is not None}
    start = Start(
        app,
        1,
        given,
        reload=not burst,
        language=output.language(),
        log_format=output.log_format(),
        patient=burst and bool(command),
        doomed=True,
    )
    raise typer.Exit(asyncio.run(_run(start, command or (), port)))


def _refuse_what_can_not_start(program: str) -> None:
    name, mode = repr(program), 0
    if shutil.which(program) is not None:
        return
    if "/" in program:  # else it is looked for on the PATH
        with suppress(OSError):
            mode = Path(program).stat().st_mode
    if stat.S_ISDIR(mode):
        raise typer.BadParameter(
            output.filled("{name} is a directory, not a program", name=name),
            param_hint="COMMAND",
        )
    if mode:
        raise typer.BadParameter(
            output.filled(
                "{name} is not executable; chmod +x makes it so, or name the program"
                " that runs it before it",
                name=name,
            ),
            param_hint="COMMAND",
        )
    raise typer.BadParameter(
        output.filled("there is no program {name}", name=name), param_hint="COMMAND"
    )


async def _run(start: Start, words: Sequence[str], port: int | None) -> int:
    stream = Stream()
    logging.getLogger().addHandler(Record(stream, WORKER))
    async with Broker() as broker:
        url = await _open(broker, port, stream)
        # for the worker and the command, and for whatever these start
        os.environ.update({DEV_URL: url, "RMQARQ_URL": url, "PYTHONUNBUFFERED": "1"})
        outlet = await stream.open(WORKER)
        try:
            run = Run(start, stream, outlet.number)
            return await run.to_the_end(words)
        finally:
            await outlet.close()
            _tell_what_is_gone(broker, stream)


class Run:
    """A worker and a command that end together.

    Args:
        start: What the worker shall run.
        stream: Where all is said.
        number: File descriptor for what the worker prints.
    """

    def __init__(self, start: Start, stream: Stream, number: int) -> None:
        self._burst = not start.reload
        self._stream = stream
        self._supervisor = Supervisor(start, 1, output=number)
        self._producer: Producer | None = None
        self._signalled = False
        self._forced = 0
        self._over = False

    async def to_the_end(self, words: Sequence[str]) -> int:
        """Run until a signal, a command that fails, or the end of a burst.

        Args:
            words: The command, if there is one.

        Returns:
            The exit code for all.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._heed, number)
        commanded = asyncio.create_task(self._command(words))
        try:
            code = await self._supervisor.run(signals=False)
        finally:
            self._over = True
            if self._producer is not None and not commanded.done():
                self._producer.stop()
            failure = await commanded
            for number in SIGNALS:
                loop.remove_signal_handler(number)
        return self._forced or failure or code

    async def _command(self, words: Sequence[str]) -> int:
        """Run the command; give its exit code, 0 if it was us who stopped it."""
        if not words:
            return 0
        self._stream.text(COMMAND, "$ " + output.plain(shlex.join(words)))
        outlet = await self._stream.open(COMMAND)
        try:
            self._producer = producer = await Producer.start(words, outlet.number)
        except OSError as error:
            sentence = output.filled(
                "can't be started: {problem}", problem=str(error.strerror)
            )
            self._stream.text(COMMAND, sentence)
            self._supervisor.stop()
            return 126
        finally:
            if self._producer is None:
                await outlet.close()
        if self._over:  # while it was started
            producer.stop()
        code = await producer.end()
        await outlet.close()
        if producer.stopped:
            return 0
        self._follow(code)
        return code

    def _follow(self, code: int) -> None:
        """Do what follows from the end of the command."""
        if code:
            sentence = output.filled("ended with exit code {code}", code=code)
            self._stream.text(COMMAND, sentence)
        if self._burst:
            self._supervisor.finish()
        elif code:
            self._supervisor.stop()
        else:
            sentence = output.filled("has ended; the worker goes on until Ctrl-C")
            self._stream.text(COMMAND, sentence)

    def _heed(self, number: signal.Signals) -> None:
        again, self._signalled = self._signalled, True
        self._supervisor.heed(signal.Signals(number).name)
        if self._producer is not None:
            if again:
                self._forced = 128 + number
                self._producer.kill()
            else:
                self._producer.stop()


async def _open(broker: Broker, port: int | None, stream: Stream) -> str:
    """Let the broker listen, and say where; give its URL."""
    if port is None:
        found = await _listen_somewhere(broker)
    else:
        found = await listen(broker, LOCALHOST, port)
    url = url_of(LOCALHOST, found)
    stream.text(BROKER, url)
    for line in _about(url, found, wanted=port):
        stream.text(BROKER, line)
    return url


def _about(url: str, port: int, *, wanted: int | None) -> Iterator[str]:
    """Say what the broker is, and how others find it."""
    yield output.filled("in memory, for development only: all is gone when this ends")
    if port == PORT:
        return
    if wanted is None:
        yield output.filled("another program has port {port}", port=PORT)
    line = f"export RMQARQ_URL={url}"
    yield output.filled("for other terminals: {line}", line=line)


async def _listen_somewhere(broker: Broker) -> int:
    """Listen where clients look when they are told nothing, else on a free port."""
    if not _answers(PORT):
        with suppress(ConfigurationError):
            return await listen(broker, LOCALHOST, PORT)
    return await listen(broker, LOCALHOST, 0)


def _answers(port: int) -> bool:
    """Tell whether somebody listens on any of the addresses that `localhost` has."""
    try:
        socket.create_connection(("localhost", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _tell_what_is_gone(broker: Broker, stream: Stream) -> None:
    depths = broker.queues().items()
    left = [f"{name} ({depth.ready})" for name, depth in depths if depth.ready]
    if left:
        queues = ", ".join(sorted(left))
        stream.text(BROKER, output.filled("gone with it: {queues}", queues=queues))
