"""What follows from an outcome at the broker: ack, another attempt, a dead letter.

A follow-up is confirmed before the delivery is acked, so that nothing is ever lost
between the two; a crash there makes a duplicate at worst.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING, TypeVar

import msgspec

from rmqarq.errors import EncodeError, Phrase
from rmqarq.message import Message
from rmqarq.outcome import (
    Aborted,
    Crashed,
    DeadLettered,
    Failure,
    Outcome,
    Released,
    Retried,
    Succeeded,
)
from rmqarq.wire.delay import Rung, Wait, timer
from rmqarq.wire.names import Names, suspect_lane
from rmqarq.wire.properties import PropertyError
from rmqarq.wire.publication import (
    Delayed,
    Letter,
    Publication,
    delayed,
    immediate,
)
from rmqarq.wire.topology import dead_letter_queue
from rmqarq.worker.admission import UNKNOWN_SINCE, Postponed
from rmqarq.worker.executor import failure_of
from rmqarq.worker.followup import FollowUps
from rmqarq.worker.history import MOST_CRASHES, came_back, history_of
from rmqarq.worker.obituary import attempts, obituary

if TYPE_CHECKING:
    from collections.abc import Callable

    from rmqarq.outcome import Reason
    from rmqarq.settings import Settings
    from rmqarq.stats import Stats
    from rmqarq.wire.codec import Decoded, Envelope
    from rmqarq.wire.publication import Post
    from rmqarq.wire.transport import Transport
    from rmqarq.worker.chunk import Chunk
    from rmqarq.worker.formats import Format, Formats
    from rmqarq.worker.history import Detour
    from rmqarq.worker.metrics import Fate, Metrics
    from rmqarq.worker.roster import Roster, Run

MessageT = TypeVar("MessageT", bound=Message)

log = logging.getLogger(__name__)

WRITTEN_DOWN = 0.3
"""Seconds until a counted message comes again: if it kills its worker, the ack of the
uncounted one must have been sent long before."""
UNSEEN = 0.75
"""Seconds more until a delay by the plugin is taken for over: what the plugin holds
can't be counted, and 5 000 due at once came 0.15 s late (measured on 3.10)."""
FAILED_FOR_GOOD = ("retries used up", "rejected", "not retryable", "crashed")


