"""`rmqarq doctor`: it finds what is broken, names the fix, and changes nothing."""

from __future__ import annotations

import json
import socket
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from anyio import to_thread

from rmqarq import App
from rmqarq.doctor import examine, loaded
from rmqarq.findings import Finding
from rmqarq.url import parse_url
from rmqarq.wire.declare import declare
from rmqarq.wire.delay import Rung
from rmqarq.wire.names import Names
from rmqarq.wire.opening import connect
from rmqarq.wire.topology import ladder, rung
from tests.broker.kit import channel_to, delete_queues, running, wait_for_count
from tests.broker.test_tls import HERE, LISTENER
from tests.cli.kit import module, rmqarq
from tests.harness import admin
from tests.harness.broker import HOST, free_ports
from tests.harness.certificates import Certificates

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.broker import Broker

SECRET = "marker-word"
ALARM_ON = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})."
ALARM_OFF = "rabbit_alarm:clear_alarm({resource_limit, memory, node()})."
PASSIVE = {"declare": "passive"}
KINDS = ("configure", "write", "read")
EMPTY, FULL = "doctor-empty", "doctor-full"
LESS, NOTHING = "^(?!reports$).*$", "^$"
OBJECTS = r"rmqarq\.(due|lost|delay\..+)"
OWN = r"mails|reports|mails\.suspect|reports\.suspect"
USERS = {
    **{
        f"less-{kind}": [LESS if each == kind else ".*" for each in KINDS]
        for kind in KINDS
    },
    "nothing": [NOTHING] * 3,
    "granted": [
        rf"^({OBJECTS}|{OWN}|mails_dlq|reports_dlq)$",
        rf"^(amq\.default|{OBJECTS}|{OWN}|mails_dlq|reports_dlq)$",
        rf"^({OBJECTS}|{OWN})$",
    ],
    "consumer": [
        rf"^({OBJECTS}|legacy\.suspect|legacy_dlq)$",
        rf"^(amq\.default|{OBJECTS}|legacy|legacy\.suspect|legacy_dlq)$",
        rf"^({OBJECTS}|legacy|legacy\.suspect)$",
    ],
    "mute": [".*", "^(?!amq.default$).*$", ".*"],
}


def permissions_in(command: str) -> list[str]:
    """Take configure, write and read out of a command that grants them."""
    _, _, *given = command.split("'")[1::2]
    return given


MODULE = """
from rmqarq import App
app = App({url!r}, queue="mails")

@app.task
async def work(number: int) -> None: ...
"""


class Site:
    """Virtual hosts of this module, all made at once, with users of all kinds."""

    def __init__(self, broker: Broker, directory: Path) -> None:
        self.broker = broker
        self._directory = directory
        self._empty = [f"doctor-{number}" for number in range(13)]
        self.vhosts = [EMPTY, FULL, *self._empty]

    def definitions(self) -> dict[str, list[dict[str, str]]]:
        """Give them as RabbitMQ imports them."""
        given = {(each, "guest"): (".*", ".*", ".*") for each in self.vhosts}
        for vhost, (user, permissions) in product((EMPTY, FULL), USERS.items()):
            given[vhost, user] = permissions
        users = [*USERS, "stranger"]
        return {
            "vhosts": [{"name": each} for each in self.vhosts],
            "users": [{"name": u, "password": SECRET, "tags": ""} for u in users],
            "permissions": [
                {"vhost": vhost, "user": user, **dict(zip(KINDS, each, strict=True))}
                for (vhost, user), each in given.items()
            ],
        }

    def url(self, user: str = "guest", vhost: str | None = None) -> str:
        """Give a URL; without a virtual host, one that no test has seen."""
        password = "guest" if user == "guest" else SECRET
        return admin.url_for(self.broker, user, password, vhost or self._empty.pop())

    def contents(self, *urls: str) -> list[dict[str, Any]]:
        """Give every queue, exchange and binding of virtual hosts, by their URLs."""
        file = self._directory / "exported.json"
        self.broker.ctl("export_definitions", str(file))
        everything = json.loads(file.read_text())
        return [_contents(everything, parse_url(url).vhost) for url in urls]


