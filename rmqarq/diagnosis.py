"""What can be told of what a broker has shown: may we, do queues fit, who waits.

A check takes the case and gives findings; `CHECKS` names all, in the order shown.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rmqarq.case import written
from rmqarq.errors import Phrase, TopologyMismatch
from rmqarq.findings import Finding, sentence, told_by
from rmqarq.grant import granting
from rmqarq.remedies import remedy
from rmqarq.wire.names import Names, suspect_lane
from rmqarq.wire.refusal import cause_of
from rmqarq.wire.topology import dead_letter_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq.case import Attempt, Case
    from rmqarq.errors import RmqarqError
    from rmqarq.wire.probe import Place

OLDEST = (3, 10)
OLDEST_WITH_FIXES = (4, 2)
"""The oldest series that got fixes from the RabbitMQ project, as known in 2026."""
SMALL_BODIES_SINCE = (4, 0)
LARGEST_BODY = 16 * 1024 * 1024
SHOWN = 6

_KINDS = {"queue": Phrase("queue"), "exchange": Phrase("exchange")}


def brokers(case: Case) -> Iterator[Finding]:
    """Each URL leads to a broker that takes us."""
    reached = any(each.error is None for each in case.attempts)
    for each in case.attempts:
        where = str(each.endpoint)
        if each.error is None:
            yield _greeting(each, where)
            yield from _version(case, each, where)
        else:
            yield Finding(
                # one broker of several may be down without harm to anybody
                "warning" if reached else "error",
                where,
                told_by(each.error),
                remedy(each.endpoint, cause_of(each.error)),
            )


def alarms(case: Case) -> Iterator[Finding]:
    """The broker takes messages."""
    sight = case.sight
    if sight is None or sight.publishing is None or sight.attempt.is_dev_broker:
        return
    where = str(sight.attempt.endpoint)
    if sight.publishing.blocked is not None:
        yield Finding(
            "error",
            where,
            sentence(
                "an alarm: the broker takes no messages ({reason})",
                reason=sight.publishing.blocked,
            ),
            sentence(
                "give it disk space or memory; this shows its alarms:"
                " rabbitmq-diagnostics alarms"
            ),
        )
    elif sight.publishing.refused is None:
        yield Finding("ok", where, sentence("it takes messages: no alarm"))


def permissions(case: Case) -> Iterator[Finding]:
    """The user may do all that producers and workers do."""
    sight = case.sight
    if sight is None:
        return
    user = sight.attempt.endpoint.user
    kinds: dict[str, list[str]] = defaultdict(list)
    for each in sight.denied:
        kinds[each.kind].append(each.name)
    for kind, denied in kinds.items():
        yield Finding(
            "error",
            user,
            sentence(
                "may not {kind} {names}; producers or workers of this App need that",
                kind=kind,
                names=", ".join(dict.fromkeys(denied)),
            ),
            granting(case, sight),
        )
    if sight.untold:
        yield Finding(
            "note",
            user,
            sentence(
                "nobody can tell whether it may read {names}",
                names=", ".join(dict.fromkeys(each.name for each in sight.untold)),
            ),
        )
    asked = sight.attempt.is_rabbitmq and sight.publishing is not None
    if asked and not sight.denied:
        yield Finding("ok", user, sentence("it has the permissions that are needed"))


def arguments(case: Case) -> Iterator[Finding]:
    """What is there was declared as we would declare it."""
    if case.sight is None:
        return
    places = case.sight.places.values()
    for place in places:
        if place.difference is not None:
            yield _difference(case, place, place.difference)
    compared = [each for each in places if each.compared and each.difference is None]
    if compared:
        yield Finding(
            "ok",
            case.path,
            sentence(
                "{count} queues and exchanges have the right arguments",
                count=len(compared),
            ),
        )


def missing(case: Case) -> Iterator[Finding]:
    """What is not there comes, or must be made."""
    sight = case.sight
    if sight is None or sight.error is not None:
        return
    passive = case.settings.declare == "passive"
    apart = (*case.foreign, Names(case.settings.prefix).delayed)
    places = [each for each in sight.places.values() if each.name not in apart]
    gone = [each.name for each in places if each.there is False]
    if gone:
        yield Finding(
            "error" if passive else "note",
            case.path,
            sentence(
                "declare='passive' makes nothing, and these are not there: {names}",
                names=_some(gone),
            )
            if passive
            else sentence("not there yet: {names}", names=_some(gone)),
            sentence(
                "declare='active' once, by a user who may create queues, or the script"
                " in docs/deployment.md"
            )
            if passive
            else sentence("none is needed: whoever comes first makes them"),
        )
    if passive and not sight.rungs and case.settings.delays != "plugin":
        yield Finding(
            "error",
            Names(case.settings.prefix).rung("*"),
            sentence("there is no queue in which delayed jobs and retries could wait"),
            sentence("the script in docs/deployment.md makes them"),
        )


def foreign(case: Case) -> Iterator[Finding]:
    """The queues of others are there."""
    sight = case.sight
    if sight is None or sight.error is not None:
        return
    for queue in case.foreign:
        place = sight.places.get(queue)
        if place is not None and place.there is False:
            yield Finding(
                "error",
                queue,
                sentence(
                    "this queue of another producer does not exist, and app.consume"
                    " makes none, so that no worker of this App can start"
                ),
                sentence(
                    "let whoever publishes to it declare it before; see"
                    " docs/consuming.md"
                ),
            )


def waiting(case: Case) -> Iterator[Finding]:
    """Nobody waits for a worker, or for you."""
    if case.sight is None:
        return
    places = case.sight.places
    for queue in case.queues:
        place = places.get(queue)
        if place is not None and place.ready and not place.consumers:
            yield _unserved(case, place)
        yield from _suspects(case, places.get(suspect_lane(queue)))
        yield from _dead(case, places.get(dead_letter_queue(queue, case.settings)))
    lost = places.get(Names(case.settings.prefix).lost)
    if lost is not None and lost.ready:
        yield Finding(
            "warning",
            lost.name,
            sentence("{count} messages whose queue is gone", count=lost.ready),
            sentence("rmqarq lost list {path}", path=case.path),
        )


def ends(case: Case) -> Iterator[Finding]:
    """The look came to its end."""
    if case.sight is not None and case.sight.error is not None:
        yield Finding(
            "error",
            str(case.sight.attempt.endpoint),
            told_by(case.sight.error),
            sentence("try again: rmqarq doctor {path}", path=case.path),
        )


CHECKS = (brokers, alarms, permissions, arguments, missing, foreign, waiting, ends)


def _greeting(attempt: Attempt, where: str) -> Finding:
    version = written(attempt.version)
    if attempt.is_dev_broker:
        return Finding(
            "note",
            where,
            sentence(
                "this is the dev broker of rmqarq: it keeps jobs in memory only, and"
                " all are lost when it ends; alarms, permissions and plugins are not"
                " looked at, as it has none"
            ),
            sentence(
                "none is needed for trial and tests; to keep jobs: RabbitMQ, 3.10 or"
                " newer"
            ),
        )
    if not attempt.is_rabbitmq:
        return Finding(
            "warning",
            where,
            sentence(
                "{product} {version} answers; rmqarq is made for RabbitMQ, and tried on"
                " nothing else",
                product=attempt.product or "?",
                version=version,
            ),
            sentence("RabbitMQ, 3.10 or newer"),
        )
    return Finding("ok", where, sentence("RabbitMQ {version} answers", version=version))


def _version(case: Case, attempt: Attempt, where: str) -> Iterator[Finding]:
    version = attempt.version[:2]
    if not attempt.is_rabbitmq or not version:
        return
    if version < OLDEST:
        yield Finding(
            "error",
            where,
            sentence(
                "RabbitMQ {version} is too old: delays would lose jobs",
                version=written(attempt.version),
            ),
            sentence("RabbitMQ, 3.10 or newer"),
        )
    elif version < OLDEST_WITH_FIXES:
        yield Finding(
            "note",
            where,
            sentence(
                "the RabbitMQ project fixes nothing in {series} any more; your"
                " distribution may",
                series=written(version),
            ),
            sentence("an upgrade; what differs: docs/rabbitmq-versions.md"),
        )
    if version >= SMALL_BODIES_SINCE and case.settings.max_body > LARGEST_BODY:
        yield Finding(
            "warning",
            "max_body",
            sentence(
                "RabbitMQ 4 takes bodies up to 16 MiB unless it is told otherwise"
            ),
            sentence(
                "max_message_size = {bytes} in rabbitmq.conf",
                bytes=case.settings.max_body,
            ),
        )


def _difference(case: Case, place: Place, error: RmqarqError) -> Finding:
    if not isinstance(error, TopologyMismatch):
        return Finding(
            "error",
            place.name,
            told_by(error),
            sentence("another name, or declare='passive'"),
        )
    given = error.params
    if place.queue_type is not None:
        ours = {"argument": "x-queue-type", "ours": case.settings.queue_type}
        given = {**given, **ours, "theirs": place.queue_type}
    fix = sentence(
        "the same arguments ({setting}), another name, or declare='passive'",
        setting=_setting(given["argument"], given["theirs"]),
    )
    if place.name == Names(case.settings.prefix).delayed:
        fix = sentence("another prefix, or delays='ladder' (RMQARQ_DELAYS)")
    return Finding(
        "error",
        place.name,
        sentence(
            "this {kind} has {argument} = {theirs}, and this App wants {ours}",
            kind=_KINDS.get(given["kind"], given["kind"]),
            argument=given["argument"],
            theirs=given["theirs"],
            ours=given["ours"],
        ),
        fix,
    )


def _setting(argument: str, theirs: str) -> str:
    """Give the setting that leads to an argument, in code."""
    value = theirs.strip("'")
    if argument == "x-queue-type":
        return f"queue_type='{value}'"
    if argument == "x-max-priority":
        levels = value if value.isdecimal() else None
        return f"queue_type='classic', max_priority={levels}"
    return f"{argument} = {theirs}"


def _unserved(case: Case, queue: Place) -> Finding:
    what = (
        sentence("{count} messages wait and no worker runs", count=queue.ready)
        if queue.name in case.foreign
        else sentence("{count} jobs wait and no worker runs", count=queue.ready)
    )
    fix = sentence("rmqarq run {path}", path=case.path)
    return Finding("warning", queue.name, what, fix)


def _suspects(case: Case, lane: Place | None) -> Iterator[Finding]:
    if lane is not None and lane.ready:
        yield Finding(
            "note" if lane.consumers else "warning",
            lane.name,
            sentence(
                "{count} jobs that came back too often wait to run in isolation",
                count=lane.ready,
            ),
            sentence("rmqarq queue info {path}", path=case.path),
        )


def _dead(case: Case, dead: Place | None) -> Iterator[Finding]:
    if dead is not None and dead.ready:
        yield Finding(
            "warning",
            dead.name,
            sentence("{count} dead letters", count=dead.ready),
            sentence("rmqarq dlq list {path}", path=case.path),
        )


def _some(names: list[str]) -> str:
    """Name the first of many."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" + {rest}" if rest > 0 else "")
