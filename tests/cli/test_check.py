"""`rmqarq check`: the exit code of a probe, and one sentence on what is wrong."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from rmqarq import App, Unhealthy, probe
from tests.broker.kit import declared, running
from tests.cli.kit import module, rmqarq, said
from tests.harness.broker import HOST, free_ports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.harness.broker import Broker

connect = socket.create_connection

MODULE = """
from rmqarq import App
app = App({url!r}, queue={queue!r}{more})

@app.task
async def work(number: int) -> None: ...
"""


def place(directory: Path, url: str, queue: str, more: str = "") -> Path:
    """Write an App as a module that commands can load."""
    text = MODULE.format(url=url, queue=queue, more=more)
    return module(directory, "jobs", text)


@pytest.fixture
def queue() -> str:
    return f"check-{secrets.token_hex(4)}"


@pytest.fixture
async def worker(broker: Broker, queue: str) -> AsyncIterator[int]:
    """A worker in this process; gives its health port."""
    (port,) = free_ports(1)
    app = App(broker.url, queue=queue, health_port=port)

    @app.task(name="work")
    async def work(number: int) -> None: ...

    async with running(app):
        yield port


async def check(*args: str, cwd: Path, **env: str) -> tuple[int, str]:
    done = await to_thread.run_sync(lambda: rmqarq("check", *args, cwd=cwd, **env))
    return done.returncode, said(done)


async def test_a_worker_with_a_health_port_is_asked_itself(
    worker: int, queue: str, tmp_path: Path
) -> None:
    dead = "amqp://127.0.0.1:1/"  # nobody asks the broker
    cwd = place(tmp_path, dead, queue, f", health_port={worker}")
    assert await check("jobs:app", cwd=cwd) == (0, "ok")
    # no App has to be loaded for that
    assert await check("--health-port", str(worker), cwd=tmp_path) == (0, "ok")
    given = {"RMQARQ_HEALTH_PORT": str(worker)}
    assert await check("--live", cwd=tmp_path, **given) == (0, "ok")
    # a worker of several processes has a port for each
    code, text = await check("--processes", "2", cwd=tmp_path, **given)
    assert code == 1
    assert f"127.0.0.1:{worker + 1}" in text


async def test_without_a_health_port_the_broker_is_asked_for_consumers(
    broker: Broker, worker: int, queue: str, tmp_path: Path
) -> None:
    cwd = place(tmp_path, broker.url, queue)
    assert await check("jobs:app", cwd=cwd) == (0, "ok")
    code, text = await check("jobs:app", "-q", f"{queue}-2", "-q", queue, cwd=cwd)
    assert (code, text) == (1, f"rmqarq: no worker consumes {queue}-2")
    assert await declared(broker.url, f"{queue}-2") == (None, None)


def test_a_broker_that_is_not_there_is_a_failure_with_its_address(
    tmp_path: Path, queue: str
) -> None:
    cwd = place(tmp_path, "amqp://127.0.0.1:1/", queue)
    done = rmqarq("check", "jobs:app", cwd=cwd)
    assert done.returncode == 1
    assert "the broker does not answer" in said(done)
    assert "127.0.0.1:1" in said(done)


def test_a_worker_that_is_not_there_is_a_failure_with_its_address(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    done = rmqarq("check", "--health-port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert f"no worker answers at 127.0.0.1:{port}" in said(done)


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """Answer one client; gives the port. `None`: say nothing until it leaves."""
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                if answer is None:
                    client.recv(1)
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(20)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"220 mail.example.com ESMTP\r\n", "what answers at {} is no worker"),
        (b"", "what answers at {} is no worker"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "the worker at {}: 404"),
        (None, "the worker at {} does not answer within 5 s"),
    ],
)
def test_what_else_answers_is_unhealthy(
    answer: bytes | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", impatient)
    with answering(answer) as port, pytest.raises(Unhealthy) as caught:
        probe.ask_worker(HOST, port, "/readyz")
    assert str(caught.value).startswith(sentence.format(f"{HOST}:{port}"))


def impatient(address: tuple[str, int], _: float) -> socket.socket:
    """Connect, and wait less long."""
    return connect(address, 0.5)


def test_what_a_worker_says_is_one_sentence(tmp_path: Path) -> None:
    said = b"not consumed: a\nstopping: 1 jobs are under way\n"
    answer = b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + said
    with answering(answer) as port:
        done = rmqarq("check", "--health-port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"rmqarq: the worker at {HOST}:{port}: not consumed: a; stopping: 1 jobs are"
        " under way\n"
    )


def test_liveness_needs_a_health_port(tmp_path: Path) -> None:
    done = rmqarq("check", "--live", cwd=tmp_path)
    assert done.returncode == 2
    assert "needs a health port" in said(done)


def test_a_failure_is_told_in_chinese_where_that_is_spoken(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    flags = ("--health-port", str(port))
    done = rmqarq("check", *flags, cwd=tmp_path, LC_ALL="zh_CN.UTF-8")
    assert done.returncode == 1
    assert f"127.0.0.1:{port} 没有 worker 应答" in said(done)


def test_it_does_not_wait_for_what_other_commands_import() -> None:
    code = (
        "import sys; sys.argv = ['rmqarq', 'check', '--help']\n"
        "from rmqarq.cli import main\n"
        "try: main()\n"
        "finally: print(*(m for m in sys.modules if m.startswith('rmqarq')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "rmqarq.cli.check" in loaded
    assert not {"rmqarq.cli.run", "rmqarq.cli.dev", "rmqarq.devbroker"} & {*loaded}