def _contents(everything: dict[str, Any], vhost: str) -> dict[str, Any]:
    return {
        kind: sorted(
            json.dumps({**each, "vhost": ""}, sort_keys=True)
            for each in everything[kind]
            if each["vhost"] == vhost
        )
        for kind in ("queues", "exchanges", "bindings")
    }


@pytest.fixture(scope="module")
def site(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(broker, tmp_path_factory.mktemp("site"))
    file = tmp_path_factory.mktemp("definitions") / "definitions.json"
    file.write_text(json.dumps(made.definitions()))
    broker.ctl("import_definitions", str(file))
    yield made
    names = ", ".join(f'<<"{each}">>' for each in made.vhosts)
    delete = f'[rabbit_vhost:delete(Name, <<"test">>) || Name <- [{names}]], ok.'
    broker.eval(delete)


def make(url: str, **settings: Any) -> App:
    """Make an App with two tasks on two queues."""
    app = App(url, **{"queue": "mails", "connect_timeout": 20, **settings})

    @app.task
    async def work(number: int) -> None: ...

    @app.task(queue="reports")
    async def more(number: int) -> None: ...

    return app


def make_consumer(url: str, **settings: Any) -> App:
    """Make an App with nothing but a consume function."""
    app = App(url, **{"queue": "mails", "connect_timeout": 20, **settings})

    @app.consume("legacy")
    async def take(body: bytes) -> None: ...

    return app


class Found(NamedTuple):
    """A finding in words."""

    level: str
    where: str
    what: str
    fix: str


async def found(app: App) -> list[Found]:
    """Let the doctor examine an App; what it finds shows no password."""
    findings = [_in_words(each) for each in await examine(app, "jobs:app")]
    assert SECRET not in str(findings)
    return findings


def _in_words(finding: Finding) -> Found:
    fix = str(finding.fix or "")
    return Found(finding.level, finding.where, str(finding.what), fix)


async def trouble(app: App, *, missing_legacy: bool = False) -> list[Found]:
    """Give the warnings and errors; each names a fix.

    With `missing_legacy`, there must be one that the queue legacy is not there.
    """
    findings = [each for each in await found(app) if each.level in ("warning", "error")]
    assert all(each.fix for each in findings)
    missing = [each for each in findings if each.where == "legacy"]
    if missing_legacy:
        assert [each.level for each in missing] == ["error"]
        assert "does not exist" in missing[0].what
        findings.remove(missing[0])
    return findings


async def declare_all(url: str, **settings: Any) -> None:
    """Let an App with these settings declare its queues, and leave no job in them."""
    async with make(url, **settings) as app:
        await app.tasks["work"].enqueue(1)
        await app.tasks["more"].enqueue(1)
    async with channel_to(url) as channel:
        for queue in ("mails", "reports"):
            await channel.queue_purge(queue)


# --- the way to the broker ---


async def test_it_finds_that_nobody_listens_on_the_port() -> None:
    (port,) = free_ports(1)
    (finding,) = await trouble(make(f"amqp://{HOST}:{port}/"))
    assert finding.level == "error"
    assert f"start RabbitMQ on {HOST}" in finding.fix


async def test_it_finds_that_a_host_has_no_address() -> None:
    (finding,) = await trouble(make("amqp://app:x@broker.invalid/"))
    assert "getent hosts broker.invalid" in finding.fix


async def test_it_finds_a_broker_that_says_nothing() -> None:
    with socket.create_server((HOST, 0)) as silent:
        url = f"amqp://{HOST}:{silent.getsockname()[1]}/"
        (finding,) = await trouble(make(url, connect_timeout=0.3))
    assert "nc -vz" in finding.fix


async def test_it_finds_a_wrong_password(broker: Broker) -> None:
    url = admin.url_for(broker, password=SECRET)
    (finding,) = await trouble(make(url))
    assert finding.level == "error"
    assert "rabbitmqctl change_password 'guest'" in finding.fix


async def test_it_finds_that_the_virtual_host_is_missing(broker: Broker) -> None:
    (finding,) = await trouble(make(admin.url_for(broker, vhost="nowhere")))
    assert "vhost nowhere not found" in finding.what
    assert finding.fix.startswith("rabbitmqctl add_vhost 'nowhere'")


async def test_it_finds_that_the_user_may_not_enter_the_virtual_host(
    site: Site,
) -> None:
    (finding,) = await trouble(make(site.url("stranger", EMPTY)))
    assert finding.fix.startswith(f"rabbitmqctl set_permissions -p '{EMPTY}'")


async def test_one_broker_of_several_that_is_down_is_a_warning(site: Site) -> None:
    url = site.url(vhost=EMPTY)
    (finding,) = await trouble(make(f"{url},amqp://{HOST}:1/"))
    assert (finding.level, finding.where) == ("warning", f"amqp://guest:***@{HOST}:1/")


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("stranger", "tls_ca='authority.pem'"),
        ("elsewhere", "-noout -ext subjectAltName"),
        ("expired", "-noout -dates"),
    ],
)
async def test_it_finds_what_is_wrong_with_a_certificate(
    tls: tuple[dict[str, int], str], kind: str, fix: str
) -> None:
    ports, authority = tls
    app = make(f"amqps://localhost:{ports[kind]}/", tls_ca=authority)
    (finding,) = await trouble(app)
    assert (finding.level, fix in finding.fix) == ("error", True), finding


