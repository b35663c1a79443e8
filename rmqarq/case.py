"""What the doctor knows when it judges: the App, its brokers, and what one showed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from rmqarq.app import App
from rmqarq.errors import RmqarqError
from rmqarq.url import Endpoint
from rmqarq.wire.permission import Permission
from rmqarq.wire.probe import Place, Presence, Publishing
from rmqarq.worker.reports import DEV_BROKER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.settings import Settings


class Attempt(Struct, frozen=True):
    """How it went to connect to one broker.

    Args:
        endpoint: The broker.
        error: Why there is no connection.
        product: What it calls itself.
        version: Its version, such as `(3, 10, 8)`.
    """

    endpoint: Endpoint
    error: RmqarqError | None = None
    product: str = ""
    version: tuple[int, ...] = ()

    @property
    def is_rabbitmq(self) -> bool:
        """Whether it is the broker that rmqarq is made for."""
        return self.product == "RabbitMQ"

    @property
    def is_dev_broker(self) -> bool:
        """Whether it is our own broker in memory."""
        return self.product == DEV_BROKER


class Sight(Struct, frozen=True):
    """What a broker has shown.

    Args:
        attempt: The broker.
        places: The queues and exchanges that were looked at, by name.
        rungs: Those queues of the delay ladder that are there.
        denied: The permissions that its user lacks.
        untold: Those of which nobody knows.
        publishing: What became of a publish.
        plugin: Whether there is a delayed-message plugin; `None` if nobody knows.
        error: What ended the look before its end.
    """

    attempt: Attempt
    places: dict[str, Place] = {}
    rungs: tuple[str, ...] = ()
    denied: tuple[Permission, ...] = ()
    untold: tuple[Permission, ...] = ()
    publishing: Publishing | None = None
    plugin: Presence | None = None
    error: RmqarqError | None = None


class Case(Struct, frozen=True):
    """All that is known.

    Args:
        path: MODULE:APP.
        app: What is there.
        attempts: One for each URL.
        sight: What the first broker that could be reached has shown.
    """

    path: str
    app: App[Any]
    attempts: tuple[Attempt, ...] = ()
    sight: Sight | None = None

    @property
    def settings(self) -> Settings:
        """Of the App."""
        return self.app.settings

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that a worker consumes."""
        return self.app.queues

    @property
    def foreign(self) -> tuple[str, ...]:
        """Those of them that belong to others."""
        return tuple(self.app.registry.handlers)

    @property
    def version(self) -> tuple[int, ...]:
        """Of the broker; empty if nobody knows."""
        return self.sight.attempt.version if self.sight else ()


def looks_for_plugin(settings: Settings) -> bool:
    """Tell whether delays may go by the delayed-message plugin."""
    if settings.delays == "auto":
        return settings.declare == "active"
    return settings.delays == "plugin"


def written(version: Iterable[int]) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))
