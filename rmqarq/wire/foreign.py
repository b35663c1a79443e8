"""Messages of other producers, read into the shape that those of ours have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from rmqarq.errors import DecodeError
from rmqarq.when import wall_clock
from rmqarq.wire import origin
from rmqarq.wire.codec import Decoded, Envelope
from rmqarq.wire.media import media_of
from rmqarq.wire.origin import origin_of, text_in
from rmqarq.wire.properties import PropertyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from rmqarq.wire.codec import Codec
    from rmqarq.wire.origin import Arrival, Origin

MOST = 2**31
LARGEST_PROPERTIES = 64 * 1024
"""There must be room for what a dead letter says beside them."""


class ForeignCodec:
    """Reads what lies in a queue of somebody else.

    Args:
        codec: Unpacks bodies, within its limit.
        task: The name of the function that takes them.
        new_id: Makes an id for a message that has none.
    """

    def __init__(self, codec: Codec, task: str, new_id: Callable[[], str]) -> None:
        self._codec = codec
        self._task = task
        self._new_id = new_id

    def decode(self, arrival: Arrival) -> Decoded:
        """Read a message, but for the type of its body.

        Raises:
            DecodeError: It can't be unpacked, or is a job of ours that went astray.
        """
        size = len(arrival.properties)
        if size > LARGEST_PROPERTIES:
            raise DecodeError(
                "the properties take {size} bytes; {limit} are allowed",
                size=size,
                limit=LARGEST_PROPERTIES,
            )
        source = source_of(arrival)
        found = source.properties
        if found.app_id == "rmqarq":
            raise DecodeError(
                "the message is a job of rmqarq for {task}; {function} consumes this"
                " queue, so put the job into a queue of tasks",
                task=found.type or "?",
                function=self._task,
            )
        media = media_of(found.content_type, found.content_encoding)
        body = self._codec.unpacked(media.packing, arrival.body)
        return Decoded(
            message_of(source, self._task, Raw(body), self._new_id, self._codec.clock),
            media.serializer or "json",
            ours=_tells_itself(source),
            origin=source,
        )


def source_of(arrival: Arrival) -> Origin:
    """Read where a message comes from.

    Raises:
        DecodeError: Its properties can't be read.
    """
    try:
        return origin_of(arrival)
    except PropertyError as error:
        raise DecodeError(
            "the message can't be read: {problem}", problem=str(error)
        ) from error


def message_of(
    source: Origin,
    task: str,
    body: Raw,
    new_id: Callable[[], str],
    clock: Callable[[], float] = wall_clock,
) -> Envelope:
    """Make the message that a worker deals with.

    Args:
        source: Where it comes from.
        task: The name of the function that takes it.
        body: Its payload, unpacked.
        new_id: Makes an id if it has none.
        clock: Gives its time if it has none.
    """
    found = source.properties
    headers: Mapping[str, Any] = found.headers
    enqueued_at = origin.moment_in(headers, origin.ENQUEUED_AT)
    return Envelope(
        id=text_in(headers, origin.ID)
        or found.message_id
        or found.correlation_id
        or new_id(),
        task=task,
        args=body,
        job_try=origin.number_in(headers, origin.TRY, MOST) or 1,
        enqueued_at=enqueued_at or float(found.timestamp or clock()),
        eta=origin.moment_in(headers, origin.ETA),
        generation=origin.number_in(headers, origin.GENERATION, MOST) or 0,
        first_failed_at=origin.moment_in(headers, origin.FIRST_AT),
        headers=origin.texts(headers),
    )


def _tells_itself(source: Origin) -> bool:
    """Tell whether it has an id of its own; a correlation id may be that of many."""
    found = source.properties
    given = text_in(found.headers, origin.ID) is not None
    return bool(found.message_id or (given and not found.correlation_id))