class Settler:
    """Performs outcomes, counts them, and knows when its own retries come back.

    Args:
        transport: Where to publish.
        formats: How the messages of each queue are sent on.
        settings: The worker's.
        stats: The counters to raise.
        roster: The jobs under way.
        clock: Gives the time.

    Attributes:
        roster: Remembers what is done.
        follow_ups: Publishes what follows.
        horizon: When the last of its own delayed messages is due, in loop time.
        rungs: The rungs that may hold them.
        metrics: Counts what becomes of jobs, if anybody wants to know.
    """

    def __init__(
        self,
        transport: Transport,
        formats: Formats,
        settings: Settings,
        stats: Stats,
        roster: Roster,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._formats = formats
        self._settings = settings
        self._clock = clock
        self._stats = stats
        self._names = Names(settings.prefix)
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self.roster = roster
        self.follow_ups = FollowUps(transport, settings.publish_deadline)
        self.horizon = 0.0
        self.rungs: set[Rung] = set()
        self.metrics: Metrics | None = None

    async def settle(self, run: Run, outcome: Outcome) -> None:
        """Do what the outcome of a run asks for."""
        assert run.decoded is not None, "only what was decoded has run"
        match outcome:
            case Succeeded():
                self.complete(run)
            case Retried():
                await self._retry(run, run.decoded, outcome)
            case DeadLettered():
                await self.bury(run, outcome)
            case Crashed():
                await self._crash(run, outcome)
            case Released():
                self._give_back(run)
            case Aborted():
                self._count(run, "aborted")
                self._ack(run)
            case _:
                msg = f"{type(outcome).__name__} can't be settled"
                raise TypeError(msg)

    def complete(self, run: Run) -> None:
        """Ack what has succeeded: nothing follows, so nothing is to be awaited."""
        self._stats.completed += 1
        if self.metrics is not None:
            self.metrics.settled(run, "succeeded")
        self._ack(run)

    async def bury(self, run: Run, outcome: DeadLettered) -> None:
        """Put a message, its bytes unchanged, into the dead-letter queue."""
        decoded = run.decoded
        message = decoded.message if decoded is not None else None
        headers = obituary(
            message, outcome, run.delivery.home, self._worker, self._clock()
        )
        letter = self._format(run).copy(run.delivery, message, headers)
        queue = run.delivery.home
        dead = dead_letter_queue(queue, self._settings)
        try:
            publication = immediate(letter, dead, home=queue)
        except PropertyError:  # a letter that says little is better than none
            letter = Letter(task="", job_id="", body=letter.body, content_type=None)
            publication = immediate(letter, dead, home=queue)
        # not remembered: an operator may put the very same bytes back by hand
        if await self._follow_up(run, publication, remember=False):
            self._stats.dead_lettered += 1
            self._count(run, "dead", outcome.reason)
            self._stats.failed += outcome.reason in FAILED_FOR_GOOD
            log.error(
                "dead letter of %(queue)s: %(task)s %(id)s, %(reason)s,"
                " attempts: %(attempts)d%(error)s",
                {
                    "queue": queue,
                    "task": letter.task or "?",
                    "id": letter.job_id or "?",
                    "attempts": attempts(message, outcome),
                    "reason": outcome.reason,
                    "error": _in_brief(outcome.failure),
                },
            )

    async def postpone(self, run: Run, verdict: Postponed) -> None:
        """Send a message on unrun, its bytes unchanged, to come back later."""
        headers = history_of(run.delivery).headers()
        if verdict.unknown_since is not None:
            headers[UNKNOWN_SINCE] = verdict.unknown_since
        message = run.decoded.message if run.decoded is not None else None
        letter = self._format(run).copy(run.delivery, message, headers)
        publication = self._delayed(run, letter, self._from_now(verdict.delay))
        # not remembered: it is the very same message that comes back
        if await self._follow_up(run, publication, remember=False):
            self._stats.deferred += 1
            self._count(run, "deferred")
            log.info(
                "%(task)s %(id)s is put off for %(delay).1f s: %(why)s",
                {
                    "task": letter.task,
                    "id": letter.job_id,
                    "delay": verdict.delay,
                    "why": verdict.why,
                },
            )
            if verdict.why == "early":
                self._expect(publication)

    async def redirect(self, run: Run, way: Detour) -> None:
        """Send on what came back: to the suspect lane, or to be counted."""
        assert run.decoded is not None, "read before it is judged"
        home = run.delivery.home
        message = run.decoded.message
        letter = self._format(run).copy(run.delivery, message, way.history.headers())
        if not way.suspect:
            counted = self._delayed(run, letter, Wait(WRITTEN_DOWN))
            if await self._follow_up(run, counted, remember=False):
                self._expect(counted)
            return
        publication = immediate(letter, suspect_lane(home), home=home)
        if await self._follow_up(run, publication):
            self._stats.suspected += 1
            self._count(run, "suspected")
            log.warning(
                "%(task)s %(id)s came back unfinished %(returns)d times;"
                " it runs in isolation from now on",
                {
                    "task": letter.task,
                    "id": letter.job_id,
                    "returns": way.history.returns,
                },
            )

    async def settle_chunk(self, run: Run, rest: Envelope | None) -> None:
        """Settle a chunk, all of whose jobs are; what was given back goes on."""
        assert run.decoded is not None, "only what was decoded has jobs"
        if rest is None:
            self._ack(run)
        elif len(rest.rows) == len(run.decoded.message.rows):
            run.delivery.release()
        else:
            await self._send_rest(run, run.decoded, rest)

    async def _send_rest(self, run: Run, decoded: Decoded, rest: Envelope) -> None:
        try:
            letter = self._again(run, decoded, rest)
        except EncodeError:  # with their numbers they take more: all of it comes again
            run.delivery.release()
            return
        delivery = run.delivery
        publication = immediate(letter, delivery.queue, home=delivery.home)
        await self._follow_up(run, publication)

    async def scatter(self, run: Run, chunk: Chunk) -> None:
        """Send each job of a chunk on alone, to run in isolation."""
        home = run.delivery.home
        history = history_of(run.delivery)
        publications = [
            immediate(
                self._format(run).copy(share, share.decoded.message, history.headers()),
                suspect_lane(home),
                home=home,
            )
            for share in chunk.shares
        ]
        if await self._follow_up(run, *publications):
            self._stats.suspected += len(publications)
            for _ in publications:
                self._count(run, "suspected")
            assert run.decoded is not None, "only what was decoded has jobs"
            log.warning(
                "%(task)s %(id)s, a chunk of %(count)d, came back unfinished"
                " %(returns)d times; its jobs run in isolation from now on",
                {
                    "task": run.decoded.message.task,
                    "id": run.decoded.message.id,
                    "count": len(publications),
                    "returns": history.returns,
                },
            )

    async def _crash(self, run: Run, outcome: Crashed) -> None:
        """Count a crash that is proven; after the second the job is dead."""
        self._stats.crashed += 1
        history = history_of(run.delivery)
        crashes = history.crashes + 1
        if crashes >= MOST_CRASHES:
            failure = Failure("Crashed", outcome.how)
            await self.bury(run, DeadLettered("crashed", failure))
            return
        assert run.decoded is not None, "only what was decoded has run"
        history = msgspec.structs.replace(history, crashes=crashes)
        letter = self._format(run).copy(
            run.delivery, run.decoded.message, history.headers()
        )
        delivery = run.delivery
        publication = immediate(letter, delivery.queue, home=delivery.home)
        if await self._follow_up(run, publication, remember=False):
            self._count(run, "crashed")
            log.warning(
                "%(task)s %(id)s ended its isolated process (%(how)s); once more,"
                " to be sure",
                {"task": letter.task, "id": letter.job_id, "how": outcome.how},
            )

    async def _retry(self, run: Run, decoded: Decoded, outcome: Retried) -> None:
        message = next_attempt(decoded.message, outcome.delay, self._clock())
        delivery = run.delivery
        try:
            letter = self._again(run, decoded, message)
        except EncodeError as error:  # one more digit may be one too many
            await self.bury(run, DeadLettered("too large", failure_of(error)))
            return
        publication: Publication
        if outcome.delay > 0:
            publication = self._delayed(run, letter, self._from_now(outcome.delay))
        else:
            publication = immediate(letter, delivery.queue, home=delivery.home)
        if await self._follow_up(run, publication):
            self._stats.retried += 1
            self._count(run, "retried")
            log.warning(
                "%(task)s %(id)s runs again in %(delay).1f s"
                " after attempt %(attempt)d%(error)s",
                {
                    "task": message.task,
                    "id": message.id,
                    "delay": outcome.delay,
                    "attempt": decoded.message.job_try,
                    "error": _in_brief(outcome.failure),
                },
            )
            self._expect(publication)

    def _again(self, run: Run, decoded: Decoded, message: Message) -> Post:
        delivery = run.delivery
        headers = history_of(delivery).headers() if came_back(delivery) else {}
        return self._format(run).again(delivery, decoded, message, headers)

    async def _follow_up(
        self, run: Run, *publications: Publication, remember: bool = True
    ) -> bool:
        """Publish, confirmed, then ack; give the message back if that can't be done."""
        if await self.follow_ups.store(publications):
            self._ack(run, remember=remember)
            return True
        self._give_back(run)
        return False

    def _give_back(self, run: Run) -> None:
        self._stats.returned += 1
        self._count(run, "released")
        run.delivery.release()

    def _count(self, run: Run, fate: Fate, reason: Reason | None = None) -> None:
        if self.metrics is not None:
            self.metrics.settled(run, fate, reason)

    def _ack(self, run: Run, *, remember: bool = True) -> None:
        if remember and run.decoded is not None:
            self.roster.remember(run, run.decoded.message)
        run.delivery.ack()

    def _format(self, run: Run) -> Format:
        return self._formats.of(run.delivery.home)

    def _delayed(self, run: Run, letter: Post, wait: Wait) -> Delayed:
        """Send it back to where it came from, later."""
        delivery = run.delivery
        home = delivery.home
        return delayed(letter, delivery.queue, wait, self._names, home=home)

    def _from_now(self, delay: float) -> Wait:
        return Wait.from_now(delay, self._clock)

    def _expect(self, publication: Publication) -> None:
        due = asyncio.get_running_loop().time()
        if isinstance(publication, Delayed):
            wait = publication.wait
            due += max(0.0, wait.left)
            if self._transport.by_plugin and timer(wait.seconds) is not None:
                due += UNSEEN
            else:
                self.rungs.update(publication.rungs)
        self.horizon = max(self.horizon, due)


def next_attempt(message: MessageT, delay: float, now: float) -> MessageT:
    """Make the message of the next attempt; its day of expiry stays where it was."""
    eta = now + delay
    expires = message.expires
    if expires is not None:
        start = message.enqueued_at if message.eta is None else message.eta
        expires = max(0.0, start + expires - eta)
    return msgspec.structs.replace(
        message,
        job_try=message.job_try + 1,
        eta=eta,
        expires=expires,
        first_failed_at=message.first_failed_at or now,
    )


def _in_brief(failure: Failure | None) -> str:
    """Say what went wrong; how a process ended is a phrase of ours."""
    if failure is None or failure.kind == "rmqarq.errors.Retry":
        return ""
    return Phrase(" ({kind}: {message})", kind=failure.kind, message=failure.message)
