"""Jobs that have come and wait for a slot, in the order in which they begin."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rmqarq.worker.chunk import Share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.wire.consumer import Delivery


class Lane:
    """What has come from one queue.

    The rest of chunks that have begun comes first, so that few are ever open.
    """

    def __init__(self) -> None:
        self.deliveries: deque[Delivery] = deque()
        self.shares: deque[Share] = deque()

    def __len__(self) -> int:
        return len(self.shares) + len(self.deliveries)

    def take(self) -> Delivery | Share | None:
        """Give the next one; what has died meanwhile, the broker delivers again."""
        if self.shares:
            return self.shares.popleft()
        while self.deliveries:
            delivery = self.deliveries.popleft()
            if delivery.alive:
                return delivery
        return None


class Waiting:
    """The queues take turns: a flood in one does not hold up the others."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._turns: deque[Lane] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._turns))

    def add(self, job: Delivery | Share) -> None:
        """Put one at the end of its queue."""
        lane = self._lane(job.queue)
        if isinstance(job, Share):
            lane.shares.append(job)
        else:
            lane.deliveries.append(job)

    def add_all(self, queue: str, shares: Iterable[Share]) -> None:
        """Put the jobs of a chunk behind those of the chunks before."""
        self._lane(queue).shares.extend(shares)

    def take(self) -> Delivery | Share | None:
        """Give the next one."""
        while self._turns:
            lane = self._turns[0]
            job = lane.take()
            if lane:
                self._turns.rotate(-1)
            else:
                self._turns.popleft()
            if job is not None:
                return job
        return None

    def drop_dead(self) -> None:
        """Forget what the broker delivers again."""
        for lane in self._turns:
            lane.deliveries = deque(each for each in lane.deliveries if each.alive)
        self._turns = deque(lane for lane in self._turns if lane)

    def _lane(self, queue: str) -> Lane:
        """Give the lane of a queue, which has its turn from now on."""
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = Lane()
        if not lane:
            self._turns.append(lane)
        return lane
