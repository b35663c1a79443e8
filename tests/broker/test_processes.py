"""Several worker processes under one supervisor: nothing lost, none left, one sum."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.broker.fleet import (
    children,
    enqueue,
    farewell,
    farewells,
    run_the_rest,
    started,
    wait,
    wait_for,
)
from tests.broker.kit import until, wait_for_count
from tests.chaos.suspects import lives
from tests.cli.kit import rmqarq, said
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.kit import Node

BURST = ("--burst", "--burst-check-interval", "0.2")


IMPATIENT = (
    "from rmqarq.worker import child; child.SLOW_START = 0.3;"
    "child.FORCED_GRACE = 0.7;"
    "from rmqarq.cli import main; main()"
)


def impatient(worker: WorkerProcess) -> WorkerProcess:
    """Let the supervisor wait for hardly anything."""
    worker.command[1:3] = ["-c", IMPATIENT]
    return worker


def own(directory: Path, text: str, *args: str, **env: str) -> WorkerProcess:
    """Make a worker of a module that a test writes."""
    (directory / "own.py").write_text(text)
    return WorkerProcess("own:app", args, cwd=directory, env=env)


def ran(node: Node, kind: str) -> set[str]:
    return {row.job_id for row in node.ledger.rows(kind)}


async def test_a_killed_process_comes_back_and_no_job_is_lost(node: Node) -> None:
    with node.worker("--processes", "4", "-c", "5") as worker:
        await until(lambda: sorted(started(worker.output)) == [1, 2, 3, 4], 30)
        ids = await enqueue(node, "slow", 0.1, count=400)
        await until(lambda: node.ledger.count("slow-done") >= 100, 30)
        four = children(worker.pid)
        assert len(four) == 4
        os.kill(four[1], signal.SIGKILL)
        await wait_for(worker, "killed by SIGKILL; a new one starts in 0.5 s")
        await until(lambda: len(started(worker.output)) == 5, 30)
        await until(
            lambda: {r.job_id for r in node.ledger.rows("slow-done")} == ids, 40
        )
        assert len(children(worker.pid)) == 4
        worker.terminate()
        assert await wait(worker) == 0, worker.output
    assert {row.job_try for row in node.ledger.rows()} == {1}
    (line,) = farewells(worker.output)
    # what the killed one did after its last report is not counted
    assert 380 <= farewell(line)["completed"] <= node.ledger.count("slow-done")


async def test_sigterm_stops_all_in_order_with_one_sum(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    ids = await enqueue(node, "patient", str(door), count=8)
    flags = ("--processes", "2", "-c", "4", "-p", "4", "--shutdown-grace", "0.5")
    with node.worker(*flags) as worker:
        await until(lambda: node.ledger.count("patient") == 8, 30)
        two = children(worker.pid)
        worker.terminate()
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
        assert time.monotonic() - began < 8, worker.output
    assert len(two) == 2
    assert not any(map(lives, two))
    (line,) = farewells(worker.output)
    assert "SIGTERM ◆ 0 completed" in line
    assert "[" not in line
    assert farewell(line)["returned"] == 8
    assert farewell(line)["pending"] == 8
    door.touch()
    await run_the_rest(node)
    assert {row.job_id for row in node.ledger.rows("patient-done")} == ids
    assert {row.job_try for row in node.ledger.rows()} == {1}


async def test_a_second_signal_ends_all_at_once(node: Node, tmp_path: Path) -> None:
    await enqueue(node, "patient", str(tmp_path / "door"), count=2)
    with node.worker("--processes", "2", "-c", "1", "-p", "1") as worker:
        await until(lambda: node.ledger.count("patient") == 2, 30)
        worker.process.send_signal(signal.SIGINT)
        await wait_for(worker, "] received SIGINT, stopping")
        worker.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert await wait(worker, 10) == 130, worker.output
        assert time.monotonic() - began < 4, worker.output
    assert len(farewells(worker.output)) == 1
    await wait_for_count(node.broker.url, node.queue, ready=2)


async def test_one_ctrl_c_in_a_terminal_forces_nobody(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    await enqueue(node, "patient", str(door), count=2)
    with node.worker("--processes", "2", "-c", "1", "-p", "1") as worker:
        await until(lambda: node.ledger.count("patient") == 2, 30)
        os.killpg(worker.pid, signal.SIGINT)  # so does a terminal
        for number in (1, 2):
            await wait_for(worker, f"[{number}] received SIGINT, stopping")
        for pid in children(worker.pid):  # the order of the two is not sure
            os.kill(pid, signal.SIGINT)
        door.touch()
        assert await wait(worker) == 0, worker.output
    assert node.ledger.count("patient-done") == 2
    assert "SIGINT again" not in worker.output
    assert worker.output.count("received SIGINT, stopping") == 3
    (line,) = farewells(worker.output)
    assert "SIGINT ◆ 2 completed" in line


async def test_processes_whose_supervisor_is_killed_stop_in_order(
    node: Node, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    await enqueue(node, "patient", str(door), count=4)
    flags = ("--processes", "2", "-c", "2", "-p", "2", "--shutdown-grace", "0.5")
    with node.worker(*flags) as worker:
        await until(lambda: node.ledger.count("patient") == 4, 30)
        two = children(worker.pid)
        worker.kill()
        await until(lambda: not any(map(lives, two)), 15)
        await wait(worker)
        output = worker.output
    assert output.count("the supervisor is gone, stopping") == 2
    assert [farewell(line)["returned"] for line in farewells(output)] == [2, 2]
    await wait_for_count(node.broker.url, node.queue, ready=4, consumers=0)


async def test_a_burst_ends_when_every_process_has_found_nothing_more(
    node: Node,
) -> None:
    ids = await enqueue(node, "done", 1, count=2000)
    with node.worker("--processes", "4", *BURST) as worker:
        assert await wait(worker, 50) == 0, worker.output
    assert {row.job_id for row in node.ledger.rows()} == ids
    assert node.ledger.count("done") == 2000
    assert sorted(started(worker.output)) == [1, 2, 3, 4]
    (line,) = farewells(worker.output)
    assert "queues empty ◆ 2000 completed" in line
    assert farewell(line)["pending"] == 0


async def test_flags_reach_every_process_and_dead_letters_of_any_count(
    node: Node,
) -> None:
    await enqueue(node, "reject", 1, count=3)
    flags = ("-c", "7", "--queue", node.queue, "--url", node.broker.url, *BURST)
    dead = "amqp://guest:guest@127.0.0.1:1/"
    with node.worker(*flags, "--fail-on-dead", url=dead, processes="2") as worker:
        assert await wait(worker) == 5, worker.output
    assert worker.output.count(f"queues {node.queue}; 7 at a time") == 2
    (line,) = farewells(worker.output)
    assert farewell(line)["dead-lettered"] == 3


async def test_a_process_that_has_run_enough_jobs_is_replaced(node: Node) -> None:
    await enqueue(node, "done", 1, count=40)
    with node.worker("--processes", "2", "--max-jobs", "10") as worker:
        await until(lambda: node.ledger.count("done") == 40, 30)
        await wait_for(worker, "has run enough jobs; a new one starts")
        # two at first, and one for each ten jobs: none of these ends by itself any more
        await until(lambda: len(started(worker.output)) == 6, 30)
        os.kill(children(worker.pid)[-1], signal.SIGTERM)  # an operator, say
        await wait_for(worker, "ended with exit code 0; a new one starts in 0.5 s")
        worker.terminate()
        assert await wait(worker) == 0, worker.output
    (line,) = farewells(worker.output)
    assert "SIGTERM ◆ 40 completed" in line


async def test_a_process_that_never_starts_is_tried_less_and_less_often(
    node: Node, tmp_path: Path
) -> None:
    text = """
