"""How the messages of a queue are read and sent on: jobs of ours, or foreign ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Raw

from rmqarq.job import new_job_id
from rmqarq.wire import properties
from rmqarq.wire.foreign import ForeignCodec, message_of
from rmqarq.wire.origin import TASK, origin_of
from rmqarq.wire.properties import NO_HEADERS, Header, Properties, PropertyError
from rmqarq.wire.publication import Forward, Letter, Post, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rmqarq.handler import Handler
    from rmqarq.message import Message
    from rmqarq.wire.codec import Codec, Decoded
    from rmqarq.wire.origin import Arrival


class Format(Protocol):
    """What differs between a queue of ours and one of somebody else."""

    def decode(self, arrival: Arrival) -> Decoded:
        """Read a message.

        Raises:
            DecodeError: It can't be read.
        """
        ...

    def copy(
        self, arrival: Arrival, message: Message | None, headers: Mapping[str, Header]
    ) -> Post:
        """Make a message of the same body, with these headers of ours.

        Args:
            arrival: What has come.
            message: The same, read; `None` if it can't be.
            headers: Bookkeeping.
        """
        ...

    def again(
        self,
        arrival: Arrival,
        decoded: Decoded,
        message: Message,
        headers: Mapping[str, Header],
    ) -> Post:
        """Make the message of a further attempt.

        Args:
            arrival: What has come.
            decoded: The same, read.
            message: What it shall say now.
            headers: Bookkeeping.

        Raises:
            EncodeError: It would be larger than `max_body`.
        """
        ...


class JobFormat:
    """Jobs of ours: all that we know of one stands in its body."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def decode(self, arrival: Arrival) -> Decoded:
        """Read a job."""
        return self._codec.decode(arrival.properties, arrival.body)

    def copy(
        self, arrival: Arrival, message: Message | None, headers: Mapping[str, Header]
    ) -> Post:
        """Take over the body as it came, but none of its headers.

        A copied `x-death` makes RabbitMQ before 4.0.1 drop a message as a cycle.
        """
        found = _properties(arrival)
        task = message.task if message is not None else found.type or ""
        job_id = message.id if message is not None else found.correlation_id or ""
        return Letter(
            task=shortened(task),
            job_id=shortened(job_id),
            body=arrival.body,
            content_type=found.content_type,
            content_encoding=found.content_encoding,
            priority=found.priority or 0,
            headers=headers,
            timestamp=found.timestamp,
        )

    def again(
        self,
        arrival: Arrival,
        decoded: Decoded,
        message: Message,
        headers: Mapping[str, Header],
    ) -> Post:
        """Write the body anew."""
        encoded = self._codec.encode_again(message, decoded)
        return Letter(
            task=shortened(message.task),
            job_id=shortened(message.id),
            body=encoded.body,
            content_type=encoded.content_type,
            content_encoding=encoded.content_encoding,
            priority=_properties(arrival).priority or 0,
            headers=headers,
            timestamp=int(self._codec.clock()),
        )


class ForeignFormat:
    """Messages of other producers: they stay as they are, what we know is in headers.

    Args:
        codec: Unpacks bodies.
        handler: Who takes them.
    """

    def __init__(self, codec: Codec, handler: Handler[Any, Any]) -> None:
        self._codec = ForeignCodec(codec, handler.name, new_job_id)
        self._clock = codec.clock
        self._task = handler.name

    def decode(self, arrival: Arrival) -> Decoded:
        """Read a message, but for the type of its body."""
        return self._codec.decode(arrival)

    def copy(
        self, arrival: Arrival, message: Message | None, headers: Mapping[str, Header]
    ) -> Post:
        """Take over body and properties; those that can't be read are left out."""
        try:
            origin = origin_of(arrival)
        except PropertyError:
            return Letter(
                task=shortened(self._task),
                job_id=shortened(message.id if message is not None else new_job_id()),
                body=arrival.body,
                content_type=None,
                headers={TASK: self._task, **headers},
            )
        message = message or message_of(
            origin, self._task, Raw(b""), new_job_id, self._clock
        )
        return Forward(
            task=message.task,
            job_id=message.id,
            body=arrival.body,
            properties=arrival.properties,
            headers={**origin.bookkeeping(message), **headers},
        )

    def again(
        self,
        arrival: Arrival,
        decoded: Decoded,
        message: Message,
        headers: Mapping[str, Header],
    ) -> Post:
        """Change nothing but the bookkeeping."""
        return self.copy(arrival, message, headers)


class Formats:
    """The format of each queue.

    Args:
        codec: For jobs.
        handlers: Who takes foreign messages, by queue.
    """

    def __init__(self, codec: Codec, handlers: Mapping[str, Handler[Any, Any]]) -> None:
        self._jobs = JobFormat(codec)
        self._foreign = {
            queue: ForeignFormat(codec, handler) for queue, handler in handlers.items()
        }

    def of(self, queue: str) -> Format:
        """Give the format of a work queue and its suspects."""
        return self._foreign.get(queue, self._jobs)


def _properties(arrival: Arrival) -> Properties:
    """Read what can be read; a message with unreadable properties has none."""
    try:
        return properties.decode(arrival.properties)
    except PropertyError:
        return Properties(headers=NO_HEADERS)
