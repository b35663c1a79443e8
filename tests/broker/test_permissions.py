"""The permissions in docs/deployment.md: they are enough, and each one is needed.

The regular expressions are read out of the page and given to the broker as they stand.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import aiormq
import pytest

from rmqarq import (
    AccessRefused,
    App,
    ConfigurationError,
    Context,
    Reject,
    Retry,
    Settings,
    Worker,
)
from rmqarq.admin import Admin
from rmqarq.box import Box
from rmqarq.letters import Filter
from rmqarq.wire.publication import Letter, immediate
from tests.broker.kit import (
    channel_to,
    dead_letters,
    declared,
    running,
    until,
    wait_for_count,
)
from tests.docs.pages import DOCS, code_blocks
from tests.harness.admin import delete_vhost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from rmqarq.box import Tally
    from tests.harness.broker import Broker

PAGE = DOCS / "deployment.md"
QUEUE, SHOP, EMPTY = "mails", "shop", "empty-shop"
PASSWORD = "pass-of-the-test"
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Kind = Literal["configure", "write", "read"]

# what a user of the page may do, less one name
TO_CREATE: list[tuple[str, Kind, str]] = [
    ("maker", "write", "rmqarq.due"),
    ("maker", "read", "mails"),
    ("maker", "read", "mails.suspect"),
]
TO_ADOPT: list[tuple[str, Kind, str]] = [
    ("consumer", "write", "legacy"),
    ("consumer", "read", "legacy"),
    ("consumer", "configure", "legacy_dlq"),
    ("consumer", "read", "rmqarq.due"),
]
TO_SEND: list[tuple[str, Kind, str]] = [
    ("sender", "configure", "rmqarq.lost"),
    ("sender", "configure", "rmqarq.delay.0"),
    ("sender", "configure", "mails_dlq"),
    ("sender", "write", "amq.default"),
    ("sender", "write", "rmqarq.delay.1s"),
    ("sender", "write", "mails.suspect"),
    ("sender", "read", "rmqarq.due"),
    ("sender", "read", "rmqarq.delay.1"),
    ("producer", "write", "amq.default"),
    ("producer", "write", "rmqarq.delay.1.entry"),
]
TO_CONSUME: list[tuple[str, Kind, str]] = [
    ("worker", "read", "mails"),
    ("worker", "read", "mails.suspect"),
]
TO_FOLLOW_UP: list[tuple[str, Kind, str]] = [("worker", "write", "amq.default")]
TO_OPERATE: list[tuple[str, Kind, str]] = [
    ("operator", "write", "amq.default"),
    ("operator", "read", "mails_dlq"),
]
TO_USE_THE_PLUGIN: list[tuple[str, Kind, str]] = [
    ("planner", "write", "rmqarq.delayed"),
    ("planner", "read", "rmqarq.delayed"),
]
IN_THE_SHOP = [*TO_SEND, *TO_CONSUME, *TO_FOLLOW_UP, *TO_OPERATE, *TO_USE_THE_PLUGIN]


class Permissions(NamedTuple):
    """The three regular expressions of one user."""

    configure: str
    write: str
    read: str

    def without(self, kind: Kind, name: str) -> Permissions:
        """Take one name out of what one of them matches."""
        before = getattr(self, kind)
        assert re.search(before, name), f"{kind} does not hold {name} anyway"
        less = f"(?!^{re.escape(name)}$){before}"
        assert not re.search(less, name)
        return self._replace(**{kind: less})


def documented() -> dict[str, Permissions]:
    """Read the commands of the page, by user."""
    found: dict[str, Permissions] = {}
    for block in SHELL.findall(PAGE.read_text("utf-8")):
        for command in block.replace("\\\n", " ").splitlines():
            if command.startswith("rabbitmqctl set_permissions"):
                words = shlex.split(command)
                assert words[2:4] == ["-p", SHOP]
                found[words[4]] = Permissions(*words[5:])
    return found


def with_plugin(permissions: Permissions) -> Permissions:
    """Allow the plugin's exchange as the page says it."""
    found = re.search(r"write `(\S+)`\s+in\s+place\s+of\s+`(delay\S+)`", TEXT)
    assert found
    more, less = found.groups()
    assert all(less in each for each in permissions)
    return Permissions(*(each.replace(less, more) for each in permissions))


TEXT = PAGE.read_text("utf-8")
DOCUMENTED = documented()
DOCUMENTED["planner"] = with_plugin(DOCUMENTED["maker"])


