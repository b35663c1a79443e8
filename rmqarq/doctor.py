"""Finds out why an App does not work: looks at it and its brokers, changes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from rmqarq import delays, diagnosis, review
from rmqarq.case import Attempt, Case, Sight, looks_for_plugin
from rmqarq.errors import (
    AppNotFound,
    ConfigurationError,
    RmqarqError,
    TopologyMismatch,
    TransportError,
)
from rmqarq.findings import Finding, sentence, told_by
from rmqarq.loader import load
from rmqarq.url import parse_urls
from rmqarq.wire import probe, topology
from rmqarq.wire.delay import DECADES, every_rung, rungs_for
from rmqarq.wire.names import Names, suspect_lane
from rmqarq.wire.opening import connect
from rmqarq.wire.permission import DEFAULT_EXCHANGE, Permission, to_declare
from rmqarq.wire.topology import Queue, Topology, delayed_binding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rmqarq.app import App
    from rmqarq.settings import Settings
    from rmqarq.url import Endpoint
    from rmqarq.wire.connection import Connection
    from rmqarq.wire.probe import Place
    from rmqarq.wire.topology import Exchange

CHECKS = (*diagnosis.CHECKS, *delays.CHECKS, *review.CHECKS)
"""In the order shown. Each takes the case and gives findings."""


def loaded(path: str, url: str | None) -> App[Any] | Finding:
    """Import an App, or give the finding that says why that fails.

    Args:
        path: MODULE:APP.
        url: Instead of the App's own.
    """
    try:
        app = load(path)
        if url is not None:
            app.configure(replace(app.settings, url=url))
    except AppNotFound as error:
        module = path.partition(":")[0]
        fix = sentence(
            "MODULE:APP, from the directory where this works: python -c 'import"
            " {module}'",
            module=module,
        )
        return Finding("error", path, told_by(error), fix)
    except RmqarqError as error:
        fix = sentence("correct it where the App is made, or in RMQARQ_* and --url")
        return Finding("error", path, told_by(error), fix)
    return app


async def examine(app: App[Any], path: str) -> list[Finding]:
    """Look at an App and at the brokers of its settings.

    Creates, changes and consumes nothing; see `probe.place` for the one exception.

    Args:
        app: The App.
        path: MODULE:APP, for the commands that are named.

    Raises:
        ConfigurationError: A URL can't be used.
    """
    case = await _looked_at(app, path)
    return [finding for check in CHECKS for finding in check(case)]


async def _looked_at(app: App[Any], path: str) -> Case:
    endpoints = parse_urls(app.settings.url)
    opened = await asyncio.gather(*(_open(each, app.settings) for each in endpoints))
    attempts = tuple(attempt for attempt, _ in opened)
    links = [pair for pair in opened if pair[1] is not None]
    sight: Sight | None = None
    try:
        for attempt, connection in links[:1]:
            assert connection is not None, "only links that are open"
            sight = await _look(Sight(attempt), connection, app)
    finally:
        for _, connection in links:
            if connection is not None:
                await connection.close()
    return Case(path, app, attempts, sight)


async def _open(
    endpoint: Endpoint, settings: Settings
) -> tuple[Attempt, Connection | None]:
    try:
        connection = await connect(endpoint, settings, "doctor")
    except (ConfigurationError, TransportError) as error:
        return Attempt(endpoint, error), None
    attempt = Attempt(
        endpoint, product=connection.product, version=connection.server_version
    )
    return attempt, connection


async def _look(sight: Sight, connection: Connection, app: App[Any]) -> Sight:
    """Look at everything, the publish last: a blocked link serves nothing else."""
    try:
        sight = await _with_plugin(sight, connection, app.settings)
        sight = await _with_places(sight, connection, app)
        if sight.attempt.is_rabbitmq:
            sight = await _with_permissions(sight, connection, app)
        return await _with_publishing(sight, connection)
    except TransportError as error:
        return replace(sight, error=error)


async def _with_places(sight: Sight, connection: Connection, app: App[Any]) -> Sight:
    settings, names = app.settings, Names(app.settings.prefix)
    compare = settings.declare == "active"
    found = {
        each.name: await probe.place(connection, each, compare=compare)
        for each in _objects(_wanted(app))
    }
    for queue in app.queues:
        for name in (queue, suspect_lane(queue)):
            if name in found:
                place = found[name]
                found[name] = await _with_its_type(place, connection, queue, settings)
    for queue in app.registry.handlers:  # as it is, whatever its arguments
        found[queue] = await probe.place(connection, Queue(queue), compare=False)
    if looks_for_plugin(settings):
        # to declare a type that is unknown may close the connection
        known = compare and sight.plugin == "enabled"
        (exchange,) = topology.delayed(names).exchanges
        place = await probe.place(connection, exchange, compare=known)
        if place.there or settings.delays == "plugin":
            found[exchange.name] = place
    rungs = await _rungs(connection, names, found, compare=compare)
    return replace(sight, places={**found, **rungs}, rungs=tuple(rungs))


async def _rungs(
    connection: Connection, names: Names, found: dict[str, Place], *, compare: bool
) -> dict[str, Place]:
    """Look at the rungs that are there; without the exchanges none can be reached."""
    if all(found[names.ladder(each)].there is False for each in range(DECADES)):
        return {}
    wanted = _objects(topology.rung(each, names) for each in every_rung())
    places = [await probe.place(connection, each, compare=compare) for each in wanted]
    return {place.name: place for place in places if place.there}


async def _with_its_type(
    place: Place, connection: Connection, queue: str, settings: Settings
) -> Place:
    """Say of a queue of the other type just that; RabbitMQ names what it meets."""
    theirs: Literal["quorum", "classic"]
    theirs = "quorum" if settings.queue_type == "classic" else "classic"
    if not isinstance(place.difference, TopologyMismatch):
        return place
    other = replace(settings, queue_type=theirs, max_priority=None)
    (wanted,) = [
        each for each in topology.work(queue, other).queues if each.name == place.name
    ]
    again = await probe.place(connection, wanted, compare=True)
    differs = again.difference
    levels = differs is not None and differs.params.get("argument") == "x-max-priority"
    same = again.compared and differs is None
    if same or (levels and theirs == "classic"):
        return replace(place, queue_type=theirs)
    return place


async def _with_plugin(
    sight: Sight, connection: Connection, settings: Settings
) -> Sight:
    if not looks_for_plugin(settings) or not sight.attempt.is_rabbitmq:
        return sight
    try:
        plugin = await probe.plugin(connection.endpoint, settings)
    except (ConfigurationError, TransportError):  # such as a limit of connections
        return sight
    return replace(sight, plugin=plugin)


async def _with_permissions(
    sight: Sight, connection: Connection, app: App[Any]
) -> Sight:
    queue = app.queues[0]
    denied: list[Permission] = []
    untold: list[Permission] = []
    for permission in dict.fromkeys(_needed(app, sight)):
        allowed = await probe.allowed(connection, permission, queue)
        if allowed is None:
            untold.append(permission)
        elif not allowed:
            denied.append(permission)
    return replace(sight, denied=tuple(denied), untold=tuple(untold))


async def _with_publishing(sight: Sight, connection: Connection) -> Sight:
    publishing = await probe.publishing(connection)
    if publishing.refused is None:
        return replace(sight, publishing=publishing)
    permission = Permission("write", "exchange", DEFAULT_EXCHANGE)
    denied = (*sight.denied, permission)
    return replace(sight, publishing=publishing, denied=denied)


def _wanted(app: App[Any]) -> list[Topology]:
    names = Names(app.settings.prefix)
    foreign = app.registry.handlers
    works = [
        (topology.beside if each in foreign else topology.work)(each, app.settings)
        for each in app.queues
    ]
    return [topology.foundation(names), topology.ladder(names), *works]


def _objects(parts: Iterable[Topology]) -> Iterator[Exchange | Queue]:
    for part in parts:
        yield from part.exchanges
        yield from part.queues


def _needed(app: App[Any], sight: Sight) -> Iterator[Permission]:
    """What producers and workers do, with the rungs of a first retry."""
    settings, names = app.settings, Names(app.settings.prefix)
    if settings.declare == "active":
        there = [name for name, place in sight.places.items() if place.there]
        rungs = rungs_for(settings.retry_backoff)
        for part in (*_wanted(app), *(topology.rung(each, names) for each in rungs)):
            yield from to_declare(part, there)
        if settings.delays == "plugin":
            bindings = tuple(delayed_binding(each, names) for each in app.queues)
            yield from to_declare(topology.delayed(names), there)
            yield from to_declare(Topology(bindings=bindings), there)
    if settings.delays == "plugin":
        yield Permission("write", "exchange", names.delayed)
    for queue in app.queues:
        yield Permission("read", "queue", queue)
        yield Permission("read", "queue", suspect_lane(queue))
    for decade in range(DECADES):
        yield Permission("write", "exchange", names.entry(decade))
