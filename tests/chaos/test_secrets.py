"""No fault makes anybody write a password or a body: not a log, not an error.

Each test runs a worker with everything logged that can be, lets things go wrong, and
looks through all that was written for the marked password and the marked body.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from anyio import to_thread

from rmqarq import App, ConfigurationError, RmqarqError, Settings
from tests.broker.kit import until, wait_for_count
from tests.broker.raw import properties, raw_publisher
from tests.chaos.apps.quiet_app import make
from tests.chaos.quiet import quiet_worker, runs
from tests.chaos.secrets import (
    BODY,
    PASSWORD,
    USER,
    found_in,
    look,
    url_with_password,
    written,
)
from tests.harness import admin
from tests.harness.broker import Broker, descendants, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.kit import Node
    from tests.harness.proxy import Proxy
    from tests.harness.worker import WorkerProcess

DEBUG = ("-l", "debug")


@pytest.fixture(scope="module")
def marked(broker: Broker) -> Iterator[Broker]:
    """The shared broker with a user that has the marked password."""
    admin.add_user(broker, USER, PASSWORD)
    yield broker
    admin.delete_user(broker, USER)


async def ends(worker: WorkerProcess, *codes: int) -> None:
    code = await to_thread.run_sync(worker.wait, 15)
    assert code in codes, worker.output


async def says(worker: WorkerProcess, text: str) -> None:
    await to_thread.run_sync(worker.wait_for, text, 10)


def test_the_check_finds_what_it_looks_for() -> None:
    for text in (
        f"amqp://{USER}:{PASSWORD}@host/",
        f"b'{BODY}'",
        PASSWORD.encode().hex(),
        repr(msgspec.json.encode({"args": [BODY]})),
        f"a line\nand {PASSWORD[:8]} cut",
    ):
        assert len(found_in(text)) == 1, text
        with pytest.raises(AssertionError):
            look("nothing here", text)
    look("amqp://marked:***@host/", "")
    assert found_in(written(ValueError(PASSWORD)))


async def test_a_worker_that_goes_through_one_fault_after_another_tells_nothing(
    marked: Broker, node: Node, proxy: Proxy
) -> None:
    url = url_with_password(proxy.url(marked))
    direct = url_with_password(marked.url)
    settings = {"unknown_task_wait": "0", "cancel_grace": "0.3", "heartbeat": "1"}
    with quiet_worker(node, *DEBUG, url=url, **settings) as worker:
        await says(worker, "worker started")
        await wait_for_count(marked.url, node.queue, consumers=1)
        async with make(direct, queue=node.queue) as app:
            for task in ("plain", "failing", "rejecting", "returning"):
                await app.tasks[task].enqueue(BODY)
            await app.ref("nowhere").enqueue(BODY)
            await app.tasks["stubborn"].enqueue(BODY, 1.0)
            await app.tasks["lasting"].enqueue(BODY, 1.0)
        await feed_poison(marked, node.queue)
        await until(lambda: "l" in runs(node))
        proxy.cut()  # in the middle of jobs
        await says(worker, "connected again")
        await until(lambda: "L" in runs(node))
        await until(lambda: "ignores its cancellation" in worker.output)
        await until(lambda: worker.output.count("undecodable") >= len(POISON))
        proxy.garbage(100)
        await wait_for_count(marked.url, node.queue, ready=0)
        await says(worker, "retries used up")
        worker.terminate()
        await ends(worker, 0)
    assert proxy.cuts >= 2
    for proof in ("runs again", "rejected", "unknown task", "retries used up"):
        assert proof in worker.output, worker.output
    assert worker.output.count("undecodable") >= len(POISON)
    assert "DEBUG" in worker.output
    look(worker.output)


def command_lines(pids: list[int]) -> list[str]:
    """Read those of the processes that are still there."""
    found: list[str] = []
    for pid in pids:
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
    return [each for each in found if "isolated" in each]


async def test_a_job_that_kills_its_isolated_process_tells_nothing(
    marked: Broker, node: Node
) -> None:
    lane, url = f"{node.queue}.suspect", url_with_password(marked.url)
    body = json.dumps({"args": [BODY]}).encode()
    with quiet_worker(node, *DEBUG, url=url) as worker:
        await wait_for_count(marked.url, node.queue, consumers=1)
        async with raw_publisher(marked) as publisher:
            for task in ("plain", "failing", "rejecting", "lasting", "deadly"):
                await publisher.publish(lane, properties(type=task.encode()), body)
        commands: list[str] = []

        def in_isolation() -> bool:
            commands.extend(command_lines(descendants(worker.pid)))
            return bool(commands)

        await until(in_isolation)
        await says(worker, "killed by SIGKILL")
        await says(worker, "crashed")
        worker.terminate()
        await ends(worker, 0)
    assert runs(node).count("d") >= 2  # a crash is proven twice
    look(worker.output, *commands)


POISON: list[tuple[dict[str, bytes], bytes]] = [
    ({}, BODY.encode()),
    ({}, b'{"args":["' + BODY.encode()),
    ({"type": b"plain"}, json.dumps({"args": [BODY, BODY]}).encode()),
    ({"type": b"plain"}, json.dumps({"args": [{BODY: BODY}]}).encode()),
    ({"type": b"done"}, json.dumps({"args": [BODY]}).encode()),
    ({"type": b"done"}, json.dumps({"args": [1], "try": BODY}).encode()),
    ({"type": b"done"}, json.dumps({"args": [1], "v": BODY}).encode()),
    ({"type": b"plain"}, b'{"args":["' + BODY.encode() + b'\xff"]}'),
    ({"type": b"shaped"}, json.dumps({"args": [{"name": [BODY]}]}).encode()),
    ({"type": b"plain", "content_encoding": b"gzip"}, BODY.encode()),
    ({"type": b"plain", "content_type": b"application/msgpack"}, BODY.encode()),
]


async def feed_poison(broker: Broker, queue: str) -> None:
    """Publish what can't be decoded."""
    async with raw_publisher(broker) as publisher:
        for given, body in POISON:
            await publisher.publish(queue, properties(**given), body)


