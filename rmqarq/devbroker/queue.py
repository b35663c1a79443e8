"""A queue: what comes in, what goes out, what expires, what does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rmqarq.devbroker.consumer import Consumers
from rmqarq.devbroker.deaths import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED
from rmqarq.devbroker.limits import Limits
from rmqarq.devbroker.message import Entry
from rmqarq.devbroker.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.devbroker.arguments import Policy
    from rmqarq.devbroker.clock import Clock, Timer
    from rmqarq.devbroker.consumer import Consumer
    from rmqarq.devbroker.fields import Table
    from rmqarq.devbroker.message import Message


class Surroundings(Protocol):
    """What a queue needs of the host that it stands in."""

    clock: Clock

    def bury(self, queue: Queue, message: Message, reason: str) -> None:
        """Dead-letter a message, or drop it."""
        ...

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue; return how many messages were ready in it."""
        ...


class Queue:
    """A queue of messages.

    Args:
        name: Under which it was declared.
        policy: What its arguments say.
        arguments: As they were given.
        host: Where it stands.
        durable: As declared; nothing here outlives the broker.
        auto_delete: It goes with its last consumer.
        owner: The connection that it goes with, if it is exclusive.
    """

    def __init__(
        self,
        name: str,
        policy: Policy,
        arguments: Table,
        host: Surroundings,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        owner: object = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.arguments = arguments
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.deleted = False
        self.unacked = 0
        self.consumers = Consumers(
            single_active=policy.single_active, quorum=policy.quorum
        )
        self.gets = 0  # messages that were taken by basic.get, and are still held
        self._leaving: set[Consumer] = set()  # they were cancelled and hold messages
        self.store = Store(policy.max_priority or 0)
        self._host = host
        self._classic = not policy.quorum
        self._buries = policy.dead_letter_exchange is not None
        self._place = 0
        self._ttl = None if policy.ttl is None else policy.ttl / 1000
        self._limited = policy.max_length is not None or policy.max_bytes is not None
        self.limits = Limits(policy, self.store)
        self._expiring = self._ttl is not None
        self._expiry: Timer | None = None
        self._lease: Timer | None = None
        self.touch()

    @property
    def ready(self) -> int:
        """How many messages wait."""
        return self.store.count

    @property
    def attached(self) -> int:
        """How many consumers RabbitMQ counts."""
        count = len(self.consumers)
        if not self.policy.quorum:
            return count
        # rabbit_fifo:query_stat/1 counts whoever holds messages, and not who waits
        # until the only active consumer is gone
        active = min(count, 1) if self.policy.single_active else count
        return active + self.gets + len(self._leaving)

    @property
    def appends_returned(self) -> bool:
        """Whether what is given back is put behind all others, one by one."""
        return self.policy.quorum and self.policy.delivery_limit is None

    # --- in ---

    def publish(self, message: Message, publisher: object | None = None) -> bool:
        """Take a message in; `False` if it is rejected.

        Args:
            message: To be taken in.
            publisher: Whose it is; `None` for a dead letter that nobody waits for.
        """
        if self._limited and self._rejects(message, publisher):
            return False
        self._place += 1
        entry = Entry(message, self._place, self._expires(message))
        # nobody waits for messages while there are some
        consumer = None if self.store.count else self.consumers.next()
        if consumer is not None:
            consumer.receiver.deliver(consumer, entry)
            return True
        if self._ttl == 0 and self._classic and not self._buries:
            return True  # it does not even push out another
        self.store.put(entry)
        dropped = self._limited and self._drop_head()
        # a classic queue does not look at its first message without such a reason
        if self._expiring and (dropped or not self._classic or self.store.count == 1):
            self.drop_expired()
        if self._limited:
            self.limits.tell()
        return True

    def requeue(self, entries: Iterable[Entry], *, nacked: bool) -> None:
        """Take messages back that were delivered and not acknowledged.

        Args:
            entries: The messages.
            nacked: By the client's will; `False` when it is gone.
        """
        if self.deleted:
            return
        if self.policy.quorum:
            for entry in entries:
                self._return(entry, nacked=nacked)
        else:
            returned = list(entries)
            for entry in returned:
                entry.redelivered = True
            self.store.restore(returned)
        if self._limited:
            self._drop_head()
        if self._expiring:
            self.drop_expired()
        self.run()

    def _return(self, entry: Entry, *, nacked: bool) -> None:
        entry.redelivered = True
        entry.returns += 1
        limit = self.policy.delivery_limit
        if limit is not None and entry.returns > limit:
            self._host.bury(self, entry.message, DELIVERY_LIMIT)
        elif nacked and self.appends_returned:
            # rabbit_fifo appends it anew when no limit makes it count
            self._place += 1
            entry.place = self._place
            self.store.put(entry)
        else:
            self.store.put_returned(entry)

    # --- out ---

    def run(self) -> None:
        """Deliver while there are messages and somebody who may get them."""
        store, consumers = self.store, self.consumers
        if self._expiring:
            self._expire_late()
        while store.count and (consumer := consumers.next()) is not None:
            consumer.receiver.deliver(consumer, store.take())
            if self._expiring:
                self.drop_expired()
        if self._limited:
            self.limits.tell()

    def get(self) -> Entry | None:
        """Take out one message."""
        self.touch()
        if self._expiring:
            self._expire_late()
        if not self.store.count:
            return None
        entry = self.store.take()
        if self._expiring:
            self.drop_expired()
        if self._limited:
            self.limits.tell()
        return entry

    def discard(self, entries: Iterable[Entry]) -> None:
        """Let messages die that a client rejected."""
        if not self.deleted:
            for entry in entries:
                self._host.bury(self, entry.message, REJECTED)

    def purge(self) -> int:
        """Remove all ready messages; return how many they were."""
        count = self.store.clear()
        self._set_expiry()
        if self._limited:
            self.limits.tell()
        return count

    # --- consumers ---

    def add_consumer(self, consumer: Consumer) -> None:
        """Let a consumer in; it gets nothing before the next `run`."""
        self.consumers.add(consumer)
        self.touch()

    def remove_consumer(self, consumer: Consumer) -> None:
        """Let a consumer go; an auto-delete queue goes with the last one."""
        self.consumers.remove(consumer)
        if consumer.unacked:
            self._leaving.add(consumer)
        self.touch()
        if self.auto_delete and not self.consumers:
            self._host.delete_queue(self)
        elif not self.deleted:
            self.run()

    def abandon(self, consumers: Iterable[Consumer], entries: Iterable[Entry]) -> None:
        """Take everything back from a channel that is gone."""
        had = len(self.consumers)
        for consumer in consumers:
            self.consumers.remove(consumer)
        self._leaving = {each for each in self._leaving if each.unacked}
        self.requeue(entries, nacked=False)
        if had != len(self.consumers):
            self.touch()
            if self.auto_delete and not self.consumers:
                self._host.delete_queue(self)

    def settled(self, consumer: Consumer) -> None:
        """Know that a consumer holds one message less; a `run` must follow."""
        consumer.unacked -= 1
        if not consumer.unacked:
            self._leaving.discard(consumer)
        if not consumer.waiting:
            self.consumers.line_up(consumer)

    # --- limits and time ---

    def touch(self) -> None:
        """Begin the time anew after which an unused queue is deleted."""
        if self._lease is not None:
            self._lease.cancel()
            self._lease = None
        expires = self.policy.expires
        if expires is not None and not self.consumers and not self.deleted:
            due = self._host.clock.now() + expires / 1000
            self._lease = self._host.clock.call_at(due, self._expire_queue)

    def close(self) -> None:
        """Forget everything: the queue is deleted."""
        self.deleted = True
        self.touch()
        self.store.clear()
        self._set_expiry()

    def drop_expired(self) -> None:
        """Let the messages die whose time has come."""
        for entry in self.store.expired(self._host.clock.now()):
            self._host.bury(self, entry.message, EXPIRED)
        self._set_expiry()

    def _expire_queue(self) -> None:
        if not self.consumers:
            self._host.delete_queue(self)

    def _expires(self, message: Message) -> float | None:
        ttl = self._ttl
        if message.expiration is not None:
            own = message.expiration / 1000
            ttl = own if ttl is None else min(ttl, own)
        if ttl is None:
            return None
        self._expiring = True
        if self.policy.quorum and ttl == 0:
            ttl = 0.001  # rabbit_fifo: whoever waits in the same millisecond gets it
        return self._host.clock.now() + ttl

    def _drop_head(self) -> bool:
        dropped = False
        while self.limits.drop:
            self._host.bury(self, self.store.take().message, MAXLEN)
            dropped = True
        return dropped

    def _rejects(self, message: Message, publisher: object | None) -> bool:
        if not self.limits.reject(message, publisher):
            return False
        if self.policy.overflow == "reject-publish-dlx":
            self._host.bury(self, message, MAXLEN)
        return True

    def _set_expiry(self) -> None:
        due = self.store.next_expiry() if self._expiring else None
        timer = self._expiry
        if timer is not None and timer.call is not None:
            if self._stays(timer, due):
                return
            timer.cancel()
        if due is not None:
            self._expiry = self._host.clock.call_at(due, self._expire_messages)

    def _stays(self, timer: Timer, due: float | None) -> bool:
        if self._classic and not self.deleted:
            # rabbit_amqqueue_process:ensure_ttl_timer/2 never sets it to a later time
            return due is None or due >= timer.due
        return timer.due == due

    def _expire_late(self) -> None:
        # a busy loop may call the timer after what a client wants now
        now = self._host.clock.now()
        timer = self._expiry
        if not self._classic or (
            timer is not None and timer.call is not None and timer.due <= now
        ):
            self.drop_expired()

    def _expire_messages(self) -> None:
        self.drop_expired()
        self.run()