import json
import os
from rmqarq import App
app = App()

@app.on_startup
async def crash(state):
    os._exit(9)
"""
    url = {"RMQARQ_URL": node.broker.url, "RMQARQ_QUEUE": node.queue}
    with own(tmp_path, text, "--processes", "2", **url) as worker:
        await wait_for(worker, "exit code 9; a new one starts in 1 s", 30)
        worker.terminate()
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
        assert time.monotonic() - began < 3
    limit = ("--burst", "--burst-timeout", "1")
    with own(tmp_path, text, "--processes", "2", *limit, **url) as burst:
        assert await wait(burst) == 1, burst.output
    assert "failed ◆ 0 completed" in burst.output.splitlines()[-1]
    for number in (1, 2):
        waits = re.findall(rf"process {number} .* starts in ([\d.]+) s", worker.output)
        assert ["0.5", "1"][: len(waits)] == waits


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("from rmqarq import App\napp = App('redis://h')\n", 3, "redis://h"),
        ("from rmqarq import App\napp = App(\n", 2, "SyntaxError"),
    ],
    ids=["configuration", "syntax"],
)
def test_a_broken_set_up_ends_all_at_once_with_one_complaint(
    tmp_path: Path, text: str, code: int, sentence: str
) -> None:
    (tmp_path / "own.py").write_text(text)
    done = rmqarq("run", "own:app", "--processes", "4", cwd=tmp_path)
    assert done.returncode == code, said(done)
    assert sentence in said(done)
    assert said(done).count("rmqarq: ") == 1
    assert "pending" not in said(done)


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_the_complaint_is_in_the_language_that_was_asked_for(
    tmp_path: Path, by: str
) -> None:
    (tmp_path / "own.py").write_text("from rmqarq import App\napp = App('redis://h')\n")
    flags = ["--language", "zh"] if by == "flag" else []
    env = {"RMQARQ_LANGUAGE": "zh"} if by == "variable" else {}
    done = rmqarq("run", "own:app", "--processes", "2", *flags, cwd=tmp_path, **env)
    assert done.returncode == 3, said(done)
    assert said(done).startswith("[1] rmqarq: ")
    assert "can't be used" not in said(done)


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_the_complaint_is_json_where_the_log_is(
    tmp_path: Path, by: str, processes: str
) -> None:
    flags = ["--log-format", "json"] if by == "flag" else []
    env = {"RMQARQ_LOG_FORMAT": "json"} if by == "variable" else {}
    (tmp_path / "own.py").write_text("from rmqarq import App\napp = App('redis://h')\n")
    more = ("--processes", processes, *flags)
    done = rmqarq("run", "own:app", *more, cwd=tmp_path, **env)
    assert done.returncode == 3, said(done)
    (line,) = done.stderr.splitlines()
    fields = json.loads(line)
    assert fields["level"] == "ERROR"
    assert "redis://h" in fields["message"]
    assert fields["event"] == "the broker URL {url} can't be used: {problem}"
    (tmp_path / "own.py").write_text("from rmqarq import App\napp = App(\n")
    done = rmqarq("run", "own:app", *more, cwd=tmp_path, **env)
    assert done.returncode == 2, said(done)
    assert "SyntaxError" in json.loads(done.stderr)["exception"]


async def test_a_refused_queue_ends_all_with_the_code_of_a_single_worker(
    node: Node,
) -> None:
    await enqueue(node, "done", 1)
    with node.worker("--processes", "2", queue_type="classic") as worker:
        assert await wait(worker) == 3, worker.output
    assert "use the same arguments" in worker.output
    assert "a new one starts" not in worker.output


async def test_sigterm_while_the_app_is_loading_is_not_lost(tmp_path: Path) -> None:
    text = "import time\nprint('loading', flush=True)\ntime.sleep(30)\n"
    with impatient(own(tmp_path, text, "--processes", "3")) as worker:
        await wait_for(worker, "process 1 still loads its App after 0.3 s")
        await wait_for(worker, "loading")
        (child,) = children(worker.pid)
        worker.terminate()
        began = time.monotonic()
        assert await wait(worker) == 0, worker.output
        assert time.monotonic() - began < 3
    assert not lives(child)
    assert worker.output.count("loading\n") == 1
    assert "Traceback" not in worker.output


async def test_sigterm_while_no_broker_is_reached_is_not_lost(node: Node) -> None:
    url = "amqp://guest:guest@127.0.0.1:1/"
    with impatient(node.worker("--processes", "2", url=url)) as worker:
        await wait_for(worker, "process 2 takes no jobs yet after 0.3 s")
        worker.terminate()
        assert await wait(worker) == 0, worker.output
    assert "SIGTERM ◆ 0 completed" in worker.output


async def test_a_process_that_does_not_stop_is_killed(node: Node) -> None:
    with impatient(node.worker("--processes", "2")) as worker:
        await until(lambda: sorted(started(worker.output)) == [1, 2], 30)
        frozen = children(worker.pid)[0]
        os.kill(frozen, signal.SIGSTOP)
        worker.terminate()
        await wait_for(worker, "received SIGTERM, stopping")
        worker.terminate()
        assert await wait(worker, 20) == 143, worker.output
    assert "has not stopped within 0.7 s and is killed" in worker.output
    assert not lives(frozen)


async def test_the_number_may_come_from_the_code(node: Node, tmp_path: Path) -> None:
    text = (
        "from rmqarq import App\nprint('loaded', flush=True)\napp = App(processes=2)\n"
    )
    url = {"RMQARQ_URL": node.broker.url, "RMQARQ_QUEUE": node.queue}
    with own(tmp_path, text, *BURST, **url) as worker:
        assert await wait(worker) == 0, worker.output
    assert sorted(started(worker.output)) == [1, 2]
    assert worker.output.count("loaded") == 3  # the supervisor began anew without it
