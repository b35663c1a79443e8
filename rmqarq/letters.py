"""What a dead letter says, whether a filter wants it, and what it is sent as again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Raw, Struct

from rmqarq.errors import DecodeError
from rmqarq.job import new_job_id
from rmqarq.wire import properties
from rmqarq.wire.codec import UNREADABLE, encoder, typed_decoder
from rmqarq.wire.foreign import message_of, source_of
from rmqarq.wire.media import media_of
from rmqarq.wire.origin import ID, TASK, properties_of
from rmqarq.wire.properties import NO_HEADERS, Properties, PropertyError
from rmqarq.wire.publication import Forward, Letter, Post, shortened
from rmqarq.wire.relay import OURS

if TYPE_CHECKING:
    from rmqarq.wire.codec import Codec, Serializer
    from rmqarq.wire.origin import Arrival
    from rmqarq.wire.properties import Header

MOST_GENERATIONS = 2**31
SHOWN = 2000


class DeadLetter(Struct, frozen=True, kw_only=True):
    """What the headers of a message tell; `None` where they tell nothing.

    Args:
        id: The job id.
        task: The name of the task.
        queue: Where it came from, or was due.
        reason: Why it is dead; `broker: ...` when RabbitMQ says so, not a worker.
        attempts: How many times it was run.
        error: The type of the exception.
        message: Its text.
        traceback: The tail of its traceback.
        worker: The worker that gave it up, as `host:pid`.
        enqueued_at: In seconds since the epoch, as the other two.
        first_at: When it failed first.
        died_at: When it came to where it lies.
        size: The bytes of its body.
    """

    id: str
    task: str
    queue: str
    reason: str | None = None
    attempts: int | None = None
    error: str | None = None
    message: str | None = None
    traceback: str | None = None
    worker: str | None = None
    enqueued_at: float | None = None
    first_at: float | None = None
    died_at: float | None = None
    size: int = 0


class Contents(Struct, frozen=True, kw_only=True):
    """What the body of a message tells.

    Args:
        args: Positional arguments, as JSON has them.
        kwargs: Keyword arguments, likewise.
        rows: For a chunk of jobs, the positional arguments of each, likewise.
        job_try: Failures so far + 1.
        generation: How often it was requeued from the dead-letter queue.
        max_retries: The caller's own, if any.
        headers: The caller's own.
        problem: Why the body can't be read; then the above mean nothing.
        body: The beginning of a body that can't be read, or is not one of ours.
    """

    args: Any = ()
    kwargs: Any = msgspec.field(default_factory=dict)
    rows: Any = ()
    job_try: int = 1
    generation: int = 0
    max_retries: int | None = None
    headers: Mapping[str, str] = {}
    problem: str | None = None
    body: str | None = None


class Filter(Struct, frozen=True, kw_only=True):
    """Which letters are meant: those that fit each kind of condition that is given.

    Args:
        tasks: Names of tasks, or patterns such as `mail.*`; one of them.
        reasons: Reasons, or patterns; one of them.
        errors: Words of the error's type or text, in any case; one of them.
        ids: Job ids; one of them.
        queues: Where they came from, or were due; one of them.
        older_than: Seconds since it died, at least.
        newer_than: Seconds since it died, at most.
    """

    tasks: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    older_than: float | None = None
    newer_than: float | None = None

    @property
    def takes_all(self) -> bool:
        """Whether no condition is given."""
        return self == Filter()

    def fits(self, letter: DeadLetter, now: float) -> bool:
        """Tell whether a letter is meant, at `now` (seconds since the epoch)."""
        return (
            (not self.ids or letter.id in self.ids)
            and (not self.queues or letter.queue in self.queues)
            and _matches(self.tasks, letter.task)
            and _matches(self.reasons, letter.reason or "")
            and self._error_fits(letter)
            and self._age_fits(letter.died_at, now)
        )

    def _error_fits(self, letter: DeadLetter) -> bool:
        text = f"{letter.error or ''}: {letter.message or ''}".lower()
        return not self.errors or any(each.lower() in text for each in self.errors)

    def _age_fits(self, died_at: float | None, now: float) -> bool:
        if self.older_than is None and self.newer_than is None:
            return True
        if died_at is None:
            return False
        age = now - died_at
        old_enough = self.older_than is None or age >= self.older_than
        return old_enough and (self.newer_than is None or age <= self.newer_than)


def _matches(patterns: tuple[str, ...], text: str) -> bool:
    return not patterns or any(
        text == each or fnmatchcase(text, each) for each in patterns
    )


def read(delivery: Arrival, codec: Codec, home: str | None) -> DeadLetter:
    """Tell what a message says, whatever it is.

    Args:
        delivery: The message.
        codec: For one whose properties do not name task and job.
        home: The queue that it came from unless it says otherwise; `None`: the one
            that its routing key names.
    """
    found = _properties(delivery)
    headers: Mapping[str, Any] = found.headers
    task = _text(headers, TASK) or found.type or ""
    job_id = _text(headers, ID) or found.correlation_id or ""
    if not (task and job_id):
        task, job_id = _named_in_body(delivery, codec, task, job_id)
    death = _death(headers)
    usual = home or delivery.routing_key.decode("utf-8", "replace")
    came_from = _text(headers, "x-rmqarq-queue") if home else None
    return DeadLetter(
        id=job_id,
        task=task,
        queue=came_from or usual,
        reason=_text(headers, "x-rmqarq-reason") or _brokers_word(death, home),
        attempts=_number(headers, "x-rmqarq-attempts"),
        error=_text(headers, "x-rmqarq-error"),
        message=_text(headers, "x-rmqarq-message"),
        traceback=_text(headers, "x-rmqarq-traceback"),
        worker=_text(headers, "x-rmqarq-worker"),
        enqueued_at=_moment(headers, "x-rmqarq-enqueued-at"),
        first_at=_moment(headers, "x-rmqarq-first-at"),
        died_at=_died_at(found, headers, death),
        size=len(delivery.body),
    )


def open_up(delivery: Arrival, codec: Codec) -> Contents:
    """Tell what the body of a message says, or why it can't be read."""
    try:
        if is_foreign(delivery):
            return _foreign_contents(delivery, codec)
        message, serializer, *_ = codec.decode(delivery.properties, delivery.body)
        args = _plain(serializer, message.args, [])
        kwargs = _plain(serializer, message.kwargs, {})
        rows = [_plain(serializer, row, []) for row in message.rows]
    except DecodeError as error:
        body = delivery.body[:SHOWN].decode("utf-8", "backslashreplace")
        return Contents(problem=str(error), body=body)
    return Contents(
        args=args,
        kwargs=kwargs,
        rows=rows,
        job_try=message.job_try,
        generation=message.generation,
        max_retries=message.max_retries,
        headers=message.headers,
    )


