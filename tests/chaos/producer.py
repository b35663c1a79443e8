"""Offers jobs at a steady rate, whatever happens, and keeps account of them."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, NamedTuple

import aiormq
from pamqp import commands

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Mapping

    from rmqarq import App
    from tests.chaos.ledger import Account

SECRET = "S3CR3T"
MARK = f"{SECRET}-in-a-body"
QUEUE = "chaos"
SIDE = "chaos-side"  # for jobs that come one at a time, so that it may be deleted
MOST_OPEN = 20_000
SHORTEST, LONGEST = 0.001, 5.0

# how many of a thousand jobs are of which kind; the rest is quick
MIX = {
    "sleeper": 30,
    "blocking": 10,
    "flaky": 50,
    "delayed": 50,
    "reject": 5,
    "poison": 1,
}
DELAYS = (0.3, 1.2, 3.0)


class Offer(NamedTuple):
    """One job to be: its id, which begins with its kind, and its number."""

    job_id: str
    kind: str


class Producer:
    """Enqueues jobs of all kinds, each at its time, beside each other.

    Args:
        app: Of the chaos app, its URL through the networks that may fail.
        account: Where the ends of all enqueues are written down.
        rate: Jobs a second.
        chance: Chooses kinds and times.
        direct: URL of the broker past all networks, for messages that nobody can read.
        mix: How many of a thousand jobs are of which kind.
        delays: What delayed jobs wait, in seconds.

    Attributes:
        offers: The moment of every job, by the monotonic clock.
        poison: Bodies of unreadable messages that the broker confirmed.
    """

    def __init__(
        self,
        app: App,
        account: Account,
        rate: float,
        chance: random.Random,
        *,
        direct: str,
        mix: Mapping[str, int] = MIX,
        delays: tuple[float, ...] = DELAYS,
    ) -> None:
        self.app = app
        self.account = account
        self.rate = rate
        self.chance = chance
        self.direct = direct
        self.delays = delays
        self.offers: list[float] = []
        self.poison: set[bytes] = set()
        self._kinds = ("quick", *mix)
        self._weights = (1000 - sum(mix.values()), *mix.values())
        self._open: set[asyncio.Task[object]] = set()
        self._stopping = False

    @property
    def open(self) -> int:
        """How many enqueues have not ended yet."""
        return len(self._open)

    async def warm_up(self) -> None:
        """Enqueue one job of each kind and delay, so that every queue is declared."""
        for kind in self._kinds:
            await self._send(self._offer(kind))
        await self.send_aside()
        for index, delay in enumerate(self.delays):
            offer = Offer(f"delayed-first-{index}", "delayed")
            await self._keep(offer, self._delayed(offer, delay))
        for tenths in (1, 2):  # the waits of the flaky ones
            offer = Offer(f"delayed-retry-{tenths}", "delayed")
            await self._keep(offer, self._delayed(offer, tenths / 10))

    async def send_aside(self) -> None:
        """Enqueue one job to the side queue."""
        offer = self._offer("quick")
        task = self.app.tasks["quick"].options(job_id=offer.job_id, queue=SIDE)
        await self._keep(offer, task.enqueue(MARK))

    async def run(self) -> None:
        """Offer jobs until stopped; catches up with its rate when it was held up."""
        begin = time.monotonic()
        offered = 0
        while not self._stopping:
            due = int((time.monotonic() - begin) * self.rate)
            while offered < due and len(self._open) < MOST_OPEN:
                self._start(self._offer())
                offered += 1
            await asyncio.sleep(0.004)

    async def stop(self) -> None:
        """Offer no more, and wait for what is open; what outlasts that hangs."""
        self._stopping = True
        if self._open:
            patience = self.account.deadline + 5
            _, hanging = await asyncio.wait(self._open, timeout=patience)
            for each in hanging:
                each.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    def _start(self, offer: Offer) -> None:
        self.offers.append(time.monotonic())
        task = asyncio.create_task(self._send(offer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    def _offer(self, kind: str | None = None) -> Offer:
        number = len(self.account.sent) + len(self._open)
        if kind is None:
            [kind] = self.chance.choices(self._kinds, self._weights)
        return Offer(f"{kind}-{number}-{self.chance.getrandbits(32):08x}", kind)

    async def _send(self, offer: Offer) -> None:
        if offer.kind == "poison":
            await self._poison(offer.job_id)
        else:
            await self._keep(offer, self._enqueue(offer))

    async def _keep(self, offer: Offer, enqueueing: Awaitable[object]) -> None:
        await self.account.keep(offer.job_id, enqueueing, doomed=offer.kind == "reject")

    def _enqueue(self, offer: Offer) -> Awaitable[object]:
        task = self.app.tasks[offer.kind].options(job_id=offer.job_id)
        if offer.kind == "delayed":
            return self._delayed(offer, self.chance.choice(self.delays))
        if offer.kind == "sleeper":
            return task.enqueue(self._seconds(LONGEST), MARK)
        if offer.kind == "blocking":
            return task.enqueue(self._seconds(0.5), MARK)
        return task.enqueue(MARK)

    def _delayed(self, offer: Offer, delay: float) -> Awaitable[object]:
        task = self.app.tasks["delayed"].options(job_id=offer.job_id)
        return task.defer(delay, time.time() + delay, MARK)

    def _seconds(self, longest: float) -> float:
        """Choose a time, short ones more often: evenly by its logarithm."""
        return math.exp(self.chance.uniform(math.log(SHORTEST), math.log(longest)))

    async def _poison(self, name: str) -> None:
        """Put a message that nobody can read straight into the queue."""
        body = f"{{{name}".encode()
        properties = commands.Basic.Properties(delivery_mode=2)
        try:
            async with asyncio.timeout(5):
                connection = await aiormq.connect(self.direct)
                try:
                    channel = await connection.channel()
                    await channel.basic_publish(
                        body,
                        routing_key=self.app.settings.queue,
                        properties=properties,
                        mandatory=True,
                    )
                finally:
                    await connection.close()
        except (OSError, TimeoutError, aiormq.exceptions.AMQPError):
            return  # nobody promised anything
        self.poison.add(body)
