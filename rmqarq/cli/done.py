"""What a command has done with letters, told at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import typer

from rmqarq.cli import output
from rmqarq.errors import CodecError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rmqarq.box import Tally
    from rmqarq.letters import Filter


def report(
    tallies: Mapping[str, Tally], verb: Literal["requeued", "dropped"], *, as_json: bool
) -> None:
    """Tell what was done; raise what ended it, or exit with 1 if some had to stay.

    Args:
        tallies: By the name of their queue.
        verb: What was done: `requeued` or `dropped`.
        as_json: Print JSON.
    """
    if as_json:
        output.as_json(
            [
                {
                    "queue": queue,
                    verb: each.done,
                    "refused": each.refused,
                    "fit": each.fit,
                    "there": each.there,
                }
                for queue, each in tallies.items()
            ]
        )
    for queue, each in tallies.items():
        if not as_json:
            output.say(
                "{queue}: requeued {count} of {there}"
                if verb == "requeued"
                else "{queue}: dropped {count} of {there}",
                queue=queue,
                count=each.done,
                there=each.there,
            )
        _tell_what_stays(each)
    for each in tallies.values():
        if each.error is not None:
            raise each.error
    if any(each.refused for each in tallies.values()):
        raise typer.Exit(1)


def miss(wanted: Filter, found: Iterable[str]) -> None:
    """Complain of job ids that were asked for and not found.

    Raises:
        NotFound: There are such.
    """
    missing = sorted(set(wanted.ids).difference(found))
    if missing:
        raise NotFound("no letter of the job {ids} is there", ids=", ".join(missing))


def _tell_what_stays(tally: Tally) -> None:
    if tally.why is None:
        return
    output.aside("{count} had to stay ({why})", count=tally.refused, why=tally.why)
    if isinstance(tally.why, CodecError):
        output.aside("--as-is sends what can't be read byte for byte.")
