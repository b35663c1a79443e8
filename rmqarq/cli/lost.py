"""`rmqarq lost`: messages that were due for a queue that is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rmqarq.admin import Admin
from rmqarq.box import Box
from rmqarq.cli import done, output, showing
from rmqarq.cli.picking import (
    SHOWN,
    All,
    Ids,
    Limit,
    NewerThan,
    OlderThan,
    Tasks,
    To,
    picked,
    refuse_all_by_mistake,
)
from rmqarq.cli.progress import Progress
from rmqarq.cli.target import AnyPath, Json, Url, chosen
from rmqarq.wire.names import Names

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rmqarq.settings import Settings

R = TypeVar("R")

program = typer.Typer(
    name="lost",
    help="Look at messages that were due for a queue that is gone, and send them on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DueFor = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", help="Queue that they were due for."),
]


@program.command(name="list")
def list_(  # noqa: PLR0913 - one parameter a flag
    app: AnyPath = None,
    *,
    task: Tasks = None,
    id: Ids = None,  # noqa: A002 - the name of the flag
    queue: DueFor = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    limit: Limit = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show lost messages of the prefix, the oldest first: 100, or --limit, or --all.

    They stay where they are.
    """
    wanted = picked(task, None, None, id, older_than, newer_than, queue)
    most = None if everything else limit or SHOWN
    settings = chosen(app, url, None).settings
    listing = _act(settings, lambda box: box.find(wanted, most))
    if as_json:
        output.as_json([showing.as_data(each) for each in listing.letters])
    elif listing.letters:
        showing.in_table(listing.letters, lost=True)
    showing.how_many(listing, Names(settings.prefix).lost)


@program.command()
def requeue(  # noqa: PLR0913 - one parameter a flag
    app: AnyPath = None,
    *,
    task: Tasks = None,
    id: Ids = None,  # noqa: A002 - the name of the flag
    queue: DueFor = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    limit: Limit = None,
    to: To = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Send lost messages, unchanged, to the queue that they were due for.

    That queue must exist again; a worker that consumes it makes it. Each message is
    stored there before it is taken out here.
    """
    wanted = picked(task, None, None, id, older_than, newer_than, queue)
    refuse_all_by_mistake(wanted, limit, everything)
    settings = chosen(app, url, None).settings
    tally = _act(settings, lambda box: box.requeue(wanted, limit, to=to, as_is=True))
    name = Names(settings.prefix).lost
    done.report({name: tally}, "requeued", as_json=as_json)
    done.miss(wanted, tally.ids)


def _act(settings: Settings, act: Callable[[Box], Awaitable[R]]) -> R:
    async def acted() -> R:
        lost = Names(settings.prefix).lost
        async with Admin(settings) as admin:
            with Progress() as progress:
                return await act(Box(admin, settings, lost, None, progress))

    return asyncio.run(acted())
