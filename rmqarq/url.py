"""AMQP URLs, read strictly and once: text in, endpoints out, passwords masked."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from msgspec import Struct

from rmqarq.errors import ConfigurationError, Phrase

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

PORTS = {"amqp": 5672, "amqps": 5671}
_BETWEEN = re.compile(r",\s*(?=\w*://|,|$)")  # a comma may stand in a password, too
_NOT_A_PORT = re.compile(r"^([^/:?\[\]]*:)(?!\d+(?:[/?]|$))[^/?]+")
_VALUE = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.I)


class Endpoint(Struct, frozen=True):
    """One broker to connect to.

    Args:
        host: Name or address.
        port: TCP port.
        user: Login name.
        password: Never shown.
        vhost: Virtual host.
        tls: Whether the link is encrypted.
        heartbeat: From the URL's query, in seconds; `None` leaves it to the settings.
    """

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool
    heartbeat: int | None = None

    @property
    def local(self) -> bool:
        """Whether it is on this machine, and reached by no other."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def url(self, *, heartbeat: int, name: str) -> str:
        """Build the URL that aiormq gets, with the password in it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "amqps" if self.tls else "amqp"
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        query = f"heartbeat={heartbeat}&name={quote(name, safe='')}"
        vhost = quote(self.vhost, safe="")
        return f"{scheme}://{login}@{host}:{self.port}/{vhost}?{query}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "amqps" if self.tls else "amqp"
        vhost = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{self.user}:***@{host}:{self.port}/{vhost}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("url", str(self))]


def masked(text: str) -> str:
    """Give a text that may hold URLs, however malformed, without their passwords."""
    parts = _BETWEEN.split(text)
    return ",".join(map(_without_password, parts))


def _without_password(part: str) -> str:
    scheme, between, rest = (
        part.rpartition("://") if "@" not in part else ("", "", part)
    )
    if "@" in rest:
        scheme, between, rest = rest.partition("://")
        if not between:
            scheme, rest = "", scheme
        login, at, rest = rest.rpartition("@")
        user, colon, _ = login.partition(":")
        rest = f"{user}:***@{rest}" if colon else f"{login}{at}{rest}"
    else:  # a forgotten host leaves a password where the port should be
        rest = _NOT_A_PORT.sub(r"\1***", rest)
    return scheme + between + _VALUE.sub(r"\1***", rest)


def parse_urls(given: str | Sequence[str]) -> tuple[Endpoint, ...]:
    """Read one URL, several separated by commas, or a sequence of them.

    Only `amqp` and `amqps` are known; of the query only `heartbeat`. No path or `/`
    means the virtual host `/`; `%2F` is decoded.

    Raises:
        ConfigurationError: Anything in the URL that we would have to guess at.
    """
    texts = _BETWEEN.split(given) if isinstance(given, str) else list(given)
    endpoints = tuple(parse_url(text) for text in map(_bare, texts) if text)
    if not endpoints:
        raise ConfigurationError("the broker URL is empty")
    return endpoints


def refuse_plain(endpoints: Iterable[Endpoint], files: Collection[str]) -> None:
    """Refuse a link to another machine that is not encrypted although it should be.

    Args:
        endpoints: The brokers.
        files: The settings of TLS that are given.

    Raises:
        ConfigurationError: There are some, and a URL does not begin with `amqps://`.
    """
    for each in endpoints:
        if files and not each.tls and not each.local:
            raise ConfigurationError(
                "{names} can't be used, since {endpoint} is not encrypted; write"
                " amqps:// in the URL",
                names=", ".join(files),
                endpoint=str(each),
            )


def _bare(text: str) -> str:
    return text.strip().strip(",")


def parse_url(text: str) -> Endpoint:
    """Read one AMQP URL.

    Raises:
        ConfigurationError: As for `parse_urls`.
    """
    parts = _split(text)
    if parts.scheme not in PORTS:
        raise _refused(text, Phrase("it must begin with amqp:// or amqps://"))
    if parts.fragment:
        problem = Phrase("'#' must be written %23 in a user name or password")
        raise _refused(text, problem)
    if not parts.hostname or parts.port == 0:
        raise _refused(text, Phrase("it names no host, or port 0"))
    if "," in parts.hostname:
        problem = Phrase("several URLs each begin with amqp:// or amqps://")
        raise _refused(text, problem)
    path = parts.path
    if path.count("/") > 1:
        raise _refused(text, Phrase("a '/' in a virtual host must be written %2F"))
    if unquote(path[1:]) in (".", ".."):
        raise _refused(text, Phrase("the virtual host can't be '.' or '..'"))
    return Endpoint(
        host=parts.hostname,
        port=PORTS[parts.scheme] if parts.port is None else parts.port,
        user=unquote(parts.username) if parts.username is not None else "guest",
        password=unquote(parts.password) if parts.password is not None else "guest",
        vhost=unquote(path[1:]) or "/",
        tls=parts.scheme == "amqps",
        heartbeat=_heartbeat(text, parts.query),
    )


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises when it is not a number
    except ValueError:
        raise _refused(text, Phrase("host or port can't be read")) from None
    return parts


def _heartbeat(text: str, query: str) -> int | None:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise _refused(text, Phrase("the query names something twice"))
    value = options.pop("heartbeat", None)
    if options:
        problem = Phrase(
            "the query may only hold heartbeat, not {unknown};"
            " everything else has a setting, such as tls_ca or connect_timeout",
            unknown=", ".join(sorted(options)),
        )
        raise _refused(text, problem)
    if value is None:
        return None
    if not value.isdecimal() or not 0 < int(value) <= 65535:
        problem = Phrase("heartbeat must be whole seconds from 1 to 65535")
        raise _refused(text, problem)
    return int(value)


def _refused(text: str, problem: Phrase) -> ConfigurationError:
    return ConfigurationError(
        "the broker URL {url} can't be used: {problem}",
        url=repr(masked(text)),
        problem=problem,
    )
