"""What mends a broken way to a broker, by what is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.findings import sentence
from rmqarq.review import is_loopback, own_user
from rmqarq.url import PORTS

if TYPE_CHECKING:
    from rmqarq.findings import Sentence
    from rmqarq.url import Endpoint
    from rmqarq.wire.refusal import Cause


def remedy(endpoint: Endpoint, cause: Cause) -> Sentence:
    """Say what to do about a broker that could not be reached, or refuses us."""
    if cause in ("login", "virtual host", "permission"):
        return _with_the_broker(endpoint, cause)
    if cause in ("authority", "host name", "expired", "certificate"):
        return _with_certificates(endpoint, cause)
    return _with_the_network(endpoint, cause)


def _with_the_network(endpoint: Endpoint, cause: Cause) -> Sentence:
    host, port = endpoint.host, endpoint.port
    if cause == "name":
        return sentence(
            "correct the host in the URL; this shows whether it is known here:"
            " getent hosts {host}",
            host=host,
        )
    if cause == "port":
        return sentence(
            "start RabbitMQ on {host}, or correct host and port in the URL; there, this"
            " shows its ports: rabbitmq-diagnostics listeners",
            host=host,
        )
    if cause == "silence":
        return sentence(
            "let {host}:{port} through in firewalls between, or correct the URL; this"
            " tries it: nc -vz {host} {port}",
            host=host,
            port=port,
        )
    if not endpoint.tls and port == PORTS["amqps"]:
        return sentence("write amqps:// in the URL")
    return sentence(
        "see that RabbitMQ itself answers at {host}:{port}, and what it writes into its"
        " log",
        host=host,
        port=port,
    )


def _with_certificates(endpoint: Endpoint, cause: Cause) -> Sentence:
    host, port = endpoint.host, endpoint.port
    if cause == "authority":
        return sentence(
            "tls_ca='authority.pem', the certificate of the authority that has signed"
            " the broker's"
        )
    if cause == "host name":
        return sentence(
            "write a host into the URL that the certificate is made out to; this shows"
            " them: openssl s_client -connect {host}:{port} </dev/null | openssl x509"
            " -noout -ext subjectAltName",
            host=host,
            port=port,
        )
    if cause == "expired":
        return sentence(
            "renew the broker's certificate; this shows its dates: openssl s_client"
            " -connect {host}:{port} </dev/null | openssl x509 -noout -dates",
            host=host,
            port=port,
        )
    return sentence(
        "amqps:// only for a port where RabbitMQ speaks TLS (usually 5671), and"
        " tls_cert with tls_key if it asks for a certificate"
    )


def _with_the_broker(endpoint: Endpoint, cause: Cause) -> Sentence:
    user, vhost = endpoint.user, endpoint.vhost
    if cause == "virtual host":
        return sentence(
            "rabbitmqctl add_vhost '{vhost}' && rabbitmqctl set_permissions -p"
            " '{vhost}' '{user}' '.*' '.*' '.*', or correct the end of the URL",
            vhost=vhost,
            user=user,
        )
    if cause == "permission":
        return sentence(
            "rabbitmqctl set_permissions -p '{vhost}' '{user}' '.*' '.*' '.*'",
            vhost=vhost,
            user=user,
        )
    if user == "guest" and not is_loopback(endpoint):
        return own_user(endpoint)
    return sentence(
        "correct user and password in the URL, percent-encoded; this tries them there:"
        " rabbitmqctl authenticate_user '{user}' PASSWORD; this sets a new one:"
        " rabbitmqctl change_password '{user}' PASSWORD",
        user=user,
    )