def revived(delivery: Arrival, codec: Codec) -> Post:
    """Make the message with which a dead job begins anew.

    It keeps its id, arguments and headers. Its tries, its suspicions and its time
    limit are gone, and its generation is one higher. A message of another producer
    keeps its bytes and properties.

    Raises:
        DecodeError: The body can't be read.
        EncodeError: It would be larger than `max_body`.
    """
    if is_foreign(delivery):
        return _revived_foreign(delivery)
    came = codec.decode(delivery.properties, delivery.body)
    message = came.message
    anew = msgspec.structs.replace(
        message,
        job_try=1,
        generation=min(message.generation + 1, MOST_GENERATIONS),
        eta=None,
        expires=None,
        first_failed_at=None,
    )
    encoded = codec.encode_again(anew, came)
    return Letter(
        task=shortened(anew.task),
        job_id=shortened(anew.id),
        body=encoded.body,
        content_type=encoded.content_type,
        content_encoding=encoded.content_encoding,
        priority=_properties(delivery).priority or 0,
    )


def unchanged(delivery: Arrival) -> Post:
    """Make a message of the same bytes, as it was before it met the broker's hands.

    What workers count stays in its headers, such as how often it came back.
    """
    found = _properties(delivery)
    headers = cast("Mapping[str, Header]", found.headers)
    if is_foreign(delivery):
        return _forward(
            delivery,
            {
                name: value
                for name, value in headers.items()
                if name.startswith(OURS) and isinstance(value, str | int)
            },
        )
    return Letter(
        task=found.type or "",
        job_id=found.correlation_id or "",
        body=delivery.body,
        content_type=found.content_type,
        content_encoding=found.content_encoding,
        priority=found.priority or 0,
        headers={
            name: value
            for name, value in headers.items()
            if name.startswith(OURS) and type(value) is int
        },
    )