async def test_it_finds_that_certificates_are_not_looked_at(
    tls: tuple[dict[str, int], str], site: Site
) -> None:
    ports, _ = tls
    # not in the virtual host /, where other tests may have left messages
    url = f"amqps://localhost:{ports['stranger']}/{EMPTY}"
    assert site.vhosts[0] == EMPTY
    app = make(url, tls_verify=False)
    (finding,) = await trouble(app)
    assert finding.level == "warning"
    assert finding.fix.startswith("tls_verify=True")


@pytest.fixture(scope="module")
def tls(
    broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, int], str]:
    """The shared broker with certificates that prove nothing; and an authority."""
    own = Certificates(tmp_path_factory.mktemp("certificates"))
    pairs = {
        "stranger": own.self_signed("stranger", HERE),
        "elsewhere": own.signed("elsewhere", "DNS:elsewhere.example"),
        "expired": own.signed("expired", HERE, expired=True),
    }
    ports = dict(zip(pairs, free_ports(len(pairs)), strict=True))
    authority = own.authority.certificate
    listeners = [
        LISTENER.format(
            host=HOST,
            port=ports[kind],
            authority=authority,
            **pair._asdict(),
            more="",
        )
        for kind, pair in pairs.items()
    ]
    start = ["{ok, _} = application:ensure_all_started(ssl)", *listeners, "ok."]
    broker.eval(", ".join(start))
    return ports, str(authority)


# --- what the broker shows ---


async def test_it_finds_an_alarm(broker: Broker, site: Site) -> None:
    url = site.url(vhost=EMPTY)
    await to_thread.run_sync(broker.ctl, "eval", ALARM_ON)
    try:
        (finding,) = await trouble(make(url))
    finally:
        await to_thread.run_sync(broker.ctl, "eval", ALARM_OFF)
    assert finding.level == "error"
    assert "an alarm: the broker takes no messages (low on memory)" in finding.what
    assert finding.fix.endswith("rabbitmq-diagnostics alarms")


@pytest.mark.parametrize("vhost", ["doctor-empty", "doctor-full"])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_finds_the_one_permission_that_is_missing(
    site: Site, kind: str, vhost: str
) -> None:
    if vhost == FULL:
        await declare_all(site.url(vhost=FULL))
    (finding,) = await trouble(make(site.url(f"less-{kind}", vhost)))
    assert finding.level == "error"
    assert finding.what.startswith(f"may not {kind} reports;")
    assert finding.fix.startswith(
        f"rabbitmqctl set_permissions -p '{vhost}' 'less-{kind}' '^(rmqarq"
    )


