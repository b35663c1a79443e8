"""`rmqarq dev`: broker, worker and command begin, are told apart, and end together."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from rmqarq.devbroker.handshake import PRODUCT
from rmqarq.worker.reports import DEV_BROKER
from tests.broker.fleet import children
from tests.chaos.suspects import lives
from tests.cli.kit import environment, module, rmqarq, said
from tests.cli.test_language import english_in
from tests.harness.broker import free_ports
from tests.harness.worker import WorkerProcess

APP = """
from rmqarq import App, Context, Reject, Retry

app = App("amqp://nobody:here@broker.invalid:1/", queue="dev")

@app.task
async def greet(ctx: Context, name: str) -> None:
    if ctx.job_try == 1:
        raise Retry(0.1)
    print(f"VERSION says hello to {name}")

@app.task
async def refuse() -> None:
    raise Reject("no")
"""
SEND = """
import asyncio, sys
from jobs import app, greet, refuse

async def main():
    await asyncio.sleep(float(sys.argv[1]))
    async with app:
        await greet.enqueue("Ada")
        await greet.defer(0.8, "Bob")
        await refuse.enqueue()
    print("sent")

asyncio.run(main())
"""
FEED = """
import asyncio, os, subprocess
from jobs import app, greet

async def main():
    print("pids", os.getpid(), subprocess.Popen(["sleep", "300"]).pid)
    async with app:
        while True:
            await greet.enqueue("Ada")
            await asyncio.sleep(0.2)

asyncio.run(main())
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    module(tmp_path, "jobs", APP)
    module(tmp_path, "send", SEND)
    module(tmp_path, "feed", FEED)
    return tmp_path


def dev(directory: Path, *args: str) -> WorkerProcess:
    process = WorkerProcess("jobs:app", args, cwd=directory)
    process.command[3] = "dev"
    process.env = environment()
    return process


def gone(pids: list[int]) -> bool:
    """Wait until none of these processes lives any more."""
    last = time.monotonic() + 15
    while any(map(lives, pids)) and time.monotonic() < last:
        time.sleep(0.05)
    return not any(map(lives, pids))


def fed(process: WorkerProcess) -> list[int]:
    """Wait until jobs are sent and run; give the processes that must end."""
    process.wait_for("VERSION says hello", 20)
    found = re.search(r"pids (\d+) (\d+)", process.output)
    assert found is not None
    return [int(found[1]), int(found[2]), *children(process.pid)]


def test_a_burst_waits_for_the_command_and_for_delayed_jobs(here: Path) -> None:
    # so late that the worker has found its queues empty long before
    command = ("--", "python", "send.py", "1.2")
    done = rmqarq("dev", "jobs:app", "--burst", *command, cwd=here)
    assert done.returncode == 0, said(done)
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"broker  \| amqp://guest:guest@127.0.0.1:\d+/", lines[0])
    assert lines[1].startswith("broker  | in memory, for development only")
    for line in (
        "command | $ python send.py 1.2",
        "command | sent",
        "worker  | VERSION says hello to Ada",
        "worker  | VERSION says hello to Bob",
        "broker  | gone with it: dev_dlq (1)",
    ):
        assert lines.count(line) == 1, done.stdout
    assert "2 completed ◆ 1 failed ◆ 2 retried ◆ 1 dead-lettered" in done.stdout


def test_jobs_are_worked_off_and_then_the_command_s_code_comes_first(
    here: Path,
) -> None:
    command = ("--", "sh", "-c", "python send.py 0; exit 3")
    done = rmqarq("dev", "jobs:app", "--burst", "--fail-on-dead", *command, cwd=here)
    assert done.returncode == 3, said(done)
    assert "command | ended with exit code 3" in done.stdout
    assert "VERSION says hello to Bob" in done.stdout


def test_dead_letters_may_spoil_it_and_production_is_no_place_for_it(
    here: Path,
) -> None:
    flags = ("--burst", "--fail-on-dead", "--port", str(free_ports(1)[0]))
    command = ("--", "python", "send.py", "0")
    env = {"RMQARQ_ENV": "production"}
    done = rmqarq("dev", "jobs:app", *flags, *command, cwd=here, **env)
    assert done.returncode == 5, said(done)
    assert "RMQARQ_ENV says production, but this broker" in done.stdout
    assert "another program has port" not in done.stdout
    assert f"export RMQARQ_URL=amqp://guest:guest@127.0.0.1:{flags[-1]}/" in done.stdout
    assert DEV_BROKER == PRODUCT  # by which the worker knows it


