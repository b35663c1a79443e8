"""What can be told of delays: is the delayed-message plugin there, and shall it be?

A check takes the case and gives findings; `CHECKS` names all, in the order shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.findings import Finding, sentence
from rmqarq.wire.names import Names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq.case import Case


def plugin(case: Case) -> Iterator[Finding]:
    """Delays go by the plugin only where it is, and with open eyes."""
    sight = case.sight
    if sight is None or sight.error is not None:
        return
    name = Names(case.settings.prefix).delayed
    place = sight.places.get(name)
    there = None if place is None else place.there
    if sight.plugin == "missing":
        yield from _without_plugin(case, name, there=bool(there))
    elif case.settings.delays == "plugin":
        if there is False:
            yield _without_exchange(case, name)
    elif there or sight.plugin == "enabled":
        yield _unasked(name)


CHECKS = (plugin,)


def _without_plugin(case: Case, name: str, *, there: bool) -> Iterator[Finding]:
    asked = case.settings.delays == "plugin"
    if asked or there:
        yield Finding(
            # without being asked for, delays take the ladder
            "error" if asked else "warning",
            name,
            sentence(
                "delays='plugin', but the broker has no delayed-message plugin, so that"
                " no worker can start"
            )
            if asked
            else sentence(
                "the exchange of the delayed-message plugin is there, but not the"
                " plugin: what it held is kept from you, and new delays take the ladder"
            ),
            sentence(
                "rabbitmq-plugins enable rabbitmq_delayed_message_exchange, on every"
                " node, or delays='ladder' (RMQARQ_DELAYS)"
            ),
        )


def _without_exchange(case: Case, name: str) -> Finding:
    what = sentence(
        "delays='plugin', but this exchange of the delayed-message plugin is not there,"
        " so that no job can be delayed"
    )
    if case.settings.declare == "passive":
        fix = sentence(
            "rmqarq run {path} once, with declare='active' and by a user who may make"
            " it, or delays='ladder' (RMQARQ_DELAYS)",
            path=case.path,
        )
        return Finding("error", name, what, fix)
    fix = sentence(
        "rmqarq run {path}: a worker makes it where the plugin is enabled",
        path=case.path,
    )
    return Finding("error", name, what, fix)


def _unasked(name: str) -> Finding:
    """Say what `worker.reports.warn_of_plugin` says of it."""
    return Finding(
        "note",
        name,
        sentence(
            "delays go by the delayed-message plugin, which promises less than the"
            " ladder: it keeps one copy on one node, loses confirmed jobs when that"
            " node is killed, drops a job without a word when its queue is gone or not"
            " bound to {exchange}, and is no longer maintained",
            exchange=name,
        ),
        sentence("delays='ladder' (RMQARQ_DELAYS) does without it"),
    )
