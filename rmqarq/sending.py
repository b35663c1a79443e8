"""Sends calls through the middleware to the broker, one or many at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from rmqarq.job import Job
from rmqarq.middleware import enqueue_chain, wraps_enqueue
from rmqarq.outbox import Outbox, partly
from rmqarq.priorities import Priorities
from rmqarq.rows import Mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.errors import RmqarqError
    from rmqarq.job import JobSpec
    from rmqarq.message import Message
    from rmqarq.middleware import Middleware
    from rmqarq.rows import Chunks, Row
    from rmqarq.settings import Settings
    from rmqarq.transports import Surroundings, Transports
    from rmqarq.wire.publication import Publication

R = TypeVar("R")


class Sending:
    """What an App enqueues with.

    Args:
        settings: What applies.
        middleware: Those of them that wrap enqueueing do.
        transports: The way to the broker.
        around: Gives the time, and is told what was stored.
    """

    def __init__(
        self,
        settings: Settings,
        middleware: Sequence[Middleware],
        transports: Transports,
        around: Surroundings,
    ) -> None:
        self._outbox = Outbox(settings, around.clock)
        self._wrapping = wraps_enqueue(middleware)
        self._transports = transports
        self._note = around.note
        self._priorities = Priorities(settings)
        self._patience = settings.publish_deadline

    async def one(self, spec: JobSpec[R], queue: str) -> Job[R]:
        """Send one call to a queue; it raises what `App.enqueue` does."""
        if spec.options.priority:
            await self._mention_priorities()
        if self._wrapping:
            return await self._wrapped(spec, queue)
        order, publication = self._outbox.direct(spec, queue)
        await self._transports.here().publish(publication, self._deadline())
        if self._note is not None:
            self._note(publication)
        return Job(order.message.id, spec.task, order.queue)

    async def _wrapped(self, spec: JobSpec[R], queue: str) -> Job[R]:
        order = self._outbox.order(spec, queue)

        sent = order.message.id

        async def send(message: Message) -> None:
            nonlocal sent
            sent = message.id
            publication = self._outbox.publication(message, order)
            await self._transports.here().publish(publication, self._deadline())
            if self._note is not None:
                self._note(publication)

        await enqueue_chain(self._wrapping, send)(order.message)
        return Job(sent, spec.task, order.queue)

    async def many(
        self, jobs: Sequence[JobSpec[R]], queues: Sequence[str]
    ) -> list[Job[R]]:
        """Send calls, each to its queue; it raises what `App.enqueue_many` does."""
        handles, positions, publications = await self._encoded(jobs, queues)
        if any(spec.options.priority for spec in jobs):
            await self._mention_priorities()
        errors = await self._publish_all(publications)
        if errors:
            failed: dict[int, Any] = {
                positions[at]: error for at, error in errors.items()
            }
            raise partly(handles, failed)
        return handles

    async def rows(self, spec: JobSpec[Any], queue: str, chunks: Chunks) -> int:
        """Send chunks of calls to a queue; it raises what `Task.map` does."""
        if spec.options.priority:
            await self._mention_priorities()

        async def encode(rows: Sequence[Row]) -> list[Publication]:
            order = self._outbox.order(spec, queue, rows)
            _, made, _ = await self._outbox.publications([order], self._wrapping)
            return made

        return await Mapping(spec.task, encode, self._publish_all).send(chunks)

    async def _publish_all(
        self, publications: Sequence[Publication]
    ) -> dict[int, RmqarqError]:
        transport = self._transports.here()
        errors = await transport.publish_many(publications, self._patience)
        if self._note is not None:
            for at, publication in enumerate(publications):
                if at not in errors:
                    self._note(publication)
        return errors

    async def _encoded(
        self, jobs: Sequence[JobSpec[R]], queues: Sequence[str]
    ) -> tuple[list[Job[R]], Sequence[int], list[Publication]]:
        """Encode a batch; for each publication, the position of what it belongs to."""
        pairs = zip(jobs, queues, strict=True)
        if not self._wrapping:
            made = [self._outbox.direct(spec, queue) for spec, queue in pairs]
            handles: list[Job[R]] = [
                Job(o.message.id, o.message.task, o.queue) for o, _ in made
            ]
            return handles, range(len(made)), [publication for _, publication in made]
        orders = [self._outbox.order(spec, queue) for spec, queue in pairs]
        positions, publications, ids = await self._outbox.publications(
            orders, self._wrapping
        )
        handles = [
            Job(sent, order.message.task, order.queue)
            for sent, order in zip(ids, orders, strict=True)
        ]
        return handles, positions, publications

    async def _mention_priorities(self) -> None:
        await self._priorities.mention(self._transports.here(), self._deadline())

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._patience