async def test_the_fix_for_permissions_grants_what_is_needed(site: Site) -> None:
    app = make(site.url("nothing", EMPTY))
    denied = await trouble(app)
    assert sorted(each.what.split()[2] for each in denied) == sorted(KINDS)
    (fix,) = {each.fix for each in denied}
    granted = site.url("granted", EMPTY)
    assert permissions_in(fix) == USERS["granted"]
    assert await trouble(make(granted)) == []


async def test_a_passive_app_needs_few_permissions(site: Site) -> None:
    app = make(site.url("nothing", EMPTY), declare="passive")
    denied = [each for each in await trouble(app) if each.what.startswith("may not")]
    assert sorted(each.what.split()[2] for each in denied) == ["read", "write"]
    assert denied[0].fix == (
        f"rabbitmqctl set_permissions -p '{EMPTY}' 'nothing' '^$'"
        r" '^(amq\.default|rmqarq\.delay\.\d\.entry)$'"
        r" '^(mails|reports|mails\.suspect|reports\.suspect)$'"
    )


async def test_it_finds_that_nothing_may_be_sent(site: Site) -> None:
    (finding,) = await trouble(make(site.url("mute", EMPTY)))
    assert finding.what.startswith("may not write amq.default;")


@pytest.mark.parametrize(
    ("theirs", "ours", "what", "fix"),
    [
        (
            {"queue_type": "classic"},
            {},
            "x-queue-type = classic, and this App wants quorum",
            "queue_type='classic'",
        ),
        (
            {},
            {"queue_type": "classic", "max_priority": 5},
            "x-queue-type = quorum, and this App wants classic",
            "queue_type='quorum'",
        ),
        (
            {"queue_type": "classic", "max_priority": 5},
            {"queue_type": "classic", "max_priority": 9},
            "x-max-priority = '5', and this App wants '9'",
            "max_priority=5",
        ),
    ],
    ids=["classic", "quorum", "priorities"],
)
async def test_it_finds_queues_that_exist_with_other_arguments(
    site: Site, theirs: dict[str, Any], ours: dict[str, Any], what: str, fix: str
) -> None:
    url = site.url()
    await declare_all(url, **theirs)
    findings = await trouble(make(url, **ours))
    queues = ["mails", "mails.suspect", "reports", "reports.suspect"]
    assert [each.where for each in findings] == queues
    assert {each.level for each in findings} == {"error"}
    assert {each.what for each in findings} == {f"this queue has {what}"}
    assert fix in findings[0].fix
    assert findings[0].fix.endswith("another name, or declare='passive'")


async def test_it_finds_that_passive_apps_miss_their_queues(site: Site) -> None:
    url = site.url()
    app = make(url, declare="passive")
    queues, rungs = await trouble(app)
    assert (queues.level, rungs.level) == ("error", "error")
    assert "and these are not there: rmqarq.lost" in queues.what
    assert queues.fix.startswith("declare='active' once")
    await declare_all(url)
    connection = await connect(parse_url(url), app.settings, "test")
    await declare(connection, ladder(Names()))
    await declare(connection, rung(Rung(0, 5), Names()))
    await connection.close()
    assert await trouble(app) == []
    await delete_queues(url, ["mails.suspect"])
    (finding,) = await trouble(app)
    assert finding.what.endswith("these are not there: mails.suspect")


async def test_it_finds_jobs_that_wait_without_a_worker(site: Site) -> None:
    url = site.url()
    async with make(url) as app:
        await app.tasks["work"].enqueue(1)
        await app.tasks["work"].enqueue(2)
    await wait_for_count(url, "mails", ready=2)
    (finding,) = await trouble(app)
    assert finding == (
        "warning",
        "mails",
        "2 jobs wait and no worker runs",
        "rmqarq run jobs:app",
    )


