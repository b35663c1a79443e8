"""`rmqarq queue`: look at queues of jobs, and empty them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import typer

from rmqarq.admin import Admin
from rmqarq.cli import output
from rmqarq.cli.target import AnyPath, Json, Queues, Url, Yes, chosen, confirm

if TYPE_CHECKING:
    from rmqarq.admin import Overview
    from rmqarq.settings import Settings

program = typer.Typer(
    name="queue",
    help="Look at queues of jobs, and empty them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@program.command()
def info(
    app: AnyPath = None, *, queue: Queues = None, url: Url = None, as_json: Json = False
) -> None:
    """Show what is in the queues. Creates nothing.

    A dash stands for a queue that does not exist. Delayed and lost are those of all
    Apps under the prefix.
    """
    target = chosen(app, url, queue)
    found = asyncio.run(_overview(target.settings, target.queues))
    if as_json:
        output.as_json(msgspec.to_builtins(found))
    else:
        _show(found)


@program.command()
def purge(
    app: AnyPath = None, *, queue: Queues = None, url: Url = None, yes: Yes = False
) -> None:
    """Delete the jobs that wait in the queues, for good.

    Delayed jobs, suspects, dead letters and jobs that a worker holds stay. A suspect
    lane is a queue, too: -q QUEUE.suspect empties it.
    """
    target = chosen(app, url, queue)
    if len(target.queues) > 1 and not queue:
        several = ", ".join(target.queues)
        raise typer.BadParameter(
            output.filled("say which: {queues}", queues=several), param_hint="--queue"
        )
    for each in () if yes else target.queues:
        ready = asyncio.run(_ready(target.settings, each))
        confirm("Delete what waits in {queue} ({count})?", count=ready, queue=each)
    for each in target.queues:
        purged = asyncio.run(_purge(target.settings, each))
        output.say("{queue}: {count} deleted", queue=each, count=purged)


def _show(found: Overview) -> None:
    output.table(
        ("queue", "ready", "consumers", "suspects", "dead"),
        (
            (each.queue, each.ready, each.consumers, each.suspects, each.dead)
            for each in found.queues
        ),
    )
    typer.echo()
    output.say(
        "under the prefix {prefix}: {delayed} delayed, {lost} lost",
        prefix=found.prefix,
        delayed=found.delayed,
        lost=found.lost,
    )
    if found.plugin:
        output.say(
            "what the delayed-message plugin holds can't be counted: there may be more"
            " delayed"
        )
    broker, _, endpoint = found.broker.partition(" at ")
    output.say("{broker} at {endpoint}", broker=broker, endpoint=endpoint)


async def _overview(settings: Settings, queues: tuple[str, ...]) -> Overview:
    async with Admin(settings) as admin:
        return await admin.overview(queues)


async def _ready(settings: Settings, queue: str) -> int:
    async with Admin(settings) as admin:
        return await admin.ready(queue)


async def _purge(settings: Settings, queue: str) -> int:
    async with Admin(settings) as admin:
        return await admin.purge(queue)
