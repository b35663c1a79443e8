"""The broker refuses: said once, in a sentence that helps, and never with a secret."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from rmqarq import AccessRefused, App, ConfigurationError, QueueFull, Reject
from tests.broker.apps.ledger_app import make
from tests.broker.kit import (
    channel_to,
    dead_letters,
    delete_queues,
    running,
    until,
    wait_for_count,
)
from tests.chaos.tools import Counted
from tests.harness import admin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.kit import Node
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

SECRET = "S3CR3T-w0rd"


@pytest.fixture(scope="module")
def user(broker: Broker) -> Iterator[str]:
    """The URL of a user; each test says what it may do."""
    name = "marker-user"
    yield admin.add_user(broker, name, SECRET)
    admin.delete_user(broker, name)


def name_in(url: str) -> str:
    return url.removeprefix("amqp://").partition(":")[0]


async def allow(broker: Broker, url: str, **patterns: str) -> None:
    await to_thread.run_sync(
        lambda: admin.set_permissions(broker, name_in(url), **patterns)
    )


async def refused(node: Node, url: str, *said: str, **env: str) -> None:
    """Start a worker that can't work: it says so and ends with 3, at once."""
    began = time.monotonic()
    with node.worker(url=url, **env) as worker:
        assert await to_thread.run_sync(worker.wait, 15) == 3, worker.output
    output = worker.output
    assert time.monotonic() - began < 10
    for each in said:
        assert each in output, output
    assert output.count("rmqarq: ") == 1
    assert "Traceback" not in output
    assert "attempt" not in output  # it does not try again
    assert SECRET not in output


async def test_a_user_who_may_not_declare_ends_the_worker_with_3(
    node: Node, user: str
) -> None:
    await allow(node.broker, user, configure="^$")
    await refused(node, user, "refuses access to", "access to")
    with pytest.raises(AccessRefused, match="refuses access to") as caught:
        await make(user, queue=node.queue).tasks["done"].enqueue(1)
    assert SECRET not in repr(caught.value)