def definitions() -> dict[str, list[dict[str, Any]]]:
    """Give all users and their permissions, as RabbitMQ imports them at once."""
    everything = Permissions(".*", ".*", ".*")
    given = {(vhost, "guest"): everything for vhost in (EMPTY, SHOP)}
    for user, permissions in DOCUMENTED.items():
        given |= {(vhost, user): permissions for vhost in (EMPTY, SHOP)}
    for vhost, cases in ((EMPTY, [*TO_CREATE, *TO_ADOPT]), (SHOP, IN_THE_SHOP)):
        for user, kind, name in cases:
            less = DOCUMENTED[user].without(kind, name)
            given[vhost, f"{user}-{kind}-{name}"] = less
    users = {user for _, user in given} - {"guest"}
    return {
        "vhosts": [{"name": EMPTY}, {"name": SHOP}],
        "users": [{"name": each, "password": PASSWORD, "tags": ""} for each in users],
        "permissions": [
            {"vhost": vhost, "user": user, **permissions._asdict()}
            for (vhost, user), permissions in given.items()
        ],
    }


class Site:
    """The broker with two virtual hosts and the users of this file."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def url(self, user: str = "guest", vhost: str = SHOP) -> str:
        password = "guest" if user == "guest" else PASSWORD
        return f"amqp://{user}:{password}@127.0.0.1:{self._broker.port}/{vhost}"


@pytest.fixture(scope="module")
def built(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One virtual host is empty; in the other the script of the page has run."""
    file = tmp_path_factory.mktemp("permissions") / "definitions.json"
    file.write_text(json.dumps(definitions()))
    broker.ctl("import_definitions", str(file))
    site = Site(broker)
    run_the_script(site.url("maker"))
    yield site
    for vhost in (EMPTY, SHOP):
        delete_vhost(broker, vhost)


@pytest.fixture
async def site(built: Site) -> AsyncIterator[Site]:
    """The same, with nothing left in the queues of the shop afterwards."""
    yield built
    async with channel_to(built.url()) as channel:
        for queue in (QUEUE, f"{QUEUE}.suspect", f"{QUEUE}_dlq"):
            await channel.queue_purge(queue)


def run_the_script(url: str) -> None:
    """Run the one program of the page, as an operator would, for shorter delays."""
    ((_, code),) = code_blocks(PAGE)
    code, found = re.subn(r"^DIGITS = \d+", "DIGITS = 2", code, flags=re.MULTILINE)
    assert found == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMQARQ_URL", url)
        patch.setattr("sys.argv", ["topology.py", QUEUE])
        exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})


def make(url: str, declare: Literal["active", "passive"]) -> App:
    """Make an App with a task for each end that a run may have."""
    app = App(url, queue=QUEUE, declare=declare, publish_deadline=5, shutdown_grace=0.5)

    @app.task
    async def done(ctx: Context) -> None: ...

    @app.task
    async def again(ctx: Context) -> None:
        if ctx.job_try == 1:
            raise Retry(defer=0.1)

    @app.task
    async def rejected(ctx: Context) -> None:
        raise Reject("as the test wants it")

    return app


async def enqueue_and_defer(app: App) -> None:
    await app.tasks["done"].enqueue()
    await app.tasks["done"].defer(1)


async def enqueue_all(app: App) -> None:
    await enqueue_and_defer(app)
    await app.tasks["again"].enqueue()
    await app.tasks["rejected"].enqueue()


async def all_has_run(worker: Worker) -> None:
    """Wait until what `enqueue_all` has sent is done, retried or buried."""
    stats = worker.stats
    await until(lambda: stats.completed == 3 and stats.dead_lettered == 1)
    assert stats.retried == 1


async def send_to_the_suspect_lane(app: App) -> None:
    """Publish to the lane as a worker does that moves a job there."""
    letter = Letter(task="done", job_id="suspect", body=b"{}", content_type=None)
    publication = immediate(letter, f"{QUEUE}.suspect", home=QUEUE)
    await app.transport.publish(publication, time.monotonic() + 5)


@asynccontextmanager
async def reading(url: str, queue: str) -> AsyncIterator[Any]:
    """Get one message of a queue; it goes back to its place afterwards."""
    async with channel_to(url) as channel:
        yield await channel.basic_get(queue)


async def give_back(url: str, queue: str) -> None:
    """Take the one message of a queue and return it, as a worker that dies would."""
    async with channel_to(url) as channel, asyncio.timeout(10):
        got = await channel.basic_get(queue)
        while got.delivery_tag is None:  # it comes back a moment after the return
            got = await channel.basic_get(queue)
        await channel.basic_nack(got.delivery_tag, requeue=True)


