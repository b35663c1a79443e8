"""One stream of lines from several sources, each marked with where it comes from."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress

from rmqarq import logs
from rmqarq.cli import output

BROKER, WORKER, COMMAND = SOURCES = ("broker", "worker", "command")
COLOURS = {BROKER: "\x1b[36m", WORKER: "\x1b[32m", COMMAND: "\x1b[35m"}
PLAIN = "\x1b[0m"
WIDTH = max(map(len, SOURCES))
LONGEST = 1 << 16
LAST_WORDS = 1.0


class Stream:
    """Standard output, shared by all sources."""

    def __init__(self) -> None:
        self._file = sys.stdout.buffer
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._marks = {name: _mark(name, coloured=coloured) for name in SOURCES}

    def text(self, source: str, text: str) -> None:
        """Print a text, a mark before each of its lines."""
        encoded = text.encode(sys.stdout.encoding, "backslashreplace")
        self.lines(source, encoded.splitlines())

    def lines(self, source: str, lines: list[bytes]) -> None:
        """Print lines as they are, with their marks."""
        mark = self._marks[source]
        with suppress(BrokenPipeError):  # nobody reads on
            self._file.write(b"".join(mark + line + b"\n" for line in lines))
            self._file.flush()

    async def open(self, source: str) -> Outlet:
        """Make a pipe for processes to write to."""
        reading, writing = os.pipe()
        pipe = os.fdopen(reading, "rb", buffering=0)
        outlet = Outlet(self, source, writing)
        await asyncio.get_running_loop().connect_read_pipe(lambda: outlet, pipe)
        return outlet


class Outlet(asyncio.Protocol):
    """A pipe into the stream.

    Args:
        stream: Where its lines go.
        source: Who writes them.
        number: File descriptor of the end to write to.
    """

    def __init__(self, stream: Stream, source: str, number: int) -> None:
        self.number = number
        self._stream = stream
        self._source = source
        self._rest = b""
        self._ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Pass on the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            self._stream.lines(self._source, lines)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on what has no end of line: nobody can write any more."""
        if self._rest:
            self._stream.lines(self._source, [self._rest])
        self._ended.set_result(None)

    async def close(self) -> None:
        """Write no more, and wait for what has been written.

        Not for long: what a process has started may hold the pipe open.
        """
        os.close(self.number)
        await asyncio.wait((self._ended,), timeout=LAST_WORDS)


class Record(logging.Handler):
    """Sends our own log into the stream.

    Args:
        stream: Where the lines go.
        source: Whose they are.
    """

    def __init__(self, stream: Stream, source: str) -> None:
        super().__init__()
        self._stream = stream
        self._source = source
        self.setFormatter(
            logs.JsonFormatter(output.language())
            if output.log_format() == "json"
            else logs.TextFormatter(output.language(), colour=False)
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        self._stream.text(self._source, self.format(record))


def _mark(name: str, *, coloured: bool) -> bytes:
    text = f"{name:<{WIDTH}} | "
    return (f"{COLOURS[name]}{text}{PLAIN}" if coloured else text).encode()
