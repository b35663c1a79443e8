"""Asks from outside whether workers are ready: themselves, or the broker about them."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Literal

from rmqarq.admin import Admin
from rmqarq.errors import TransportError, Unhealthy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.settings import Settings

TIMEOUT = 5.0
HERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "localhost"}
"""Where to find on this machine who listens on all its addresses."""


def ports(settings: Settings) -> tuple[int, ...]:
    """Give the ports on which the processes of a worker serve; none if they do not."""
    first = settings.health_port
    return () if first is None else tuple(range(first, first + settings.processes))


def ask_worker(host: str, port: int, path: Literal["/livez", "/readyz"]) -> None:
    """Ask a worker on this machine how it is.

    Args:
        host: The address that it serves on.
        port: The port.
        path: What to ask.

    Raises:
        Unhealthy: It has something to say, or nothing at all within 5 s.
    """
    address = f"{host}:{port}"
    try:
        answer = _fetch(HERE.get(host, host), port, path)
    except TimeoutError as error:
        raise Unhealthy(
            "the worker at {address} does not answer within {seconds} s: a job may"
            " block its event loop, see its log",
            address=address,
            seconds=round(TIMEOUT),
        ) from error
    except OSError as error:
        raise Unhealthy(
            "no worker answers at {address} ({problem}): it does not run, or with"
            " another health_port",
            address=address,
            problem=error.strerror or str(error),
        ) from error
    head, _, body = answer.partition("\r\n\r\n")
    words = head.split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) < 3:
        raise Unhealthy("what answers at {address} is no worker", address=address)
    if words[1] != "200":
        raise Unhealthy(
            "the worker at {address}: {problems}",
            address=address,
            problems="; ".join(body.splitlines()) or words[1],
        )


async def ask_broker(settings: Settings, queues: Sequence[str]) -> None:
    """Ask the broker whether somebody consumes each queue; creates nothing.

    Raises:
        Unhealthy: It can't be reached, or nobody consumes some queue.
        ConfigurationError: It refuses us.
    """
    try:
        async with Admin(settings) as admin:
            lonely = [each for each in queues if not await admin.consumers(each)]
    except TransportError as error:
        raise Unhealthy(
            "the broker does not answer: {problem}", problem=str(error)
        ) from error
    if lonely:
        raise Unhealthy("no worker consumes {queues}", queues=", ".join(lonely))


def _fetch(host: str, port: int, path: str) -> str:
    """Send one request and read all of the answer.

    Raises:
        OSError: There is nobody, or nobody who answers.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), TIMEOUT) as link:
        link.sendall(request.encode("latin-1"))
        parts = iter(partial(link.recv, 65536), b"")
        return b"".join(parts).decode("utf-8", "replace")