async def test_with_the_permissions_of_active_all_is_created_and_all_ends_are_met(
    site: Site,
) -> None:
    for user, kind, name in TO_CREATE:
        url = site.url(f"{user}-{kind}-{name}", EMPTY)
        async with make(url, "active") as app:
            with pytest.raises(AccessRefused, match=f"'{re.escape(name)}'"):
                await enqueue_and_defer(app)
    url = site.url("maker", EMPTY)
    async with make(url, "active") as app:
        await enqueue_all(app)
    async with running(make(url, "active"), url=site.url(vhost=EMPTY)) as worker:
        await all_has_run(worker)
    (letter,) = await dead_letters(site.url(vhost=EMPTY), QUEUE, 1)
    assert letter.headers["x-rmqarq-reason"] == "rejected"


async def test_a_queue_of_another_producer_is_consumed_but_not_configured(
    site: Site,
) -> None:
    def consumer(user: str) -> App:
        app = App(site.url(user, EMPTY), publish_deadline=5, shutdown_grace=0.5)

        @app.consume("legacy", backoff=0.1)
        async def legacy(ctx: Context, event: str) -> None:
            if ctx.job_try == 1:
                raise OSError
            raise Reject("as the test wants it")

        return app

    async with channel_to(site.url(vhost=EMPTY)) as channel:
        await channel.queue_declare("legacy")
        await channel.basic_publish(b"theirs", routing_key="legacy")
    for user, kind, name in TO_ADOPT:
        with pytest.raises(AccessRefused, match=f"'{re.escape(name)}'|{name}"):
            await Worker(consumer(f"{user}-{kind}-{name}")).run(signals=False)
    async with running(consumer("consumer"), url=site.url(vhost=EMPTY)) as worker:
        await until(lambda: worker.stats.dead_lettered == 1)
        assert worker.stats.retried == 1
    (letter,) = await dead_letters(site.url(vhost=EMPTY), "legacy", 1)
    assert letter.body == b"theirs"
    async with channel_to(site.url("consumer", EMPTY)) as channel:
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused, match="legacy"):
            await channel.queue_delete("legacy")


async def test_with_the_permissions_of_passive_producer_and_worker_do_their_work(
    site: Site,
) -> None:
    async with make(site.url("producer"), "passive") as producer:
        await enqueue_all(producer)
    async with running(make(site.url("worker"), "passive"), url=site.url()) as worker:
        await all_has_run(worker)
    (letter,) = await dead_letters(site.url(), QUEUE, 1)
    assert letter.headers["x-rmqarq-reason"] == "rejected"


@pytest.mark.parametrize(
    ("user", "declare"), [("maker", "active"), ("worker", "passive")]
)
async def test_a_worker_may_send_to_the_suspect_lane_and_read_it(
    site: Site, user: str, declare: Literal["active", "passive"]
) -> None:
    lane = f"{QUEUE}.suspect"
    async with make(site.url(user), declare) as app:
        await send_to_the_suspect_lane(app)
    async with reading(site.url(user), lane) as got:
        assert got.header.properties.correlation_id == "suspect"


@pytest.mark.parametrize(
    ("user", "declare"), [("maker", "active"), ("worker", "passive")]
)
async def test_a_job_that_came_back_too_often_takes_the_suspect_lane_to_its_end(
    site: Site, user: str, declare: Literal["active", "passive"]
) -> None:
    async with make(site.url("producer"), "passive") as producer:
        await producer.tasks["done"].enqueue()
    for _ in range(3):
        await give_back(site.url(), QUEUE)
    async with running(make(site.url(user), declare), url=site.url()) as worker:
        await until(lambda: worker.stats.completed == 1)
        assert worker.stats.suspected == 1


async def test_an_active_producer_can_do_without_reading_jobs(site: Site) -> None:
    async with make(site.url("sender"), "active") as app:
        await enqueue_and_defer(app)
    await wait_for_count(site.url(), QUEUE, ready=2)
    with pytest.raises(aiormq.exceptions.ChannelAccessRefused, match=QUEUE):
        async with reading(site.url("sender"), QUEUE):
            pass


async def test_a_passive_producer_can_neither_read_nor_declare_nor_delete(
    site: Site,
) -> None:
    acts = ("basic_get", "queue_declare", "queue_delete", "queue_purge")
    for act in acts:
        async with channel_to(site.url("producer")) as channel:
            with pytest.raises(aiormq.exceptions.ChannelAccessRefused, match=QUEUE):
                await getattr(channel, act)(QUEUE)


