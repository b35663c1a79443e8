"""`rmqarq broker`: an AMQP broker in this terminal, in memory, for development only."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from rmqarq.cli import output
from rmqarq.devbroker import Broker
from rmqarq.errors import ConfigurationError

LOCALHOST, PORT = "127.0.0.1", 5672
"""Where clients look for a broker when they are told nothing."""

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")]
AnyHost = Annotated[
    bool,
    typer.Option(
        "--any-host",
        help="Allow an address that other machines reach. Everybody may log in.",
    ),
]


def broker(
    *, host: Host = LOCALHOST, port: Port = PORT, any_host: AnyHost = False
) -> None:
    """Run a broker in memory, for development only: no RabbitMQ is needed.

    It does what RabbitMQ does, but keeps nothing: when it ends, all is gone.

    Exit codes: 0 stopped; 2 usage; 3 the address can't be used.
    """
    asyncio.run(_serve(host, port, any_host=any_host))


async def _serve(host: str, port: int, *, any_host: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Broker() as dev:
        found = await listen(dev, host, port, any_host=any_host)
        typer.echo(url_of(host, found))
        output.say("in memory, for development only: all is gone when this ends")
        await stop.wait()


async def listen(dev: Broker, host: str, port: int, *, any_host: bool = False) -> int:
    """Let a broker listen; give the port.

    Raises:
        ConfigurationError: The address can't be used.
    """
    try:
        return await dev.serve(host, port, any_host=any_host)
    except ValueError as error:
        raise ConfigurationError(
            "the dev broker has no TLS and a password that everybody knows, and"
            " others reach {host}; --any-host allows it all the same",
            host=host,
        ) from error
    except OSError as error:
        raise ConfigurationError(
            "the dev broker can't listen on {host}:{port}: {problem}; choose"
            " another port with --port",
            host=host,
            port=port,
            problem=error.strerror or str(error),
        ) from error


def url_of(host: str, port: int) -> str:
    """Give the URL of a broker that listens there."""
    name = f"[{host}]" if ":" in host else host
    return f"amqp://guest:guest@{name}:{port}/"
