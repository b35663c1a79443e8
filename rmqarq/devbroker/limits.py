"""How much may lie in a queue, and what happens to what is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        self._full = False  # a quorum queue that rejects until it is emptier

    @property
    def drop(self) -> bool:
        """Whether the first message must go."""
        drops = self._policy.overflow == "drop-head"
        return drops and self._store.count > 0 and self._over()

    def reject(self, message: Message) -> bool:
        """Whether a message does not fit."""
        if self._policy.overflow == "drop-head":
            return False
        if not self._policy.quorum:
            return self._over(1, len(message.body))
        # a quorum queue tells its publishers after it was too late
        if self._full:
            self._full = not self._below()
        else:
            self._full = self._over()
        return self._full

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
