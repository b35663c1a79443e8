"""What a worker says at its beginning and at its end."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

from rmqarq.errors import Phrase
from rmqarq.wire.names import Names
from rmqarq.worker.executor import timeout_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.app import App
    from rmqarq.handler import Runnable
    from rmqarq.settings import Settings
    from rmqarq.stats import Stats
    from rmqarq.worker.ending import Ending

log = logging.getLogger(__name__)

NEAR_CONSUMER_TIMEOUT = 25 * 60.0
DEV_BROKER = "rmqarq dev broker"
"""The product that our broker in memory tells; the worker does not import it."""


def hello(app: App[Any], queues: Sequence[str], settings: Settings) -> None:
    """Say what the worker does, and warn of tasks that RabbitMQ may cut short."""
    log.info(
        "worker started: tasks %(tasks)s; queues %(queues)s;"
        " %(concurrency)d at a time; %(broker)s",
        {
            "broker": app.transport.broker,
            "tasks": ", ".join(sorted(each.name for each in app.registry)) or "-",
            "queues": ", ".join(queues),
            "concurrency": settings.concurrency,
        },
    )
    most = settings.prefetch_count * len(queues)
    if most < settings.concurrency:
        log.warning(
            "with prefetch=%(prefetch)d at most %(most)d jobs run at a time, not"
            " %(concurrency)d; leave prefetch out, and it follows concurrency",
            {
                "prefetch": settings.prefetch_count,
                "most": most,
                "concurrency": settings.concurrency,
            },
        )
    if app.transport.product == DEV_BROKER:
        _warn_of_dev_broker()
    for task in app.tasks.values():
        _warn_of_consumer_timeout(task, app.queue_of(task), settings)
    for handler in app.registry.handlers.values():
        _warn_of_consumer_timeout(handler, handler.queue, settings)


def warn_of_plugin(settings: Settings) -> None:
    """Say what delays by the plugin do not promise; loudly if nobody asked for them."""
    log.log(
        logging.INFO if settings.delays == "plugin" else logging.WARNING,
        "delays go by the delayed-message plugin, which promises less than the ladder:"
        " it keeps one copy on one node, loses confirmed jobs when that node is killed,"
        " drops a job without a word when its queue is gone or not bound to"
        " %(exchange)s, and is no longer maintained; delays='ladder' (RMQARQ_DELAYS)"
        " does without it",
        {"exchange": Names(settings.prefix).delayed},
    )


def farewell(ending: Ending | None, stats: Stats) -> None:
    """Say why the worker ended and what it has done."""
    log.info(
        "%(why)s ◆ %(completed)s completed ◆ %(failed)s failed"
        " ◆ %(retried)s retried ◆ %(dead_lettered)s dead-lettered"
        " ◆ %(returned)s returned"
        " ◆ %(pending)s pending",
        {
            **stats.values(),
            "why": (ending.signal or ending.why) if ending else Phrase("failed"),
        },
    )


def may_outlast_a_delivery(task: Runnable, settings: Settings) -> bool:
    """Tell whether a run, with its wait in the worker, nears `consumer_timeout`.

    RabbitMQ closes a channel with a delivery open for 30 minutes by default.
    """
    timeout = timeout_of(task, settings)
    waiting = max(1.0, settings.prefetch_count / settings.concurrency)
    return timeout is None or timeout * waiting >= NEAR_CONSUMER_TIMEOUT


def longer_deliveries(queue: str) -> str:
    """Give the command that lets deliveries of a queue stay open for a day."""
    pattern = re.escape(queue) + r"(\.suspect)?$"
    return (
        f"rabbitmqctl set_policy 'long-{queue}' '^{pattern}'"
        " '{\"consumer-timeout\": 86400000}' --apply-to queues"
    )


def _warn_of_dev_broker() -> None:
    if os.environ.get("RMQARQ_ENV", "").lower() == "production":
        log.warning(
            "RMQARQ_ENV says production, but this broker keeps everything in memory: it"
            " is the dev broker, and all jobs are lost when it ends; RMQARQ_URL names"
            " another one"
        )


def _warn_of_consumer_timeout(task: Runnable, queue: str, settings: Settings) -> None:
    if may_outlast_a_delivery(task, settings):
        log.warning(
            "%(task)s may run longer than RabbitMQ lets a delivery stay open (30"
            " minutes by default); raise it: %(command)s",
            {"task": task.name, "command": longer_deliveries(queue)},
        )