async def test_it_finds_what_waits_for_an_operator(site: Site) -> None:
    url = site.url()
    await declare_all(url)
    async with channel_to(url) as channel:
        for queue in ("mails_dlq", "mails.suspect", "rmqarq.lost"):
            await channel.basic_publish(b"", routing_key=queue)
    await wait_for_count(url, "rmqarq.lost", ready=1)
    findings = await trouble(make(url))
    assert {each.where: each.fix for each in findings} == {
        "mails.suspect": "rmqarq queue info jobs:app",
        "mails_dlq": "rmqarq dlq list jobs:app",
        "rmqarq.lost": "rmqarq lost list jobs:app",
    }


# --- queues of others, and the delayed-message plugin ---


async def test_a_queue_of_others_must_be_there_and_is_never_compared(
    site: Site,
) -> None:
    url = site.url()
    app = make_consumer(url)
    assert await trouble(app, missing_legacy=True) == []
    async with channel_to(url) as channel:
        await channel.queue_declare("legacy", arguments={"x-max-length": 9})
        for queue in ("legacy_dlq", "legacy.suspect"):
            await channel.queue_declare(queue, durable=True)
        await channel.basic_publish(b"", routing_key="legacy")
    await wait_for_count(url, "legacy", ready=1)
    *ours, waiting = await trouble(app)
    assert [(each.level, each.where) for each in ours] == [
        ("error", "legacy_dlq"),
        ("error", "legacy.suspect"),
    ]
    assert waiting == (
        "warning",
        "legacy",
        "1 messages wait and no worker runs",
        "rmqarq run jobs:app",
    )
    passive = await trouble(make_consumer(url, declare="passive", delays="plugin"))
    gone = [each.what for each in passive if "are not there" in each.what]
    assert "legacy" not in gone[0]


async def test_a_queue_of_others_need_not_be_configured(site: Site) -> None:
    app = make_consumer(site.url("nothing", EMPTY))
    denied = await trouble(app, missing_legacy=True)
    names = {}
    for each in denied:
        *_, kind, listed = each.what.partition(";")[0].split(maxsplit=3)
        names[kind] = listed.split(", ")
    assert names.keys() == set(KINDS)
    assert "legacy_dlq" in names["configure"]
    assert [kind for kind in KINDS if "legacy" in names[kind]] == ["write", "read"]
    assert permissions_in(denied[0].fix) == USERS["consumer"]
    app = make_consumer(site.url("consumer", EMPTY))
    assert await trouble(app, missing_legacy=True) == []


async def test_it_finds_that_the_plugin_is_missing(site: Site) -> None:
    app = make(site.url("granted", EMPTY), delays="plugin")
    *denied, missing = await trouble(app)
    assert (missing.level, missing.where) == ("error", "rmqarq.delayed")
    assert "no worker can start" in missing.what
    assert "rabbitmq-plugins enable" in missing.fix
    assert {each.what.split(";")[0] for each in denied} == {
        f"may not {kind} rmqarq.delayed" for kind in KINDS
    }
    wider = [each.replace(r"delay\..+", r"delay(ed|\..+)") for each in USERS["granted"]]
    assert permissions_in(denied[0].fix) == wider
    passive = await trouble(make(site.url(vhost=EMPTY), delays="plugin", **PASSIVE))
    assert "rmqarq.delayed" in {each.where for each in passive}


async def test_an_exchange_without_its_plugin_is_named(site: Site) -> None:
    url = site.url()
    async with channel_to(url) as channel:
        await channel.exchange_declare("rmqarq.delayed", durable=True)
    (finding,) = await trouble(make(url))
    assert (finding.level, finding.where) == ("warning", "rmqarq.delayed")
    assert "new delays take the ladder" in finding.what
    assert await trouble(make(url, delays="ladder")) == []


# --- the App, with what the broker is ---


