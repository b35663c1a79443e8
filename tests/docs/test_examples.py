"""Every example of the documentation, run against a broker as a user would run it."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.broker.test_scaling import HASHED
from tests.docs.pages import DOCS, EXAMPLES
from tests.docs.programs import WORKER, end, start
from tests.docs.test_migrating import MIGRATED
from tests.docs.test_protocol import PRODUCERS
from tests.docs.test_testing import TESTED
from tests.frameworks.test_web import KINDS as WEB
from tests.harness.broker import free_ports

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.harness.broker import Broker

ALONE = (
    "arguments",
    "consuming",
    "delays",
    "embedded",
    "enqueueing",
    "hooks",
    "include",
    "quickstart",
    "retries",
    "rows",
    "script",
    "sharding",
)
IN_DEV = "quickstart, as docs/quickstart runs it where no RabbitMQ is named"
(HEALTH_PORT,) = free_ports(1)
IN_TURN = {
    "send": ["send.py"],
    "foreign": ["foreign.py"],
    "health": ["health.py", str(HEALTH_PORT)],
    "worker": [*WORKER, "app:app", "--burst", "--wait-delayed"],
    "dead_letters": ["dead_letters.py", "my_queue_dlq"],
    "doctor": ["-m", "rmqarq", "doctor", "app:app"],
}
ELSEWHERE = (*MIGRATED, *PRODUCERS, *WEB, *TESTED, *HASHED)


def run(broker: Broker, *arguments: str) -> subprocess.Popen[str]:
    """Start a program; `--wait-delayed` waits for all delays under one prefix."""
    prefix = f"docs-{secrets.token_hex(4)}" if "quickstart.py" in arguments else "docs"
    return start(broker.url, *arguments, prefix=prefix)


@pytest.fixture(scope="module")
def running(broker: Broker) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The examples that need no other, started together: mostly, they wait."""
    processes = {name: run(broker, f"{name}.py") for name in ALONE}
    processes[IN_DEV] = start("", "quickstart.py")
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def shown(broker: Broker, running: dict[str, subprocess.Popen[str]]) -> dict[str, str]:
    """What the examples that follow each other print."""
    return {name: end(run(broker, *each)) for name, each in IN_TURN.items()}


