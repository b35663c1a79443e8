"""An enqueue stores the job, or raises in time and says why."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from rmqarq import (
    AccessRefused,
    App,
    ConfigurationError,
    ConnectionFailed,
    EncodeError,
    PartlyEnqueued,
    QueueFull,
    TopologyMismatch,
)
from rmqarq.language import render
from tests.broker.kit import (
    ROOT,
    channel_to,
    declared,
    delete_queues,
    running,
    take_all,
    until,
    wait_for_count,
)
from tests.harness import admin

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from rmqarq import Task
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy


async def note(number: int) -> None: ...


async def text(value: str) -> None: ...


async def test_a_queue_deleted_meanwhile_is_declared_anew(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        task = app.task(note)
        await task.enqueue(1)
        lanes = [queue, f"{queue}.suspect", f"{queue}_dlq"]
        await delete_queues(broker.url, lanes)
        async with asyncio.timeout(10):
            await task.enqueue(2)
            assert await declared(broker.url, queue) == (1, 0)
            assert await declared(broker.url, f"{queue}_dlq") == (0, 0)
            await delete_queues(broker.url, lanes)
            await asyncio.gather(*(task.enqueue(n) for n in range(100)))
            await delete_queues(broker.url, lanes)
            await app.enqueue_many([task.job(n) for n in range(100)])
    await wait_for_count(broker.url, queue, ready=100)


async def test_a_deleted_rung_of_the_ladder_is_declared_anew(
    broker: Broker, queue: str, prefix: str
) -> None:
    async with App(broker.url, queue=queue, prefix=prefix) as app:
        task = app.task(note)
        await task.defer(0.3, 1)
        await wait_for_count(broker.url, queue, ready=1)
        await delete_queues(broker.url, [f"{prefix}.delay.300ms"])
        began = time.monotonic()
        await task.defer(0.3, 2)
        await wait_for_count(broker.url, queue, ready=2, timeout=5)
    waited = time.monotonic() - began
    # it came back, and its rung was made anew
    assert waited < 3


async def test_the_second_url_is_used_when_the_first_is_dead(
    broker: Broker, queue: str
) -> None:
    dead = "amqp://guest:guest@127.0.0.1:1/"
    urls: list[Any] = [f"{dead},{broker.url}", f"{broker.url}, {dead}"]
    urls.append((dead, dead, broker.url))
    for url in urls:
        app = App(url, queue=queue)
        task = app.task(note)
        async with app:
            await task.enqueue(1)
    await wait_for_count(broker.url, queue, ready=3)


async def test_credentials_are_refused_at_once_and_not_shown(
    broker: Broker, queue: str
) -> None:
    url = broker.url.replace("guest:guest", "guest:marker-word")
    app = App(url, queue=queue)
    task = app.task(note)
    began = time.monotonic()
    with pytest.raises(AccessRefused, match="check user, password") as caught:
        await task.enqueue(1)
    with pytest.raises(AccessRefused):
        await app.__aenter__()
    assert time.monotonic() - began < 5
    texts = [str(caught.value), repr(caught.value), repr(app.settings)]
    assert not [text for text in texts if "marker-word" in text]
    assert f"guest:***@127.0.0.1:{broker.port}" in str(caught.value)
    await app.close()


async def test_a_virtual_host_that_is_not_there_is_named(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url + "nowhere", queue=queue)
    with pytest.raises(AccessRefused, match=r"nowhere.*virtual host"):
        await app.task(note).enqueue(1)
    await app.close()


async def test_permissions_that_are_missing_are_named(
    broker: Broker, queue: str
) -> None:
    word = secrets.token_hex(8)

    def prepare() -> None:
        admin.add_user(broker, queue, word)
        admin.set_permissions(broker, queue, "^$", ".*", ".*")

    await to_thread.run_sync(prepare)
    try:
        app = App(broker.url.replace("guest:guest", f"{queue}:{word}"), queue=queue)
        with pytest.raises(AccessRefused, match="refuses access to") as caught:
            await app.task(note).enqueue(1)
        assert word not in str(caught.value)
        await app.close()
    finally:
        await to_thread.run_sync(admin.delete_user, broker, queue)


async def test_a_queue_with_other_arguments_is_a_mismatch_that_names_the_ways_out(
    broker: Broker, queue: str
) -> None:
    async with channel_to(broker.url) as channel:
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 5}
        await channel.queue_declare(queue, durable=True, arguments=arguments)
    app = App(broker.url, queue=queue)
    with pytest.raises(TopologyMismatch) as caught:
        await app.task(note).enqueue(1)
    said = str(caught.value)
    assert f"queue '{queue}' exists with x-d" in said
    assert "use the same arguments, another name, or declare='passive'" in said
    await app.close()
    async with App(broker.url, queue=queue, declare="passive") as passive:
        await passive.task(note).enqueue(1)
    await wait_for_count(broker.url, queue, ready=1)


async def test_nobody_listening_raises_at_the_deadline(queue: str) -> None:
    app = App("amqp://guest:marker-word@127.0.0.1:1/", queue=queue, publish_deadline=1)
    task = app.task(note)
    began = time.monotonic()
    with pytest.raises(ConnectionFailed) as caught:
        await task.enqueue(1)
    assert 0.9 < time.monotonic() - began < 2
    assert isinstance(caught.value, ConnectionError)
    assert "marker-word" not in str(caught.value)
    await app.close()


async def test_a_full_queue_refuses_and_partly_enqueued_says_which(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        task = app.task(note)
        await task.enqueue(0)
        full = f"^{queue}$"
        policy = json.dumps({"max-length": 10})
        flags = ["--apply-to", "queues"]
        await to_thread.run_sync(
            lambda: broker.ctl("set_policy", *flags, queue, full, policy)
        )
        elsewhere = f"{queue}-other"
        other = task.options(queue=elsewhere)
        try:
            specs = [task.job(n) for n in range(60)]
            specs.insert(30, other.job(1000))
            async with asyncio.timeout(10):
                stored = await fill(task)
                with pytest.raises(PartlyEnqueued) as caught:
                    await app.enqueue_many(specs)
            error = caught.value
            assert error.failures.keys() == set(range(61)) - {30}
            assert {type(each) for each in error.failures.values()} == {QueueFull}
            assert [at for at, job in enumerate(error.jobs) if job is not None] == [30]
            assert error.jobs[30].queue == elsewhere
            assert str(error).startswith("60 of 61 jobs were not stored")
            in_chinese = render(error, "zh")
            assert render(error.failures[0], "zh") in in_chinese
            assert "refused" not in in_chinese
            await wait_for_count(broker.url, queue, ready=stored + 1)
            await wait_for_count(broker.url, elsewhere, ready=1)
        finally:
            await to_thread.run_sync(broker.ctl, "clear_policy", queue)
            lanes = [elsewhere, f"{elsewhere}.suspect", f"{elsewhere}_dlq"]
            await delete_queues(broker.url, lanes)


async def fill(task: Task[[int], None]) -> int:
    """Enqueue until the queue is full, which a quorum queue notices a bit late."""
    for stored in range(1000):
        try:
            await task.enqueue(stored)
        except QueueFull:
            return stored
    raise AssertionError("the queue took a thousand jobs")


async def test_one_bad_argument_in_a_batch_sends_nothing(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        task = app.task(note)
        await task.enqueue(0)
        bad: Any = "three"
        with pytest.raises(EncodeError, match="'number'"):
            await app.enqueue_many([task.job(1), task.job(2), task.job(bad)])
    await wait_for_count(broker.url, queue, ready=1)


async def test_a_body_above_max_body_is_refused_here_and_buried_there(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue, max_body=1000) as small:
        with pytest.raises(EncodeError, match="max_body allows 1000"):
            await small.ref("text").enqueue("x" * 2000)
    async with App(broker.url, queue=queue) as large:
        await large.ref("text").enqueue("x" * 2000)
    app = App(broker.url, queue=queue, max_body=1000)
    seen: list[str] = []

    @app.task(name="text")
    async def take(text: str) -> None:
        seen.append(text)

    async with running(app) as worker:
        await until(lambda: worker.stats.dead_lettered == 1)
    assert not seen


async def test_settings_of_a_message_travel_with_it(broker: Broker, queue: str) -> None:
    settings: dict[str, Any] = {"compression": True, "compression_threshold": 500}
    async with App(broker.url, queue=queue, **settings) as app:
        text = app.ref("text")
        await text.options(priority=7, job_id="my-own").enqueue("x" * 800)
        await text.enqueue("x")
    async with App(broker.url, queue=queue, serializer="msgpack") as packed:
        await packed.ref("text").enqueue("x")
    big, small, other = await take_all(broker.url, queue)
    assert big.properties.content_encoding == "gzip"
    assert big.properties.priority == 7
    assert big.properties.correlation_id == "my-own"
    assert big.properties.app_id == "rmqarq"
    assert abs(big.properties.timestamp.timestamp() - time.time()) < 60
    assert small.properties.content_encoding is None
    assert json.loads(small.body)["args"] == ["x"]
    kinds = [each.properties.content_type for each in (big, small, other)]
    assert kinds == ["application/json", "application/json", "application/msgpack"]
    assert {each.properties.delivery_mode for each in (big, small, other)} == {2}


async def test_the_call_says_before_the_task_and_the_app_whether_it_is_packed(
    broker: Broker, queue: str
) -> None:
    wanted: dict[str, bool] = {}
    for by_app in (True, False):
        app = App(broker.url, queue=queue, compression=by_app)
        plain = app.task(name="plain")(text)
        tasks = {"": plain}
        for by_task in (True, False):
            tasks[str(by_task)] = app.task(name=str(by_task), compression=by_task)(text)
        async with app:
            for said, task in tasks.items():
                of_task = said == "True" if said else by_app
                wanted[(await task.enqueue("x" * 5000)).id] = of_task
                for by_call in (True, False):
                    asked = task.options(compression=by_call)
                    wanted[(await asked.enqueue("x" * 5000)).id] = by_call
            small = await plain.options(compression=True).enqueue("x" * 500)
            wanted[small.id] = False
    letters = await take_all(broker.url, queue)
    found = {
        each.properties.correlation_id: each.properties.content_encoding == "gzip"
        for each in letters
    }
    assert found == wanted
    for letter in letters:
        if found[letter.properties.correlation_id]:
            assert len(letter.body) < 500
            assert b"x" * 5000 in gzip.decompress(letter.body)


@pytest.mark.parametrize("compression", [True, False])
async def test_the_next_attempts_are_packed_as_the_first_was(
    broker: Broker, queue: str, compression: bool
) -> None:
    sender = App(broker.url, queue=queue)
    async with sender:
        asked = sender.ref("fail").options(compression=compression)
        await asked.enqueue("x" * 5000)
    app = App(broker.url, queue=queue, compression=not compression, retry_backoff=0)

    @app.task(max_retries=2)
    async def fail(text: str) -> None:
        raise OSError(len(text))

    async with running(app) as worker:
        await until(lambda: worker.stats.dead_lettered == 1)
    (letter,) = await take_all(broker.url, f"{queue}_dlq")  # its bytes unchanged
    assert letter.headers["x-rmqarq-attempts"] == 3
    assert letter.properties.content_encoding == ("gzip" if compression else None)
    assert (len(letter.body) < 500) is compression


async def test_ten_thousand_concurrent_enqueues_are_stored_once_each(
    broker: Broker, queue: str
) -> None:
    async with App(broker.url, queue=queue) as app:
        task = app.task(note)
        began = time.monotonic()
        jobs = await asyncio.gather(*(task.enqueue(n) for n in range(10_000)))
        took = time.monotonic() - began
    assert took < 20
    assert len({job.id for job in jobs}) == 10_000
    await wait_for_count(broker.url, queue, ready=10_000)


async def test_cancelled_enqueues_harm_no_other(broker: Broker, queue: str) -> None:
    async with App(broker.url, queue=queue) as app:
        task = app.task(note)
        sending = [asyncio.create_task(task.enqueue(n)) for n in range(1000)]
        for each in sending[::2]:
            each.cancel()
        await asyncio.sleep(0)
        for each in sending[1::4]:
            each.cancel()
        done = await asyncio.gather(*sending, return_exceptions=True)
        kept = [each for each in done if not isinstance(each, BaseException)]
        assert {type(each) for each in done if each not in kept} == {
            asyncio.CancelledError
        }
        last = await task.enqueue(-1)
    found = await take_all(broker.url, queue)
    ids = [letter.properties.correlation_id for letter in found]
    assert len(ids) == len(set(ids))
    assert {job.id for job in (*kept, last)} <= set(ids)


async def test_an_enqueue_through_a_link_that_is_cut_all_the_time_is_not_lost(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    async with App(proxy.url(broker), queue=queue) as app:
        task = app.task(note)
        await task.enqueue(0)
        ids: set[str] = set()

        async def produce() -> None:
            while proxy.cuts < 10:
                ids.add((await task.enqueue(1)).id)

        async with asyncio.timeout(30), asyncio.TaskGroup() as producers:
            for _ in range(10):
                producers.create_task(produce())
            while proxy.cuts < 10:
                before = len(ids)
                await until(lambda before=before: len(ids) > before + 20)
                proxy.cut()
    found = await take_all(broker.url, queue)
    assert ids <= {letter.properties.correlation_id for letter in found}
    # what was under way at a cut may have been stored, and is sent again; one each
    assert len(found) <= 1 + len(ids) + 10 * proxy.cuts


PRODUCER = """
import asyncio, os, sys
from rmqarq import App

