"""How much may lie in a queue, and what happens to what is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from rmqarq.devbroker.arguments import Policy
    from rmqarq.devbroker.message import Message
    from rmqarq.devbroker.store import Store

SOFT_LIMIT = 0.8  # rabbit_fifo: a full quorum queue opens again below this share


class Limits:
    """The limits of a queue.

    Args:
        policy: What they are.
        store: What there is.
    """

    def __init__(self, policy: Policy, store: Store) -> None:
        self.held_dead = 0  # dead letters that found no queue yet; they count
        self._policy = policy
        self._store = store
        # a quorum queue tells its publishers to stop when it is over its limit, and to
        # go on when it is well below; one that comes in between may still publish
        self._stopped: WeakKeyDictionary[object, bool] = WeakKeyDictionary()
        self._was_below = True
        self._tells = policy.quorum and policy.overflow == "reject-publish"

    @property
    def drop(self) -> bool:
        """Whether the first message must go."""
        drops = self._policy.overflow == "drop-head"
        return drops and self._store.count > 0 and self._over()

    def reject(self, message: Message, publisher: object | None) -> bool:
        """Whether a message is not taken in.

        Args:
            message: That wants to come in.
            publisher: Whose it is; `None` for a dead letter that nobody waits for.
        """
        if self._policy.overflow == "drop-head":
            return False
        if not self._tells:
            return self._over(1, len(message.body))
        if publisher is None:
            return False  # rabbit_fifo_client:untracked_enqueue/2
        return self._stopped.setdefault(publisher, self._over())

    def tell(self) -> None:
        """Tell the publishers of a quorum queue to stop or to go on.

        As `rabbit_fifo:evaluate_limit/5`, which comes after everything that happens.
        """
        if not self._tells:
            return
        if self._over():
            below = False
            self._tell(stop=True)
        else:
            below = self._below()
            if below and not self._was_below:
                self._tell(stop=False)
        self._was_below = below

    def _tell(self, *, stop: bool) -> None:
        for publisher in self._stopped:
            self._stopped[publisher] = stop

    def _over(self, more: int = 0, bytes_more: int = 0) -> bool:
        policy, store = self._policy, self._store
        count = store.count + self.held_dead + more
        if policy.max_length is not None and count > policy.max_length:
            return True
        return policy.max_bytes is not None and (
            store.bytes + bytes_more > policy.max_bytes
        )

    def _below(self) -> bool:
        policy, store = self._policy, self._store
        count = store.count + self.held_dead
        if policy.max_length is not None and (
            count > int(policy.max_length * SOFT_LIMIT)
        ):
            return False
        return policy.max_bytes is None or (
            store.bytes <= int(policy.max_bytes * SOFT_LIMIT)
        )