def test_a_taken_port_is_left_alone_and_the_other_one_told(here: Path) -> None:
    held = None
    with ExitStack() as stack:
        with suppress(OSError):  # somebody has it: all the better
            held = stack.enter_context(socket.create_server(("127.0.0.1", 5672)))
        # a command that has ended before the worker knows its App
        flags = ("--burst", "--", "true")
        done = rmqarq("--language", "zh", "dev", "jobs:app", *flags, cwd=here)
    assert done.returncode == 0, said(done)
    (port,) = re.findall(r"^broker  \| amqp://\S+:(\d+)/$", done.stdout, re.M)
    if held is None and port == "5672":
        pytest.skip("who had port 5672 has just given it back")
    assert port != "5672"
    assert f"export RMQARQ_URL=amqp://guest:guest@127.0.0.1:{port}/\n" in done.stdout
    assert "端口 5672 已被另一个程序占用" in done.stdout
    assert english_in(done.stdout.replace(PRODUCT, "")) == []


def test_a_port_that_was_chosen_must_be_free(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = rmqarq("dev", "jobs:app", "--port", port, cwd=here)
    assert done.returncode == 3
    assert f"can't listen on 127.0.0.1:{port}" in said(done)


def test_a_command_that_fails_ends_all_and_leaves_nothing_behind(here: Path) -> None:
    text = "sleep 300 & echo pid $!; kill $$"
    done = rmqarq("dev", "jobs:app", "--", "sh", "-c", text, cwd=here)
    assert done.returncode == 143, said(done)
    found = re.search(r"pid (\d+)", done.stdout)
    assert found is not None
    assert not lives(int(found[1]))


def test_a_command_that_is_nowhere_starts_nothing(here: Path) -> None:
    done = rmqarq("dev", "jobs:app", "--", "rmqarq-nowhere", cwd=here)
    assert done.returncode == 2
    assert "there is no program 'rmqarq-nowhere'" in said(done)
    assert not done.stdout


def test_a_command_that_is_no_program_starts_nothing(here: Path) -> None:
    for command, problem in (
        ("/tmp", "'/tmp' is a directory, not a program"),
        ("./send.py", "'./send.py' is not executable; chmod +x makes it so"),
        (".", "there is no program '.'"),
    ):
        done = rmqarq("dev", "jobs:app", "--", command, cwd=here)
        assert done.returncode == 2, said(done)
        assert problem in " ".join(said(done).replace("│", " ").split())
        assert not done.stdout
    done = rmqarq("--language", "zh", "dev", "jobs:app", "--", "/tmp", cwd=here)
    assert "'/tmp' 是目录，不是程序" in said(done)


def test_a_command_that_can_not_be_started_ends_all(here: Path) -> None:
    script = here / "send"
    script.write_text("neither a shebang nor a binary\x00\n")
    script.chmod(0o755)
    done = rmqarq("dev", "jobs:app", "--", "./send", cwd=here)
    assert done.returncode == 126, said(done)
    assert "command | can't be started: Exec format error" in done.stdout


def test_changed_code_runs_the_next_job_and_ctrl_c_ends_all(here: Path) -> None:
    with dev(here, "--", "python", "feed.py") as process:
        pids = fed(process)
        assert len(pids) == 3
        (here / "jobs.py").write_text(APP.replace("VERSION", "the new code"))
        process.wait_for("worker  | the new code says hello", 20)
        pids += children(process.pid)
        process.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(20) == 0, process.output
        assert time.monotonic() - began < 8
        assert not any(map(lives, pids))
    assert "jobs.py has changed, starting anew" in process.output


def test_after_a_command_that_succeeds_the_worker_goes_on(here: Path) -> None:
    with dev(here, "--", "python", "send.py", "0") as process:
        process.wait_for("has ended; the worker goes on until Ctrl-C", 20)
        process.wait_for("says hello to Bob", 20)
        process.terminate()
        assert process.wait(20) == 0, process.output


def test_nothing_is_left_when_it_is_killed(here: Path) -> None:
    with dev(here, "--", "python", "feed.py") as process:
        pids = fed(process)
        process.process.kill()
        # not by the tools of this test: it kills their group at its end only
        assert gone(pids), os.popen("ps -ef").read()


def test_a_second_signal_is_told_by_the_exit_code(here: Path) -> None:
    deaf = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]
    with dev(here, "--", *deaf) as process:
        process.wait_for("deaf", 20)
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("received SIGTERM, stopping", 20)
        process.process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
