"""What can be told of an App without a broker: its tasks, and settings that conflict.

A check takes the case and gives findings; `CHECKS` names all, in the order shown.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import TYPE_CHECKING

from rmqarq.case import written
from rmqarq.errors import ConfigurationError
from rmqarq.findings import Finding, sentence, told_by
from rmqarq.handler import Handler
from rmqarq.url import parse_urls
from rmqarq.wire.delay import every_rung
from rmqarq.wire.names import Names
from rmqarq.wire.topology import dead_letter_queue
from rmqarq.worker.executor import timeout_of
from rmqarq.worker.reports import longer_deliveries, may_outlast_a_delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq.case import Case
    from rmqarq.findings import Sentence
    from rmqarq.handler import Runnable
    from rmqarq.url import Endpoint

LONG_HEARTBEAT = 120
USUAL_STOP = 30.0
"""Seconds between SIGTERM and SIGKILL on Kubernetes, unless a pod says otherwise."""
LAST_PORT = 65535
POLICY_SINCE = (3, 12)
PRIORITIES_SINCE = (4, 0)
ONLY_QUORUM_SINCE = (4, 3)


def tasks(case: Case) -> Iterator[Finding]:
    """There is something to run, and all annotations can be read."""
    handlers = case.app.registry.handlers
    if not case.app.tasks and not handlers:
        yield Finding(
            "error",
            case.path,
            sentence("this App has no tasks, so that a worker can run nothing"),
            sentence("import the modules of its tasks where it is made, or include()"),
        )
        return
    unreadable = list(_unreadable(case))
    yield from unreadable
    if case.app.tasks and not unreadable:
        own = [each for each in case.queues if each not in handlers]
        yield Finding(
            "ok",
            case.path,
            sentence(
                "{count} tasks on {queues}",
                count=len(case.app.tasks),
                queues=", ".join(own),
            ),
        )
    if handlers and not unreadable:
        yield Finding(
            "ok",
            case.path,
            sentence(
                "{count} consume functions, on {queues} of other producers",
                count=len(handlers),
                queues=", ".join(handlers),
            ),
        )


def deliveries(case: Case) -> Iterator[Finding]:
    """No task may run longer than RabbitMQ lets a delivery stay open."""
    settings, handlers = case.settings, case.app.registry.handlers
    exempt = settings.queue_type == "classic" and case.version >= ONLY_QUORUM_SINCE
    # of what type a queue of others is, nobody tells
    for task in handlers.values() if exempt else case.app.registry:
        if may_outlast_a_delivery(task, settings):
            yield _too_long(case, task)


def priorities(case: Case) -> Iterator[Finding]:
    """Priorities need a queue that has some."""
    settings = case.settings
    users = [task.name for task in case.app.tasks.values() if task.priority]
    quorum = settings.queue_type == "quorum"
    if users and quorum and case.version and case.version < PRIORITIES_SINCE:
        yield Finding(
            "warning",
            ", ".join(users),
            sentence(
                "priorities have no effect: quorum queues of RabbitMQ {version} are"
                " first in, first out",
                version=written(case.version),
            ),
            sentence(
                "App(queue_type='classic', max_priority=10) with queues of other names,"
                " or a queue for each priority, or RabbitMQ 4"
            ),
        )
    if users and not quorum and settings.max_priority is None:
        yield Finding(
            "warning",
            ", ".join(users),
            sentence("priorities have no effect on a classic queue without levels"),
            sentence("App(max_priority=10), with queues of other names"),
        )
    if quorum and settings.max_priority is not None:
        yield Finding(
            "warning",
            "max_priority",
            sentence("it has no effect on quorum queues"),
            sentence("App(queue_type='classic'), or leave max_priority out"),
        )


def names(case: Case) -> Iterator[Finding]:
    """No queue is two things at once."""
    ours, settings = Names(case.settings.prefix), case.settings
    homes: dict[str, list[str]] = defaultdict(list)
    for queue in case.queues:
        homes[dead_letter_queue(queue, settings)].append(queue)
    for dead, queues in homes.items():
        if dead in case.queues:
            yield Finding(
                "error",
                dead,
                sentence(
                    "it is a queue of jobs and the dead-letter queue of {queues}, too",
                    queues=", ".join(queues),
                ),
                sentence("give the queue of jobs or dead_letter_queue another name"),
            )
        if len(queues) > 1:
            yield Finding(
                "warning",
                dead,
                sentence(
                    "the dead letters of {queues} lie in one queue, so that rmqarq dlq"
                    " meets each of them once for every queue",
                    queues=", ".join(queues),
                ),
                sentence("give dead_letter_queue a name of its own"),
            )
    taken = {ours.lost, *(ours.rung(each.label) for each in every_rung())}
    for name in (*case.queues, *homes):
        if name in taken:
            yield Finding(
                "error",
                name,
                sentence("queues of rmqarq itself have this name"),
                sentence("give the queue or the prefix another name"),
            )


def times(case: Case) -> Iterator[Finding]:
    """No time is shorter than another one that it must hold."""
    settings = case.settings
    for name, seconds in _heartbeats(case):
        if seconds > LONG_HEARTBEAT:
            yield Finding(
                "warning",
                name,
                sentence(
                    "with a heartbeat of {seconds} s a dead link shows only after"
                    " {dead} s",
                    seconds=seconds,
                    dead=3 * seconds,
                ),
                sentence("heartbeat=10"),
            )
    stop = settings.shutdown_grace + settings.cancel_grace
    if stop > USUAL_STOP:
        yield Finding(
            "note",
            "shutdown_grace",
            sentence(
                "a stop may take {seconds} s, and Kubernetes kills after 30 s unless it"
                " is told otherwise, Docker after 10 s",
                seconds=f"{stop:g}",
            ),
            sentence(
                "terminationGracePeriodSeconds: {seconds}", seconds=f"{stop + 30:.0f}"
            ),
        )
    if settings.connect_timeout > settings.publish_deadline:
        yield Finding(
            "warning",
            "connect_timeout",
            sentence("it is longer than publish_deadline, so an enqueue tries once"),
            sentence("a longer publish_deadline, or a shorter connect_timeout"),
        )
    yield from _bursts(case)


def load(case: Case) -> Iterator[Finding]:
    """The worker may hold as many jobs as it can run."""
    settings = case.settings
    if settings.prefetch_count < settings.concurrency:
        yield Finding(
            "warning",
            "prefetch",
            sentence(
                "a worker gets {prefetch} jobs of a queue at a time and could run"
                " {concurrency}",
                prefetch=settings.prefetch_count,
                concurrency=settings.concurrency,
            ),
            sentence("leave prefetch out, or concurrency={n}", n=settings.prefetch),
        )


def ports(case: Case) -> Iterator[Finding]:
    """Each of several processes has a port of its own for health."""
    first, count = case.settings.health_port, case.settings.processes
    if first is None or count == 1:
        return
    last = first + count - 1
    if last > LAST_PORT:
        yield Finding(
            "error",
            "health_port",
            sentence(
                "{count} processes serve on the ports {first} to {last}, and the last"
                " port is 65535",
                count=count,
                first=first,
                last=last,
            ),
            sentence("health_port={port}, or less", port=LAST_PORT - count + 1),
        )
    else:
        yield Finding(
            "note",
            "health_port",
            sentence(
                "{count} processes serve on the ports {first} to {last}, each its own"
                " figures",
                count=count,
                first=first,
                last=last,
            ),
            sentence("let probes and Prometheus ask each of them"),
        )


def safety(case: Case) -> Iterator[Finding]:
    """The link is private where it should be, and the user is one of our own."""
    settings = case.settings
    endpoints = parse_urls(settings.url)
    tls = [str(each) for each in endpoints if each.tls]
    if tls and not settings.tls_verify:
        yield Finding(
            "warning",
            ", ".join(tls),
            sentence("tls_verify is off: whoever answers at this address is believed"),
            sentence("tls_verify=True, and tls_ca='authority.pem' for your authority"),
        )
    files = settings.tls_files
    if files and not tls:
        yield Finding(
            "warning",
            ", ".join(files),
            sentence("no URL begins with amqps://, so that nothing is encrypted"),
            sentence("amqps:// in the URL"),
        )
    for each in endpoints:
        if each.user == "guest" and not is_loopback(each):
            yield Finding(
                "warning",
                str(each),
                sentence("guest may only log in on the broker's own machine"),
                own_user(each),
            )


CHECKS = (tasks, deliveries, priorities, names, times, load, ports, safety)


def is_loopback(endpoint: Endpoint) -> bool:
    """Tell whether a broker is on this machine, by its name."""
    if endpoint.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(endpoint.host).is_loopback
    except ValueError:
        return False


def own_user(endpoint: Endpoint) -> Sentence:
    """Say how to make a user who may log in from anywhere."""
    return sentence(
        "rabbitmqctl add_user app && rabbitmqctl set_permissions -p '{vhost}' app '.*'"
        " '.*' '.*', then name app and its password in the URL",
        vhost=endpoint.vhost,
    )


def _unreadable(case: Case) -> Iterator[Finding]:
    for task in case.app.registry:
        try:
            task.prepare()
        except ConfigurationError as error:
            yield Finding(
                "error",
                task.name,
                told_by(error),
                sentence(
                    "annotate it with a type that this module imports at run time and"
                    " that msgspec can build: see {page}",
                    page="docs/tasks.md",
                ),
            )


def _too_long(case: Case, task: Runnable) -> Finding:
    timeout = timeout_of(task, case.settings)
    queue = task.queue if isinstance(task, Handler) else case.app.queue_of(task)
    what = sentence(
        "it may run, or wait and run, longer than RabbitMQ lets a delivery stay open"
        " (30 minutes by default): its timeout is {timeout}",
        timeout="none" if timeout is None else f"{timeout:g} s",
    )
    fix = sentence("{command}", command=longer_deliveries(queue))
    if case.version and case.version < POLICY_SINCE:
        fix = sentence("consumer_timeout = 86400000 in rabbitmq.conf, in milliseconds")
    return Finding("warning", task.name, what, fix)


def _heartbeats(case: Case) -> Iterator[tuple[str, int]]:
    yield "heartbeat", case.settings.heartbeat
    for each in parse_urls(case.settings.url):
        if each.heartbeat is not None:
            yield str(each), each.heartbeat


def _bursts(case: Case) -> Iterator[Finding]:
    longest = case.settings.burst_timeout
    if longest is None:
        return
    for task in case.app.registry:
        timeout = timeout_of(task, case.settings)
        if timeout is None or timeout > longest:
            yield Finding(
                "warning" if case.settings.burst else "note",
                task.name,
                sentence(
                    "a run may take longer than a burst, which ends after {seconds} s",
                    seconds=f"{longest:g}",
                ),
                sentence("burst_timeout=None, or longer than the task's timeout"),
            )
