"""Whatever clients do, the dev broker does what RabbitMQ 3.10 does, step by step."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rmqarq.devbroker import Broker, Clock
from tests.conftest import on_dev_broker
from tests.devbroker.differential.client import Connection, connect
from tests.devbroker.side import CLIENTS, EXCHANGES, QUEUES, Side, pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tests.harness.broker import Broker as Node

pytestmark = pytest.mark.skipif(on_dev_broker(), reason="looks at RabbitMQ itself")

EXAMPLES = int(os.environ.get("RMQARQ_TEST_EXAMPLES", "300"))
STEPS = 10
SHORT = 10  # milliseconds, that what is soon to expire lives
LONG = 60_000
PATIENCE = 5.0  # seconds, until RabbitMQ shows what the dev broker shows
RUN = secrets.token_hex(3)
RUNS = itertools.count()


class Brokers:
    """Both brokers, for all examples."""

    def __init__(self, node: Node) -> None:
        self.runner = asyncio.Runner()
        self.node = node
        self.dev = Broker(clock=Clock(None))
        self.connections: list[Connection] = []
        self.overloads = 0

    async def renew(self) -> None:
        """Connect to RabbitMQ anew, which was too busy to answer."""
        self.overloads += 1
        old, self.connections[0] = self.connections[0], await connect(self.node.port)
        await old.close()

    async def open(self) -> None:
        """Connect to both."""
        port = await self.dev.serve()
        self.connections = [await connect(self.node.port), await connect(port)]

    async def close(self) -> None:
        """Leave both."""
        assert self.overloads <= max(3, EXAMPLES // 100), "RabbitMQ was overloaded"
        for connection in self.connections:
            await connection.close()
        await self.dev.close()


class Overloaded(Exception):
    """RabbitMQ has not answered, or not as it does when it has time."""


async def patiently(answer: Awaitable[Any]) -> Any:
    """Wait for an answer of RabbitMQ."""
    try:
        return await answer
    except (TimeoutError, ConnectionError) as error:
        raise Overloaded from error


TTLS = st.sampled_from([None, None, None, 0, SHORT, LONG])
KEYS = st.sampled_from(["q1", *QUEUES, "a", "a.b"])
PATTERNS = st.sampled_from([*QUEUES, "a", "a.b", "#", "*", "a.*"])
KINDS = st.sampled_from(["direct", "fanout", "topic", "headers"])
SOURCES = st.sampled_from(EXCHANGES)
BINDABLE = st.sampled_from((*QUEUES, *QUEUES, *EXCHANGES))
WHO = st.integers(0, CLIENTS - 1)
NAME = st.sampled_from(("q1", "q1", "q1", "q2", "q2", "q3"))
MATCHES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {"h": 1}, {"h": 1, "i": 2, "x-match": "any"}, {"h": 1, "i": 2}]
)


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the arguments of a queue."""
    quorum = draw(st.booleans())
    given: dict[str, Any] = {
        "x-message-ttl": draw(TTLS),
        "x-dead-letter-exchange": draw(st.sampled_from([None, "", "x1", "nil"])),
        "x-max-length": draw(st.sampled_from([None, None, 0, 1, 2, 5])),
        "x-overflow": draw(st.sampled_from([None, "drop-head", "reject-publish"])),
        "x-single-active-consumer": draw(st.sampled_from([None, None, True])),
    }
    if given["x-dead-letter-exchange"] is not None:
        given["x-dead-letter-routing-key"] = draw(st.none() | NAME)
    if quorum:
        given["x-queue-type"] = "quorum"
        given["x-delivery-limit"] = draw(st.sampled_from([None, 0, 1, 2]))
    else:
        given["x-max-priority"] = draw(st.sampled_from([None, None, 2]))
        if given["x-overflow"] is None and draw(st.booleans()):
            given["x-overflow"] = "reject-publish-dlx"
    return {name: each for name, each in given.items() if each is not None}


