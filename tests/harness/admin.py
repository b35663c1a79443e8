"""What an operator does to a node, and what goes wrong with one: thin over its ctl."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.harness.broker import HOST, BrokerError

if TYPE_CHECKING:
    from tests.harness.broker import Broker


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
    broker.ctl("add_user", user, password)
    set_permissions(broker, user, vhost=vhost)
    return url_for(broker, user, password, vhost)


def delete_user(broker: Broker, user: str) -> None:
    broker.ctl("delete_user", user)


def set_permissions(
    broker: Broker,
    user: str,
    configure: str = ".*",
    write: str = ".*",
    read: str = ".*",
    vhost: str = "/",
) -> None:
    """Say which names a user may declare, publish to, and consume, by pattern."""
    broker.ctl("set_permissions", "-p", vhost, user, configure, write, read)


def clear_permissions(broker: Broker, user: str, vhost: str = "/") -> None:
    """Take every permission on a virtual host from a user."""
    broker.ctl("clear_permissions", "-p", vhost, user)


def add_vhost(broker: Broker, vhost: str) -> str:
    """Make a virtual host where the guest may do everything; return the URL."""
    broker.ctl("add_vhost", vhost)
    set_permissions(broker, "guest", vhost=vhost)
    return url_for(broker, vhost=vhost)


def delete_vhost(broker: Broker, vhost: str) -> None:
    broker.ctl("delete_vhost", vhost)


def close_all_connections(broker: Broker, reason: str = "operator") -> None:
    """Let the node close every connection, by AMQP, with code 320."""
    broker.ctl("close_all_connections", reason)


def write_down(broker: Broker) -> None:
    """Let the node write new queues to its disk at once; a kill may lose them else."""
    broker.ctl("eval", "mnesia:sync_log().")


def disk_alarm(broker: Broker, on: bool) -> None:
    """Raise or clear the disk alarm, which blocks publishing connections."""
    broker.ctl("set_disk_free_limit", "9000GB" if on else "50MB")
    deadline = time.monotonic() + 20
    while ("disk" in broker.ctl("eval", "rabbit_alarm:get_alarms().")) is not on:
        if time.monotonic() > deadline:
            raise BrokerError("the disk alarm did not change within 20 s")
        time.sleep(0.1)


def consumer_timeout(broker: Broker, milliseconds: int) -> None:
    """Set how long a delivery may stay unacknowledged, on channels opened after it.

    RabbitMQ looks once a second instead of once a minute then.
    """
    for key, value in (
        ("channel_tick_interval", 1000),
        ("consumer_timeout", milliseconds),
    ):
        broker.ctl("eval", f"application:set_env(rabbit, {key}, {value}).")
