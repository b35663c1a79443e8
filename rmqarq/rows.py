"""Many small jobs in few messages: rows are taken, cut into chunks, and sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

from rmqarq.errors import EncodeError, PartlyMapped, phrase_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

    from rmqarq.errors import RmqarqError
    from rmqarq.wire.publication import Publication

    Row: TypeAlias = tuple[Any, ...]
    Chunks: TypeAlias = AsyncGenerator[Sequence[Row], None]
    Encode: TypeAlias = Callable[[Sequence[Row]], Awaitable[list[Publication]]]
    Publish: TypeAlias = Callable[
        [Sequence[Publication]], Awaitable[dict[int, RmqarqError]]
    ]

BATCH = 25
"""The most chunks that are encoded while others are on their way."""


async def chunks(
    rows: Iterable[Any] | AsyncIterable[Any],
    size: int,
    arguments: Callable[[Any], Row],
) -> AsyncGenerator[list[Row], None]:
    """Cut rows, as they come, into lists of `size`; the last one may be shorter.

    If an asynchronous generator gives the rows, it is closed in the end, whatever
    the end is.

    Args:
        rows: Any number of them; they are never held all at once.
        size: How many make a chunk.
        arguments: Makes the arguments of a call of a row.

    Raises:
        TypeError: The function can't be called with a row; it says with which.
    """
    chunk: list[Row] = []
    number = 0
    async with aclosing(_each(rows)) as each:
        async for row in each:
            try:
                chunk.append(arguments(row))
            except TypeError as error:
                raise TypeError(f"row {number}: {error}") from error
            number += 1
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


async def _each(rows: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if not isinstance(rows, AsyncIterable):
        for row in rows:
            yield row
        return
    try:
        async for row in rows:
            yield row
    finally:
        close: Any = getattr(rows, "aclose", None)
        if close is not None:
            await close()


class Mapping:
    """Sends chunks of rows: while some are on their way, the next are encoded.

    Args:
        task: The name of the task, for errors.
        encode: Makes what is to be published for a chunk.
        publish: Publishes that; by position, what has met those that were not stored.
    """

    def __init__(self, task: str, encode: Encode, publish: Publish) -> None:
        self._task = task
        self._encode = encode
        self._publish = publish
        self._batch: list[tuple[range, Publication]] = []
        self._flight: asyncio.Task[dict[range, RmqarqError]] | None = None
        self._taken = 0

    async def send(self, chunks: Chunks) -> int:
        """Send all chunks.

        Returns:
            How many rows there were.

        Raises:
            EncodeError: A row that can't travel; the chunks before its own are sent.
            PartlyMapped: Some chunks were not stored for certain.
        """
        try:
            async with aclosing(chunks):
                await self._take(chunks)
            await self._depart()
            await self._arrive()
        finally:
            if self._flight is not None:
                self._flight.cancel()
        return self._taken

    async def _take(self, chunks: Chunks) -> None:
        try:
            async for rows in chunks:
                await self._add(rows)
        except PartlyMapped:
            raise
        except Exception:  # of a row, or of what gives the rows
            await self._depart()
            await self._arrive()
            raise

    async def _add(self, rows: Sequence[Row]) -> None:
        first = self._taken
        try:
            made = await self._encode(rows)
        except EncodeError as error:
            raise _in_row(error, first, len(rows)) from error
        self._taken += len(rows)
        span = range(first, self._taken)
        self._batch += [(span, publication) for publication in made]
        # rows may come slowly, and their time runs: none waits for others to come
        under_way = self._flight is not None and not self._flight.done()
        if not under_way or len(self._batch) >= BATCH:
            await self._depart()

    async def _depart(self) -> None:
        """Send what is encoded, once what was sent before has arrived."""
        batch, self._batch = self._batch, []
        await self._arrive(batch)
        if batch:
            self._flight = asyncio.create_task(self._fly(batch), name="map")
            await asyncio.sleep(0)

    async def _fly(
        self, batch: Sequence[tuple[range, Publication]]
    ) -> dict[range, RmqarqError]:
        errors = await self._publish([publication for _, publication in batch])
        return {batch[at][0]: error for at, error in errors.items()}

    async def _arrive(self, behind: Sequence[tuple[range, Publication]] = ()) -> None:
        """Wait for what is on its way.

        Args:
            behind: What would follow; it is not sent if something was not stored.

        Raises:
            PartlyMapped: That is so.
        """
        if self._flight is None:
            return
        failures = await self._flight
        self._flight = None
        if not failures:
            return
        sent = behind[0][0].start if behind else self._taken
        raise _partly(self._task, failures, sent)


def _partly(task: str, failures: dict[range, RmqarqError], sent: int) -> PartlyMapped:
    first = failures[min(failures, key=lambda rows: rows.start)]
    error = PartlyMapped(
        "{failed} of {sent} rows for {task} were not stored for certain; the first:"
        " {problem}",
        failed=sum(map(len, failures)),
        sent=sent,
        task=task,
        problem=phrase_of(first),
    )
    error.failures = dict(failures)
    error.sent = sent
    error.__cause__ = first
    return error


def _in_row(error: EncodeError, first: int, size: int) -> EncodeError:
    """Say which row it is, or of which rows the chunk is that can't be sent."""
    if error.row is None:
        return EncodeError(
            "rows {first} to {last}: {problem}; a smaller chunk may help",
            first=first,
            last=first + size - 1,
            problem=phrase_of(error),
        )
    found = EncodeError(
        "row {row}: {problem}", row=first + error.row, problem=phrase_of(error)
    )
    found.row = first + error.row
    return found
