"""The virtual host: its exchanges and queues, and the way of a message through them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from rmqarq.devbroker.deaths import dead, without_cycles
from rmqarq.devbroker.exchange import INTERNAL, PREDECLARED, Destination, Exchange
from rmqarq.devbroker.forwarder import Dead, Forwarder
from rmqarq.devbroker.refusal import not_found

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rmqarq.devbroker.clock import Clock
    from rmqarq.devbroker.fields import Table
    from rmqarq.devbroker.message import Message
    from rmqarq.devbroker.queue import Queue

REPLY_TO = "amq.rabbitmq.reply-to"
"""The pseudo queue of direct replies: https://www.rabbitmq.com/direct-reply-to.html"""


class Replies(Protocol):
    """Who waits for direct replies: a channel."""

    def reply(self, message: Message) -> None:
        """Deliver a reply."""
        ...


class Host:
    """A virtual host.

    Args:
        name: Usually `/`.
        clock: The broker's.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.exchanges = {
            each: Exchange(each, kind, internal=each in INTERNAL)
            for each, kind in PREDECLARED.items()
        }
        self.queues: dict[str, Queue] = {}
        self.replies: dict[str, Replies] = {}
        self._forwarders: dict[str, Forwarder] = {}
        self._busy = False  # who has set it buries what dies meanwhile
        self._dying: deque[tuple[Queue, Dead]] = deque()

    # --- names ---

    def queue_words(self, name: str) -> str:
        """Name a queue as RabbitMQ does in its sentences."""
        return f"queue '{name}' in vhost '{self.name}'"

    def exchange_words(self, name: str) -> str:
        """Name an exchange as RabbitMQ does in its sentences."""
        return f"exchange '{name}' in vhost '{self.name}'"

    def exchange(self, name: str) -> Exchange:
        """Find an exchange.

        Raises:
            Refusal: There is none of this name.
        """
        found = self.exchanges.get(name)
        if found is None:
            raise not_found(self.exchange_words(name))
        return found

    def queue(self, name: str) -> Queue:
        """Find a queue.

        Raises:
            Refusal: There is none of this name.
        """
        found = self.queues.get(name)
        if found is None:
            raise not_found(self.queue_words(name))
        return found

    # --- bindings and ends ---

    def bind(
        self, source: str, destination: Destination, key: str, arguments: Table
    ) -> None:
        """Bind a queue or an exchange to an exchange.

        Raises:
            Refusal: One of them does not exist.
        """
        exchange = self.exchange(source)
        if destination.kind == "queue":
            self.queue(destination.name)
        else:
            self.exchange(destination.name)
        exchange.bind(destination, key, arguments)

    def unbind(
        self, source: str, destination: Destination, key: str, arguments: Table
    ) -> None:
        """Remove a binding; that there is none is fine."""
        exchange = self.exchanges.get(source)
        if exchange is not None and exchange.unbind(destination, key, arguments):
            self._delete_unused(exchange)

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange with all its bindings, from and to it."""
        if self.exchanges.pop(name, None) is not None:
            self._forget(Destination("exchange", name))

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue; return how many messages were ready in it."""
        if queue.deleted:
            return 0
        count = queue.ready
        del self.queues[queue.name]
        queue.close()
        forwarder = self._forwarders.pop(queue.name, None)
        if forwarder is not None:
            forwarder.close()
        for consumer in queue.consumers:
            queue.consumers.remove(consumer)
            consumer.receiver.cancelled(consumer)
        self._forget(Destination("queue", queue.name))
        return count

    def delete_exclusive(self, owner: object) -> None:
        """Delete the queues that go with a connection."""
        for queue in [each for each in self.queues.values() if each.owner is owner]:
            self.delete_queue(queue)

    def _forget(self, destination: Destination) -> None:
        for exchange in list(self.exchanges.values()):
            if exchange.forget(destination):
                self._delete_unused(exchange)

    def _delete_unused(self, exchange: Exchange) -> None:
        if exchange.auto_delete and not exchange.used:
            self.delete_exchange(exchange.name)

    # --- the way of a message ---

    def route(self, exchange: Exchange, message: Message) -> list[Queue]:
        """Find the queues a message goes to, each once, sorted by name.

        A direct reply goes to no queue: it is delivered here, as RabbitMQ does it.
        """
        if not exchange.name:
            return self._default(message)
        names: set[str] = set()
        seen = {exchange.name}
        ahead = [exchange]
        while ahead:
            here = ahead.pop()
            found = here.route(message)
            if not found and here.alternate is not None:
                found = [Destination("exchange", here.alternate)]
            for kind, name in found:
                if kind == "queue":
                    names.add(name)
                elif name not in seen:
                    seen.add(name)
                    ahead += self._existing(name)
        return self.present(sorted(names))

    def present(self, names: Iterable[str]) -> list[Queue]:
        """Find those queues that there are."""
        return [self.queues[name] for name in names if name in self.queues]

    def _default(self, message: Message) -> list[Queue]:
        queues = self.queues
        if len(message.keys) == 1:
            queue = queues.get(message.key)
            if queue is not None:
                return [queue]
        for key in message.keys:
            if key.startswith(REPLY_TO) and key in self.replies:
                self.replies[key].reply(message)
        return self.present(sorted(set(message.keys)))

    def _existing(self, name: str) -> list[Exchange]:
        found = self.exchanges.get(name)
        return [] if found is None else [found]

    def hand_out(
        self, queues: Sequence[Queue], message: Message, publisher: object | None
    ) -> bool:
        """Give a message to queues; whether all have taken it.

        What dies of that is dead-lettered when all have it, as a queue process would.
        """
        if len(queues) == 1:
            return queues[0].publish(message, publisher)
        outermost, self._busy = not self._busy, True
        try:
            taken = [each.publish(message, publisher) for each in queues]
        finally:
            if outermost:
                self._bury_all()
        return all(taken)

    # --- dead letters ---

    def bury(self, queue: Queue, message: Message, reason: str) -> None:
        """Dead-letter a message of a queue, or drop it if it has no such exchange."""
        if queue.policy.dead_letter_exchange is None:
            return
        self._dying.append((queue, Dead(message, reason)))
        if not self._busy:
            self._bury_all()

    def _bury_all(self) -> None:
        # one after the other: each may push another one out of the next queue, and so
        # on through as many as two full queues hold
        self._busy = True
        try:
            while self._dying:
                self._bury(*self._dying.popleft())
        finally:
            self._busy = False

    def _bury(self, queue: Queue, victim: Dead) -> None:
        if not queue.policy.at_least_once:
            self.send_dead(queue, victim)
            return
        forwarder = self._forwarders.get(queue.name)
        if forwarder is None:
            forwarder = self._forwarders[queue.name] = Forwarder(queue, self)
        forwarder.forward(victim)

    def send_dead(
        self, queue: Queue, victim: Dead, publisher: object | None = None
    ) -> bool:
        """Dead-letter a message; whether all that it was routed to have it."""
        name = queue.policy.dead_letter_exchange
        exchange = self.exchanges.get(name or "")
        if exchange is None:
            return False
        key, date = queue.policy.dead_letter_key, int(self.clock.date())
        message, reason = victim
        sent, deaths = dead(message, reason, queue.name, exchange.name, key, date)
        routed = {each.name: each for each in self.route(exchange, sent)}
        left = without_cycles(reason, deaths, list(routed))
        taken = self.hand_out([routed[each] for each in left], sent, publisher)
        return bool(left) and taken
