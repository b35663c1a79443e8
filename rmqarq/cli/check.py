"""`rmqarq check`: whether a worker is ready, told by the exit code."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from rmqarq import probe
from rmqarq.cli import output
from rmqarq.cli.target import AnyPath, Queues, Url, chosen

Live = Annotated[
    bool,
    typer.Option("--live", help="Ask whether it is alive, not whether it is ready."),
]
HealthPort = Annotated[
    int | None, typer.Option(help="Where the worker serves /livez and /readyz.")
]


def check(
    app: AnyPath = None,
    *,
    live: Live = False,
    health_port: HealthPort = None,
    queue: Queues = None,
    url: Url = None,
) -> None:
    """Tell whether a worker is ready: exit code 0 if it is, 1 if not. Creates nothing.

    With a health port the worker on this machine is asked; without one the broker,
    whether each queue has a consumer anywhere.
    """
    target = chosen(app, url, queue)
    settings = target.settings
    if health_port is not None:
        settings = msgspec.structs.replace(settings, health_port=health_port)
    ports = probe.ports(settings)
    for port in ports:
        probe.ask_worker(settings.health_host, port, "/livez" if live else "/readyz")
    if not ports:
        if live:
            raise typer.BadParameter("needs a health port", param_hint="--live")
        asyncio.run(probe.ask_broker(settings, target.queues))
    output.say("ok")