async def test_the_script_makes_the_rungs_it_says_and_a_longer_delay_is_refused(
    site: Site,
) -> None:
    async with make(site.url("producer"), "passive") as app:
        with pytest.raises(ConfigurationError, match=r"rmqarq\.delay\.10s"):
            await app.tasks["done"].defer(10)
    assert await declared(site.url(), "rmqarq.delay.9s") == (0, 0)
    assert await declared(site.url(), "rmqarq.delay.10s") == (None, None)


@pytest.mark.parametrize(("user", "kind", "name"), TO_SEND)
async def test_a_producer_with_one_permission_less_is_told_which(
    site: Site, user: str, kind: Kind, name: str
) -> None:
    declare: Literal["active", "passive"]
    declare = "passive" if user == "producer" else "active"
    async with make(site.url(f"{user}-{kind}-{name}"), declare) as app:
        with pytest.raises(AccessRefused, match=f"'{re.escape(name)}'"):
            await enqueue_and_defer(app)


@pytest.mark.parametrize(("user", "kind", "name"), TO_CONSUME)
async def test_a_worker_with_one_permission_less_is_told_which(
    site: Site, user: str, kind: Kind, name: str
) -> None:
    app = make(site.url(f"{user}-{kind}-{name}"), "passive")
    with pytest.raises(AccessRefused, match=f"'{re.escape(name)}'"):
        async with asyncio.timeout(20):  # its lane may be refused after its queue
            await Worker(app).run(signals=False)


@pytest.mark.parametrize(("user", "kind", "name"), TO_FOLLOW_UP)
async def test_a_worker_that_may_not_write_says_so_and_loses_nothing(
    site: Site, user: str, kind: Kind, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with make(site.url("producer"), "passive") as producer:
        await producer.tasks["rejected"].enqueue()
    app = make(site.url(f"{user}-{kind}-{name}"), "passive")
    async with running(app, url=site.url()) as worker:
        await until(lambda: "a follow-up failed: the broker refuses" in caplog.text)
    assert f"'{name}'" in caplog.text
    assert worker.stats.dead_lettered == 0
    await wait_for_count(site.url(), QUEUE, ready=1)


@pytest.mark.parametrize(
    ("user", "by_plugin"),
    [
        ("planner", True),
        *((f"{user}-{kind}-{name}", False) for user, kind, name in TO_USE_THE_PLUGIN),
        ("maker", False),
        ("sender", False),
    ],
)
async def test_without_a_permission_for_the_plugins_exchange_delays_take_the_ladder(
    site: Site, user: str, by_plugin: bool
) -> None:
    """A plain exchange stands for the plugin's: what is sent there comes at once."""
    name = "rmqarq.delayed"
    async with channel_to(site.url()) as channel:
        await channel.exchange_declare(name, exchange_type="direct", durable=True)
    try:
        async with make(site.url(user), "active") as app:
            await app.tasks["done"].defer(1)
            assert app.transport.by_plugin is by_plugin
        await wait_for_count(site.url(), QUEUE, ready=1)
    finally:
        async with channel_to(site.url()) as channel:
            await channel.exchange_delete(name)


async def die(site: Site) -> None:
    """Let one job become a dead letter."""
    async with make(site.url("producer"), "passive") as producer:
        await producer.tasks["rejected"].enqueue()
    async with running(make(site.url("worker"), "passive"), url=site.url()):
        await wait_for_count(site.url(), f"{QUEUE}_dlq", ready=1)


async def put_back(url: str) -> Tally:
    """Put all dead letters back, as `rmqarq dlq requeue` does."""
    settings = Settings(url=url, queue=QUEUE)
    async with Admin(settings) as admin:
        await admin.overview([QUEUE])
        box = Box(admin, settings, f"{QUEUE}_dlq", QUEUE, lambda seen, there: None)
        assert (await box.find(Filter(), None)).fit == 1
        return await box.requeue(Filter(), None, to=None, as_is=False)


async def test_an_operator_may_count_look_and_put_back(site: Site) -> None:
    await die(site)
    tally = await put_back(site.url("operator"))
    assert (tally.done, tally.error) == (1, None)
    await wait_for_count(site.url(), QUEUE, ready=1)


async def test_an_operator_with_one_permission_less_is_told_which(site: Site) -> None:
    await die(site)
    write, read = (site.url(f"{user}-{kind}-{name}") for user, kind, name in TO_OPERATE)
    tally = await put_back(write)
    assert tally.done == 0
    assert isinstance(tally.error, AccessRefused)
    assert "'amq.default'" in str(tally.error)
    with pytest.raises(AccessRefused, match=f"'{QUEUE}_dlq'"):
        await put_back(read)
    await wait_for_count(site.url(), f"{QUEUE}_dlq", ready=1)
