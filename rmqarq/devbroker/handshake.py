"""How a connection is opened: who it is, what it may, and on which terms."""

from __future__ import annotations

import hmac
import platform
from typing import TYPE_CHECKING, NamedTuple, cast

from rmqarq.devbroker import fields
from rmqarq.devbroker.fields import Field, Reader, Table, text
from rmqarq.devbroker.refusal import Refusal, access_refused

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PRODUCT = "rmqarq dev broker"
VERSION = "3.10.8"  # whose ways these are; clients look at it to choose theirs
CHANNEL_MAX, FRAME_MAX, HEARTBEAT = 2047, 131_072, 60
FRAME_MIN = 4096
MECHANISMS = "PLAIN AMQPLAIN"
CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)


class Terms(NamedTuple):
    """What client and broker have agreed on.

    Args:
        channel_max: How many channels at a time.
        frame_max: Bytes that a whole frame may have.
        heartbeat: Seconds; 0 for none.
    """

    channel_max: int
    frame_max: int
    heartbeat: int


class Client(NamedTuple):
    """Who has connected.

    Args:
        user: The name.
        capabilities: What the client says it can do.
    """

    user: str
    capabilities: Table


def start() -> bytes:
    """The arguments of connection.start: who we are."""
    properties: Table = {
        "capabilities": Field("F", {each: Field("t", True) for each in CAPABILITIES}),
        "cluster_name": text("rmqarq"),
        "copyright": text("in memory, for development only"),
        "information": text("nothing here outlives its process"),
        "platform": text(f"Python {platform.python_version()}"),
        "product": text(PRODUCT),
        "version": text(VERSION),
    }
    return b"".join(
        (
            b"\x00\x09",
            fields.table(properties),
            fields.longstr(MECHANISMS.encode()),
            fields.longstr(b"en_US"),
        )
    )


def tune() -> bytes:
    """The arguments of connection.tune: what we propose."""
    numbers = fields.short(CHANNEL_MAX), fields.long(FRAME_MAX), fields.short(HEARTBEAT)
    return b"".join(numbers)


def log_in(reader: Reader, users: Mapping[str, str]) -> Client:
    """Read connection.start-ok and check the password.

    Raises:
        Refusal: The user is not known, or the password is another.
    """
    properties = reader.table()
    mechanism, response = reader.shortstr(), reader.longstr()
    if mechanism not in MECHANISMS.split():
        raise Refusal(503, f"unknown authentication mechanism '{mechanism}'")
    user, password = _credentials(mechanism, response)
    known = users.get(user)
    if known is None or not hmac.compare_digest(known.encode(), password.encode()):
        raise LoginRefused(mechanism, capabilities(properties))
    return Client(user, capabilities(properties))


class LoginRefused(Exception):
    """The client is not who it says.

    Args:
        mechanism: How it tried to log in.
        capabilities: What the client says it can do.
    """

    def __init__(self, mechanism: str, capabilities: Table) -> None:
        super().__init__(mechanism)
        self.told = can(capabilities, "authentication_failure_close")
        self.refusal = access_refused(
            f"Login was refused using authentication mechanism {mechanism}. For"
            " details see the broker logfile."
        )


def capabilities(properties: Table) -> Table:
    """What a client says it can do."""
    found = properties.get("capabilities", Field("F", {})).value
    return cast("Table", found) if isinstance(found, dict) else {}


def can(capabilities: Table, name: str) -> bool:
    """Whether the client can do something."""
    return capabilities.get(name) == Field("t", True)


def _credentials(mechanism: str, response: bytes) -> tuple[str, str]:
    if mechanism == "PLAIN":
        parts = response.decode("utf-8", "replace").split("\0")
        # RabbitMQ lets nobody act for another: what stands before the user is empty
        return (parts[1], parts[2]) if len(parts) == 3 and not parts[0] else ("", "")
    table = Reader(fields.longstr(response)).table()
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    return str(user and user.value), str(password and password.value)


def agree(reader: Reader) -> Terms:
    """Read connection.tune-ok.

    Raises:
        Refusal: The client wants more than we can, or less than anybody could.
    """
    terms = Terms(reader.short(), reader.long(), reader.short())
    _check("frame_max", terms.frame_max, FRAME_MIN, FRAME_MAX)
    _check("channel_max", terms.channel_max, 1, CHANNEL_MAX)
    return terms


def _check(name: str, given: int, least: int, most: int) -> None:
    shown = "0 (no limit)" if not given else str(given)
    if given and given < least:
        problem = f"lower than the minimum allowed value ({least})"
    elif not given or given > most:
        problem = f"higher than the maximum allowed value ({most})"
    else:
        return
    raise Refusal(530, f"negotiated {name} = {shown} is {problem}")


def check_vhost(name: str, vhosts: Collection[str]) -> None:
    """Refuse a virtual host that is not there.

    Raises:
        Refusal: It is not.
    """
    if name not in vhosts:
        raise Refusal(530, f"vhost {name} not found")