def is_foreign(delivery: Arrival) -> bool:
    """Tell whether it is a message of another producer that was consumed here."""
    return _text(_properties(delivery).headers, TASK) is not None


def _foreign_contents(delivery: Arrival, codec: Codec) -> Contents:
    source = source_of(delivery)
    message = message_of(source, "", Raw(b""), new_job_id)
    found = source.properties
    media = media_of(found.content_type, found.content_encoding)
    body = codec.unpacked(media.packing, delivery.body)
    if media.serializer == "msgpack":
        body = encoder("json").encode(_plain("msgpack", Raw(body), None))
    return Contents(
        job_try=message.job_try,
        generation=message.generation,
        headers=message.headers,
        body=body.decode(media.charset, "backslashreplace")[:SHOWN],
    )


def _revived_foreign(delivery: Arrival) -> Post:
    source = source_of(delivery)
    task = _text(source.properties.headers, TASK) or ""
    message = message_of(source, task, Raw(b""), new_job_id)
    anew = msgspec.structs.replace(
        message,
        job_try=1,
        generation=min(message.generation + 1, MOST_GENERATIONS),
        eta=None,
        first_failed_at=None,
    )
    return _forward(delivery, source.bookkeeping(anew))


def _forward(delivery: Arrival, headers: Mapping[str, Header]) -> Forward:
    return Forward(
        task=str(headers.get(TASK, "")),
        job_id=str(headers.get(ID, "")),
        body=delivery.body,
        properties=delivery.properties,
        headers=headers,
    )


def _named_in_body(
    delivery: Arrival, codec: Codec, task: str, job_id: str
) -> tuple[str, str]:
    try:
        message = codec.decode(delivery.properties, delivery.body).message
    except DecodeError:
        return task, job_id
    return task or message.task, job_id or message.id


def _plain(serializer: Serializer, raw: Raw, nothing: Any) -> Any:
    """Give arguments as JSON has them: bytes as Base64, dates as text."""
    if not raw:
        return nothing
    try:
        value = typed_decoder(serializer, Any).decode(raw)
        return json.loads(encoder("json").encode(value))
    except UNREADABLE as error:
        raise DecodeError(
            "the arguments can't be read: {problem}", problem=str(error)
        ) from error


def _properties(delivery: Arrival) -> Properties:
    try:
        return properties_of(delivery.properties)
    except PropertyError:
        return Properties(headers=NO_HEADERS)


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the broker's own last note, the first of `x-death`."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, list) or not deaths:
        return {}
    first = cast("list[object]", deaths)[0]
    return cast("Mapping[str, Any]", first) if isinstance(first, dict) else {}


def _brokers_word(death: Mapping[str, Any], home: str | None) -> str | None:
    reason = _text(death, "reason")
    return f"broker: {reason}" if reason and home else None


def _died_at(
    found: Properties, headers: Mapping[str, Any], death: Mapping[str, Any]
) -> float | None:
    at = _moment(headers, "x-rmqarq-last-at")
    if at is None:
        time = _number(death, "time") or found.timestamp
        at = None if time is None else float(time)
    return at


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    found = headers.get(name)
    return found if isinstance(found, str) else None


def _number(headers: Mapping[str, Any], name: str) -> int | None:
    found = headers.get(name)
    return found if type(found) is int and found >= 0 else None


def _moment(headers: Mapping[str, Any], name: str) -> float | None:
    """Read milliseconds; what is beyond the year 9999 is no moment."""
    found = _number(headers, name)
    return None if found is None or found > properties.LATEST * 1000 else found / 1000
