"""What a supervisor and its worker processes say to each other, in frames."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

import msgspec
from msgspec import Struct

from rmqarq.settings import Settings
from rmqarq.stats import Stats
from rmqarq.worker.ending import Ending
from rmqarq.worker.pipe import unpacked

MARGIN = 20.0
DEVELOPMENT_GRACE = 2.0


class Start(Struct, frozen=True, tag=True):
    """The first word of the supervisor: what to run.

    Args:
        path: MODULE:APP.
        number: Of the process, from 1 on.
        flags: Settings that were given on the command line.
        queues: What to consume; those of all tasks if empty.
        reload: Whether the code is being worked on: then stops are short.
        language: `en` or `zh`, of what is said before the settings are known.
        log_format: `text` or `json`, likewise.
        patient: Whether a burst goes on, however empty the queues, until `Finish`.
        doomed: Whether the broker ends when the supervisor does: then there is nobody
            to give jobs back to.
    """

    path: str
    number: int
    flags: dict[str, bool | int | float | str]
    queues: tuple[str, ...] = ()
    reload: bool = False
    language: str = "en"
    log_format: Literal["text", "json"] = "text"
    patient: bool = False
    doomed: bool = False


class Halt(Struct, frozen=True, tag=True):
    """Stop in order.

    Args:
        signal: That the supervisor has received; `None` when it wants so itself.
    """

    signal: str | None = None


class Force(Struct, frozen=True, tag=True):
    """Stop at once.

    Args:
        signal: That the supervisor has received again.
    """

    signal: str


class Finish(Struct, frozen=True, tag=True):
    """All has been sent: the burst ends when nothing is left."""


class Loaded(Struct, frozen=True, tag=True):
    """The App is loaded.

    Args:
        settings: With which the worker runs.
    """

    settings: Settings


class Serving(Struct, frozen=True, tag=True):
    """The worker takes jobs."""


class Count(Struct, frozen=True, tag=True):
    """Something has been done.

    Args:
        stats: All that the process has done so far.
    """

    stats: Stats


class Ended(Struct, frozen=True, tag=True):
    """The worker has ended, and its process is about to.

    Args:
        ending: Why.
        stats: All that it has done.
    """

    ending: Ending | None
    stats: Stats


ToWorker: TypeAlias = Start | Halt | Force | Finish
ToSupervisor: TypeAlias = Loaded | Serving | Count | Ended


def to_worker(body: bytes) -> ToWorker:
    """Decode a frame that the supervisor sent."""
    return cast("ToWorker", unpacked(ToWorker, body))


def to_supervisor(body: bytes) -> ToSupervisor:
    """Decode a frame that a worker process sent."""
    return cast("ToSupervisor", unpacked(ToSupervisor, body))


def time_to_stop(settings: Settings) -> float:
    """Give the seconds after which a stop in order has failed."""
    return settings.shutdown_grace + settings.cancel_grace + MARGIN


def hurried(settings: Settings) -> Settings:
    """Shorten the stops of somebody who works on the code."""
    return msgspec.structs.replace(
        settings,
        shutdown_grace=min(settings.shutdown_grace, DEVELOPMENT_GRACE),
        cancel_grace=min(settings.cancel_grace, DEVELOPMENT_GRACE),
    )