async def test_it_finds_priorities_that_have_no_effect(site: Site) -> None:
    app = make(site.url(vhost=EMPTY))

    @app.task(priority=9)
    async def urgent() -> None: ...

    (attempt, *_) = [each for each in await found(app) if "answers" in each.what]
    warned = await trouble(app)
    if attempt.what.startswith("RabbitMQ 3."):
        (finding,) = warned
        assert (finding.level, finding.where) == ("warning", "urgent")
        assert "queue_type='classic', max_priority=10" in finding.fix
    else:
        assert warned == []


async def test_it_finds_tasks_that_outlast_a_delivery(site: Site) -> None:
    app = make(site.url(vhost=EMPTY))

    @app.task(timeout=7200)
    async def slow() -> None: ...

    (finding,) = await trouble(app)
    assert (finding.level, finding.where) == ("warning", "slow")
    assert "7200 s" in finding.what
    assert "consumer_timeout" in finding.fix or "set_policy 'long-mails'" in finding.fix


# --- the command ---


async def test_a_healthy_app_has_no_warning_and_nothing_is_created_or_changed(
    site: Site, tmp_path: Path
) -> None:
    empty, full, twin = site.url(), site.url(), site.url()
    directory = module(tmp_path, "jobs", MODULE.format(url=empty))
    done = rmqarq("doctor", "jobs:app", cwd=directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 errors, 0 warnings" in done.stdout
    assert "note     jobs:app: not there yet: rmqarq.lost, " in done.stdout
    for plugin in ("auto", "plugin"):
        await found(make_consumer(empty, delays=plugin))
    for url in (full, twin):  # nobody looks at the twin
        await declare_all(url)
        async with channel_to(url) as channel:
            await channel.queue_declare("legacy", arguments={"x-max-length": 9})
    async with running(make(full, delays="ladder")):
        assert {each.level for each in await found(make(full))} == {"ok", "note"}
    assert len(await trouble(make(full, queue_type="classic"))) == 4
    await found(make_consumer(full))
    first, *others = await to_thread.run_sync(site.contents, empty, full, twin)
    assert first == {"queues": [], "exchanges": [], "bindings": []}
    assert len(others[0]["queues"]) == 8
    assert others[0] == others[1]


UNREADABLE = """
from typing import TYPE_CHECKING
from rmqarq import App
if TYPE_CHECKING:
    from decimal import Decimal
app = App()

@app.task
async def pay(amount: "Decimal") -> None: ...

@app.consume("legacy")
async def take(amount: "Decimal") -> None: ...
"""


async def test_an_unreadable_annotation_is_named(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, "unreadable", UNREADABLE)
    monkeypatch.syspath_prepend(tmp_path)
    app = loaded("unreadable:app", site.url(vhost=EMPTY))
    assert isinstance(app, App)
    task, handler = await trouble(app, missing_legacy=True)
    assert (task.level, task.where) == ("error", "pay")
    assert "'amount' in the task pay" in task.what
    assert "imports at run time" in task.fix
    assert (handler.level, handler.where) == ("error", "take")


def test_a_module_that_can_not_be_imported_is_an_error_with_its_fix(
    tmp_path: Path,
) -> None:
    module(tmp_path, "broken", "import nothing_of_that_name")
    done = rmqarq("doctor", "broken:app", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    (finding,) = json.loads(done.stdout)
    assert (finding["level"], finding["where"]) == ("error", "broken:app")
    assert "the module 'broken' can't be imported" in finding["what"]
    assert "python -c 'import broken'" in finding["fix"]


def test_a_url_that_can_not_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module(tmp_path, "badly_addressed", MODULE.format(url="amqp://localhost/"))
    monkeypatch.syspath_prepend(tmp_path)
    finding = loaded("badly_addressed:app", f"http://a:{SECRET}@b/")
    assert isinstance(finding, Finding)
    words = _in_words(finding)
    assert words.level == "error"
    assert "it must begin with amqp:// or amqps://" in words.what
    assert SECRET not in str(words)
