"""Whether the ways from one machine to many work that docs/scaling.md describes."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections import Counter, defaultdict
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from anyio import to_thread

from rmqarq import App, Context, Reject, Retry
from tests.broker.kit import (
    dead_letters,
    delete_queues,
    running,
    until,
    wait_for_count,
)
from tests.conftest import on_dev_broker
from tests.docs.pages import DOCS, section
from tests.docs.programs import end, start
from tests.harness.admin import add_vhost, delete_vhost
from tests.harness.broker import QUEUES, Broker
from tests.harness.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rmqarq import Task

PAGE = DOCS / "scaling.md"
PLUGINS = ("rabbitmq_consistent_hash_exchange", "rabbitmq_federation")
HASHED = ("hashed",)
"""Examples that need a plugin, and are run here."""
REBALANCE = 'rabbit_amqqueue:rebalance(quorum, ".*", "{}").'
"""What `rabbitmq-queues rebalance quorum --queue-pattern` evaluates in the node."""
BILLS = [f"bills-{number}" for number in range(4)]


@pytest.fixture(scope="module")
def site() -> Iterator[Broker]:
    """A second broker, with plugins that RabbitMQ brings along."""
    if on_dev_broker():
        pytest.skip("needs plugins of RabbitMQ")
    with Broker(enabled=PLUGINS) as node:
        yield node


class Seen:
    """A task that notes on which queues a key was run; each fifth number needs two."""

    def __init__(self, app: App, name: str = "bill") -> None:
        self.queues: dict[str, list[str]] = defaultdict(list)
        self.task: Task[[str, int], None] = app.task(name=name)(self._run)

    async def _run(self, ctx: Context, key: str, number: int) -> None:
        self.queues[key].append(ctx.queue)
        if number % 5 == 0 and ctx.job_try == 1:
            raise Retry(defer=0.1)

    @property
    def runs(self) -> int:
        return sum(map(len, self.queues.values()))

    def spread(self) -> dict[str, int]:
        """Count the keys of each queue; all runs of a key must have been on one."""
        found: dict[str, int] = defaultdict(int)
        for queues in self.queues.values():
            (queue,) = set(queues)
            found[queue] += 1
        return found


def commands(title: str) -> list[list[str]]:
    """Give the commands under a heading of the page, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", section(PAGE, title), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


async def test_a_key_stays_in_its_queue_with_delays_and_retries_too(
    broker: Broker, queue: str
) -> None:
    shards = [f"{queue}-{number}" for number in range(4)]
    app = App(broker.url, queue=queue)
    seen = Seen(app)

    def on_shard(key: str) -> Task[[str, int], None]:
        return seen.task.options(queue=shards[crc32(key.encode()) % 4])

    keys = [f"key {number}" for number in range(40)]
    try:
        async with running(app, queues=shards):
            await app.enqueue_many(
                [on_shard(key).job(key, n) for n, key in enumerate(keys)]
            )
            await app.enqueue_many(
                [on_shard(key).job(key, 1).defer(0.2) for key in keys]
            )
            await until(lambda: seen.runs >= 40 + 40 / 5 + 40)
        assert seen.runs == 88
        assert set(seen.spread()) == set(shards)
        assert set(seen.queues) == set(keys)
    finally:
        lanes = [each + end for each in shards for end in ("", ".suspect", "_dlq")]
        await delete_queues(broker.url, lanes)


async def test_a_hash_exchange_spreads_the_jobs_of_a_foreign_producer(
    site: Broker,
) -> None:
    app = App(site.url, queue=BILLS[0], prefix="docs")
    seen = Seen(app)
    async with running(app, queues=BILLS):
        said = await to_thread.run_sync(lambda: end(start(site.url, "hashed.py")))
        assert said == "sent 200\n"
        await until(lambda: seen.runs >= 200 + 200 / 5)
    assert seen.runs == 240
    assert len(seen.queues) == 200
    spread = seen.spread()
    assert set(spread) == set(BILLS)
    assert min(spread.values()) >= 20, spread


