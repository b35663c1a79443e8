"""A chunk: many jobs that came in one message, each settled for itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.wire.codec import Codec, Decoded, Envelope
    from rmqarq.wire.consumer import Consumer, Delivery


class Share:
    """One job of a chunk; it looks like a delivery of its own.

    The broker knows nothing of it: the chunk is acknowledged when each of its jobs has
    been settled. So a job goes on when the link is lost, whatever becomes of its chunk.

    Attributes:
        decoded: The job as a message of its own.
        settled: Whether it has been acked or given back.
    """

    __slots__ = ("_chunk", "_number", "decoded", "settled")

    suspect = False
    alive = True

    def __init__(self, chunk: Chunk, number: int, decoded: Decoded) -> None:
        self._chunk = chunk
        self._number = number
        self.decoded = decoded
        self.settled = False

    @property
    def body(self) -> bytes:
        """Its payload, as if it had come alone, written and packed as its chunk."""
        # id and task, which its chunk may have had in properties, may be too much for
        # `max_body`; but it must go somewhere, to the dead letters at least
        decoded = self.decoded
        written = self._chunk.codec.encode_again(
            decoded.message, decoded, limited=False
        )
        return written.body

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._chunk.delivery.queue

    @property
    def home(self) -> str:
        """The work queue that this belongs to."""
        return self._chunk.delivery.home

    @property
    def consumer(self) -> Consumer:
        """What received its chunk."""
        return self._chunk.delivery.consumer

    @property
    def redelivered(self) -> bool:
        """Whether the broker had delivered its chunk before."""
        return self._chunk.delivery.redelivered

    @property
    def exchange(self) -> bytes:
        """Where its chunk was published."""
        return self._chunk.delivery.exchange

    @property
    def routing_key(self) -> bytes:
        """Under which key."""
        return self._chunk.delivery.routing_key

    @property
    def properties(self) -> bytes:
        """The encoded properties of its chunk."""
        return self._chunk.delivery.properties

    @property
    def headers(self) -> Mapping[str, Any]:
        """The AMQP headers of its chunk.

        Raises:
            PropertyError: They can't be read.
        """
        return self._chunk.delivery.headers

    def ack(self) -> None:
        """Tick it off."""
        self._settle(returned=False)

    def release(self) -> None:
        """Give it back: it goes on in a smaller chunk."""
        self._settle(returned=True)

    def _settle(self, *, returned: bool) -> None:
        if not self.settled:
            self.settled = True
            self._chunk.tick(self._number, returned=returned)


class Chunk:
    """The jobs of a message, and which of them are still to be done.

    Args:
        delivery: What was received. A redelivery may be settled in its place, but says
            nothing new of the jobs: that they had to come again is no fault of theirs.
        decoded: The same, read.
        codec: Writes what goes on alone.

    Attributes:
        delivery: As it was received.
        codec: The same.
        shares: Its jobs.
    """

    def __init__(
        self, delivery: Delivery | Share, decoded: Decoded, codec: Codec
    ) -> None:
        self.delivery = delivery
        self._decoded = decoded
        self.codec = codec
        # it is the chunk that can be recognised, not its jobs
        self.shares = [
            Share(self, number, decoded._replace(message=message, ours=False))
            for number, message in enumerate(decoded.message.jobs())
        ]
        self._open = len(self.shares)
        self._returned: list[int] = []
        self._done = asyncio.get_running_loop().create_future()

    def tick(self, number: int, *, returned: bool) -> None:
        """Take note that one of its jobs is settled.

        Args:
            number: Its position.
            returned: Whether it was given back.
        """
        self._open -= 1
        if returned:
            self._returned.append(number)
        if not self._open and not self._done.done():
            self._done.set_result(None)

    async def rest(self) -> Envelope | None:
        """Wait until each job is settled.

        Returns:
            A chunk of those that were given back; `None` if there are none.
        """
        await self._done
        whole = self._decoded.message
        if not self._returned:
            return None
        numbers = whole.numbers or range(len(whole.rows))
        left = sorted(self._returned)
        return msgspec.structs.replace(
            whole,
            rows=tuple(whole.rows[at] for at in left),
            numbers=tuple(numbers[at] for at in left),
        )
