"""Why a broker could not be reached or will not have us, in our words."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Literal, TypeAlias

from aiormq.exceptions import ProbableAuthenticationError

from rmqarq.errors import (
    AccessRefused,
    ConfigurationError,
    ConnectionFailed,
    RmqarqError,
)
from rmqarq.url import PORTS
from rmqarq.wire.connection import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq.url import Endpoint
    from rmqarq.wire.frames import Closed

# OpenSSL: a self-signed certificate, alone or in the chain, or an unknown issuer
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
_EXPIRED = 10
_ANOTHER_HOST = (62, 64)  # another name, another address
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
_OUR_CERTIFICATE = (
    "ALERT_BAD_CERTIFICATE",
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_REVOKED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_UNKNOWN_CA",
    "ALERT_HANDSHAKE_FAILURE",
)

Cause: TypeAlias = Literal[
    "name",
    "port",
    "silence",
    "authority",
    "host name",
    "expired",
    "certificate",
    "login",
    "virtual host",
    "permission",
    "other",
]


def cause_of(error: RmqarqError) -> Cause:
    """Tell what is behind an error of `connect`, for who looks for a remedy."""
    if isinstance(error, AccessRefused):
        return _cause_of_refusal(str(error.params.get("text", "")))
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return _cause_in_certificate(each.verify_code)
        if isinstance(each, ssl.SSLError):
            return "certificate"
        if isinstance(each, socket.gaierror):
            return "name"
        if isinstance(each, ConnectionRefusedError):
            return "port"
    return "silence" if "seconds" in error.params else "other"


def _cause_of_refusal(text: str) -> Cause:
    """Read RabbitMQ's words: `rabbit_reader` has one sentence for each case."""
    if "vhost" in text:
        return "virtual host" if "not found" in text else "permission"
    return "login"


def _cause_in_certificate(code: int) -> Cause:
    if code in _UNKNOWN_AUTHORITY:
        return "authority"
    if code in _ANOTHER_HOST:
        return "host name"
    return "expired" if code == _EXPIRED else "certificate"


def refusal(
    endpoint: Endpoint, closed: Closed | None, error: BaseException | None
) -> RmqarqError:
    """Say why no connection came about.

    Args:
        endpoint: The broker.
        closed: What it said before it closed the connection.
        error: What went wrong on our side.

    Returns:
        A `ConfigurationError` when trying again can't help, else `ConnectionFailed`.
    """
    if isinstance(error, ConfigurationError):
        return error
    text = closed.text if closed else text_of(error)
    passing = " limit " in text or " down" in text  # it ends without a change of ours
    refused = closed is not None and closed.code in (403, 530) and not passing
    if refused or isinstance(error, ProbableAuthenticationError):
        return AccessRefused(
            "the broker {endpoint} refuses us: {text}; check user, password,"
            " virtual host and permissions",
            endpoint=str(endpoint),
            text=text,
        )
    for each in _chain(error):
        if isinstance(each, ssl.SSLError):
            found = _tls_refusal(endpoint, each)
            if found is not None:
                return found
    if not endpoint.tls and endpoint.port == PORTS["amqps"]:
        text += " (this is usually the port for TLS: write amqps://)"
    return ConnectionFailed(
        "the broker {endpoint} can't be reached: {text}",
        endpoint=str(endpoint),
        text=text,
    )


def _tls_refusal(endpoint: Endpoint, error: ssl.SSLError) -> RmqarqError | None:
    """Tell what is wrong with certificates or ports from what may pass by itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        problem = error.verify_message.rstrip(".")
        if error.verify_code in _UNKNOWN_AUTHORITY:
            return ConfigurationError(
                "the certificate of {endpoint} is not trusted: {problem};"
                " name its authority with tls_ca",
                endpoint=str(endpoint),
                problem=problem,
            )
        return ConfigurationError(
            "the certificate of {endpoint} is refused: {problem}",
            endpoint=str(endpoint),
            problem=problem,
        )
    reason = str(error.reason or "")
    if reason in _NO_TLS:
        return ConfigurationError(
            "the broker {endpoint} speaks no TLS on this port; write amqp://, or the"
            " port where it does",
            endpoint=str(endpoint),
        )
    if reason.endswith(_OUR_CERTIFICATE):
        return ConfigurationError(
            "the broker {endpoint} refuses our certificate ({reason}); see tls_cert and"
            " tls_key",
            endpoint=str(endpoint),
            reason=reason,
        )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # a chain of contexts may lead back into itself
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
