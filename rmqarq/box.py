"""A queue of dead letters or lost messages: read them, put them back, drop them.

A letter is put back by publishing it, confirmed, and only then taken out. Whatever ends
the program between the two leaves it in both places, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from rmqarq import letters
from rmqarq.errors import CodecError, RmqarqError, Unroutable
from rmqarq.letters import DeadLetter
from rmqarq.wire.codec import Codec
from rmqarq.wire.publication import Publication

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from typing import TypeAlias

    from rmqarq.admin import Admin
    from rmqarq.letters import Contents, Filter
    from rmqarq.settings import Settings
    from rmqarq.wire.consumer import Delivery
    from rmqarq.wire.publication import Post
    from rmqarq.wire.reading import Reading

    Progress: TypeAlias = Callable[[int, int], None]
    Fitting: TypeAlias = list[tuple[Delivery, DeadLetter]]
    Ready: TypeAlias = list[tuple[Delivery, DeadLetter, Publication]]

T = TypeVar("T")


class Listing(Struct):
    """What was found.

    Args:
        there: How many letters the queue holds.
        seen: How many of them were looked at.
        fit: How many of these fit.
        letters: The first of those, up to the limit, without their tracebacks.
    """

    there: int = 0
    seen: int = 0
    fit: int = 0
    letters: list[DeadLetter] = []


class Tally(Struct):
    """What was done.

    Args:
        there: How many letters the queue held.
        seen: How many of them were looked at.
        fit: How many of these fit.
        done: How many were put back or dropped.
        ids: Which of the job ids that were asked for.
        refused: How many fit and had to stay.
        why: Why the first of those had to stay.
        error: What ended it before its end.
    """

    there: int = 0
    seen: int = 0
    fit: int = 0
    done: int = 0
    ids: set[str] = set()
    refused: int = 0
    why: RmqarqError | None = None
    error: RmqarqError | None = None

    def count(self, letter: DeadLetter, chosen: Filter) -> None:
        """Take note of a letter that was put back or dropped."""
        self.done += 1
        if letter.id in chosen.ids:
            self.ids.add(letter.id)


class Box:
    """One such queue.

    Args:
        admin: The way to the broker.
        settings: What applies.
        queue: The queue of the letters.
        home: The queue that they came from; `None` for lost messages, whose routing
            key names where they were due.
        progress: Called from time to time with how many letters have been looked at,
            and how many there are.
    """

    def __init__(
        self,
        admin: Admin,
        settings: Settings,
        queue: str,
        home: str | None,
        progress: Progress,
    ) -> None:
        self._admin = admin
        self._codec = Codec(settings)
        self._queue = queue
        self.home = home
        self._progress = progress

    async def find(self, chosen: Filter, limit: int | None) -> Listing:
        """Read the letters that fit, the first `limit` of them.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke.
            AccessRefused: The user may not read the queue.
        """
        found = Listing()
        async with aclosing(self._fitting(chosen, found, limit)) as batches:
            async for _, fitting in batches:
                found.letters += [
                    msgspec.structs.replace(letter, traceback=None)  # long, for a list
                    for _, letter in fitting
                ]
        return found

    async def show(self, chosen: Filter) -> list[tuple[DeadLetter, Contents]]:
        """Read the letters that fit, with their bodies.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke.
            AccessRefused: The user may not read the queue.
        """
        found: list[tuple[DeadLetter, Contents]] = []
        async with aclosing(self._fitting(chosen, Listing(), None)) as batches:
            async for _, fitting in batches:
                found += [
                    (letter, letters.open_up(delivery, self._codec))
                    for delivery, letter in fitting
                ]
        return found

    async def drop(self, chosen: Filter, limit: int | None) -> Tally:
        """Delete the letters that fit, the first `limit` of them, for good.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke; what was dropped may come back.
            AccessRefused: The user may not read the queue.
        """
        tally = Tally()
        async with aclosing(self._fitting(chosen, tally, limit)) as batches:
            async for reading, fitting in batches:
                for delivery, letter in fitting:
                    reading.ack(delivery)
                    tally.count(letter, chosen)
        return tally

    async def requeue(
        self, chosen: Filter, limit: int | None, *, to: str | None, as_is: bool
    ) -> Tally:
        """Put the letters that fit back, the first `limit` of them.

        A dead letter begins anew; a lost message goes on where it was.

        Args:
            chosen: Which.
            limit: How many at most.
            to: A queue other than the one that they came from.
            as_is: Send letters that can't be read byte for byte.

        Returns:
            What was done; with the error that ended it, if one did.

        Raises:
            NotFound: There is no such queue.
            TransportError: The link broke; some may be in both queues.
            AccessRefused: The user may not read the queue.
        """
        tally = Tally()
        async with aclosing(self._fitting(chosen, tally, limit)) as batches:
            async for reading, fitting in batches:
                ready = self._ready(fitting, tally, to=to, as_is=as_is)
                errors = await _to_its_end(self._move(reading, ready))
                for at, (_, letter, _) in enumerate(ready):
                    if at not in errors:
                        tally.count(letter, chosen)
                if not _go_on(errors, tally):
                    break
        return tally

    async def _move(self, reading: Reading, ready: Ready) -> dict[int, RmqarqError]:
        """Publish, confirmed; then take out what is stored."""
        errors = await self._admin.publish([each[2] for each in ready])
        for at, (delivery, _, _) in enumerate(ready):
            if at not in errors:
                reading.ack(delivery)
        return errors

    def _ready(
        self, fitting: Fitting, tally: Tally, *, to: str | None, as_is: bool
    ) -> Ready:
        """Make what is to be published; count what has to stay."""
        ready: Ready = []
        for delivery, letter in fitting:
            if not delivery.alive:  # it could not be taken out any more
                break
            try:
                again = self._again(delivery, as_is=as_is)
            except CodecError as error:
                tally.refused += 1
                tally.why = tally.why or error
            else:
                publication = _publication(again, to or letter.queue)
                ready.append((delivery, letter, publication))
        return ready

    def _again(self, delivery: Delivery, *, as_is: bool) -> Post:
        if self.home is None:
            return letters.unchanged(delivery)
        try:
            return letters.revived(delivery, self._codec)
        except CodecError:
            if not as_is:
                raise
            return letters.unchanged(delivery)

    async def _fitting(
        self, chosen: Filter, count: Listing | Tally, limit: int | None
    ) -> AsyncGenerator[tuple[Reading, Fitting]]:
        """Give the letters that fit, batch by batch, and count what was looked at.

        It goes on to the end of the queue when `limit` is reached: a queue of which
        only a part was read gives that part back behind what others gave back before.
        """
        now = time.time()
        left = limit
        async with (
            self._admin.reading(self._queue) as (reading, there),
            aclosing(reading.batches()) as batches,
        ):
            count.there = there
            async for batch in batches:
                read = [
                    (each, letters.read(each, self._codec, self.home)) for each in batch
                ]
                fitting = [pair for pair in read if chosen.fits(pair[1], now)]
                count.seen += len(batch)
                count.fit += len(fitting)
                self._progress(count.seen, there)
                yield reading, fitting[:left]
                left = None if left is None else max(0, left - len(fitting))


async def _to_its_end(act: Coroutine[Any, Any, T]) -> T:
    """Finish what has begun, even when somebody presses Ctrl-C meanwhile."""
    task = asyncio.ensure_future(act)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def _go_on(errors: dict[int, RmqarqError], tally: Tally) -> bool:
    """Let stay what has no queue to go to; any other error ends it all."""
    for error in errors.values():
        if not isinstance(error, Unroutable):
            tally.error = error
            return False
        tally.refused += 1
        tally.why = tally.why or error
    return True


def _publication(letter: Post, queue: str) -> Publication:
    """Send to a queue that must be there: putting letters back creates none."""
    return Publication("", queue, letter.template(letter.headers), letter.body, ())
