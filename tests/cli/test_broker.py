"""`rmqarq broker`: a whole day's work without RabbitMQ."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cli.kit import environment, module, rmqarq, said
from tests.harness.broker import Guardian

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
import asyncio
from rmqarq import App, Context, Retry

app = App()

@app.task
async def greet(ctx: Context, name: str) -> None:
    if ctx.job_try == 1:
        raise Retry(0.1)
    print(f"hello {name}", flush=True)

async def main():
    async with app:
        await greet.enqueue("now")
        await greet.defer(0.3, "later")

if __name__ == "__main__":
    asyncio.run(main())
"""


@contextmanager
def broker(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run it on a free port; give the process and the URL that it tells."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rmqarq", "broker", "--port", "0"],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    guardian = Guardian()
    guardian.watch([process.pid])
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            guardian.dismiss()


def test_jobs_are_sent_retried_delayed_and_run_without_rabbitmq(
    tmp_path: Path,
) -> None:
    module(tmp_path, "jobs", APP)
    with broker(tmp_path) as (process, url):
        assert url.startswith("amqp://guest:guest@127.0.0.1:")
        given = environment(RMQARQ_URL=url)
        command = [sys.executable, "jobs.py"]
        subprocess.run(command, cwd=tmp_path, env=given, check=True, timeout=50)
        flags = ("--burst", "--wait-delayed")
        done = rmqarq("run", "jobs:app", *flags, cwd=tmp_path, RMQARQ_URL=url)
        assert done.returncode == 0, said(done)
        assert "hello now" in done.stdout
        assert "hello later" in done.stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert "for development only" in process.stdout.read()


def test_the_doctor_says_what_it_is_and_what_was_not_looked_at(tmp_path: Path) -> None:
    module(tmp_path, "jobs", APP)
    with broker(tmp_path) as (_, url):
        done = rmqarq("doctor", "jobs:app", cwd=tmp_path, RMQARQ_URL=url)
    assert done.returncode == 0, said(done)
    assert "this is the dev broker of rmqarq: it keeps jobs in memory only" in said(
        done
    )
    assert "alarms, permissions and plugins are not looked at" in done.stdout
    assert "0 errors, 0 warnings" in done.stdout
    assert "no alarm" not in done.stdout
    assert "has the permissions" not in done.stdout


def test_an_address_that_others_reach_needs_a_word_more(tmp_path: Path) -> None:
    done = rmqarq("broker", "--host", "0.0.0.0", "--port", "0", cwd=tmp_path)
    assert done.returncode == 3
    assert "others reach 0.0.0.0; --any-host allows it" in said(done)


def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path) -> None:
    with broker(tmp_path) as (_, url):
        port = url.rpartition(":")[2].strip("/")
        done = rmqarq("broker", "--port", port, cwd=tmp_path)
    assert done.returncode == 3
    assert f"can't listen on 127.0.0.1:{port}" in said(done)
    assert "--port" in said(done)
