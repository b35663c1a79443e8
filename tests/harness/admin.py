"""What an operator does to a node, and what goes wrong with one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.harness.broker import HOST, BrokerError, binary

if TYPE_CHECKING:
    from tests.harness.broker import Broker

TESTS = '<<"tests">>'
"""Who does it, for RabbitMQ's own log."""


def url_for(
    broker: Broker,
    user: str = "guest",
    password: str = "guest",
    vhost: str = "/",
    port: int | None = None,
) -> str:
    """Give the URL of a node for another user, virtual host or port."""
    user, password, vhost = (quote(word, safe="") for word in (user, password, vhost))
    return f"amqp://{user}:{password}@{HOST}:{port or broker.port}/{vhost}"


def add_user(broker: Broker, user: str, password: str, vhost: str = "/") -> str:
    """Make a user who may do everything in a virtual host; return the URL."""
    names = f"{binary(user)}, {binary(password)}, {TESTS}"
    broker.eval(f"ok = rabbit_auth_backend_internal:add_user({names}).")
    set_permissions(broker, user, vhost=vhost)
    return url_for(broker, user, password, vhost)


def delete_user(broker: Broker, user: str) -> None:
    names = f"{binary(user)}, {TESTS}"
    broker.eval(f"ok = rabbit_auth_backend_internal:delete_user({names}).")


def change_password(broker: Broker, user: str, password: str) -> None:
    names = f"{binary(user)}, {binary(password)}, {TESTS}"
    broker.eval(f"ok = rabbit_auth_backend_internal:change_password({names}).")


def set_permissions(
    broker: Broker,
    user: str,
    configure: str = ".*",
    write: str = ".*",
    read: str = ".*",
    vhost: str = "/",
) -> None:
    """Say which names a user may declare, publish to, and consume, by pattern."""
    words = ", ".join(map(binary, (user, vhost, configure, write, read)))
    broker.eval(f"ok = rabbit_auth_backend_internal:set_permissions({words}, {TESTS}).")


def clear_permissions(broker: Broker, user: str, vhost: str = "/") -> None:
    """Take every permission on a virtual host from a user."""
    names = f"{binary(user)}, {binary(vhost)}, {TESTS}"
    broker.eval(f"ok = rabbit_auth_backend_internal:clear_permissions({names}).")


def add_vhost(broker: Broker, vhost: str) -> str:
    """Make a virtual host where the guest may do everything; return the URL."""
    broker.eval(f"ok = rabbit_vhost:add({binary(vhost)}, {TESTS}).")
    set_permissions(broker, "guest", vhost=vhost)
    return url_for(broker, vhost=vhost)


def delete_vhost(broker: Broker, vhost: str) -> None:
    broker.eval(f"ok = rabbit_vhost:delete({binary(vhost)}, {TESTS}).")


def close_all_connections(broker: Broker, reason: str = "operator") -> None:
    """Let the node close every connection, by AMQP, with code 320."""
    broker.ctl("close_all_connections", reason)


def write_down(broker: Broker) -> None:
    """Let the node write new queues to its disk at once; a kill may lose them else."""
    broker.eval("mnesia:sync_log().")


def disk_alarm(broker: Broker, on: bool) -> None:
    """Raise or clear the disk alarm, which blocks publishing connections."""
    limit = 9000 * 10**9 if on else 50 * 10**6
    broker.eval(f"rabbit_disk_monitor:set_disk_free_limit({limit}).")
    deadline = time.monotonic() + 20
    while ("disk" in broker.eval("rabbit_alarm:get_alarms().")) is not on:
        if time.monotonic() > deadline:
            raise BrokerError("the disk alarm did not change within 20 s")
        time.sleep(0.02)


def consumer_timeout(broker: Broker, milliseconds: int) -> None:
    """Set how long a delivery may stay unacknowledged, on channels opened after it.

    RabbitMQ looks once a second instead of once a minute then.
    """
    for key, value in (
        ("channel_tick_interval", 1000),
        ("consumer_timeout", milliseconds),
    ):
        broker.eval(f"application:set_env(rabbit, {key}, {value}).")
