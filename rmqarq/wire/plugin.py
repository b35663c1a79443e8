"""Whether the broker has the delayed-message plugin: asked where the answer may kill.

RabbitMQ 3.10 to 3.13.0 answer a declaration of an exchange of unknown type by closing
the whole connection (503), later ones by closing the channel (406); so it is asked on a
connection that is used for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.errors import ConfigurationError, ConnectionLost
from rmqarq.wire import declare, topology
from rmqarq.wire.names import Names
from rmqarq.wire.opening import connect

if TYPE_CHECKING:
    from rmqarq.settings import Settings
    from rmqarq.url import Endpoint

COMMAND_INVALID = 503


async def probe(endpoint: Endpoint, settings: Settings) -> ConfigurationError | None:
    """Declare the plugin's exchange on a connection of its own.

    Returns:
        Why we can't have it; `None` when the exchange is there.

    Raises:
        TransportError: The link broke before there was an answer.
        ConfigurationError: The broker refuses the connection itself.
    """
    wanted = topology.delayed(Names(settings.prefix))
    connection = await connect(endpoint, settings, "probe")
    try:
        await declare.declare(connection, wanted)
    except ConfigurationError as error:
        return error
    except ConnectionLost:
        closed = connection.tap.closed
        if closed is None or closed.code != COMMAND_INVALID:
            raise
        return ConfigurationError(
            "the broker refuses {name}: {text}",
            name=repr(wanted.exchanges[0].name),
            text=closed.text,
        )
    finally:
        await connection.close()
    return None