app = App(sys.argv[1], queue=sys.argv[2])

@app.task
async def note(number: int) -> None: ...


async def text(value: str) -> None: ...
"""
PROGRAMS = {
    "without async with": """
async def main():
    await note.enqueue(1)
asyncio.run(main())
""",
    "in two event loops": """
async def main(number):
    await asyncio.gather(*(note.enqueue(number) for _ in range(5)))
asyncio.run(main(1))
asyncio.run(main(2))
""",
    "in two event loops with async with": """
async def main(number):
    async with app:
        await note.enqueue(number)
asyncio.run(main(1))
asyncio.run(main(2))
""",
    "before and after a fork": """
async def main(number):
    return (await note.enqueue(number)).id
first = asyncio.run(main(1))
child = os.fork()
second = asyncio.run(main(2))
if child == 0:
    print(second, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
third = asyncio.run(main(3))
print(first, second, third)
""",
    "in a fork while connected": """
async def child():
    await note.enqueue(2)
    await app.close()
async def main():
    async with app:
        await note.enqueue(1)
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.run(child())
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        await note.enqueue(3)
asyncio.run(main())
""",
}
STORED = {
    "without async with": 1,
    "in two event loops": 10,
    "in two event loops with async with": 2,
    "before and after a fork": 4,
    "in a fork while connected": 3,
}


@pytest.mark.parametrize("how", PROGRAMS)
async def test_a_producer_works_and_leaves_no_warning(
    broker: Broker, queue: str, tmp_path: Path, how: str
) -> None:
    program = tmp_path / "producer.py"
    program.write_text(PRODUCER + PROGRAMS[how])
    command = [sys.executable, "-X", "dev", "-W", "error", str(program)]
    done = await to_thread.run_sync(
        lambda: subprocess.run(
            [*command, broker.url, queue],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    )
    assert done.returncode == 0, done.stderr
    # asyncio's debug mode also complains of slow steps, which a busy machine has
    lines = done.stderr.splitlines()
    assert not [line for line in lines if not line.startswith("Executing <")]
    found = await take_all(broker.url, queue)
    ids = {letter.properties.correlation_id for letter in found}
    assert len(ids) == len(found) == STORED[how]


async def test_a_stopped_producer_closes_its_connections(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    task = app.task(note)
    async with app:
        await task.enqueue(1)
        async with app:  # a nested use does not close the outer one
            await task.enqueue(2)
        await task.enqueue(3)
        before = await to_thread.run_sync(count_connections, broker)
    await task.enqueue(4)  # opens it anew
    await app.close()
    await until_fewer(broker, before)
    await wait_for_count(broker.url, queue, ready=4)


def count_connections(broker: Broker) -> int:
    mine = f":{os.getpid()}"
    return sum(each.properties.count(mine) for each in broker.connections())


async def until_fewer(broker: Broker, count: int) -> None:
    async with asyncio.timeout(10):
        while True:
            if await to_thread.run_sync(count_connections, broker) < count:
                return


async def test_a_setting_that_can_not_be_is_refused_when_the_app_is_made() -> None:
    for url in (
        "http://localhost/",
        "amqp://h/?heartbeat=0",
        "amqp://a:marker-word@:x",
    ):
        with pytest.raises(ConfigurationError) as caught:
            App(url)
        assert "marker-word" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="queue name"):
        App(queue="amq.mine")


async def test_who_waits_for_room_comes_in_the_order_of_the_calls(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    # a batch needs much room at once: singles that slipped past would starve it
    async with App(proxy.url(broker), queue=queue) as app:
        task = app.task(note)
        await task.enqueue(0)
        proxy.pause("down")  # no confirm comes any more
        numbers = itertools.count(1)
        calls: list[asyncio.Task[Any]] = []

        async def begin(call: Coroutine[Any, Any, Any]) -> None:
            calls.append(asyncio.create_task(call))
            await asyncio.sleep(0)

        for size in (500, 200, 400, 400):  # 1 000 may be unconfirmed
            await begin(
                app.enqueue_many([task.job(next(numbers)) for _ in range(size)])
            )
            for _ in range(20):
                await begin(task.enqueue(next(numbers)))
        await asyncio.sleep(0.2)
        assert not any(call.done() for call in calls)
        proxy.resume()
        await asyncio.gather(*calls)
    came = [
        json.loads(each.body)["args"][0] for each in await take_all(broker.url, queue)
    ]
    assert came == [*range(next(numbers))]
