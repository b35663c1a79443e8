"""What becomes of a message that is not to run, or not here and not now."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from rmqarq.wire.properties import NO_HEADERS, PropertyError
from rmqarq.worker.admission import Postponed, admit, unknown
from rmqarq.worker.history import Detour, detour, history_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.message import Message
    from rmqarq.outcome import DeadLettered
    from rmqarq.settings import Settings
    from rmqarq.wire.consumer import Delivery
    from rmqarq.worker.chunk import Share

    Verdict: TypeAlias = DeadLettered | Postponed | Detour

log = logging.getLogger(__name__)


class Judge:
    """Decides on messages, one by one.

    Args:
        settings: The worker's.
        clock: Gives the time.
        isolates: Whether suspects run in a process of their own.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float], *, isolates: bool
    ) -> None:
        self._patience = settings.unknown_task_wait
        self._clock = clock
        self._isolates = isolates
        self._mentioned = False

    def verdict(
        self, delivery: Delivery | Share, message: Message, *, known: bool
    ) -> Verdict | None:
        """Decide what is not to run; what came back too often is looked at first.

        Args:
            delivery: What has come.
            message: The same, read.
            known: Whether its task is registered here.
        """
        now = self._clock()
        if delivery.suspect:
            self._mention_isolation()
        elif delivery.redelivered:
            way = detour(history_of(delivery))
            if way is not None:
                return way
        if known or message.expired(now):
            return admit(message, now)
        try:
            headers = delivery.headers
        except PropertyError:
            headers = NO_HEADERS
        return unknown(headers, now, self._patience)

    def _mention_isolation(self) -> None:
        """Say once what it costs when a process of its own can't find the App."""
        if not (self._isolates or self._mentioned):
            self._mentioned = True
            log.warning(
                "suspects run in this process, since no module holds the App: one that"
                " kills its process kills this worker, each time; give"
                " Worker(path='MODULE:APP')"
            )


def goes_on_whole(verdict: Verdict | None) -> bool:
    """Tell whether a chunk stays one: it has to wait, or to be counted."""
    if isinstance(verdict, Detour):
        return not verdict.suspect
    return isinstance(verdict, Postponed)
