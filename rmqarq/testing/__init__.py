"""Tests of tasks: a world with a broker and time of its own, or the executor alone.

What stands here is loaded when it is first asked for: the pytest plugin of this package
is imported by every test run of a machine, and must cost nothing there.
"""

from typing import TYPE_CHECKING

from rmqarq.door import opener as _opener

if TYPE_CHECKING:
    from rmqarq.testing.harness import Harness
    from rmqarq.testing.sightings import Dead, Delayed, Done, Enqueued
    from rmqarq.testing.worlds import World, world

_HOMES = {
    "Dead": "rmqarq.testing.sightings",
    "Delayed": "rmqarq.testing.sightings",
    "Done": "rmqarq.testing.sightings",
    "Enqueued": "rmqarq.testing.sightings",
    "Harness": "rmqarq.testing.harness",
    "World": "rmqarq.testing.worlds",
    "world": "rmqarq.testing.worlds",
}

if not TYPE_CHECKING:
    __getattr__ = _opener(globals(), _HOMES)

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = ["Dead", "Delayed", "Done", "Enqueued", "Harness", "World", "world"]
