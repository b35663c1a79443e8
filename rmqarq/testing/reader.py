"""Reads what a test wants to see out of messages as they lie in the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rmqarq import letters
from rmqarq.errors import DecodeError
from rmqarq.message import Message
from rmqarq.testing.sightings import Dead, Delayed, Enqueued, moment
from rmqarq.wire.codec import UNREADABLE, Codec, typed_decoder
from rmqarq.worker.formats import Formats

if TYPE_CHECKING:
    from typing import TypeAlias

    from rmqarq.app import App
    from rmqarq.wire.codec import Decoded
    from rmqarq.wire.publication import Publication

    Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

HEADER = 12
"""Bytes of a content header before the properties: class, weight and body size (AMQP
0-9-1, section 4.2.6.1)."""


class Lying(NamedTuple):
    """A message that lies in a queue.

    Args:
        home: The work queue that it belongs to.
        exchange: Where it was published, or last dead-lettered to.
        routing_key: Under which key.
        properties: Its encoded properties.
        body: Its payload.
    """

    home: str
    exchange: bytes
    routing_key: bytes
    properties: bytes
    body: bytes


class Reader:
    """Reads messages as the worker of an App does.

    Args:
        app: Whose tasks they are for.
    """

    def __init__(self, app: App[Any]) -> None:
        self._codec = Codec(app.settings, app.clock)
        self._formats = Formats(self._codec, app.registry.handlers)
        self._registry = app.registry

    def published(self, publication: Publication) -> tuple[Lying, Decoded]:
        """Read what an App has just sent."""
        queue = publication.routing_key
        lying = Lying(
            queue, b"", queue.encode(), publication.template.fill(b""), publication.body
        )
        return lying, self.decode(lying)

    def decode(self, lying: Lying) -> Decoded:
        """Read a message, but for its arguments.

        Raises:
            DecodeError: It can't be read.
        """
        return self._formats.of(lying.home).decode(lying)

    def enqueued(self, publication: Publication) -> list[Enqueued]:
        """Tell what was sent: a job, or a chunk of them."""
        lying, decoded = self.published(publication)
        return [self._enqueued(lying, each) for each in jobs_of(decoded)]

    def _enqueued(self, lying: Lying, decoded: Decoded) -> Enqueued:
        message = decoded.message
        args, kwargs = self._arguments(lying.home, decoded)
        return Enqueued(
            task=message.task,
            args=args,
            kwargs=kwargs,
            id=message.id,
            queue=lying.home,
            at=moment(message.enqueued_at),
            eta=None if message.eta is None else moment(message.eta),
            headers=dict(message.headers),
        )

    def message(self, lying: Lying, decoded: Decoded) -> Message:
        """Give a message with its arguments as the function gets them."""
        args, kwargs = self._arguments(lying.home, decoded)
        fields: dict[str, Any] = msgspec.structs.asdict(decoded.message)
        fields.update(args=args, kwargs=kwargs)
        return Message(**fields)

    def delayed(self, lying: Lying) -> list[Delayed]:
        """Tell what waits: a job, a chunk of them, or what can't be read."""
        try:
            found = jobs_of(self.decode(lying))
        except DecodeError:
            nameless = Delayed(
                task="",
                args=(lying.body,),
                kwargs={},
                id="",
                queue=lying.home,
                due=None,
            )
            return [nameless]
        return [self._delayed(lying, each) for each in found]

    def _delayed(self, lying: Lying, decoded: Decoded) -> Delayed:
        message = decoded.message
        args, kwargs = self._arguments(lying.home, decoded)
        return Delayed(
            task=message.task,
            args=args,
            kwargs=kwargs,
            id=message.id,
            queue=lying.home,
            due=None if message.eta is None else moment(message.eta),
            job_try=message.job_try,
        )

    def dead(self, lying: Lying) -> Dead:
        """Tell what a dead letter says."""
        args, kwargs = self._read(lying)
        letter = letters.read(lying, self._codec, lying.home)
        return Dead(
            task=letter.task,
            args=args,
            kwargs=kwargs,
            id=letter.id,
            queue=letter.queue,
            reason=letter.reason or "",
            error=letter.error,
            message=letter.message,
            traceback=letter.traceback,
            tries=letter.attempts or 0,
            at=None if letter.died_at is None else moment(letter.died_at),
        )

    def _read(self, lying: Lying) -> Arguments:
        try:
            decoded = self.decode(lying)
        except DecodeError:
            return (lying.body,), {}
        return self._arguments(lying.home, decoded)

    def _arguments(self, home: str, decoded: Decoded) -> Arguments:
        """Give the arguments as the function gets them, or as they are written."""
        message = decoded.message
        task = self._registry.find(home, message.task)
        if task is not None:
            try:
                return task.decode(decoded)
            except DecodeError:
                pass
        if decoded.origin is not None:
            return (bytes(message.args),), {}
        try:
            plain = typed_decoder(decoded.serializer, Any)
            args: Any = plain.decode(message.args) if message.args else ()
            kwargs: Any = plain.decode(message.kwargs) if message.kwargs else {}
            return tuple(args), dict(kwargs)
        except UNREADABLE:
            return (bytes(message.args),), {}


def jobs_of(decoded: Decoded) -> list[Decoded]:
    """Give the jobs of a chunk; any other message is one itself."""
    if not decoded.message.rows:
        return [decoded]
    return [decoded._replace(message=each) for each in decoded.message.jobs()]
