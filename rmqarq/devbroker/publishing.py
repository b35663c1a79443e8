"""The publishing side of a channel: contents put together, routed, and confirmed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.arguments import expiration
from rmqarq.devbroker.fields import KIND_NAMES, Malformed, Reader, raw_array
from rmqarq.devbroker.frames import NO_METHOD, PUBLISH, Method, content, method
from rmqarq.devbroker.host import REPLY_TO as REPLY_QUEUE
from rmqarq.devbroker.message import Message
from rmqarq.devbroker.properties import (
    EXPIRATION,
    HEADERS,
    PRIORITY,
    REPLY_TO,
    USER_ID,
    Properties,
)
from rmqarq.devbroker.refusal import Refusal, access_refused, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.devbroker.host import Host
    from rmqarq.devbroker.link import Link
    from rmqarq.devbroker.queue import Queue

ACK = Method(60, 80)
NACK = Method(60, 120)
LARGEST = 134_217_728  # bytes of a body; rabbit.max_message_size
MOST_CACHED = 1024

_RETURN = b"".join(
    (fields.short(60), fields.short(50), fields.short(312), fields.shortstr("NO_ROUTE"))
)
_MANDATORY, _IMMEDIATE = 1, 2


class Published(NamedTuple):
    """A message on its way.

    Args:
        message: What was published.
        mandatory: The client wants it back if no queue gets it.
        queues: That it goes to; what is bound later, before a transaction is
            committed, changes nothing.
    """

    message: Message
    mandatory: bool
    queues: Sequence[Queue]


class _Address(NamedTuple):
    encoded: bytes
    exchange: str
    key: str


class Publishing:
    """What a channel does with what a client publishes.

    Args:
        number: Of the channel.
        link: Its connection.
        host: The virtual host.
    """

    def __init__(self, number: int, link: Link, host: Host) -> None:
        self._number = number
        self._link = link
        self._host = host
        self._address: _Address | None = None  # of a content that is not complete
        self._bits = 0
        self._header: bytes | None = None
        self._pieces: list[bytes] = []
        self._missing = 0
        self._addresses: dict[bytes, _Address] = {}
        self.confirming = False
        self.transaction: list[Published] | None = None
        self.reply_name = ""  # who is told to answer here, if anybody listens
        self._sequence = 0
        self._settled = ACK  # what is to be said about the last ones
        self._last = 0
        self._count = 0

    @property
    def assembling(self) -> bool:
        """Whether the frames of a content are still to come."""
        return self._address is not None

    # --- putting it together ---

    def begin(self, payload: bytes) -> None:
        """Take the method; header and body follow."""
        if self._address is not None:
            raise self._unexpected()
        self._address, self._bits = self._addressed(payload[6:-1]), payload[-1]

    def header(self, payload: bytes) -> None:
        """Take the content header."""
        if self._address is None or self._header is not None:
            raise self._unexpected()
        class_id = int.from_bytes(payload[:2], "big")
        if class_id != PUBLISH.class_id:
            raise Refusal(
                505,
                "expected content header for class 60, got one for class"
                f" {class_id} instead",
            )
        self._header = payload
        self._missing = int.from_bytes(payload[4:12], "big")
        if not self._missing:
            self._complete(b"")

    def body(self, payload: bytes) -> None:
        """Take a piece of the body.

        One that has more bytes than were announced never ends, as on RabbitMQ: what
        comes after it is refused.
        """
        if self._header is None:
            raise self._unexpected()
        self._missing -= len(payload)
        if self._missing or self._pieces:
            self._pieces.append(payload)
            if self._missing:
                return
            payload = b"".join(self._pieces)
            self._pieces = []
        self._complete(payload)

    def _unexpected(self) -> Refusal:
        if self._address is None:
            text = "expected method frame, got non method frame instead"
            return Refusal(505, text, NO_METHOD)
        wanted, which = "content header", " for class 60"
        if self._header is not None:
            wanted, which = "content body", ""
        text = f"expected {wanted}{which}, got non {wanted} frame instead"
        return Refusal(505, text, PUBLISH)

    def _complete(self, body: bytes) -> None:
        assert self._address is not None, "the method comes first"
        assert self._header is not None, "and then the header"
        (address, exchange, key), header = self._address, self._header
        self._address = self._header = None
        bits = self._bits
        if bits & _IMMEDIATE:
            raise Refusal(540, "immediate=true")
        if len(body) > LARGEST:
            raise precondition_failed(
                f"message size {len(body)} is larger than max size {LARGEST}"
            )
        found = self._host.exchange(exchange)
        if found.internal:
            what = self._host.exchange_words(exchange)
            raise access_refused(f"cannot publish to internal {what}")
        message = self._message(exchange, key, header, body)
        message.address = address
        queues = self._host.route(found, message)
        published = Published(message, bool(bits & _MANDATORY), queues)
        if self.transaction is not None:
            self.transaction.append(published)
        else:
            self._publish(published)

    def _addressed(self, raw: bytes) -> _Address:
        known = self._addresses.get(raw)
        if known is None:
            if len(self._addresses) >= MOST_CACHED:
                self._addresses.clear()
            reader = Reader(raw)
            # here alone RabbitMQ does not ask for UTF-8
            names = reader.octets(), reader.octets()
            exchange, key = (each.decode("utf-8", "surrogateescape") for each in names)
            known = _Address(raw, exchange, key)
            if reader.left:
                raise Malformed("the frame goes on after its end")
            self._addresses[raw] = known
        return known

    # --- reading it ---

    def _message(self, exchange: str, key: str, header: bytes, body: bytes) -> Message:
        # all of it is looked at now, so that what is malformed goes no further
        properties = Properties(header)
        headers = properties.raw_table(HEADERS)
        fields.check(headers.values())
        changes: dict[int, bytes | None] = {}
        if properties.text(REPLY_TO) == REPLY_QUEUE:
            changes[REPLY_TO] = fields.shortstr(self._reply_name())
        self._check_user(properties)
        carbon, blind = (_keys(name, headers.get(name)) for name in (b"CC", b"BCC"))
        if headers.pop(b"BCC", None) is not None:
            changes[HEADERS] = fields.joined(headers)
        lifetime = properties.text(EXPIRATION)
        message = Message(
            exchange,
            key,
            properties.changed(changes) if changes else header,
            body,
            keys=(key, *carbon, *blind) if carbon or blind else (),
            priority=properties.octet(PRIORITY) or 0,
            expiration=None if lifetime is None else expiration(lifetime),
        )
        message.copies = carbon
        return message

    def _check_user(self, properties: Properties) -> None:
        claimed = properties.text(USER_ID)
        if claimed is not None and claimed != self._link.user:
            raise precondition_failed(
                f"user_id property set to '{claimed}' but authenticated user was"
                f" '{self._link.user}'"
            )

    def _reply_name(self) -> str:
        if not self.reply_name:
            raise precondition_failed("fast reply consumer does not exist")
        return self.reply_name

    # --- sending it on its way ---

    def _publish(self, published: Published) -> bool:
        message, _, queues = published
        if not queues and published.mandatory:
            self._return(message)
        taken = self._host.hand_out(queues, message, self)
        if self.confirming:
            self._settle(ACK if taken else NACK)
        return taken

    def _return(self, message: Message) -> None:
        payload = _RETURN + message.addressed()
        self._link.write(
            content(
                self._number,
                payload,
                message.header,
                message.body,
                self._link.frame_max,
            )
        )

    def commit(self) -> bool:
        """Publish what the transaction holds, and begin the next one.

        Returns:
            Whether no queue has rejected any of it.
        """
        published, self.transaction = self.transaction or [], []
        outcomes: list[bool] = []
        for each in published:
            queues = self._host.present(queue.name for queue in each.queues)
            outcomes.append(self._publish(each._replace(queues=queues)))
        return all(outcomes)

    def listen_for_replies(self) -> str:
        """Make up the name under which others answer to this channel."""
        self.reply_name = f"{REPLY_QUEUE}.{secrets.token_urlsafe(24)}"
        return self.reply_name

    # --- confirming it ---

    def _settle(self, how: Method) -> None:
        self._sequence += 1
        if how is not self._settled:
            self.flush()
            self._settled = how
        if not self._count:
            self._link.flush_later(self._number)
        self._last = self._sequence
        self._count += 1

    def flush(self) -> None:
        """Send the confirms that are due: many at once where they can be."""
        count, self._count = self._count, 0
        if count:  # forgotten first: writing may flush the connection, and come here
            multiple = b"\x01" if count > 1 else b"\x00"
            last = fields.longlong(self._last) + multiple
            self._link.write(method(self._number, self._settled, last))


def _keys(name: bytes, raw: bytes | None) -> tuple[str, ...]:
    """Read the further routing keys of CC or BCC."""
    if raw is None:
        return ()
    if raw[:1] != b"A":
        kind = KIND_NAMES[chr(raw[0])]
        raise precondition_failed(
            f'invalid message: {{unacceptable_type_in_header,"{name.decode()}",{kind}}}'
        )
    return tuple(
        each[5:].decode("utf-8", "surrogateescape")
        for each in raw_array(raw[5:])
        if each[:1] == b"S"
    )