async def test_virtual_hosts_share_no_jobs_delays_or_dead_letters(
    broker: Broker, queue: str
) -> None:
    vhosts = [f"{side}-{secrets.token_hex(4)}" for side in ("left", "right")]
    urls = [add_vhost(broker, vhost) for vhost in vhosts]
    ran: list[tuple[int, str]] = []

    def app_of(side: int) -> App:
        app = App(urls[side], queue=queue)

        @app.task(name="work")
        async def work(owner: int, what: str) -> None:
            ran.append((side, what))
            assert owner == side
            if what == "dead":
                raise Reject("on purpose")

        return app

    apps = [app_of(0), app_of(1)]
    async with running(apps[0]), running(apps[1]):
        for side, app in enumerate(apps):
            await app.ref("work").enqueue(side, "now")
            await app.ref("work").enqueue(side, "dead")
            await app.ref("work").defer(0.2, side, "later")
        await until(lambda: len(ran) >= 6)
    assert sorted(ran) == sorted(
        (side, what) for side in (0, 1) for what in ("now", "dead", "later")
    )
    for url in urls:
        (letter,) = await dead_letters(url, queue, 1)
        assert letter.headers["x-rmqarq-reason"] == "rejected"
    for vhost in vhosts:
        await to_thread.run_sync(delete_vhost, broker, vhost)


@pytest.fixture
def north(broker: Broker, site: Broker) -> Iterator[tuple[str, str]]:
    """The virtual host of the page on two brokers: `site` takes from the other."""
    urls = add_vhost(broker, "shop"), add_vhost(site, "shop")
    for words in commands("Several sites"):
        if words[0] == "rabbitmqctl":
            site.ctl(*(upstream(each, urls[0]) for each in words[1:]))
    yield urls
    for node in (site, broker):
        delete_vhost(node, "shop")


def upstream(word: str, url: str) -> str:
    """Put the URL that is right here into a word of a command."""
    if not word.startswith('{"uri"'):
        return word
    return json.dumps({**json.loads(word), "uri": url})


async def test_a_federated_queue_brings_jobs_to_a_worker_of_another_broker(
    broker: Broker, site: Broker, north: tuple[str, str]
) -> None:
    there, here = (App(url, queue="mails") for url in north)
    seen = Seen(here)
    async with there:
        task = there.ref("bill")
        await there.enqueue_many([task.job(f"{n}", n) for n in range(50)])
        async with running(here):
            await seen.task.defer(0.2, "waits on a rung here", 1)
            await task.defer(0.2, "waited on the same rung there", 1)
            await until(lambda: seen.runs >= 50 + 50 / 5 + 2)
            await wait_for_count(north[0], "mails", ready=0)
        # nobody consumes here any more: what comes stays where it was enqueued
        await task.enqueue("stays", 0)
        await wait_for_count(north[0], "mails", ready=1)
        counts = await to_thread.run_sync(site.queues)
    assert counts["mails"]["messages_ready"] == 0
    assert seen.runs == 62
    assert len(seen.queues) == 52


@pytest.mark.slow
@pytest.mark.skipif(on_dev_broker(), reason="needs a cluster")
@pytest.mark.timeout(120)  # it starts three nodes
async def test_leaders_are_spread_over_a_cluster_by_the_command_of_the_page() -> None:
    ((*_, pattern),) = commands("A cluster")
    cluster = await to_thread.run_sync(Cluster, 3)
    names = [f"bills-{number}" for number in range(6)]
    try:
        await to_thread.run_sync(cluster.start_all)
        node = cluster.nodes[0]
        app = App(cluster.url, queue=names[0])
        seen = Seen(app)
        async with running(app, queues=names, url=node.url):
            assert len(await to_thread.run_sync(leaders_of, cluster, names)) == 1
            await to_thread.run_sync(node.eval, REBALANCE.format(pattern))
            calls = [seen.task.options(queue=name).job(name, 1) for name in names]
            await app.enqueue_many(calls)
            await until(lambda: len(seen.queues) == len(names))
        leaders = await to_thread.run_sync(leaders_of, cluster, names)
        assert sorted(leaders.values()) == [2, 2, 2]
    finally:
        await to_thread.run_sync(cluster.stop)


def leaders_of(cluster: Cluster, names: list[str]) -> dict[str, int]:
    """Give the nodes that lead these queues, and how many."""
    lines = cluster.alive().eval(QUEUES.format(items="leader")).splitlines()
    found = dict(zip(lines[::2], lines[1::2], strict=True))
    return Counter(found[name] for name in names)
