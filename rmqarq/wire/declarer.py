"""Sees to it, once per connection, that what a message needs on its way is there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rmqarq.errors import (
    AccessRefused,
    ConfigurationError,
    ConnectionLost,
    RmqarqError,
    TopologyMismatch,
    Unroutable,
)
from rmqarq.wire import declare, topology
from rmqarq.wire.delay import Rung
from rmqarq.wire.names import Names
from rmqarq.wire.plugin import probe
from rmqarq.wire.publication import Delayed
from rmqarq.wire.topology import Binding, Topology

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from rmqarq.settings import Settings
    from rmqarq.wire.connection import Connection
    from rmqarq.wire.publication import Publication

log = logging.getLogger(__name__)

FOUNDATION, LADDER = "\0foundation", "\0ladder"
FRESH = 15.0
"""Seconds after which a rung that was there when we declared it is complete, too: who
creates it may still be at it."""


class Declarer:
    """Declares work queues and rungs, or only checks them when it may not.

    It also chooses, once per connection, who keeps delayed messages.

    Args:
        settings: Say how queues are declared, and whether at all.
        foreign: Queues of somebody else, which must be there.
    """

    def __init__(self, settings: Settings, foreign: Container[str]) -> None:
        self._settings = settings
        self._foreign = foreign
        self._names = Names(settings.prefix)
        # for both links together: RabbitMQ 3.10 may answer 541 to one of two that
        # declare the same quorum queue at the same time
        self._declaring = asyncio.Lock()
        # nobody can see over AMQP whether a queue is bound to the plugin's exchange,
        # and an unbound one loses its jobs: where we bind none, it must be asked for
        self._looks = settings.delays == "plugin" or (
            settings.delays == "auto" and settings.declare == "active"
        )
        self._found = False

    async def choose(self, connection: Connection) -> bool:
        """Find out, as a starting worker, whether the plugin is to be used.

        Where we may declare, the broker is asked by a declaration of its exchange.

        Args:
            connection: It leads to the broker; another one is made beside it.

        Raises:
            ConfigurationError: It must be used, and there is none.
            TransportError: A link broke meanwhile.
        """
        settings = self._settings
        if settings.delays == "ladder" or settings.declare == "passive":
            return await self.uses_plugin(connection)
        refusal = await probe(connection.endpoint, settings)
        if refusal is None:
            connection.plugin = self._found = self._looks = True
            return True
        if settings.delays == "plugin":
            raise ConfigurationError(
                "delays='plugin', but the delayed-message plugin can't be used"
                " ({problem}); enable it (rabbitmq-plugins enable"
                " rabbitmq_delayed_message_exchange), or choose delays='auto' or"
                " 'ladder'",
                problem=str(refusal),
            ) from refusal
        known = isinstance(refusal, AccessRefused | TopologyMismatch)
        log.log(
            logging.INFO if known else logging.DEBUG,
            "delays take the ladder, not the delayed-message plugin: %(problem)s",
            {"problem": refusal},
        )
        self.forgo()
        return False

    async def prepare(
        self, connection: Connection, batch: Sequence[Publication]
    ) -> None:
        """Declare what a batch needs, on the way that its delayed messages take here.

        Raises:
            ConfigurationError: As for `ensure` and `uses_plugin`.
            ConnectionLost: The link broke.
        """
        if any(isinstance(each, Delayed) for each in batch):
            await self.uses_plugin(connection)
        ready = written(batch, connection)
        await self.ensure(connection, {need for each in ready for need in each.needs})

    async def ensure(
        self, connection: Connection, needs: Iterable[str | Rung | Binding]
    ) -> None:
        """Declare what has not been declared through this connection yet.

        Args:
            connection: Where to.
            needs: Work queues, with all that belongs to them, rungs, and bindings of
                the plugin's exchange.

        Raises:
            ConfigurationError: The broker refuses, or with `passive` it is not there.
            QueueMissing: A queue of somebody else is not there.
            ConnectionLost: The link broke.
        """
        if connection.ensured.issuperset(needs):
            return
        async with self._declaring:
            # bindings last: their queues must be there
            for need in sorted(needs, key=lambda need: isinstance(need, Binding)):
                if need not in connection.ensured:
                    await self._declare(connection, need)
                    connection.ensured.add(need)
                    if isinstance(need, Rung):
                        now = asyncio.get_running_loop().time()
                        connection.fresh[need] = now + FRESH

    async def uses_plugin(self, connection: Connection) -> bool:
        """Tell whether delays go by the plugin here; looks once per connection.

        Raises:
            ConfigurationError: They must, and there is none.
            ConnectionLost: The link broke.
        """
        if connection.plugin is None and self._looks:
            async with self._declaring:
                if connection.plugin is None:
                    connection.plugin = await self._look(connection)
        return bool(connection.plugin)

    async def _look(self, connection: Connection) -> bool:
        name = self._names.delayed
        if await declare.has_exchange(connection, name):
            self._found = True
            return True
        if self._found:
            log.warning(
                "%(broker)s has no exchange %(name)s of the delayed-message plugin;"
                " delays take the ladder on this connection",
                {"broker": connection.endpoint, "name": name},
            )
        elif self._settings.delays == "plugin":
            raise ConfigurationError(
                "delays='plugin', but the broker has no exchange {name}: start a"
                " worker, which makes it where the delayed-message plugin is enabled,"
                " or choose delays='auto' or 'ladder'",
                name=repr(name),
            )
        return False

    def forgo(self, why: object = None) -> None:
        """Leave the plugin alone from now on, on every connection.

        Args:
            why: Logged, if it comes unexpectedly.
        """
        if self._looks and why is not None:
            log.warning(
                "the delayed-message plugin can't be used (%(problem)s); delays take"
                " the ladder from now on",
                {"problem": why},
            )
        self._looks = False

    def learn(self, connection: Connection, errors: Iterable[RmqarqError]) -> None:
        """Forgo the plugin when it is its exchange that cost us a channel.

        An exchange may be there without its plugin: it was disabled, or the link leads
        to another node of the cluster now.
        """
        name = f"'{self._names.delayed}'"
        for error in errors:
            refused = isinstance(error, ConnectionLost) and error.refusal
            if connection.plugin and refused and name in str(error):
                connection.plugin = False
                self.forgo(error.params["cause"])

    async def _declare(
        self, connection: Connection, need: str | Rung | Binding
    ) -> None:
        if isinstance(need, Binding):
            await self._bind(connection, need)
            return
        if isinstance(need, str) and need in self._foreign:
            await declare.require_foreign(connection, need)
        if self._settings.declare == "passive":
            await self._require(connection, need)
            return
        if FOUNDATION not in connection.ensured:
            await declare.declare(connection, topology.foundation(self._names))
            connection.ensured.add(FOUNDATION)
        await declare.declare(connection, await self._wanted(connection, need))

    async def _require(self, connection: Connection, need: str | Rung) -> None:
        if isinstance(need, str):
            await declare.require(connection, need)
            return
        await declare.require(connection, self._names.rung(need.label))
        entry = self._names.entry(need.decade)
        if not await declare.has_exchange(connection, entry):
            raise ConfigurationError(
                "the exchange {exchange} does not exist, and declare='passive' makes"
                " none",
                exchange=repr(entry),
            )

    async def _wanted(self, connection: Connection, need: str | Rung) -> Topology:
        if isinstance(need, str):
            made = topology.beside if need in self._foreign else topology.work
            return made(need, self._settings)
        await self._ensure_ladder(connection)
        return topology.rung(need, self._names)

    async def _bind(self, connection: Connection, binding: Binding) -> None:
        if self._settings.declare == "passive":
            return
        try:
            await declare.declare(connection, Topology(bindings=(binding,)))
        except (ConfigurationError, Unroutable) as error:
            if isinstance(error, AccessRefused) and self._settings.delays == "plugin":
                raise
            connection.plugin = False
            self.forgo(error)

    async def _ensure_ladder(self, connection: Connection) -> None:
        if LADDER not in connection.ensured:
            await declare.declare(connection, topology.ladder(self._names))
            connection.ensured.add(LADDER)


def written(
    batch: Sequence[Publication], connection: Connection
) -> Sequence[Publication]:
    """Write the delayed messages of a batch for the broker that a link leads to."""
    for each in batch:
        if type(each) is Delayed:
            break
    else:  # a generator would cost more than all the rest here
        return batch
    now = asyncio.get_running_loop().time()
    fresh = connection.fresh
    for rung in [rung for rung, end in fresh.items() if end < now]:
        del fresh[rung]
    return [
        _written(each, connection) if isinstance(each, Delayed) else each
        for each in batch
    ]


def _written(delayed: Delayed, connection: Connection) -> Publication:
    if connection.plugin:
        publication = delayed.by_plugin()
        if publication is not delayed:
            return publication
    return delayed.by_ladder(connection.fresh)
