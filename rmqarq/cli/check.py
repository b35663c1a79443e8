"""`rmqarq check`: whether a worker is ready, told by the exit code."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from rmqarq import probe
from rmqarq.cli import output
from rmqarq.cli.target import AnyPath, Queues, Url, chosen
from rmqarq.worker.process import replaced

Live = Annotated[
    bool,
    typer.Option("--live", help="Ask whether it is alive, not whether it is ready."),
]
HealthPort = Annotated[
    int | None, typer.Option(help="Where the worker serves /livez and /readyz.")
]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="How many processes it has; each has a port of its own."),
]


def check(
    app: AnyPath = None,
    *,
    live: Live = False,
    health_port: HealthPort = None,
    processes: Processes = None,
    queue: Queues = None,
    url: Url = None,
) -> None:
    """Tell whether a worker is ready: exit code 0 if it is, 1 if not. Creates nothing.

    With a health port the worker on this machine is asked; without one the broker,
    whether each queue has a consumer anywhere.
    """
    target = chosen(app, url, queue)
    flags = {"health_port": health_port, "processes": processes}
    settings = replaced(target.settings, flags)
    ports = probe.ports(settings)
    for port in ports:
        probe.ask_worker(settings.health_host, port, "/livez" if live else "/readyz")
    if not ports:
        if live:
            raise typer.BadParameter("needs a health port", param_hint="--live")
        asyncio.run(probe.ask_broker(settings, target.queues))
    output.say("ok")
