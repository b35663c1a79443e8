"""The methods that take messages out of queues, and say what became of them."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from rmqarq.devbroker import fields
from rmqarq.devbroker.arguments import consumer_priority
from rmqarq.devbroker.channel import Settlement, Unacked
from rmqarq.devbroker.consumer import Consumer
from rmqarq.devbroker.frames import Method
from rmqarq.devbroker.host import REPLY_TO
from rmqarq.devbroker.naming import named_queue, open_queue
from rmqarq.devbroker.refusal import Refusal, access_refused, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.devbroker.channel import Channel
    from rmqarq.devbroker.fields import Reader, Table
    from rmqarq.devbroker.queue import Queue

MOST_HELD = 2000  # messages of a quorum queue by a consumer without a limit
_GET_OK = fields.short(60) + fields.short(71)


def qos(channel: Channel, reader: Reader) -> None:
    """Limit how many messages the client holds: each consumer, or all together."""
    size, count = reader.long(), reader.short()
    everybody = reader.bits()[0]
    if size:
        raise Refusal(540, f"prefetch_size!=0 ({size})")
    if everybody and count:
        if not channel.limit:
            channel.taken = len(channel.unacked)
        channel.limit = count
    else:
        channel.limit = 0
        if not everybody:
            channel.prefetch = count
    channel.send(Method(60, 11))
    channel.wake()


class _Wish(NamedTuple):
    tag: str
    no_ack: bool
    exclusive: bool
    arguments: Table


def consume(channel: Channel, reader: Reader) -> None:
    """Let a consumer in."""
    reader.short()
    name, tag = reader.shortstr(), reader.shortstr()
    _no_local, no_ack, exclusive, nowait, _ = reader.bits()
    wish = _Wish(tag, no_ack, exclusive, reader.table())
    if tag in channel.consumers:
        raise Refusal(530, f"attempt to reuse consumer tag '{tag}'")
    if name == REPLY_TO:
        tag = _listen(channel, wish)
        if not nowait:
            channel.send(Method(60, 21), fields.shortstr(tag))
        return
    queue = open_queue(channel, named_queue(channel, name))
    consumer = _consumer(channel, queue, wish)
    channel.consumers[consumer.tag] = consumer, queue
    queue.add_consumer(consumer)
    if not nowait:
        channel.send(Method(60, 21), fields.shortstr(consumer.tag))
    queue.run()


def _consumer(channel: Channel, queue: Queue, wish: _Wish) -> Consumer:
    what = channel.host.queue_words(queue.name)
    priority = consumer_priority(what, wish.arguments)
    if queue.policy.quorum:
        if channel.limit:
            raise Refusal(540, f"{what} does not support global qos")
    elif _in_exclusive_use(queue, wish):
        raise access_refused(f"{what} in exclusive use")
    return Consumer(
        wish.tag or f"amq.ctag-{secrets.token_urlsafe(16)}",
        channel,
        no_ack=wish.no_ack,
        # rabbit_quorum_queue:consume/3
        prefetch=channel.prefetch or (MOST_HELD if queue.policy.quorum else 0),
        priority=priority,
        exclusive=wish.exclusive and not queue.policy.quorum,
    )


def _in_exclusive_use(queue: Queue, wish: _Wish) -> bool:
    if queue.policy.single_active:
        return wish.exclusive
    return queue.consumers.exclusive or (wish.exclusive and bool(queue.consumers))


def _listen(channel: Channel, wish: _Wish) -> str:
    if not wish.no_ack:
        raise precondition_failed("reply consumer cannot acknowledge")
    if channel.reply_tag is not None:
        raise precondition_failed("reply consumer already set")
    channel.reply_tag = wish.tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
    name = channel.publishing.listen_for_replies()
    channel.host.replies[name] = channel
    return channel.reply_tag


def cancel(channel: Channel, reader: Reader) -> None:
    """Let a consumer go; that there is none is fine."""
    tag = reader.shortstr()
    nowait = reader.bits()[0]
    found = channel.consumers.pop(tag, None)
    if not nowait:
        channel.send(Method(60, 31), fields.shortstr(tag))
    if found is not None:
        consumer, queue = found
        queue.remove_consumer(consumer)
    elif tag == channel.reply_tag:
        channel.reply_tag = None
        channel.host.replies.pop(channel.publishing.reply_name, None)
        channel.publishing.reply_name = ""


def get(channel: Channel, reader: Reader) -> None:
    """Take one message."""
    reader.short()
    queue = open_queue(channel, named_queue(channel, reader.shortstr()))
    no_ack = reader.bits()[0]
    if queue.policy.quorum and queue.policy.single_active:
        what = channel.host.queue_words(queue.name)
        raise Refusal(
            405,
            f"cannot obtain access to locked {what}. basic.get operations are not"
            " supported by quorum queues with single active consumer",
        )
    entry = queue.get()
    if entry is None:
        channel.send(Method(60, 72), fields.shortstr(""))
        return
    tag = channel.next_tag()
    if not no_ack:
        channel.unacked[tag] = Unacked(entry, queue, None)
        queue.unacked += 1
        queue.gets += 1
    again = b"\x01" if entry.redelivered else b"\x00"
    address, count = entry.message.addressed(), fields.long(queue.ready)
    channel.publishing.flush()
    payload = b"".join((_GET_OK, fields.longlong(tag), again, address, count))
    channel.send_message(payload, entry, counted=queue.policy.quorum)


# --- what became of them ---


def ack(channel: Channel, reader: Reader) -> None:
    """Forget messages: the client has done with them."""
    tag = reader.longlong()
    _settle(channel, tag, reader.bits()[0], "ack")


def nack(channel: Channel, reader: Reader) -> None:
    """Put messages back, or let them die."""
    tag = reader.longlong()
    multiple, requeue, *_ = reader.bits()
    _settle(channel, tag, multiple, "requeue" if requeue else "discard")


def reject(channel: Channel, reader: Reader) -> None:
    """Put one message back, or let it die."""
    tag = reader.longlong()
    requeue = reader.bits()[0]
    _settle(channel, tag, False, "requeue" if requeue else "discard")


def _settle(channel: Channel, tag: int, multiple: bool, verdict: str) -> None:
    settlement = Settlement(channel.hold(tag, multiple), verdict)
    if channel.publishing.transaction is None:
        channel.settle(settlement)
    else:
        channel.settlements.append(settlement)


def recover(channel: Channel, reader: Reader) -> None:
    """Put back all that the client holds."""
    _recover(channel, reader)
    channel.send(Method(60, 111))


def recover_async(channel: Channel, reader: Reader) -> None:
    """Put back all that the client holds, and say nothing."""
    _recover(channel, reader)


def _recover(channel: Channel, reader: Reader) -> None:
    if not reader.bits()[0]:
        raise Refusal(540, "requeue=false")
    channel.settle(Settlement(channel.hold(0, True), "requeue"))


# --- confirms and transactions ---


def confirm_select(channel: Channel, reader: Reader) -> None:
    """Confirm what is published from now on."""
    if channel.publishing.transaction is not None:
        raise precondition_failed("cannot switch from tx to confirm mode")
    channel.publishing.confirming = True
    if not reader.bits()[0]:
        channel.send(Method(85, 11))


def tx_select(channel: Channel, _: Reader) -> None:
    """Do what comes from now on when it is committed."""
    if channel.publishing.confirming:
        raise precondition_failed("cannot switch from confirm to tx mode")
    if channel.publishing.transaction is None:
        channel.publishing.transaction = []
    channel.send(Method(90, 11))


def tx_commit(channel: Channel, _: Reader) -> None:
    """Do it."""
    _check_transaction(channel)
    taken = channel.publishing.commit()
    settlements, channel.settlements = channel.settlements, []
    for settlement in settlements:
        channel.settle(settlement)
    if not taken:
        raise precondition_failed("partial tx completion")
    channel.send(Method(90, 21))


def tx_rollback(channel: Channel, _: Reader) -> None:
    """Forget it: nothing was published, and the client holds what it held."""
    _check_transaction(channel)
    channel.publishing.transaction = []
    settlements, channel.settlements = channel.settlements, []
    for settlement in settlements:
        channel.unacked.update(settlement.messages)
    channel.unacked = OrderedDict(sorted(channel.unacked.items()))
    channel.send(Method(90, 31))


def _check_transaction(channel: Channel) -> None:
    if channel.publishing.transaction is None:
        raise precondition_failed("channel is not transactional")


def flow(channel: Channel, reader: Reader) -> None:
    """Go on sending; RabbitMQ does not know how to stop."""
    if not reader.bits()[0]:
        raise Refusal(540, "active=false")
    channel.send(Method(20, 21), b"\x01")


def access_request(channel: Channel, _: Reader) -> None:
    """Give the ticket that some old clients ask for."""
    channel.send(Method(30, 11), fields.short(1))


METHODS: dict[Method, Callable[[Channel, Reader], None]] = {
    Method(20, 20): flow,
    Method(30, 10): access_request,
    Method(60, 10): qos,
    Method(60, 20): consume,
    Method(60, 30): cancel,
    Method(60, 70): get,
    Method(60, 80): ack,
    Method(60, 90): reject,
    Method(60, 100): recover_async,
    Method(60, 110): recover,
    Method(60, 120): nack,
    Method(85, 10): confirm_select,
    Method(90, 10): tx_select,
    Method(90, 20): tx_commit,
    Method(90, 30): tx_rollback,
}
