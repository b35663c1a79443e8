"""`rmqarq run`: a worker in this terminal."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from rmqarq import logs
from rmqarq.cli import output
from rmqarq.loader import load
from rmqarq.worker import Worker
from rmqarq.worker.event_loop import run_to_the_end

if TYPE_CHECKING:
    from rmqarq.app import App
    from rmqarq.settings import Settings


Path = Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the App is.")]
BurstMode = Annotated[
    bool, typer.Option("--burst", "-b", help="Stop when the queues are empty.")
]
BurstTimeout = Annotated[float | None, typer.Option(help="Longest burst, in seconds.")]
BurstCheckInterval = Annotated[
    float | None, typer.Option(help="Seconds between two looks at the queues.")
]
NoWaitTasks = Annotated[
    bool,
    typer.Option(
        "--no-wait-tasks",
        help="End a burst without waiting for running jobs; they are given back.",
    ),
]
WaitDelayed = Annotated[
    bool,
    typer.Option(
        "--wait-delayed",
        help="In a burst, wait for every delayed job under the prefix,"
        " those of other apps included.",
    ),
]
Url = Annotated[
    str | None, typer.Option("--url", "-u", help="Broker URL, or several: a,b.")
]
Queues = Annotated[
    list[str] | None,
    typer.Option("--queue", "-q", help="Queue to consume; may be given several times."),
]
PrefetchCount = Annotated[
    int | None,
    typer.Option("--prefetch-count", "-p", help="Unfinished messages per queue."),
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", "-c", help="Jobs at the same time.")
]
MaxJobs = Annotated[int | None, typer.Option(help="Stop after so many jobs.")]
FailOnDead = Annotated[
    bool,
    typer.Option("--fail-on-dead", help="Exit with 5 when jobs were dead-lettered."),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", "-l", help="debug, info, warning or error."),
]
LogFormat = Annotated[
    Literal["text", "json"] | None,
    typer.Option(help="text, or json: one object a line."),
]
ShutdownGrace = Annotated[
    float | None, typer.Option(help="Seconds to wait for running jobs at a stop.")
]
HealthPort = Annotated[
    int | None, typer.Option(help="Serve /livez, /readyz and /metrics on this port.")
]


def run(  # noqa: PLR0913 - one parameter a flag
    app: Path,
    *,
    burst: BurstMode = False,
    burst_timeout: BurstTimeout = None,
    burst_check_interval: BurstCheckInterval = None,
    no_wait_tasks: NoWaitTasks = False,
    wait_delayed: WaitDelayed = False,
    url: Url = None,
    queue: Queues = None,
    prefetch_count: PrefetchCount = None,
    concurrency: Concurrency = None,
    max_jobs: MaxJobs = None,
    fail_on_dead: FailOnDead = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    shutdown_grace: ShutdownGrace = None,
    health_port: HealthPort = None,
) -> None:
    """Run a worker for the App in MODULE:APP.

    A flag beats the settings in the code, which beat RMQARQ_* in the environment.

    Exit codes: 0 done; 1 internal error; 2 usage, or no such App; 3 configuration or
    permissions; 4 a burst cut short, or no broker in a burst; 5 dead letters with
    --fail-on-dead; 130 or 143 forced by a second signal.
    """
    flags: dict[str, Any] = {
        "burst": burst or None,
        "burst_timeout": burst_timeout,
        "burst_check_interval": burst_check_interval,
        "burst_wait": False if no_wait_tasks else None,
        "wait_delayed": wait_delayed or None,
        "url": url,
        "prefetch": prefetch_count,
        "concurrency": concurrency,
        "max_jobs": max_jobs,
        "fail_on_dead": fail_on_dead or None,
        "log_level": log_level.upper() if log_level else None,
        "log_format": log_format,
        "shutdown_grace": shutdown_grace,
        "health_port": health_port,
    }
    found, settings = _prepared(app, flags)
    worker = Worker(found, settings, queues=queue or (), path=app)
    run_to_the_end(partial(_work, worker))
    raise typer.Exit(_exit_code(worker))


def _prepared(path: str, flags: dict[str, Any]) -> tuple[App[Any], Settings]:
    """Load the App, and set up the log as flags and settings want it."""
    with logs.held(output.language()):
        found = load(path)
        given = {**flags, "language": output.asked_for.get()}
        settings = _replaced(found.settings, given)
        logs.set_up(settings.log_level, settings.language, settings.log_format)
    return found, settings


def _replaced(settings: Settings, flags: dict[str, Any]) -> Settings:
    """Put the flags that were given over the settings."""
    given = {name: value for name, value in flags.items() if value is not None}
    return msgspec.structs.replace(settings, **given)


async def _work(worker: Worker) -> None:
    await worker.run()
    if worker.left_behind:
        # code that ignores its cancellation would hold up the end of the event
        # loop, or a thread the end of the interpreter, for as long as it likes
        logging.shutdown()
        sys.stdout.flush()
        os._exit(_exit_code(worker))


def _exit_code(worker: Worker) -> int:
    return worker.ending.exit_code if worker.ending is not None else 1
