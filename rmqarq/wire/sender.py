"""Publishes until it is stored, refused for good, or too late."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from rmqarq.errors import (
    ConnectionFailed,
    ConnectionLost,
    OutcomeUnknown,
    Phrase,
    QueueFull,
    RmqarqError,
    TransportError,
    Unroutable,
)
from rmqarq.wire import declare
from rmqarq.wire.attempts import Attempts
from rmqarq.wire.connection import ChannelRefused
from rmqarq.wire.declarer import written
from rmqarq.wire.publisher import PublishChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.wire.declarer import Declarer
    from rmqarq.wire.link import Link
    from rmqarq.wire.publication import Publication

RENEWAL = 0.1
LINGER = 60.0
ALONE = 16


class Sender:
    """Publishes over one link, on a channel that is made anew when need be.

    Args:
        link: Leads to the broker.
        declarer: Sees to it that queues are there.
    """

    def __init__(self, link: Link, declarer: Declarer) -> None:
        self._link = link
        self._declarer = declarer
        self._channel: PublishChannel | None = None
        self._opening = asyncio.Lock()
        self._alone = asyncio.Semaphore(ALONE)

    async def send(
        self, batch: Sequence[Publication], deadline: float
    ) -> dict[int, RmqarqError]:
        """Publish a batch that fits the window of a channel.

        Args:
            batch: The messages.
            deadline: Time of the event loop.

        Returns:
            By position, the error of each that was not stored for certain.
        """
        errors = await self._once(batch, deadline)
        if errors:
            errors = await self._repeat(batch, errors, deadline)
        return errors

    async def _once(
        self, batch: Sequence[Publication], deadline: float
    ) -> dict[int, RmqarqError]:
        channel = self._channel
        ready = batch
        if channel is not None:
            ready = written(batch, channel.connection)
        try:
            if channel is None or not self._ready(channel, ready):
                channel, ready = await self._make_ready(batch, deadline)
        except TransportError as error:
            if isinstance(error, ConnectionLost):
                error.unsent = True
            error.__traceback__ = None  # its frames hold the messages
            return dict.fromkeys(range(len(batch)), error)
        receipt = channel.send(ready, deadline)
        await receipt.done
        if receipt.errors:
            self._doubt(channel, receipt.errors)
            self._declarer.learn(channel.connection, receipt.errors.values())
        return receipt.errors

    def _doubt(self, channel: PublishChannel, errors: dict[int, RmqarqError]) -> None:
        """Open another channel after a nack, or no answer: it may be the cause.

        One that is first used while the node of a quorum queue's leader dies asks that
        node until it is back (RabbitMQ, `rabbit_fifo_client`); a new one does not.
        """
        if self._channel is not channel or channel.age <= RENEWAL:
            return
        kinds = {type(error) for error in errors.values()}
        if QueueFull in kinds or OutcomeUnknown in kinds:
            self._channel = None
            channel.retire(LINGER if OutcomeUnknown in kinds else 0.0)

    def _ready(self, channel: PublishChannel, batch: Sequence[Publication]) -> bool:
        if not channel.usable or not channel.has_room(len(batch)):
            return False
        ensured = channel.connection.ensured
        for each in batch:  # noqa: SIM110 - a generator costs more than the rest
            if not ensured.issuperset(each.needs):
                return False
        return True

    async def _make_ready(
        self, batch: Sequence[Publication], deadline: float
    ) -> tuple[PublishChannel, Sequence[Publication]]:
        """Give a channel on which the batch may be sent in this very step.

        Returns:
            The channel, and the batch as it is written for the broker it leads to.
        """
        while True:
            channel = await self._open_channel(deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._declarer.prepare(channel.connection, batch)
            except TimeoutError:
                raise channel.too_late(sent=False) from None
            size = sum(len(each.body) for each in batch)
            await channel.wait_for_room(len(batch), size, deadline)
            ready = written(batch, channel.connection)
            needs = {need for each in ready for need in each.needs}
            if channel.usable and channel.connection.ensured >= needs:
                return channel, ready

    async def _open_channel(self, deadline: float) -> PublishChannel:
        channel = self._channel
        if channel is not None and not channel.usable:
            # when a channel dies alone, frames of ours may still be on their way to
            # it, which would cost the connection later (504): start afresh
            channel.connection.abort(Phrase("its channel was closed"))
            self._channel = None
        connection = await self._link.connection(deadline)
        try:
            async with asyncio.timeout_at(deadline), self._opening:
                if self._channel is None or not self._channel.usable:
                    opened = await connection.channel(confirms=True)
                    self._channel = PublishChannel(connection, opened)
                return self._channel
        except TimeoutError:
            raise ConnectionFailed(
                "the broker did not open a channel in time"
            ) from None

    async def _repeat(
        self,
        batch: Sequence[Publication],
        errors: dict[int, RmqarqError],
        deadline: float,
    ) -> dict[int, RmqarqError]:
        """Publish again what was lost or had no queue; give the final errors."""
        final: dict[int, RmqarqError] = {}
        attempts = Attempts(deadline)
        while errors:
            again: list[int] = []
            alone: list[int] = []
            for at, error in errors.items():
                if not attempts.worth_another(at, error):
                    final[at] = attempts.judged(at, error)
                elif isinstance(error, ConnectionLost) and error.refusal:
                    alone.append(at)
                else:
                    again.append(at)
            refused = await self._each_alone(batch, alone, deadline)
            for at, error in refused.items():
                clear = isinstance(error, Unroutable)
                final[at] = error if clear else attempts.judged(at, error)
            if not again:
                break
            if attempts.unroutable and self._channel is not None:
                self._channel.connection.ensured.clear()  # a queue was deleted
            await attempts.pause()
            failed = await self._once([batch[at] for at in again], deadline)
            errors = {again[at]: error for at, error in failed.items()}
        return final

    async def _each_alone(
        self, batch: Sequence[Publication], places: list[int], deadline: float
    ) -> dict[int, RmqarqError]:
        """Find out which of these cost the others their channel, and store the rest."""
        tries = (self._publish_alone(batch[at], deadline) for at in places)
        outcomes = await asyncio.gather(*tries)
        pairs = zip(places, outcomes, strict=True)
        return {at: outcome for at, outcome in pairs if outcome is not None}

    async def _publish_alone(
        self, publication: Publication, deadline: float
    ) -> RmqarqError | None:
        """Publish on a channel of its own what may have cost others theirs.

        Its link may go with the channel of another one; then it is tried again.

        Returns:
            What the broker has against it; `None` when it is stored.
        """
        loop = asyncio.get_running_loop()
        while True:
            async with self._alone:
                outcome = await self._try_alone(publication, deadline)
            if not isinstance(outcome, ConnectionLost) or loop.time() >= deadline:
                return outcome
            if outcome.refusal:
                text = str(outcome.params["cause"])
                refusal = ChannelRefused(outcome.refusal, text)
                return declare.explained(refusal, publication.routing_key)
            await asyncio.sleep(random.uniform(0.01, 0.1))

    async def _try_alone(
        self, publication: Publication, deadline: float
    ) -> RmqarqError | None:
        try:
            usual, ready = await self._make_ready((publication,), deadline)
            async with asyncio.timeout_at(deadline):
                opened = await usual.connection.channel(confirms=True)
        except TimeoutError:
            return ConnectionFailed("the broker did not open a channel in time")
        except RmqarqError as error:
            return error
        channel = PublishChannel(usual.connection, opened)
        if not channel.usable:  # the link went in the very turn that opened it
            return usual.connection.lost()
        receipt = channel.send(ready, deadline)
        await receipt.done
        channel.retire()
        self._declarer.learn(usual.connection, receipt.errors.values())
        return receipt.errors.get(0)