def test_every_example_is_tried_here() -> None:
    tried = {*ALONE, *IN_TURN, *ELSEWHERE, "app"} - {"worker", "doctor"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tried


def test_many_rows_are_few_messages(running: dict[str, subprocess.Popen[str]]) -> None:
    printed = end(running["rows"]).splitlines()
    assert [line for line in printed if "runs again" not in line] == [
        "5000 rows",
        "hello Ada",
        "你好 小明",
        f"5002 done, 1 retry, total {sum(range(5_000))}",
    ]


def test_send_enqueues(shown: dict[str, str]) -> None:
    assert re.fullmatch(r"enqueued [0-9a-f-]{36}\n", shown["send"])
    assert shown["foreign"] == "sent\n"


def test_a_worker_in_a_program_tells_its_health(shown: dict[str, str]) -> None:
    name = 'rmqarq_jobs_total{task="add",queue="health",outcome='
    assert shown["health"].splitlines() == [
        "alive: ok",
        f'{name}"succeeded"}} 1',
        f'{name}"retried"}} 0',
        f'{name}"dead"}} 0',
    ]


def test_the_worker_of_the_readme_runs_what_was_sent(shown: dict[str, str]) -> None:
    printed = shown["worker"].splitlines()
    for line in (
        "update 123, attempt 1",
        "erase 789, attempt 1",
        "update 0, attempt 1",
        "update 1, attempt 1",
        "update 2, attempt 1",
        "update 1000, attempt 1",
        "update 2000, attempt 1",
        "sync 456, attempt 1",
        "sync 456, attempt 2",
    ):
        assert printed.count(line) == 1, shown["worker"]
    assert "7 completed ◆ 1 failed ◆ 1 retried ◆ 1 dead-lettered" in printed[-1]


def test_the_dead_letters_say_why(shown: dict[str, str]) -> None:
    assert shown["dead_letters"] == (
        "process_data: rejected (attempts: 1),"
        " rmqarq.errors.Reject: erasing is not allowed\n"
    )


def test_the_doctor_finds_what_the_page_shows(shown: dict[str, str]) -> None:
    page = (DOCS / "operations.md").read_text("utf-8")
    (block,) = re.findall(r"^\$ rmqarq doctor app:app\n(.*?)^```", page, re.M | re.S)
    assert anywhere(shown["doctor"]) == anywhere(block)


def anywhere(printed: str) -> list[str]:
    """Give the lines without what differs between brokers and the rungs they have."""
    lines = re.sub(r"@\S+/|RabbitMQ [\d.]+|app: \d+", "", printed).splitlines()
    return [each for each in lines if "upgrade" not in each and "note" not in each]


def test_arguments_arrive_as_their_types(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    printed = end(running["arguments"]).splitlines()
    assert printed[0].startswith("the argument 'numbers' of count does not fit")
    assert sorted(printed[1:-2]) == ["Ada: LARGE, 9.90 by 01 May", "count [1, 2, 3]"]
    assert printed[-2:] == ["count [4, 5]", "here: 2"]


def test_messages_of_other_producers_are_consumed_as_the_page_says(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    printed = end(running["consuming"]).splitlines()
    assert printed[-1] == "4 done, 1 retries, 1 dead" or printed[-1].startswith(
        "3 done"
    )
    for line in (
        "ada follows 7, attempt 1",
        "bob follows 7, attempt 1",
        "bob follows 7, attempt 2",
        "audit screenshot 4 bytes",
    ):
        assert printed.count(line) == 1, printed


def test_hooks_and_middleware_are_called_in_order(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    assert end(running["hooks"]).splitlines() == [
        "sending sell ('tea',)",
        "open the shop",
        "ready: corner shop",
        "start sell 1",
        "corner shop sells tea",
        "sell was quick",
        "end sell Succeeded",
        "close the shop",
    ]


def test_included_tasks_keep_the_queue_of_their_own_app(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    printed = end(running["include"]).splitlines()
    assert re.fullmatch(r"<Job welcome \S+ on included_mail>", printed[0])
    assert re.fullmatch(r"<Job sell \S+ on including>", printed[1])
    assert sorted(printed[2:]) == ["sell tea", "welcome Ada"]


def test_enqueueing_tells_what_went_where_and_what_failed(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    printed = end(running["enqueueing"]).splitlines()
    assert printed[0] == "resize on enqueueing"
    assert printed[1] == "<Job resize dog-1 on enqueueing_night>"
    assert printed[2] == "2 more"
    assert printed[3].startswith("resize() missing a required argument")
    assert printed[-1] == "ConnectionFailed"


def test_an_embedded_worker_is_stopped_by_its_program(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    printed = end(running["embedded"]).splitlines()
    assert sorted(printed[:-1]) == ["job 0", "job 1", "job 2"]
    assert printed[-1].startswith("3 completed: Ending(why='asked to stop'")


def test_a_script_enqueues_through_a_portal(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    assert end(running["script"]) == "greet on script\n2 more\n"


def test_a_worker_consumes_all_shards(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    assert end(running["sharding"]) == "200 jobs from 4 queues\n"


def test_retries_go_as_far_as_the_task_says(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    printed = end(running["retries"]).splitlines()
    for line in ("fetch 1 attempt 3", "ask attempt 2"):
        assert printed.count(line) == 1
    assert printed[-1] == "1 done, 3 retries, 2 failed"


def test_delayed_jobs_come_in_the_order_of_their_times(
    running: dict[str, subprocess.Popen[str]],
) -> None:
    pattern = re.compile(r"(\w+) after ([\d.]+) s")
    found = pattern.findall(end(running["delays"]))
    assert [name for name, _ in found] == ["first", "second", "third"]
    for (_, waited), planned in zip(found, (0.8, 1.6, 6), strict=True):
        assert planned <= float(waited) < planned + 5


TOURS = {
    "quickstart": "$ rmqarq run quickstart:app --burst --wait-delayed",
    IN_DEV: "$ rmqarq dev quickstart:app --burst -- python quickstart.py",
}


@pytest.mark.parametrize("tour", TOURS)
def test_the_quick_start_tells_the_end_of_every_job(
    running: dict[str, subprocess.Popen[str]], tour: str
) -> None:
    printed = end(running[tour])
    assert TOURS[tour] in printed
    assert re.search(r"remind\.defer\(1, 'tea'\) +1 s +1  \d+ ms +done", printed)
    assert re.search(r"fetch\.enqueue\(7\) +- +3  \d+, \d+ ms +done", printed)
    assert "dead: retries used up" in printed
    assert "The dead-letter queue quickstart_dlq holds 2 messages" in printed
    assert "refund: rejected (attempts: 1)" in printed
    assert "9 jobs sent: 7 done, 2 dead, 4 retries, 0 lost" in printed
