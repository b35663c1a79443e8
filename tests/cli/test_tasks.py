"""`rmqarq tasks`: every task with what it takes and how it is treated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.cli.kit import module, rmqarq, said

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from __future__ import annotations

from datetime import datetime

from rmqarq import App, Backoff, Context

app = App(queue="jobs", job_timeout=60)

@app.task(max_retries=5, backoff=Backoff(base=2))
async def mail(
    ctx: Context, user: int, subject: str = "hi", *, when: datetime | None = None
) -> None: ...

@app.task(queue="reports", timeout=None)
def report(year: int) -> dict[str, int]:
    return {}

@app.task(name="shop.bare", timeout=1.5)
def bare(x, y=3): ...
"""


def test_the_table_shows_every_task_as_it_will_be_treated(tmp_path: Path) -> None:
    done = rmqarq("tasks", "jobs", cwd=module(tmp_path, "jobs", APP))
    assert (done.returncode, done.stderr) == (0, "")
    signature = "(user: int, subject: str = 'hi', *, when: datetime | None = None)"
    assert done.stdout.splitlines() == [
        "task       queue    retries  timeout  signature",
        f"mail       jobs           5  60 s     {signature} -> None",
        "report     reports        3  none     (year: int) -> dict[str, int]",
        "shop.bare  jobs           3  1.5 s    (x, y=3)",
    ]


def test_json_tells_the_same_and_more(tmp_path: Path) -> None:
    done = rmqarq("tasks", "jobs:app", "--json", cwd=module(tmp_path, "jobs", APP))
    assert (done.returncode, done.stderr) == (0, "")
    mail, report, bare = json.loads(done.stdout)
    assert mail["function"] == "jobs.mail"
    assert mail["dead_letter_queue"] == "jobs_dlq"
    assert mail["backoff"]["base"] == 2
    assert (report["queue"], report["timeout"]) == ("reports", None)
    assert (bare["task"], bare["retries"], bare["backoff"]) == ("shop.bare", 3, None)


def test_consume_functions_stand_beside_the_tasks(tmp_path: Path) -> None:
    more = (
        APP
        + """
@app.consume("followers", max_retries=9)
def followed(ctx: Context, event: dict[str, int]) -> None: ...
"""
    )
    done = rmqarq("tasks", "jobs", cwd=module(tmp_path, "jobs", more))
    last = done.stdout.splitlines()[-1].split(maxsplit=6)
    shown = "(event: dict[str, int]) -> None"
    assert last == ["followed", "followers", "(foreign)", "9", "60", "s", shown]
    found = json.loads(rmqarq("tasks", "jobs", "--json", cwd=tmp_path).stdout)
    assert [each["foreign"] for each in found] == [False, False, False, True]


def test_an_app_without_tasks_says_so(tmp_path: Path) -> None:
    module(tmp_path, "empty", "from rmqarq import App\napp = App()\n")
    done = rmqarq("tasks", "empty:app", cwd=tmp_path)
    assert (done.returncode, said(done)) == (0, "empty:app has no tasks.")
    assert rmqarq("tasks", "empty:app", "--json", cwd=tmp_path).stdout == "[]\n"


def test_an_app_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    done = rmqarq("tasks", "nowhere:app", cwd=tmp_path)
    assert done.returncode == 2
    assert said(done).startswith("rmqarq: there is no module 'nowhere'")
