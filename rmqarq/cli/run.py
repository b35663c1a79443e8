"""`rmqarq run`: a worker in this terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Literal, NoReturn

import typer

from rmqarq import logs
from rmqarq.cli import output
from rmqarq.loader import load
from rmqarq.worker.line import Start
from rmqarq.worker.process import replaced, work
from rmqarq.worker.supervisor import Supervisor
from rmqarq.worker.worker import Worker

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
Processes = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; each runs its own jobs.")
]
Reload = Annotated[
    bool, typer.Option("--reload", help="Start anew when Python files change.")
]
MaxJobs = Annotated[
    int | None,
    typer.Option(help="Stop after so many jobs; one of several is then replaced."),
]
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
    processes: Processes = None,
    reload: Reload = False,
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
    flags = {
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
        "language": output.asked_for.get(),
        "shutdown_grace": shutdown_grace,
        "health_port": health_port,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    early = output.language(), output.log_format(log_format)
    start = Start(app, 1, given, tuple(queue or ()), reload, *early)
    raise typer.Exit(_run(start, processes))


def _run(start: Start, processes: int | None) -> int:
    if start.reload:
        _refuse_reload(start)
    if start.reload or (processes or 1) > 1:
        return asyncio.run(Supervisor(start, processes).run())
    return _run_here(start, processes)


def _refuse_reload(start: Start) -> None:
    if "burst" in start.flags:
        raise typer.BadParameter(
            "it waits for changes, and --burst ends when the queues are empty",
            param_hint="--reload",
        )


def _run_here(start: Start, processes: int | None) -> int:
    """Run the one worker in this process; begin anew when there shall be several."""
    arguments = sys.argv[1:]  # the module of the App may change them
    with logs.held(start.language, start.log_format):
        found = load(start.path)
        settings = replaced(found.settings, {**start.flags, "processes": processes})
        if settings.processes > 1:
            _begin_anew(arguments, settings.processes)
        logs.set_up(settings.log_level, settings.language, settings.log_format)
    found.configure(settings)  # by hand: --url beats RMQARQ_DEV_URL
    worker = Worker(found, queues=start.queues, path=start.path)
    return work(worker)


def _begin_anew(arguments: list[str], processes: int) -> NoReturn:
    """Become the supervisor, without the App and whatever its module has started."""
    python = ["-m", "rmqarq"]  # for a program that has made up its own arguments
    if sys.orig_argv[-len(arguments) :] == arguments:
        python = sys.orig_argv[1 : -len(arguments)]
    place = arguments.index("run") + 1
    arguments[place:place] = ["--processes", str(processes)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *python, *arguments])
