"""A channel: who consumes on it, and what it has delivered."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.frames import Method, content, method
from rmqarq.devbroker.properties import with_delivery_count
from rmqarq.devbroker.publishing import Publishing
from rmqarq.devbroker.refusal import precondition_failed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.devbroker.consumer import Consumer
    from rmqarq.devbroker.host import Host
    from rmqarq.devbroker.link import Link
    from rmqarq.devbroker.message import Entry, Message
    from rmqarq.devbroker.queue import Queue

_DELIVER = fields.short(60) + fields.short(60)
_CANCEL = Method(60, 30)
YES, NO = b"\x01", b"\x00"


class Unacked(NamedTuple):
    """A message that a client has and did not acknowledge yet."""

    entry: Entry
    queue: Queue
    consumer: Consumer | None  # `None` for one that was taken by basic.get


class Settlement(NamedTuple):
    """What a client says about messages that it holds."""

    messages: dict[int, Unacked]
    verdict: str  # ack, requeue or discard


class Channel:
    """A channel of a connection.

    Args:
        number: Its number there.
        link: The connection.
        host: The virtual host.
    """

    def __init__(self, number: int, link: Link, host: Host) -> None:
        self.number = number
        self.link = link
        self.host = host
        self.publishing = Publishing(number, link, host)
        self.closing = False  # a refusal was sent, and the client did not answer yet
        self.closed = False
        self.last_declared = ""
        self.prefetch = 0  # of consumers to come
        self.limit = 0  # of all consumers together
        self.taken = 0  # by consumers, and not acknowledged
        self.consumers: dict[str, tuple[Consumer, Queue]] = {}
        # of a plain dict, the first key is slow to find when many before it are gone
        self.unacked: OrderedDict[int, Unacked] = OrderedDict()
        self.reply_tag: str | None = None
        self.settlements: list[Settlement] = []  # of a transaction
        self._tag = 0

    def send(self, which: Method, *arguments: bytes) -> None:
        """Send a method, after the confirms that are due."""
        self.publishing.flush()
        self.link.write(method(self.number, which, *arguments))

    # --- what queues ask for ---

    def ready_for(self, consumer: Consumer) -> bool:
        """Whether the channel as a whole may get one more."""
        if self.closed or not self.link.writable:
            return False
        return consumer.no_ack or not self.limit or self.taken < self.limit

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        queue = self.consumers[consumer.tag][1]
        tag = self.next_tag()
        if not consumer.no_ack:
            self.unacked[tag] = Unacked(entry, queue, consumer)
            consumer.unacked += 1
            queue.unacked += 1
            self.taken += 1
        opening = consumer.opening
        if not opening:
            opening = consumer.opening = _DELIVER + fields.shortstr(consumer.tag)
        again = YES if entry.redelivered else NO
        address = entry.message.addressed()
        payload = b"".join((opening, fields.longlong(tag), again, address))
        # rabbit_fifo_client:transform_msgs/3 counts from the second delivery on
        self.send_message(payload, entry, counted=queue.policy.quorum and again != NO)

    def send_message(self, payload: bytes, entry: Entry, *, counted: bool) -> None:
        """Send a method with the message that belongs to it.

        Args:
            payload: Of the method.
            entry: The message.
            counted: Its headers tell how often it came back, as a quorum queue does it.
        """
        header = entry.message.header
        if counted:
            header = with_delivery_count(header, entry.returns)
        body, size = entry.message.body, self.link.frame_max
        self.link.write(content(self.number, payload, header, body, size))

    def cancelled(self, consumer: Consumer) -> None:
        """Tell the client that the queue is gone."""
        self.consumers.pop(consumer.tag, None)
        if self.link.tells_cancels:
            self.send(_CANCEL, fields.shortstr(consumer.tag), b"\x01")

    def reply(self, message: Message) -> None:
        """Deliver a direct reply."""
        opening = _DELIVER + fields.shortstr(self.reply_tag or "")
        tag = fields.longlong(self.next_tag())
        payload = b"".join((opening, tag, b"\x00", message.addressed()))
        header, body, size = message.header, message.body, self.link.frame_max
        self.link.write(content(self.number, payload, header, body, size))

    def next_tag(self) -> int:
        """Count one more delivery."""
        self._tag += 1
        return self._tag

    # --- what the client says about deliveries ---

    def hold(self, tag: int, multiple: bool) -> dict[int, Unacked]:
        """Find what a client means, and take it off its account.

        Raises:
            Refusal: The channel has delivered no such message, or has no longer.
        """
        if multiple and not tag:
            everything, self.unacked = self.unacked, OrderedDict()
            return everything
        if tag not in self.unacked:
            raise precondition_failed(f"unknown delivery tag {tag}")
        if not multiple:
            return {tag: self.unacked.pop(tag)}
        found: dict[int, Unacked] = {}
        for each in self.unacked:
            if each > tag:
                break
            found[each] = self.unacked[each]
        for each in found:
            del self.unacked[each]
        return found

    def settle(self, settlement: Settlement) -> None:
        """Do what a client says about messages that it holds."""
        messages, verdict = settlement
        limited = 0 < self.limit <= self.taken
        for found in _in_turn(messages, verdict):
            queue = found[0].queue
            self._release(queue, found)
            if verdict == "requeue":
                queue.requeue([each.entry for each in found], nacked=True)
            elif verdict == "discard":
                queue.discard([each.entry for each in found])
            queue.run()
        if limited:
            self.wake()

    def _release(self, queue: Queue, found: Iterable[Unacked]) -> None:
        for each in found:
            queue.unacked -= 1
            if each.consumer is None:
                queue.gets -= 1
            else:
                self.taken -= 1
                queue.settled(each.consumer)

    def wake(self) -> None:
        """Let the consumers get messages again that a common limit held back."""
        for consumer, queue in list(self.consumers.values()):
            queue.consumers.line_up(consumer)
            queue.run()

    def close(self) -> None:
        """Give back everything: the channel is gone."""
        # what it held may die, and come to a queue that it consumes
        self.closed = True
        consumers, self.consumers = self.consumers, {}
        unacked, self.unacked = self.unacked, OrderedDict()
        for settlement in self.settlements:
            unacked.update(settlement.messages)
        queues: dict[Queue, tuple[list[Consumer], list[Entry]]] = {}
        for consumer, queue in consumers.values():
            queues.setdefault(queue, ([], []))[0].append(consumer)
        for _, (entry, queue, holder) in sorted(unacked.items(), key=_going_back):
            queues.setdefault(queue, ([], []))[1].append(entry)
            queue.unacked -= 1
            if holder is None:
                queue.gets -= 1
            else:
                holder.unacked -= 1
        for queue, (gone, entries) in queues.items():
            queue.abandon(gone, entries)
        self.host.replies.pop(self.publishing.reply_name, None)


def _in_turn(messages: dict[int, Unacked], verdict: str) -> list[list[Unacked]]:
    """Divide messages by who holds them, in the order in which queues hear of it.

    As `rabbit_channel:foreach_per_queue/3`: by queue, what was got before what was
    delivered, by consumer tag.
    """
    if len(messages) == 1:
        return [list(messages.values())]
    groups: dict[tuple[str, int, bool, int, str, int], list[Unacked]] = {}
    for tag, each in messages.items():
        queue, holder = each.queue, each.consumer
        got, name = (tag, "") if holder is None else (0, holder.tag)
        alone = tag if verdict == "requeue" and queue.appends_returned else 0
        key = queue.name, id(queue), not got, got, name, alone
        groups.setdefault(key, []).append(each)
    return [groups[key] for key in sorted(groups)]


def _going_back(item: tuple[int, Unacked]) -> tuple[str, int]:
    """Tell when a lost client's message goes back: `rabbit_fifo:handle_down/3`."""
    tag, (_, _, holder) = item
    return str(tag) if holder is None else holder.tag, tag