async def test_a_user_who_may_not_read_ends_the_worker_with_3(
    node: Node, user: str
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        await app.tasks["done"].enqueue(1)
    await allow(node.broker, user, read="^$")
    await refused(node, user, f"refuses access to '{node.queue}'", declare="passive")
    await wait_for_count(node.broker.url, node.queue, ready=1)


async def test_a_user_without_the_virtual_host_ends_the_worker_with_3(
    node: Node, user: str
) -> None:
    await to_thread.run_sync(admin.clear_permissions, node.broker, name_in(user))
    await refused(node, user, "refuses us", "virtual host and permissions")
    with pytest.raises(AccessRefused, match="refuses us"):
        await make(user, queue=node.queue).tasks["done"].enqueue(1)


async def test_a_queue_of_another_kind_ends_the_worker_with_3_and_both_values(
    node: Node,
) -> None:
    async with channel_to(node.broker.url) as channel:
        arguments = {"x-queue-type": "classic"}
        await channel.queue_declare(node.queue, durable=True, arguments=arguments)
    await refused(
        node,
        node.broker.url,
        f"queue '{node.queue}' exists with x-",
        "and we want",
        "use the same arguments, another name, or declare='passive'",
    )


async def test_an_exchange_of_another_type_ends_the_worker_with_3_and_both_values(
    node: Node, prefix: str
) -> None:
    async with channel_to(node.broker.url) as channel:
        await channel.exchange_declare(
            f"{prefix}.due", exchange_type="topic", durable=True
        )
    await refused(
        node,
        node.broker.url,
        f"exchange '{prefix}.due' exists with type = 'topic', and we want 'direct'",
        prefix=prefix,
    )


async def test_a_queue_that_another_connection_owns_ends_the_worker_with_3(
    node: Node,
) -> None:
    async with channel_to(node.broker.url) as channel:
        await channel.queue_declare(node.queue, exclusive=True)
        await refused(node, node.broker.url, f"'{node.queue}'", "RESOURCE_LOCKED")


async def test_rights_withdrawn_while_it_runs_end_the_worker_with_3(
    node: Node, user: str, proxy: Proxy
) -> None:
    url = user.replace(f":{node.broker.port}/", f":{proxy.port}/")
    await allow(node.broker, user)
    async with make(node.broker.url, queue=node.queue) as app:
        with node.worker(url=url) as worker:
            await app.tasks["done"].enqueue(1)
            await until(lambda: node.ledger.count("done") == 1)
            await allow(node.broker, user, configure="^$", read="^$")
            proxy.cut()
            assert await to_thread.run_sync(worker.wait, 15) == 3, worker.output
    assert proxy.cuts
    assert "refuses access to" in worker.output
    assert "Traceback" not in worker.output
    assert SECRET not in worker.output


async def test_a_refused_publish_harms_no_other_on_its_channel(
    broker: Broker, queue: str, prefix: str, user: str
) -> None:
    async with App(broker.url, queue=queue, prefix=prefix) as owner:
        await owner.ref("count").defer(2, -1)  # declares what a delay needs
        await wait_for_count(broker.url, queue, ready=1)
    await allow(broker, user, write=r"^amq\.default$")
    settings: dict[str, Any] = {"queue": queue, "prefix": prefix}
    async with App(user, declare="passive", **settings) as app:
        task = app.ref("count")
        calls = [
            task.defer(2, n) if n % 40 == 20 else task.enqueue(n) for n in range(200)
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        failed = {n: e for n, e in enumerate(results) if isinstance(e, BaseException)}
        assert failed.keys() == {20, 60, 100, 140, 180}, failed
        assert {type(each) for each in failed.values()} == {AccessRefused}, failed
        assert f"{prefix}.delay" in str(failed[20])
    # the broker closed the channel under the others: some may have come twice
    tasks = Counted(reader := App(broker.url, queue=queue, prefix=prefix))
    async with running(reader):
        await until(lambda: len(tasks.runs) >= 196)
        await wait_for_count(broker.url, queue, ready=0)
    kept = {-1, *(n for n in range(200) if n % 40 != 20)}
    assert tasks.runs.keys() == kept


async def test_a_follow_up_that_is_refused_keeps_its_job(
    broker: Broker, queue: str, prefix: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"queue": queue, "prefix": prefix, "max_retries": 0}
    owner = App(broker.url, **settings)
    reject = owner.task(_reject, name="reject")
    async with owner:
        await reject.enqueue(1)
    await allow(broker, user, write="^$")
    worker_app = App(user, declare="passive", **settings)
    worker_app.task(_reject, name="reject")
    async with running(worker_app, url=broker.url) as worker:
        await until(lambda: "a follow-up failed" in caplog.text)
        assert "refuses access to" in caplog.text
        assert worker.stats.dead_lettered == 0
        await allow(broker, user)
        await until(lambda: worker.stats.dead_lettered == 1)
    assert len(await dead_letters(broker.url, queue, 1)) == 1
    assert SECRET not in caplog.text


async def _reject(number: int) -> None:
    raise Reject(f"number {number}")


async def test_a_dead_letter_queue_that_may_not_be_made_keeps_the_job(
    broker: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with App(broker.url, queue=queue) as owner:
        await owner.ref("reject").enqueue(1)
    app = App(broker.url, queue=queue, declare="passive")
    app.task(_reject, name="reject")
    await delete_queues(broker.url, [f"{queue}_dlq"])
    async with running(app) as worker:
        await until(lambda: "a follow-up failed" in caplog.text)
        assert worker.stats.dead_lettered == 0
        async with channel_to(broker.url) as channel:
            await channel.queue_declare(f"{queue}_dlq", durable=True)
        await until(lambda: worker.stats.dead_lettered == 1)
    assert len(await dead_letters(broker.url, queue, 1)) == 1


async def test_exchanges_deleted_under_an_app_are_declared_anew(
    broker: Broker, queue: str, prefix: str
) -> None:
    app = App(broker.url, queue=queue, prefix=prefix, publish_deadline=5)
    tasks = Counted(app)
    async with running(app) as worker:
        await tasks.count.defer(1, 1)
        await until(lambda: tasks.runs == {1: 1})
        async with channel_to(broker.url) as channel:
            for name in ("delay.1.entry", "delay.0", "delay.1", "due"):
                await channel.exchange_delete(f"{prefix}.{name}")
        deferred = tasks.count.defer(1, 2)
        plain = [tasks.count.enqueue(n) for n in range(10, 60)]
        await asyncio.gather(deferred, *plain)
        await until(lambda: tasks.runs.keys() >= {2, *range(10, 60)})
    assert worker.stats.dead_lettered == 0


async def test_a_queue_that_refuses_by_its_own_arguments_is_full(
    broker: Broker, queue: str
) -> None:
    async with channel_to(broker.url) as channel:
        arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
        await channel.queue_declare(queue, durable=True, arguments=arguments)
    async with App(broker.url, queue=queue, declare="passive") as app:
        task = app.ref("count")
        for number in range(3):
            await task.enqueue(number)
        for number in (3, 4):
            with pytest.raises(QueueFull, match="refused a message"):
                await task.enqueue(number)
    await wait_for_count(broker.url, queue, ready=3)


async def test_a_queue_that_is_gone_and_may_not_be_made_is_named(
    broker: Broker, queue: str
) -> None:
    async with channel_to(broker.url) as channel:
        await channel.queue_declare(queue, durable=True)
    async with App(broker.url, queue=queue, declare="passive") as app:
        await app.ref("count").enqueue(1)
        await delete_queues(broker.url, [queue])
        with pytest.raises(ConfigurationError, match=f"'{queue}' does not exist"):
            await app.ref("count").enqueue(2)