@pytest.mark.parametrize(
    ("task", "argument"),
    [
        ("coloured", BODY),
        ("shaped", {"name": "x", BODY: 1}),
        ("greeting", {"name": 1, "age": BODY}),
        ("greeting", {"name": "x", "age": BODY}),
        ("plain", {"kwargs": BODY}),
    ],
    ids=["enum", "unknown field", "pydantic", "pydantic number", "text"],
)
async def test_an_argument_that_does_not_fit_is_not_quoted(
    task: str, argument: object
) -> None:
    """What a worker logs of a dead letter is the text of this error."""
    app = make()
    signature = app.tasks[task].signature
    assert signature is not None
    raw = msgspec.Raw(msgspec.json.encode([argument]))
    with pytest.raises(RmqarqError) as caught:
        signature.decode("json", raw, msgspec.Raw())
    look(str(caught.value))


# --- a broker that does not want us, or is not there ---


async def test_a_wrong_password_is_not_shown(marked: Broker, node: Node) -> None:
    wrong = marked.url.replace("guest:guest", f"guest:{PASSWORD}")
    with quiet_worker(node, *DEBUG, url=wrong) as worker:
        await ends(worker, 3)
    assert "refuses us" in worker.output
    look(worker.output)


async def test_a_missing_virtual_host_shows_no_password(
    marked: Broker, node: Node
) -> None:
    with quiet_worker(node, *DEBUG, url=url_with_password(marked.url) + "no") as worker:
        await ends(worker, 3)
    look(worker.output)


async def test_a_user_without_permissions_is_told_so_without_its_password(
    marked: Broker, node: Node
) -> None:
    admin.set_permissions(marked, USER, "^$", "^$", "^$")
    try:
        with quiet_worker(node, *DEBUG, url=url_with_password(marked.url)) as worker:
            await ends(worker, 3)
    finally:
        admin.set_permissions(marked, USER)
    look(worker.output)


async def test_tls_to_a_plain_port_shows_no_password(
    marked: Broker, node: Node
) -> None:
    url = url_with_password(marked.url).replace("amqp:", "amqps:")
    with quiet_worker(node, *DEBUG, url=url) as worker:
        await ends(worker, 3)
    look(worker.output)


async def test_a_broker_that_is_gone_is_named_without_the_password(node: Node) -> None:
    (port,) = free_ports(1)
    url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/"
    flags = (*DEBUG, "--burst")
    with quiet_worker(node, *flags, url=url, publish_deadline="0.5") as worker:
        await ends(worker, 4)
    assert f"{USER}:***@" in worker.output
    look(worker.output)


@pytest.mark.parametrize(
    "url",
    [
        f"amqp//{USER}:{PASSWORD}@host/",
        f"http://{USER}:{PASSWORD}@host/",
        f"amqp://{USER}:{PASSWORD}@host:port/",
        f"amqp://{USER}:{PASSWORD}@host/a/b",
        f"amqp://{USER}:{PASSWORD}@host/?password={PASSWORD}",
        f"amqp://{USER}:{PASSWORD}",
        f"{USER}:{PASSWORD}@host",
        f"amqp://ok@host/,amqp://{USER}:{PASSWORD}@",
        f"amqp://{USER}:{PASSWORD}#@host/",
    ],
)
async def test_a_url_that_can_not_be_read_is_shown_without_its_password(
    node: Node, url: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with App(url):
            pass
    look(written(caught.value), repr(Settings(url=url)))


async def test_a_worker_with_such_a_url_ends_with_3_and_shows_nothing(
    node: Node,
) -> None:
    url = f"amqp://{USER}:{PASSWORD}@host:port/"
    with quiet_worker(node, *DEBUG, url=url) as worker:
        await ends(worker, 3)
    look(worker.output)


# --- in the program that enqueues ---


async def test_an_enqueue_that_fails_shows_neither_body_nor_password(
    marked: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    said: list[str] = []
    (port,) = free_ports(1)
    gone = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/"
    for url, settings in (
        (gone, {}),
        (url_with_password(marked.url), {"declare": "passive"}),
        (url_with_password(marked.url), {"max_body": 10}),
    ):
        app = make(url, queue=queue, publish_deadline=0.5, **settings)
        with pytest.raises(RmqarqError) as caught:
            async with app:
                await app.tasks["plain"].enqueue(BODY)
        said += [written(caught.value), repr(app), repr(app.settings)]
    look(caplog.text, *said)


async def test_what_stands_for_a_job_or_an_app_shows_no_password() -> None:
    app = make(f"amqp://{USER}:{PASSWORD}@host/")
    look(repr(app), str(app), repr(app.settings), repr(app.tasks), repr(app.transport))
    assert PASSWORD in str(app.settings.url)  # it is there, though
