"""`rmqarq dlq`: look at dead letters, put them back, drop them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rmqarq.admin import Admin
from rmqarq.box import Box
from rmqarq.cli import done, output, showing
from rmqarq.cli.picking import (
    SHOWN,
    All,
    Errors,
    Ids,
    Limit,
    NewerThan,
    OlderThan,
    Reasons,
    Tasks,
    To,
    picked,
    refuse_all_by_mistake,
)
from rmqarq.cli.progress import Progress
from rmqarq.cli.target import AnyPath, Json, Queues, Url, Yes, chosen, confirm
from rmqarq.errors import NotFound
from rmqarq.letters import Filter
from rmqarq.wire.topology import dead_letter_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rmqarq.box import Listing, Tally
    from rmqarq.cli.target import Target

R = TypeVar("R")

program = typer.Typer(
    name="dlq",
    help="Look at dead letters, put them back, drop them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsIs = Annotated[
    bool,
    typer.Option(
        "--as-is", help="Send letters that cannot be read byte for byte, too."
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB_ID", help="The job's id.")]


@program.command(name="list")
def list_(  # noqa: PLR0913 - one parameter a flag
    app: AnyPath = None,
    *,
    task: Tasks = None,
    reason: Reasons = None,
    error: Errors = None,
    id: Ids = None,  # noqa: A002 - the name of the flag
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    limit: Limit = None,
    queue: Queues = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show dead letters, the oldest first: 100, or --limit, or --all.

    Of each kind of condition one must fit. The letters stay where they are.
    """
    wanted = picked(task, reason, error, id, older_than, newer_than)
    quota = Quota(None if everything else limit or SHOWN)
    target = chosen(app, url, queue)
    listings = _each_queue(target, partial(_find, quota, wanted))
    found = [letter for each in listings.values() for letter in each.letters]
    if as_json:
        output.as_json([showing.as_data(each) for each in found])
    elif found:
        showing.in_table(found)
    for each, listing in listings.items():
        showing.how_many(listing, dead_letter_queue(each, target.settings))


@program.command()
def show(
    job_id: JobId,
    app: AnyPath = None,
    *,
    queue: Queues = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show all that the dead letters of one job say."""
    target = chosen(app, url, queue)
    wanted = Filter(ids=(job_id,))
    found = _each_queue(target, lambda box: box.show(wanted))
    pages = [page for each in found.values() for page in each]
    done.miss(wanted, {letter.id for letter, _ in pages})
    if as_json:
        output.as_json([showing.as_data(*page) for page in pages])
        return
    for number, page in enumerate(pages):
        if number:
            typer.echo()
        showing.on_page(*page)


@program.command()
def requeue(  # noqa: PLR0913 - one parameter a flag
    app: AnyPath = None,
    *,
    task: Tasks = None,
    reason: Reasons = None,
    error: Errors = None,
    id: Ids = None,  # noqa: A002 - the name of the flag
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    limit: Limit = None,
    to: To = None,
    as_is: AsIs = False,
    queue: Queues = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Put dead letters back into their queue: the jobs begin anew, under their ids.

    Each is stored there before it is taken out here. If this is ended in between, a
    job may run twice, but none is lost.
    """
    wanted = picked(task, reason, error, id, older_than, newer_than)
    refuse_all_by_mistake(wanted, limit, everything)
    target = chosen(app, url, queue)
    quota = Quota(limit)

    async def put_back(box: Box) -> Tally:
        tally = await box.requeue(wanted, quota.left, to=to, as_is=as_is)
        quota.take(tally.fit)
        return tally

    tallies = _each_queue(target, put_back)
    done.report(tallies, "requeued", as_json=as_json)
    done.miss(wanted, {each for tally in tallies.values() for each in tally.ids})


@program.command()
def drop(  # noqa: PLR0913 - one parameter a flag
    app: AnyPath = None,
    *,
    task: Tasks = None,
    reason: Reasons = None,
    error: Errors = None,
    id: Ids = None,  # noqa: A002 - the name of the flag
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    everything: All = False,
    limit: Limit = None,
    yes: Yes = False,
    queue: Queues = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Delete dead letters, for good."""
    wanted = picked(task, reason, error, id, older_than, newer_than)
    refuse_all_by_mistake(wanted, limit, everything)
    target = chosen(app, url, queue)
    quota = Quota(limit)
    agreed: dict[str, int] = {}
    if not yes:
        found = _each_queue(target, partial(_find, Quota(limit), wanted))
        for each, listing in found.items():
            agreed[each] = count = len(listing.letters)
            if count:
                confirm(
                    "Drop {count} of the {there} dead letters of {queue}?",
                    count=count,
                    there=listing.there,
                    queue=each,
                )

    async def let_go(box: Box) -> Tally:
        tally = await box.drop(wanted, agreed.get(box.home or "", quota.left))
        quota.take(tally.fit)
        return tally

    tallies = _each_queue(target, let_go)
    done.report(tallies, "dropped", as_json=as_json)
    done.miss(wanted, {each for tally in tallies.values() for each in tally.ids})


class Quota:
    """What is left of --limit, from one queue to the next."""

    def __init__(self, most: int | None) -> None:
        self.left = most

    def take(self, count: int) -> None:
        """Use up some of it."""
        if self.left is not None:
            self.left = max(0, self.left - count)


async def _find(quota: Quota, wanted: Filter, box: Box) -> Listing:
    listing = await box.find(wanted, quota.left)
    quota.take(len(listing.letters))
    return listing


def _each_queue(target: Target, act: Callable[[Box], Awaitable[R]]) -> dict[str, R]:
    return asyncio.run(_acted(target, act))


async def _acted(target: Target, act: Callable[[Box], Awaitable[R]]) -> dict[str, R]:
    """Do something with the dead letters of each queue; one of them must exist."""
    found: dict[str, R] = {}
    missing: NotFound | None = None
    settings = target.settings
    async with Admin(settings) as admin:
        for home in target.queues:
            dead = dead_letter_queue(home, settings)
            with Progress() as progress:
                box = Box(admin, settings, dead, home, progress)
                try:
                    found[home] = await act(box)
                except NotFound as error:
                    missing = error
    if missing is not None and not found:
        raise missing
    return found
