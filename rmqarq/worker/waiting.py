"""Jobs that have come and wait for a slot, in the order in which they begin."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rmqarq.worker.chunk import Share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.wire.consumer import Delivery


class Waiting:
    """The rest of chunks that have begun comes first, so that few are ever open."""

    def __init__(self) -> None:
        self._deliveries: deque[Delivery] = deque()
        self._shares: deque[Share] = deque()

    def __len__(self) -> int:
        return len(self._shares) + len(self._deliveries)

    def add(self, job: Delivery | Share) -> None:
        """Put one at the end."""
        if isinstance(job, Share):
            self._shares.append(job)
        else:
            self._deliveries.append(job)

    def add_all(self, shares: Iterable[Share]) -> None:
        """Put the jobs of a chunk behind those of the chunks before."""
        self._shares.extend(shares)

    def take(self) -> Delivery | Share | None:
        """Give the next one; what has died meanwhile, the broker delivers again."""
        if self._shares:
            return self._shares.popleft()
        while self._deliveries:
            delivery = self._deliveries.popleft()
            if delivery.alive:
                return delivery
        return None

    def drop_dead(self) -> None:
        """Forget what the broker delivers again."""
        self._deliveries = deque(each for each in self._deliveries if each.alive)