@st.composite
def properties(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the properties of a message."""
    headers = draw(st.sampled_from([{}, {}, {"h": 1}, {"h": 1, "i": 2}]))
    for name in ("CC", "BCC"):
        keys = draw(st.sampled_from([0, 0, 0, 1, 2]))
        if keys:
            headers = {**headers, name: [draw(KEYS) for _ in range(keys)]}
    ttl = draw(TTLS)
    given: dict[str, Any] = {"headers": headers}
    if ttl is not None:
        given["expiration"] = str(ttl)
    priority = draw(st.sampled_from([None, None, 0, 1, 2, 5]))
    if priority is not None:
        given["priority"] = priority
    return given


class Machine(RuleBasedStateMachine):
    """Tells both brokers the same and looks whether they show the same."""

    brokers: Brokers

    def __init__(self) -> None:
        super().__init__()
        prefix = f"{RUN}.{next(RUNS)}."
        self.real, self.dev = (Side(each, prefix) for each in self.brokers.connections)
        self.bodies = itertools.count(1)
        self.tags = itertools.count(1)
        self.dead_to: dict[str, str] = {}  # where the dead of a queue go
        self.bound: set[str] = set()  # queues that exchanges lead to
        self.hasty = False
        self.lost = False
        self.run(self.open())

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the loop of the brokers."""
        return self.brokers.runner.run(what)

    async def open(self) -> None:
        """Open channels to both."""
        await self.real.open()
        await self.dev.open()

    def teardown(self) -> None:
        """Delete what was made."""
        if not self.lost:
            self.run(self.real.close())
        self.run(self.dev.close())

    # --- both do, and show the same ---

    def both(
        self, act: Callable[[Side], Awaitable[Any]], *, moves: bool = False
    ) -> Any:
        """Tell both; compare what they answer and then show.

        Args:
            act: What they are told.
            moves: It may bring messages into a queue, where they may soon expire.
        """
        try:
            return self.run(self.compare(act, moves))
        except Overloaded:
            # RabbitMQ took too long, or could not start a quorum queue in time
            self.lost = True
            self.run(self.brokers.renew())
            reject()

    async def compare(self, act: Callable[[Side], Awaitable[Any]], moves: bool) -> Any:
        dev = await act(self.dev)
        real = await patiently(act(self.real))
        assert real == dev, f"RabbitMQ answers {real}\nthe dev broker {dev}"
        rest = SHORT / 1000 if moves and self.hasty else 0.0
        for _ in range(10):
            due = self.brokers.dev.clock.next_due
            if due is not None and due < 1:
                rest = max(rest, due)
            if not rest:
                break
            await asyncio.gather(pause(rest + 0.002), self.brokers.dev.advance(rest))
            rest = 0.0
        await self.same()
        return dev

    async def same(self) -> None:
        """Wait until both show the same."""
        deadline = time.monotonic() + PATIENCE
        while True:
            dev = await self.dev.shown()
            real = await patiently(self.real.shown())
            if real == dev:
                return
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.002)
        raise AssertionError(f"RabbitMQ shows {real}\nthe dev broker {dev}")

    # --- what there is ---

    @initialize(
        first=arguments(),
        second=arguments(),
        kind=KINDS,
        keys=st.lists(PATTERNS, min_size=1, max_size=3),
    )
    def begin(
        self,
        first: dict[str, Any],
        second: dict[str, Any],
        kind: str,
        keys: list[str],
    ) -> None:
        self.declare_queue("q1", first)
        self.declare_queue("q2", second)
        self.declare_exchange("x1", kind, None)
        for queue, key in zip(("q1", "q2", "q1"), keys, strict=False):
            self.bind(queue, "x1", key, {})

    @rule(name=NAME, given=arguments())
    def declare_queue(self, name: str, given: dict[str, Any]) -> None:
        self.hasty = self.hasty or given.get("x-message-ttl") == SHORT
        given = self.orderly(name, given)
        self.both(lambda side: side.declare(name, given))

    def orderly(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Leave out dead-lettering if it could race with that of another queue."""
        exchange = given.get("x-dead-letter-exchange")
        if exchange in (None, "nil"):
            return given
        key = given.get("x-dead-letter-routing-key")
        to = "anywhere" if exchange or key is None else key
        others = [each for other, each in self.dead_to.items() if other != name]
        if to in others or (others and "anywhere" in (to, *others)):
            return {k: v for k, v in given.items() if "dead-letter" not in k}
        self.dead_to.setdefault(name, to)
        return given

    @rule(
        name=SOURCES,
        kind=KINDS,
        other=st.sampled_from([None, None, "x1", "x2", "nil"]),
    )
    def declare_exchange(self, name: str, kind: str, other: str | None) -> None:
        self.both(lambda side: side.declare_exchange(name, kind, other))

    @rule(to=BINDABLE, source=SOURCES, key=PATTERNS, given=MATCHES)
    def bind(self, to: str, source: str, key: str, given: dict[str, Any]) -> None:
        self.bound.update({to} & set(QUEUES))
        self.both(lambda side: side.bind(to, source, key, given))

    @rule(to=BINDABLE, source=SOURCES, key=PATTERNS, given=MATCHES)
    def unbind(self, to: str, source: str, key: str, given: dict[str, Any]) -> None:
        self.both(lambda side: side.unbind(to, source, key, given))

    # --- in ---

    @rule(
        who=WHO,
        where=st.tuples(st.sampled_from(["", "", *EXCHANGES]), KEYS),
        count=st.sampled_from([1, 1, 1, 2, 3]),
        given=properties(),
    )
    def publish(
        self, who: int, where: tuple[str, str], count: int, given: dict[str, Any]
    ) -> None:
        if self.dead_to:
            # many queues would race: a first message waits until a quorum queue knows
            # its publisher, and what a classic queue drops meanwhile is there before
            where = ("" if len(self.bound) > 1 else where[0]), where[1]
            given = self.without_copies(given)
        bodies = [str(next(self.bodies)) for _ in range(count)]
        self.hasty = self.hasty or given.get("expiration") == str(SHORT)
        # one after the other: one that dies and the next one would race
        for body in bodies:
            self.both(
                lambda side, body=body: side.publish(who, [body], where, **given),
                moves=True,
            )

    def without_copies(self, given: dict[str, Any]) -> dict[str, Any]:
        """Leave out what leads a message to further queues."""
        headers = {
            name: [key for key in each if key not in QUEUES]
            if name in ("CC", "BCC")
            else each
            for name, each in given["headers"].items()
        }
        return {**given, "headers": headers}

    # --- out ---

    @rule(who=WHO, queue=NAME, no_ack=st.booleans())
    def get(self, who: int, queue: str, no_ack: bool) -> None:
        self.both(lambda side: side.get(who, queue, no_ack))

    @rule(
        who=WHO,
        queue=NAME,
        prefetch=st.sampled_from([0, 1, 2]),
        no_ack=st.sampled_from([False, False, True]),
        exclusive=st.sampled_from([False, False, False, True]),
        priority=st.sampled_from([None, None, 1, -1]),
    )
    def consume(
        self, who: int, queue: str, prefetch: int, priority: int | None, **given: bool
    ) -> None:
        tag = f"c{next(self.tags)}"
        wishes = {} if priority is None else {"x-priority": priority}
        self.both(
            lambda side: side.consume(
                who, queue, tag, prefetch, arguments=wishes, **given
            )
        )

    @precondition(lambda self: any(each.consumers for each in self.dev.clients))
    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        found = [
            (who, tag)
            for who, client in enumerate(self.dev.clients)
            for tag in client.consumers
        ]
        who, tag = found[which % len(found)]
        self.both(lambda side: side.cancel(who, tag))

    @precondition(lambda self: any(each.held for each in self.dev.clients))
    @rule(
        which=st.integers(0, 9),
        verdict=st.sampled_from(["ack", "requeue", "requeue", "discard", "reject"]),
        multiple=st.booleans(),
    )
    def settle(self, which: int, verdict: str, multiple: bool) -> None:
        found = [
            (who, each)
            for who, client in enumerate(self.dev.clients)
            for each in client.held
        ]
        who, held = found[which % len(found)]
        mine, theirs = (
            [each.what for each in side.clients[who].held]
            for side in (self.dev, self.real)
        )
        # which queue was the first to deliver is chance
        if verdict == "reject" or mine != theirs or self.holds_of_many(who):
            multiple = False

        def tag(side: Side) -> int:
            return next(
                each.tag for each in side.clients[who].held if each.what == held.what
            )

        self.both(
            lambda side: side.settle(who, tag(side), verdict, multiple), moves=True
        )

    def holds_of_many(self, who: int) -> bool:
        """Whether a client holds messages of several queues, which would race."""
        return len({each.queue for each in self.dev.clients[who].held}) > 1

    @rule(who=WHO)
    def recover(self, who: int) -> None:
        if self.holds_of_many(who):
            return
        self.both(lambda side: side.recover(who), moves=True)

    @rule(who=WHO)
    def reopen(self, who: int) -> None:
        if self.holds_of_many(who):
            return
        self.both(lambda side: side.reopen(who), moves=True)

    # --- ends ---

    @rule(queue=NAME)
    def purge(self, queue: str) -> None:
        self.both(lambda side: side.purge(queue))

    @rule(queue=NAME)
    def delete(self, queue: str) -> None:
        self.dead_to.pop(queue, None)
        self.both(lambda side: side.delete(queue))

    @rule(exchange=SOURCES, unused=st.booleans())
    def delete_exchange(self, exchange: str, unused: bool) -> None:
        self.both(lambda side: side.delete_exchange(exchange, unused))


@pytest.mark.timeout(max(600, 2 * EXAMPLES))  # RabbitMQ on a busy machine
def test_whatever_clients_do_the_dev_broker_does_what_rabbitmq_does(
    broker: Node,
) -> None:
    brokers = Brokers(broker)
    Machine.brokers = brokers
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    with brokers.runner as runner:
        runner.run(brokers.open())
        try:
            version = str(brokers.connections[0].properties["version"])
            if not version.startswith("3.10."):
                pytest.skip("another version of RabbitMQ may do otherwise")
            run_state_machine_as_test(Machine, settings=how)
        finally:
            runner.run(brokers.close())
