"""Many small jobs in few messages: each runs, fails and ends for itself."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest
from anyio import to_thread
from pamqp import commands

from rmqarq import (
    App,
    Context,
    EncodeError,
    Middleware,
    PartlyMapped,
    QueueFull,
    Worker,
)
from tests.broker.apps.ledger_app import make
from tests.broker.fleet import run_the_rest, wait
from tests.broker.kit import (
    channel_to,
    dead_letters,
    running,
    take_all,
    until,
    wait_for_count,
)
from tests.broker.test_enqueue import fill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rmqarq import Stats, Task
    from rmqarq.message import Message
    from tests.broker.kit import Node
    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy


async def add_up(app: App, rows: list[int], **options: int) -> tuple[Stats, list[int]]:
    """Map rows and run them, in order."""
    seen: list[int] = []

    @app.task
    async def row(number: int) -> None:
        seen.append(number)

    async with running(app) as worker:
        assert await row.map(rows, **options) == len(rows)
        await until(lambda: worker.stats.completed == len(rows), what="all rows")
    return worker.stats, seen


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
async def test_rows_run_in_order_and_once(
    broker: Broker, queue: str, serializer: Literal["json", "msgpack"]
) -> None:
    app = App(broker.url, queue=queue, serializer=serializer)
    stats, seen = await add_up(app, [*range(5_000)], chunk=70)
    assert seen == [*range(5_000)]
    assert (stats.completed, stats.returned, stats.duplicates) == (5_000, 0, 0)
    await wait_for_count(broker.url, queue, ready=0)


async def test_so_many_rows_make_so_many_messages(broker: Broker, queue: str) -> None:
    app = App(broker.url, queue=queue, compression=True, compression_threshold=64)

    async def row(number: int, word: str) -> None: ...

    task = app.task(row)
    async with app:
        assert await task.starmap([], chunk=9) == 0
        words = ((number, "word") for number in range(25))
        assert await task.options(headers={"by": "hand"}).starmap(words, chunk=10) == 25
    letters = await take_all(broker.url, queue)
    bodies = [json.loads(gzip.decompress(each.body)) for each in letters]
    assert [len(each["rows"]) for each in bodies] == [10, 10, 5]
    assert bodies[2]["rows"][4] == [24, "word"]
    assert {each["headers"]["by"] for each in bodies} == {"hand"}
    assert len({each["id"] for each in bodies}) == 3


async def test_each_row_has_its_own_attempts_and_its_own_dead_letter(
    node: Node, prefix: str
) -> None:
    # other tests leave delayed jobs under the usual prefix, which would be waited for
    async with make(node.broker.url, queue=node.queue, prefix=prefix) as app:
        assert await app.tasks["flaky"].map(range(20), chunk=8) == 20
        assert await app.tasks["broken"].map(range(5), chunk=5) == 5
        assert await app.tasks["done"].map(range(10), chunk=5, defer=0.5) == 10
    with node.worker("--burst", "--wait-delayed", prefix=prefix) as worker:
        assert await wait(worker) == 0, worker.output
    tries = node.ledger.tries()
    by_kind = Counter((row.kind, len(tries[row.job_id])) for row in node.ledger.rows())
    assert by_kind == {("flaky", 2): 40, ("broken", 2): 10, ("done", 1): 10}
    letters = await dead_letters(node.broker.url, node.queue, 5)
    assert {each.headers["x-rmqarq-reason"] for each in letters} == {"retries used up"}
    assert {each.headers["x-rmqarq-attempts"] for each in letters} == {2}
    assert sorted(json.loads(each.body)["args"] for each in letters) == [
        [number] for number in range(5)
    ]
    ids = {each.properties.correlation_id for each in letters}
    assert ids == {row.job_id for row in node.ledger.rows("broken")}
    assert len({each.partition(":")[0] for each in ids}) == 1


async def test_a_row_that_does_not_fit_in_the_worker_is_dead_alone(
    broker: Broker, queue: str
) -> None:
    elsewhere = App(broker.url, queue=queue)
    async with elsewhere:
        assert await elsewhere.ref("row").map([1, "two", 3], chunk=3) == 3
    app = App(broker.url, queue=queue, burst=True)
    seen: list[int] = []

    @app.task
    async def row(number: int) -> None:
        seen.append(number)

    async with running(app) as worker:
        await until(lambda: worker.stats.dead_lettered == 1)
    assert seen == [1, 3]
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "undecodable"
    assert json.loads(letter.body)["args"] == ["two"]


async def test_rows_wait_for_slots_as_other_jobs_do(broker: Broker, queue: str) -> None:
    app = App(broker.url, queue=queue, concurrency=3)
    now, most = 0, 0

    @app.task
    async def row(number: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with running(app) as worker:
        await row.map(range(60), chunk=20)
        await until(lambda: worker.stats.completed == 60)
    assert most == 3


async def test_a_row_that_takes_too_long_is_cancelled_alone(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, max_retries=0)

    @app.task(timeout=0.3)
    async def row(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async with running(app) as worker:
        await row.map([0.0, 30.0, 0.1], chunk=3)
        await until(lambda: worker.stats.dead_lettered == 1)
        await until(lambda: worker.stats.completed == 2)
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-error"] == "TimeoutError"
    assert json.loads(letter.body)["args"] == [30.0]


async def test_what_is_expired_is_dead_row_by_row(broker: Broker, queue: str) -> None:
    app = App(broker.url, queue=queue)

    @app.task
    async def row(number: int) -> None: ...

    async with app:
        await row.options(expires=0.05).map(range(3))
        await asyncio.sleep(0.2)
    async with running(app) as worker:
        await until(lambda: worker.stats.dead_lettered == 3)
    letters = await dead_letters(broker.url, queue, 3)
    assert {each.headers["x-rmqarq-reason"] for each in letters} == {"expired"}
    assert {each.headers["x-rmqarq-attempts"] for each in letters} == {0}


async def test_a_chunk_of_an_unknown_task_waits_as_one(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, unknown_task_wait=2)
    async with running(app) as worker:
        await app.ref("later").map(range(4))
        await until(lambda: worker.stats.deferred == 1)
        await until(lambda: worker.stats.dead_lettered == 4)
    letters = await dead_letters(broker.url, queue, 4)
    assert {each.headers["x-rmqarq-reason"] for each in letters} == {"unknown task"}


async def test_max_jobs_ends_between_two_rows_and_leaves_the_others(
    node: Node,
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        await app.tasks["done"].map(range(50), chunk=50)
    with node.worker("--max-jobs", "20") as worker:
        assert await wait(worker) == 0, worker.output
    assert node.ledger.count("done") == 20
    await wait_for_count(node.broker.url, node.queue, ready=1)
    await run_the_rest(node)
    assert_each_once(node, "done", 50)


async def test_sigterm_lets_running_rows_end_and_the_others_go_on_elsewhere(
    node: Node,
) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        await app.tasks["slow"].map([0.4] * 300, chunk=100)
    with node.worker("-c", "40") as worker:
        await until(lambda: node.ledger.count("slow") >= 60)
        worker.terminate()
        assert await wait(worker) == 0, worker.output
    done = node.ledger.count("slow-done")
    assert done == node.ledger.count("slow") < 300
    await run_the_rest(node)
    assert_each_once(node, "slow", 300)
    assert_each_once(node, "slow-done", 300)


async def test_rows_longer_than_the_grace_are_given_back_unspent(node: Node) -> None:
    async with make(node.broker.url, queue=node.queue) as app:
        await app.tasks["slow"].map([0.0, 1.0, 0.0, 1.0], chunk=4)
    with node.worker("--shutdown-grace", "0.1") as worker:
        await until(lambda: node.ledger.count("slow-done") == 2)
        worker.terminate()
        assert await wait(worker) == 0, worker.output
    await run_the_rest(node)
    assert_each_once(node, "slow-done", 4)
    assert node.ledger.count("slow") == 6


async def test_a_killed_worker_repeats_no_more_than_its_open_chunks(
    node: Node,
) -> None:
    chunk, rows = 20, 1_500
    async with make(node.broker.url, queue=node.queue) as app:
        await app.tasks["slow"].map([0.01] * rows, chunk=chunk)
    for _ in range(2):
        seen = node.ledger.count("slow")
        with node.worker("-c", "10", prefetch="10") as worker:
            await until(lambda seen=seen: node.ledger.count("slow") > seen + 300)
            worker.kill()
            await wait(worker)
        await wait_for_count(node.broker.url, node.queue, consumers=0)
    await run_the_rest(node)
    runs = Counter(row.job_id for row in node.ledger.rows("slow-done"))
    assert len(runs) == rows
    repeated = {job for job, count in runs.items() if count > 1}
    # a chunk runs when the one before has no row left to start: two are open at most
    assert len(repeated) <= 2 * 2 * chunk
    assert len({each.partition(":")[0] for each in repeated}) <= 4


async def test_a_lost_link_repeats_no_row_here(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue, concurrency=5)
    row, runs = counted(app)

    async with running(app, url=broker.url) as worker:
        await row.map(range(60), chunk=30)
        for enough in (10, 25):
            await until(lambda enough=enough: len(runs) >= enough)
            proxy.cut()
        await until(lambda: worker.stats.completed == 60)
        await until(lambda: worker.stats.duplicates >= 1)
    assert runs == Counter(range(60))
    await wait_for_count(broker.url, queue, ready=0)


async def test_a_stop_soon_after_a_lost_link_repeats_no_row(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue, concurrency=2)
    row, runs = counted(app)

    async with running(app, url=broker.url) as worker:
        await row.map(range(200), chunk=200)
        await until(lambda: len(runs) >= 10)
        proxy.cut()
        # it finds no slot: its own rows wait for one
        await until(lambda: worker.stats.duplicates == 1)
    assert len(runs) < 200
    rest = App(broker.url, queue=queue, burst=True)
    rest.task(name="row")(row.fn)
    await Worker(rest).run(signals=False)
    assert runs == Counter(range(200))


async def test_a_stop_gives_back_only_the_row_whose_dead_letter_finds_no_room(
    broker: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(
        broker.url, queue=queue, max_retries=0, shutdown_grace=0.1, declare="passive"
    )
    runs: Counter[int] = Counter()

    @app.task
    async def row(number: int) -> None:
        runs[number] += 1
        if number == 3:
            raise OSError

    async with running(App(broker.url, queue=queue)):
        pass  # it makes the queues
    async with channel_to(broker.url) as channel:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.queue_delete(f"{queue}_dlq")
        await channel.queue_declare(f"{queue}_dlq", durable=True, arguments=full)
        await channel.basic_publish(b"", routing_key=f"{queue}_dlq")
    async with running(app) as worker:
        await row.map(range(10))
        await until(lambda: worker.stats.completed == 9)
        await until(lambda: caplog.text.count("a follow-up failed") == 3)
        began = time.monotonic()
    assert time.monotonic() - began < 3  # it would try again after 4 s
    (letter,) = await take_all(broker.url, queue)
    assert json.loads(letter.body)["numbers"] == [3]


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_lost_links_bring_no_row_under_suspicion(
    broker: Broker, proxy: Proxy, queue: str, kind: Literal["quorum", "classic"]
) -> None:
    app = App(proxy.url(broker), queue=queue, concurrency=2, queue_type=kind)
    runs: Counter[tuple[int, bool]] = Counter()

    @app.task
    async def row(ctx: Context, number: int) -> None:
        runs[number, ctx.redelivered] += 1
        await asyncio.sleep(0.1 if number < 60 else 0)

    async with running(app, url=broker.url) as worker:
        await row.map(range(300), chunk=300)
        for times in range(1, 5):
            await until(lambda times=times: len(runs) > 3 * times)
            proxy.cut()
            await until(lambda times=times: worker.stats.duplicates == times)
        assert worker.stats.completed < 60
        await until(lambda: worker.stats.completed == 300)
    assert worker.stats.suspected == 0
    assert runs == Counter((number, False) for number in range(300))
    await wait_for_count(broker.url, queue, ready=0)


async def test_a_link_that_takes_along_the_ack_of_a_scattered_chunk_repeats_no_row(
    broker: Broker, proxy: Proxy, queue: str
) -> None:
    app = App(proxy.url(broker), queue=queue)
    runs: Counter[int] = Counter()

    @app.task
    async def row(number: int) -> None:
        runs[number] += 1

    elsewhere = App(broker.url, queue=queue)
    async with elsewhere:
        await elsewhere.ref("row").map(range(20))
    for _ in range(3):
        async with channel_to(broker.url) as channel:
            got = await channel.basic_get(queue)
            assert isinstance(got.delivery, commands.Basic.GetOk)
            await channel.basic_nack(got.delivery.delivery_tag or 0)
        await wait_for_count(broker.url, queue, ready=1)
    scattered = CutAt("a chunk of", proxy)
    logging.getLogger("rmqarq").addHandler(scattered)
    try:
        async with running(app, url=broker.url, path="") as worker:
            await until(lambda: len(runs) == 20)
            await until(lambda: worker.stats.duplicates >= 1)
            assert worker.stats.suspected == 20
    finally:
        logging.getLogger("rmqarq").removeHandler(scattered)
    assert runs == Counter(range(20))
    await wait_for_count(broker.url, f"{queue}.suspect", ready=0)


class CutAt(logging.Handler):
    """Cuts a network at the first line of the log with these words."""

    def __init__(self, words: str, proxy: Proxy) -> None:
        super().__init__()
        self.words = words
        self.proxy: Proxy | None = proxy

    def emit(self, record: logging.LogRecord) -> None:
        proxy = self.proxy
        if proxy is not None and self.words in record.getMessage():
            self.proxy = None
            proxy.cut()


async def test_a_bad_row_is_named_and_the_chunks_before_it_are_sent(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    @app.task
    async def row(number: int) -> None: ...

    async def rows() -> AsyncIterator[int]:
        for number in range(1000):
            yield number if number != 777 else "x"  # type: ignore[misc]

    async with app:
        with pytest.raises(EncodeError, match=r"^row 777: the argument") as bad:
            await row.map(rows(), chunk=10)
        assert bad.value.row == 777
        await wait_for_count(broker.url, queue, ready=77)
        with pytest.raises(EncodeError, match=r"rows 10 to 19: .*max_body.*smaller"):
            await app.ref("wide").map(["x"] * 10 + ["x" * 200_000] * 10, chunk=10)
        await wait_for_count(broker.url, queue, ready=78)


async def test_an_error_of_what_gives_the_rows_comes_out_as_it_is(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)

    @app.task
    async def row(number: int) -> None: ...

    async def rows() -> AsyncIterator[int]:
        yield 1
        yield 2
        yield 3
        raise LookupError("no more")

    async with app:
        with pytest.raises(LookupError, match="no more"):
            await row.map(rows(), chunk=2)
        await wait_for_count(broker.url, queue, ready=1)


async def test_rows_that_were_not_stored_are_named(broker: Broker, queue: str) -> None:
    async with App(broker.url, queue=queue) as app:

        @app.task
        async def row(number: int) -> None: ...

        async with at_most_ten(broker, queue):
            await fill(row)
            with pytest.raises(PartlyMapped, match="4 of 4 rows for row") as caught:
                await row.map(range(40), chunk=4)
    error = caught.value
    assert error.sent == 4
    assert {type(each) for each in error.failures.values()} == {QueueFull}
    assert set(error.failures) == {range(4)}
    assert isinstance(error.__cause__, QueueFull)


async def test_nothing_more_is_sent_after_rows_that_were_not_stored(
    broker: Broker, queue: str
) -> None:
    taken = 0

    async def rows() -> AsyncIterator[int]:
        nonlocal taken
        for number in range(1_000_000):
            taken += 1
            yield number

    async with App(broker.url, queue=queue) as app:

        @app.task
        async def row(number: int) -> None: ...

        async with at_most_ten(broker, queue):
            await fill(row)
            with pytest.raises(PartlyMapped) as caught:
                await row.map(rows(), chunk=10)
    assert caught.value.sent == 10
    assert taken == 260


async def test_rows_that_come_slowly_do_not_wait_for_each_other(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    seen: list[int] = []

    @app.task
    async def row(number: int) -> None:
        seen.append(number)

    async def rows() -> AsyncIterator[int]:
        for number in range(12):
            yield number
            if number % 4 == 3:
                await until(lambda number=number: number in seen)

    async with running(app):
        assert await row.map(rows(), chunk=4) == 12
    assert seen == [*range(12)]


async def test_a_row_that_is_too_large_alone_is_dead_after_its_run(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, max_body=1000, max_retries=1)
    runs = 0

    @app.task
    async def broken(text: str) -> None:
        nonlocal runs
        runs += 1
        raise OSError(text[:1])

    body = json.dumps({"rows": [["x" * 970]]}).encode()
    named = commands.Basic.Properties(message_type="broken", message_id="a" * 36)
    async with running(app) as worker:
        async with channel_to(broker.url) as channel:
            await channel.basic_publish(body, routing_key=queue, properties=named)
        await until(lambda: worker.stats.dead_lettered == 1)
    assert (runs, worker.stats.returned) == (1, 0)
    (letter,) = await dead_letters(broker.url, queue, 1)
    assert letter.headers["x-rmqarq-reason"] == "too large"
    assert json.loads(letter.body)["args"] == ["x" * 970]


class Sieve(Middleware):
    """Lets even rows pass."""

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        rows = [row for row in message.rows if row[0] % 2 == 0]
        await call_next(msgspec.structs.replace(message, rows=rows))


async def test_middleware_may_take_rows_out_of_a_chunk_even_all(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, middleware=[Sieve()])
    seen: list[int] = []

    @app.task
    async def row(number: int = -1) -> None:
        seen.append(number)

    async with running(app):
        await row.map([1, 2, 3, 5, 4, 6, 7], chunk=2)
        await until(lambda: len(seen) == 3)
        await wait_for_count(broker.url, queue, ready=0)
    assert sorted(seen) == [2, 4, 6]


async def test_a_row_in_context_is_a_job_like_any_other(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    seen: list[tuple[str, int, str, dict[str, str]]] = []

    async def row(ctx: Context, number: int) -> None:
        seen.append((ctx.job_id, ctx.job_try, ctx.task, dict(ctx.headers)))

    task: Task[[int], None] = app.task(row)
    async with running(app):
        await task.options(headers={"a": "b"}).map(range(3))
        await until(lambda: len(seen) == 3)
    chunk = seen[0][0].partition(":")[0]
    assert seen == [(f"{chunk}:{at}", 1, "row", {"a": "b"}) for at in range(3)]


def counted(app: App) -> tuple[Task[[int], None], Counter[int]]:
    """Register a task that takes a moment, and counts the runs of each row."""
    runs: Counter[int] = Counter()

    @app.task
    async def row(number: int) -> None:
        runs[number] += 1
        await asyncio.sleep(0.05)

    return row, runs


def assert_each_once(node: Node, kind: str, count: int) -> None:
    rows = node.ledger.rows(kind)
    assert len(rows) == len({row.job_id for row in rows}) == count
    assert {row.job_try for row in rows} == {1}


@asynccontextmanager
async def at_most_ten(broker: Broker, queue: str) -> AsyncIterator[None]:
    """Let the queue refuse more than ten messages."""
    policy = ("--apply-to", "queues", queue, f"^{queue}$", '{"max-length": 10}')
    await to_thread.run_sync(lambda: broker.ctl("set_policy", *policy))
    try:
        yield
    finally:
        await to_thread.run_sync(broker.ctl, "clear_policy", queue)
