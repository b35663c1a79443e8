"""TLS: verified unless somebody says otherwise in plain words; refusals say why."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from anyio import to_thread

from rmqarq import App, ConfigurationError, ConnectionFailed
from tests.broker.kit import running, until
from tests.chaos.secrets import PASSWORD, USER, look, written
from tests.harness import admin
from tests.harness.broker import HOST, free_ports
from tests.harness.certificates import Certificates, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq import RmqarqError
    from tests.broker.kit import Node
    from tests.harness.broker import Broker

HERE = f"DNS:localhost,IP:{HOST}"
LISTENER = (
    'ok = rabbit_networking:start_ssl_listener({{"{host}", {port}}},'
    ' [{{cacertfile, "{authority}"}}, {{certfile, "{certificate}"}},'
    ' {{keyfile, "{key}"}}{more}], 2)'
)
ASKING = ", {verify, verify_peer}, {fail_if_no_peer_cert, true}"


class Tls(NamedTuple):
    """One broker that listens with certificates of all kinds."""

    broker: Broker
    ports: dict[str, int]
    authority: str
    client: Pair
    stranger: Pair

    def url(self, kind: str, *, scheme: str = "amqps", host: str = "localhost") -> str:
        port = self.ports[kind]
        return f"{scheme}://{USER}:{PASSWORD}@{host}:{port}/"


@pytest.fixture(scope="module")
def tls(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """The shared broker with TLS listeners of this module."""
    own = Certificates(tmp_path_factory.mktemp("certificates"))
    good = own.signed("good", HERE)
    pairs = {
        "good": good,
        "asking": good,
        "self-signed": own.self_signed("self-signed", HERE),
        "elsewhere": own.signed("elsewhere", "DNS:elsewhere.example"),
        "expired": own.signed("expired", HERE, expired=True),
    }
    ports = dict(zip(pairs, free_ports(len(pairs)), strict=True))
    listeners = [
        LISTENER.format(
            host=HOST,
            port=ports[kind],
            authority=own.authority.certificate,
            **pair._asdict(),
            more=ASKING if kind == "asking" else "",
        )
        for kind, pair in pairs.items()
    ]
    start = ["{ok, _} = application:ensure_all_started(ssl)", *listeners, "ok."]
    broker.eval(", ".join(start))
    admin.add_user(broker, USER, PASSWORD)
    yield Tls(
        broker,
        {**ports, "plain": broker.port},
        str(own.authority.certificate),
        own.signed("client", "DNS:client.example"),
        own.self_signed("stranger", "DNS:client.example"),
    )
    admin.delete_user(broker, USER)


async def refused(
    url: str, kind: type[RmqarqError] | tuple[type[RmqarqError], ...], **settings: Any
) -> str:
    """Give the sentence of a refusal, which is one line and holds no secret."""
    app = App(url, publish_deadline=0.7, **settings)
    with pytest.raises(kind) as caught:
        async with app:
            await app.ref("nothing").enqueue()
    text = str(caught.value)
    assert "\n" not in text
    assert url.rpartition("@")[2] in text
    look(written(caught.value))
    return text


# --- what works ---


@pytest.mark.parametrize("host", ["localhost", HOST])
async def test_a_broker_whose_authority_is_named_is_trusted(
    tls: Tls, queue: str, host: str
) -> None:
    app = App(tls.url("good", host=host), queue=queue, tls_ca=tls.authority)
    ran: list[int] = []

    @app.task
    async def note(number: int) -> None:
        ran.append(number)

    async with running(app, url=tls.broker.url) as worker:
        await note.enqueue(1)
        await until(lambda: ran == [1])
        links = await to_thread.run_sync(
            tls.broker.ctl, "list_connections", "-q", "user", "ssl", "ssl_protocol"
        )
    assert worker.stats.reconnects == 0
    ours = [line.split() for line in links.splitlines() if line.startswith(USER)]
    assert ours == [[USER, "true", "tlsv1.3"]] * 2


async def test_a_large_body_passes_through_tls(tls: Tls, queue: str) -> None:
    app = App(tls.url("good"), queue=queue, tls_ca=tls.authority)
    sizes: list[int] = []

    @app.task
    async def measure(text: str) -> None:
        sizes.append(len(text))

    async with running(app, url=tls.broker.url):
        await measure.enqueue("x" * 900_000)
        await until(lambda: sizes == [900_000])


async def test_a_broker_that_asks_for_our_certificate_gets_it(
    tls: Tls, queue: str
) -> None:
    certificate, key = map(str, tls.client)
    url = tls.url("asking")
    own: dict[str, Any] = {"tls_cert": certificate, "tls_key": key}
    async with App(url, queue=queue, tls_ca=tls.authority, **own) as app:
        await app.ref("nothing").enqueue()


@pytest.mark.parametrize("kind", ["self-signed", "elsewhere", "expired"])
async def test_one_plainly_named_setting_turns_verification_off(
    tls: Tls, queue: str, kind: str
) -> None:
    async with App(tls.url(kind), queue=queue, tls_verify=False) as app:
        await app.ref("nothing").enqueue()


# --- what is refused ---


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("self-signed", "not trusted: self-signed certificate; name its authority"),
        ("elsewhere", "refused: Hostname mismatch, certificate is not valid for"),
        ("expired", "refused: certificate has expired"),
    ],
)
async def test_a_certificate_that_proves_nothing_is_refused_at_once(
    tls: Tls, kind: str, why: str
) -> None:
    said = await refused(tls.url(kind), ConfigurationError, tls_ca=tls.authority)
    assert why in said
    assert ("tls_ca" in said) is (kind == "self-signed")


async def test_an_authority_that_nobody_named_is_refused(tls: Tls) -> None:
    said = await refused(tls.url("good"), ConfigurationError)
    assert "self-signed certificate in certificate chain" in said
    assert "tls_ca" in said


async def test_a_certificate_trusted_by_itself_is_trusted(
    tls: Tls, queue: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pem = ssl.get_server_certificate(("localhost", tls.ports["self-signed"]))
    pinned = tmp_path_factory.mktemp("pinned") / "broker.pem"
    pinned.write_text(pem)
    url = tls.url("self-signed")
    async with App(url, queue=queue, tls_ca=str(pinned)) as app:
        await app.ref("nothing").enqueue()


@pytest.mark.parametrize("certificate", ["none", "a stranger's"])
async def test_a_broker_that_asks_for_a_certificate_refuses_us_without(
    tls: Tls, certificate: str
) -> None:
    mine = tls.stranger if certificate == "a stranger's" else None
    own = {}
    if mine is not None:
        own = {"tls_cert": str(mine.certificate), "tls_key": str(mine.key)}
    # the broker may hang up before its reason has arrived
    kinds = (ConfigurationError, ConnectionFailed)
    said = await refused(tls.url("asking"), kinds, tls_ca=tls.authority, **own)
    assert re.search(r"refuses our certificate .* tls_cert|reset by peer", said)


async def test_tls_to_a_plain_port_is_refused(tls: Tls) -> None:
    said = await refused(tls.url("plain"), ConfigurationError, tls_ca=tls.authority)
    assert "speaks no TLS on this port" in said


@pytest.mark.parametrize("setting", ["tls_ca", "tls_cert", "tls_key"])
def test_a_file_for_tls_keeps_the_link_to_elsewhere_from_being_plain(
    tls: Tls, setting: str
) -> None:
    url = f"amqp://{USER}:{PASSWORD}@elsewhere.example:5672/"
    given: dict[str, Any] = {setting: tls.authority}
    with pytest.raises(ConfigurationError, match=f"{setting} can't be used") as caught:
        App(url, **given)
    assert "write amqps:// in the URL" in str(caught.value)
    look(written(caught.value))


async def test_a_plain_link_to_a_tls_port_never_shows_the_password(tls: Tls) -> None:
    await refused(tls.url("good", scheme="amqp"), ConnectionFailed)


@pytest.mark.parametrize(
    "query",
    ["no_verify_ssl=1", "verify=0", "ssl_verify=none", "cafile=/x", "tls_verify=false"],
)
async def test_a_url_can_not_turn_verification_off(tls: Tls, query: str) -> None:
    with pytest.raises(ConfigurationError, match="may only hold heartbeat") as caught:
        async with App(f"{tls.url('self-signed')}?{query}"):
            pass
    look(written(caught.value))


@pytest.mark.parametrize("scheme", ["amqpss", "rabbitmqs", "AMQP+SSL", "https", "ssl"])
async def test_a_misspelt_scheme_never_means_a_plain_link(
    tls: Tls, scheme: str
) -> None:
    with pytest.raises(ConfigurationError, match="must begin with") as caught:
        async with App(tls.url("plain", scheme=scheme)):
            pass
    look(written(caught.value))


@pytest.mark.parametrize("setting", ["tls_ca", "tls_cert"])
async def test_a_file_that_is_not_there_is_a_configuration_error(
    tls: Tls, setting: str
) -> None:
    given: dict[str, Any] = {setting: "/nowhere/file.pem"}
    app = App(tls.url("good"), **given)
    with pytest.raises(ConfigurationError, match=f"{setting} names no file"):
        async with app:
            pass


# --- what a worker makes of it ---


@pytest.mark.parametrize("kind", ["self-signed", "elsewhere", "expired"])
async def test_a_worker_ends_with_3_when_the_certificate_proves_nothing(
    node: Node, tls: Tls, kind: str
) -> None:
    flags = ("-l", "debug")
    with node.worker(*flags, url=tls.url(kind), tls_ca=tls.authority) as worker:
        assert await to_thread.run_sync(worker.wait, 10) == 3, worker.output
    last = worker.output.splitlines()[-1]
    assert last.startswith("rmqarq: the certificate of amqps://marked:***@localhost:")
    look(worker.output)


async def test_a_worker_ends_with_3_where_it_would_have_to_speak_in_clear(
    node: Node, tls: Tls
) -> None:
    flags = ("-l", "debug")
    with node.worker(*flags, url=tls.url("plain"), tls_ca=tls.authority) as worker:
        assert await to_thread.run_sync(worker.wait, 10) == 3, worker.output
    assert "speaks no TLS on this port" in worker.output
    look(worker.output)


async def test_a_worker_without_its_certificate_does_not_run_on_in_silence(
    node: Node, tls: Tls
) -> None:
    """The reason is lost when the broker hangs up too fast; then it tries again."""
    flags = ("-l", "debug")
    with node.worker(*flags, url=tls.url("asking"), tls_ca=tls.authority) as worker:
        assert await to_thread.run_sync(worker.wait, 20) == 3, worker.output
    assert "refuses our certificate" in worker.output
    look(worker.output)
