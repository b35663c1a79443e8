"""Is a worker alive, and is it ready? Decided from what can be seen of it."""

from __future__ import annotations

from msgspec import Struct

from rmqarq.errors import Unhealthy

UNCONSUMED = 300.0
"""Seconds on a good connection after which a queue without consumer needs a restart."""


class Load(Struct, frozen=True):
    """How busy a worker is.

    Args:
        running: Jobs that have begun and are not settled.
        waiting: Jobs that were received and have not begun.
        slots: How many may run at the same time.
        left_behind: Runs that ignored their cancellation and still go on.
    """

    running: int = 0
    waiting: int = 0
    slots: int = 1
    left_behind: int = 0


class Facts(Struct, frozen=True, kw_only=True):
    """What can be seen of a worker at one moment.

    Args:
        starting: It has not consumed all its queues yet.
        stopping: It takes no more jobs.
        connected: It has the connection that it consumes on.
        standing: For how many seconds it has been, or not been, connected.
        blocked: Which alarm keeps the broker from taking messages, if one does.
        unconsumed: The queues without a consumer of ours, and for how many seconds.
        load: How busy it is.
        reconnects: How often a connection was made anew.
        blocks: How often its event loop was found blocked.
    """

    starting: bool = False
    stopping: bool = False
    connected: bool = True
    standing: float = 0.0
    blocked: str | None = None
    unconsumed: dict[str, float] = {}
    load: Load = Load()
    reconnects: int = 0
    blocks: int = 0


def deadly(facts: Facts) -> list[Unhealthy]:
    """Give what only a restart can cure: the worker is not alive.

    A lost connection never is: a restart brings no broker back, and it would cut off
    the jobs that run meanwhile.
    """
    found: list[Unhealthy] = []
    load = facts.load
    if load.left_behind >= load.slots:
        found.append(
            Unhealthy(
                "{count} runs that ignored their cancellation still go on, and there"
                " are {slots} slots: only a restart ends them",
                count=load.left_behind,
                slots=load.slots,
            )
        )
    if facts.connected and not facts.stopping and facts.standing >= UNCONSUMED:
        gone = [each for each, age in facts.unconsumed.items() if age >= UNCONSUMED]
        if gone:
            found.append(
                Unhealthy(
                    "for {seconds} s there has been a connection, and no consumer of"
                    " {queues}",
                    seconds=round(min(facts.unconsumed[each] for each in gone)),
                    queues=", ".join(gone),
                )
            )
    return found


def hindrances(facts: Facts) -> list[Unhealthy]:
    """Give what keeps a worker from its work at present: it is not ready."""
    found = deadly(facts)
    if facts.stopping:
        found.append(
            Unhealthy(
                "stopping: {running} jobs are under way", running=facts.load.running
            )
        )
    elif facts.starting:
        found.append(Unhealthy("starting: not all queues are consumed yet"))
    if not facts.connected:
        found.append(
            Unhealthy(
                "not connected to the broker for {seconds} s",
                seconds=round(facts.standing),
            )
        )
    elif facts.unconsumed and not (facts.starting or facts.stopping):
        found.append(
            Unhealthy("not consumed: {queues}", queues=", ".join(facts.unconsumed))
        )
    if facts.blocked is not None:
        found.append(
            Unhealthy(
                "the broker takes no messages at present: {alarm}", alarm=facts.blocked
            )
        )
    return found
