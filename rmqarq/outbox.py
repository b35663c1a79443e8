"""Calls on their way out: named, dated, encoded and addressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rmqarq.errors import EncodeError, PartlyEnqueued, phrase_of
from rmqarq.job import new_job_id
from rmqarq.message import Message
from rmqarq.middleware import enqueue_chain
from rmqarq.when import seconds_until, wall_clock
from rmqarq.wire.codec import Codec
from rmqarq.wire.delay import Wait
from rmqarq.wire.names import Names
from rmqarq.wire.properties import PropertyError
from rmqarq.wire.publication import Letter, Publication, delayed, immediate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rmqarq.errors import RmqarqError
    from rmqarq.job import Job, JobSpec
    from rmqarq.middleware import Middleware
    from rmqarq.settings import Settings
    from rmqarq.signature import Signature
    from rmqarq.wire.codec import Serializer


class Order(NamedTuple):
    """A call that has its id, its queue and its time."""

    message: Message
    spec: JobSpec[Any]
    queue: str
    wait: Wait | None


class Outbox:
    """Turns calls into publications.

    Args:
        settings: Say how.
        clock: Gives the time.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = wall_clock
    ) -> None:
        self._clock = clock
        self._serializer: Serializer = settings.serializer
        self._validate = settings.validate
        self._codec = Codec(settings)
        self._names = Names(settings.prefix)

    def order(
        self, spec: JobSpec[Any], queue: str, rows: Sequence[tuple[Any, ...]] = ()
    ) -> Order:
        """Give a call its id and its time.

        Args:
            spec: The call.
            queue: Where to.
            rows: For a chunk of calls, the arguments of each.

        Raises:
            TypeError: Its time is no number, timedelta or datetime.
            ValueError: Its time is not finite.
        """
        order = self._order(spec, queue, spec.args, spec.kwargs, rows)
        # middleware may write into them, and they are those of the task
        headers = {**order.message.headers}
        message = msgspec.structs.replace(order.message, headers=headers)
        return order._replace(message=message)

    def direct(self, spec: JobSpec[Any], queue: str) -> tuple[Order, Publication]:
        """Do the same and encode it at once, where no middleware wants to see it.

        Raises:
            TypeError: As for `order`.
            ValueError: As for `order`.
            EncodeError: It can't travel as it is.
        """
        args: Any = spec.args
        kwargs: Any = spec.kwargs
        if spec.signature is not None:
            args, kwargs = spec.signature.encode(
                self._serializer, args, kwargs, validate=self._validate
            )
        order = self._order(spec, queue, args, kwargs or {})
        return order, self._addressed(order.message, order)

    def _order(
        self, spec: JobSpec[Any], queue: str, args: Any, kwargs: Any, rows: Any = ()
    ) -> Order:
        options = spec.options
        now = self._clock()
        delay = 0.0 if spec.when is None else seconds_until(spec.when, now)
        message = Message(
            id=options.job_id or new_job_id(now),
            task=spec.task,
            args=args,
            kwargs=kwargs,
            enqueued_at=now,
            eta=now + delay if delay else None,
            expires=options.expires,
            max_retries=options.max_retries,
            headers=options.headers,
            rows=rows,
        )
        wait = Wait.from_now(delay, self._clock) if delay else None
        return Order(message, spec, queue, wait)

    def publication(self, message: Message, order: Order) -> Publication:
        """Encode a message, as middleware left it, for its way.

        Raises:
            EncodeError: It can't travel as it is.
        """
        if order.spec.signature is not None:
            message = self._written(message, order.spec.signature)
        return self._addressed(message, order)

    def _addressed(self, message: Message, order: Order) -> Publication:
        options = order.spec.options
        content_type, content_encoding, body = self._codec.encode(
            message, options.compression
        )
        letter = Letter(
            task=message.task,
            job_id=message.id,
            body=body,
            content_type=content_type,
            content_encoding=content_encoding,
            priority=options.priority,
            timestamp=int(message.enqueued_at),
        )
        try:
            if order.wait is not None:
                return delayed(letter, order.queue, order.wait, self._names)
            return immediate(letter, order.queue)
        except PropertyError as error:
            raise EncodeError(
                "a message for {task} can't be sent: {problem}",
                task=message.task,
                problem=str(error),
            ) from error

    def _written(self, message: Message, signature: Signature) -> Message:
        """Write down the arguments as the function's parameters want them."""
        if message.rows:
            rows = signature.encode_rows(
                self._serializer, message.rows, validate=self._validate
            )
            return msgspec.structs.replace(message, rows=rows)
        args, kwargs = signature.encode(
            self._serializer, message.args, message.kwargs, validate=self._validate
        )
        return msgspec.structs.replace(message, args=args, kwargs=kwargs or {})

    async def publications(
        self, orders: Sequence[Order], wrapping: Sequence[Middleware]
    ) -> tuple[Sequence[int], list[Publication], list[str]]:
        """Encode a batch, each through the middleware.

        Args:
            orders: The batch.
            wrapping: The middleware.

        Returns:
            The position of the order that each publication belongs to, since a
            middleware may drop a message, or send it twice; the publications; and the
            ids of the orders as they were sent.

        Raises:
            EncodeError: One can't travel as it is.
        """
        positions: list[int] = []
        publications: list[Publication] = []
        ids = [order.message.id for order in orders]
        for position, order in enumerate(orders):

            async def collect(
                message: Message, order: Order = order, position: int = position
            ) -> None:
                if order.message.rows and not message.rows:
                    return  # it has taken out all jobs of a chunk
                publications.append(self.publication(message, order))
                positions.append(position)
                ids[position] = message.id

            await enqueue_chain(wrapping, collect)(order.message)
        return positions, publications, ids


def partly(
    handles: Sequence[Job[Any]], errors: Mapping[int, RmqarqError]
) -> PartlyEnqueued:
    """Make the error for a batch of which some were not stored.

    Args:
        handles: All jobs of the batch.
        errors: By position, what has met those.
    """
    first = errors[min(errors)]
    error = PartlyEnqueued(
        "{failed} of {total} jobs were not stored for certain; the first: {problem}",
        failed=len(errors),
        total=len(handles),
        problem=phrase_of(first),
    )
    error.failures = dict(errors)
    error.jobs = [
        None if position in errors else job for position, job in enumerate(handles)
    ]
    error.__cause__ = first
    return error
