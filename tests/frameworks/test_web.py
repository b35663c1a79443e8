"""Web frameworks: what a request enqueues is run, and the server's end is in order."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from rmqarq import AccessRefused, App, ConnectionFailed
from tests.broker.kit import declared, until
from tests.docs.programs import end
from tests.frameworks.server import APPS, ASGI, WSGI, Server, spawn
from tests.harness import admin

if TYPE_CHECKING:
    import logging

    from tests.harness.broker import Broker
    from tests.harness.proxy import Proxy

# six servers start together, which takes its time on a busy machine
pytestmark = pytest.mark.timeout(180)

KINDS = {
    "web_fastapi": ASGI,
    "web_starlette": ASGI,
    "web_litestar": ASGI,
    "web_worker": ASGI,
    "web_django": WSGI,
    "web_flask": WSGI,
}
REQUESTS = {
    "web_fastapi": ["/users/7", "/users/8/reminders"],
    "web_starlette": ["/orders/tea"],
    "web_litestar": ["/orders/cake"],
    "web_worker": ["/pictures/cat"],
    "web_django": ["/orders/5", "/orders/6?fail"],
    "web_flask": ["/users/9"],
}


class Story(NamedTuple):
    """What happened to a server, and what it answered."""

    answers: list[tuple[int, Any]]
    connections: list[str]
    left: list[str]
    code: int
    output: str


def connections(broker: Broker) -> dict[int, list[str]]:
    """The roles of our connections by the process that made them."""
    listed = " ".join(each.properties for each in broker.connections())
    found: dict[int, list[str]] = {}
    for role, pid in re.findall(r"rmqarq:(\w+):[\w.-]+:(\d+)", listed):
        found.setdefault(int(pid), []).append(role)
    return {pid: sorted(set(roles)) for pid, roles in found.items()}


@pytest.fixture(scope="module")
def told(broker: Broker) -> dict[str, Story]:
    """All servers, started together, asked, looked at, stopped, and looked for."""
    servers = {name: Server(broker.url, name, kind) for name, kind in KINDS.items()}
    try:
        answers = {
            name: [server.ask(path, "POST") for path in REQUESTS[name]]
            for name, server in servers.items()
            if name != "web_django"
        }
        answers["web_django"] = [
            servers["web_django"].ask(path, "GET") for path in REQUESTS["web_django"]
        ]
        answers["web_worker"].append(servers["web_worker"].ask("/health", "GET"))
        servers["web_worker"].wait_for("resized cat")
        during = connections(broker)
        servers["web_worker"].ask("/pictures/dog")
        servers["web_worker"].wait_for("resize dog")
        order = sorted(servers, key=lambda name: name != "web_worker")
        codes = {name: servers[name].stop() for name in order}
        after = connections(broker)
    finally:
        for server in servers.values():
            server.__exit__(None, None, None)
    return {
        name: Story(
            answers[name],
            during.get(server.process.pid, []),
            after.get(server.process.pid, []),
            codes[name],
            server.output,
        )
        for name, server in servers.items()
    }


@pytest.fixture(scope="module")
def printed(broker: Broker, told: dict[str, Story]) -> str:
    """What real workers print that run what the servers have enqueued."""
    assert told
    modules = [name for name in KINDS if name != "web_worker"]
    return end(spawn(broker.url, str(APPS / "workers.py"), *modules))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("web_fastapi", ["mail to 7: welcome", "mail to 8: reminder"]),
        ("web_starlette", ["mail: tea", "tea has 3 letters"]),
        ("web_litestar", ["mail: cake", "cake has 4 letters"]),
        ("web_django", ["mail for order 5"]),
        ("web_flask", ["mail to 9: welcome"]),
    ],
)
def test_what_a_request_enqueues_is_run_by_a_worker(
    name: str, lines: list[str], told: dict[str, Story], printed: str
) -> None:
    assert told[name].answers[0][0] // 100 == 2
    for line in lines:
        assert printed.count(line) == 1, printed  # threads share lines


def test_answers_name_the_jobs(told: dict[str, Story]) -> None:
    job = r"[0-9a-f]{8}-[0-9a-f-]{27}"
    for name in ("web_fastapi", "web_flask"):
        assert all(re.fullmatch(job, each["job"]) for _, each in told[name].answers)
    ((_, order),) = told["web_starlette"].answers
    assert order["shop"] == "corner"  # the state of the user's own lifespan
    ((_, jobs),) = told["web_litestar"].answers
    assert len({*jobs, *order["jobs"]}) == 4


def test_a_lifespan_of_ones_own_is_entered_and_left(told: dict[str, Story]) -> None:
    output = told["web_starlette"].output
    assert output.index("open the shop") < output.index("close the shop")


def test_a_transaction_that_is_rolled_back_enqueues_nothing(
    told: dict[str, Story], printed: str
) -> None:
    assert [status for status, _ in told["web_django"].answers] == [200, 500]
    assert "mail for order 6" not in printed


@pytest.mark.parametrize("name", KINDS)
def test_a_server_that_ends_leaves_no_connection(
    name: str, broker: Broker, told: dict[str, Story]
) -> None:
    story = told[name]
    worker = name == "web_worker"
    assert story.connections == (["consume", "publish"] if worker else ["publish"])
    assert story.left == []
    assert story.code == (0 if KINDS[name] is WSGI else -15), story.output
    for word in ("Task was destroyed", "never retrieved", "never awaited"):
        assert word not in story.output


def test_a_worker_in_the_web_process_ends_its_jobs_before_it_closes(
    told: dict[str, Story],
) -> None:
    story = told["web_worker"]
    assert story.answers[1] == (200, True)
    places = [
        story.output.index(word)
        for word in ("resize dog", "Shutting down", "resized dog", "2 completed")
    ]
    assert places == sorted(places)
    assert story.output.count("resized dog") == 1


def nobody() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"amqp://127.0.0.1:{unused.getsockname()[1]}"


def test_without_a_broker_the_start_fails_or_goes_on_as_was_asked() -> None:
    url, short = nobody(), {"publish_deadline": "0.5", "connect_timeout": "0.5"}
    with (
        Server(url, "web_fastapi", **short) as needing,
        Server(url, "web_litestar", **short) as going_on,
    ):
        assert needing.wait() == 3
        assert "ConnectionFailed: no broker could be reached in time" in needing.output
        assert "Application startup failed" in needing.output
        assert going_on.ask("/orders/tea")[0] == 500
        assert going_on.stop() == -15
        assert going_on.output.count("starting without") == 2


async def test_one_that_started_without_a_broker_finds_it_later(
    broker: Broker, queue: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refuse()
    app = App(proxy.url(broker), queue=queue, connect_timeout=0.3)
    async with app.connected(required=False):
        warnings: list[logging.LogRecord] = [
            each for each in caplog.records if "starting without" in each.getMessage()
        ]
        assert len(warnings) == 1
        proxy.accept()
        await app.ref("f").enqueue()
    assert await declared(broker.url, queue) == (1, 0)
    await until(lambda: not proxy.links)


async def test_a_start_that_the_broker_refuses_fails_in_any_case(
    broker: Broker,
) -> None:
    app = App(admin.url_for(broker, password="wrong"))
    for required in (True, False):
        with pytest.raises(AccessRefused):
            async with app.connected(required=required):
                pass


async def test_connections_last_until_the_last_of_those_who_hold_them_leaves(
    broker: Broker, queue: str, proxy: Proxy
) -> None:
    app = App(proxy.url(broker), queue=queue)
    async with app.connected("the web application"):
        async with app.connected(), app:
            await app.ref("f").enqueue()
        await app.ref("f").enqueue()
        assert (len(proxy.links), proxy.connections) == (1, 1)
    await until(lambda: not proxy.links)


async def test_a_lifespan_whose_program_fails_closes_all_the_same(
    broker: Broker, proxy: Proxy
) -> None:
    app = App(proxy.url(broker))
    manager = app.connected()
    await manager.__aenter__()
    assert len(proxy.links) == 1
    error = OSError("the program's own")
    assert not await manager.__aexit__(OSError, error, None)
    await until(lambda: not proxy.links)


async def test_no_broker_is_an_error_after_the_deadline() -> None:
    with pytest.raises(ConnectionFailed):
        async with App(nobody(), publish_deadline=0.3).connected():
            pass
