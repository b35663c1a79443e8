"""Everything that the program prints is Chinese where Chinese is chosen."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from rmqarq.cli import main, output, translated
from rmqarq.cli.main import program
from tests.cli.kit import environment, module, rmqarq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.broker import Broker

ENGLISH = re.compile(r"[A-Za-z']+(?: [A-Za-z']+){2,}")
"""Three words in a row: no name is that long."""
NAMES = re.compile(r"rmqarq(?: [a-z]+)*|\(retries used up\)")

APP = """
import logging
from rmqarq import App, Reject
app = App(queue={queue!r}, retry_backoff=0.0)
@app.task(max_retries=1)
async def fail(n: int, *, why: str) -> None:
    logging.getLogger("shop").warning("试 %d", n, extra={{"order": 7}})
    raise ValueError(why)
@app.task
async def refuse(n: int) -> None:
    raise Reject("不要")
"""
FILL = """
import asyncio
from {app} import app, fail, refuse
async def main():
    async with app:
        await fail.enqueue(1, why="坏了")
        await refuse.options(job_id="r-1").enqueue(2)
asyncio.run(main())
"""


def english_in(text: str) -> list[str]:
    """Give what is left English beside the names of commands and reasons."""
    return ENGLISH.findall(NAMES.sub("", text))


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RMQARQ_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    token = output.asked_for.set(None)
    loggers = [logging.getLogger(name) for name in ("rmqarq", "aiormq")]
    before = [(each, each.level) for each in loggers]
    yield
    output.asked_for.reset(token)
    sys.modules.pop("day", None)
    for logger, level in before:
        logger.setLevel(level)


def printed(
    *args: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run the program in this process, to its end, and give all that it printed."""
    monkeypatch.setattr(sys, "argv", ["rmqarq", *args])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr()
    return shown.out + shown.err


def commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *path, name)


@pytest.mark.parametrize("path", [*commands(get_command(program()))], ids=" ".join)
def test_the_help_of_every_command_is_chinese(
    path: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    args = (*path, "--language", "zh", "--help")
    shown = printed(*args, monkeypatch=monkeypatch, capsys=capsys)
    assert shown.startswith("用法：")
    assert english_in(shown) == []
    assert re.search("^  --language ", shown, re.MULTILINE)
    for line in shown.splitlines():
        assert output.width(line) <= 80
        assert not re.match(r"\s*[，。；：、）]", line)
        if line.startswith("  ") and "  " in line.strip():
            assert re.search("[\u4e00-\u9fff]", line), line


def test_a_list_of_commands_has_the_first_sentence_of_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--language", "zh", "--help")
    shown = printed(*args, monkeypatch=monkeypatch, capsys=capsys)
    assert re.search("^  tasks +显示 MODULE:APP 中 App 的任务和消费函数$", shown, re.M)


COMPLAINTS = (
    ("run",),
    ("run", "app:app", "more"),
    ("run", "app:app", "--concurrency", "many"),
    ("run", "app:app", "--burst-timeout", "long"),
    ("run", "app:app", "--log-format", "xml"),
    ("run", "app:app", "--burst=1"),
    ("run", "app:app", "--queue"),
    ("run", "app:app", "--brust"),
    ("run", "app:app", "-x"),
    ("run", "no.such.module.anywhere"),
    ("run", ":app"),
    ("nothing",),
    ("dlq", "lst"),
    ("dlq", "--language", "zh"),
    ("dlq", "requeue"),
    ("dlq", "list", "--limit", "0"),
    ("dlq", "list", "--older-than", "soon"),
    ("dlq", "list", "--language", "fr"),
    ("dlq", "list", "--url", "redis://h"),
    ("dlq", "list", "--url", "amqp://h?x=1"),
)


@pytest.mark.parametrize("args", COMPLAINTS, ids=" ".join)
def test_every_complaint_is_chinese(
    args: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RMQARQ_LANGUAGE", "zh")
    shown = printed(*args, monkeypatch=monkeypatch, capsys=capsys)
    assert english_in(shown) == []
    last = shown.strip().splitlines()[-1]
    assert re.search("[\u4e00-\u9fff]", last), shown


@pytest.mark.parametrize(
    ("args", "variables", "chinese"),
    [
        ((), {}, False),
        ((), {"LANG": "zh_TW.UTF-8"}, True),
        ((), {"LANG": "zh-Hans"}, True),
        ((), {"LANG": "zh.UTF-8", "LC_ALL": "C"}, False),
        ((), {"RMQARQ_LANGUAGE": "zh", "LANG": "en_GB"}, True),
        ((), {"RMQARQ_LANGUAGE": "en", "LANG": "zh_CN"}, False),
        ((), {"RMQARQ_LANGUAGE": "auto", "LANG": "zh_CN"}, True),
        (("--language", "zh"), {"RMQARQ_LANGUAGE": "en"}, True),
        (("--language=en",), {"RMQARQ_LANGUAGE": "zh"}, False),
        (("--language", "en", "--language", "zh"), {}, True),
        (("--", "--language", "zh"), {}, False),
        (("--language",), {"LANG": "zh"}, True),
    ],
)
def test_the_flag_beats_the_environment_and_that_the_locale(
    args: tuple[str, ...],
    variables: dict[str, str],
    chinese: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output.asked_for.set(output.named_in(args))
    assert output.language() == ("zh" if chinese else "en")


def test_a_complaint_that_is_not_known_stays_as_it_is() -> None:
    output.asked_for.set("zh")
    assert translated.understood("Never heard of this") == "Never heard of this"
    assert translated.understood("Error: Never heard") == "错误：Never heard"


def test_lines_break_where_chinese_may_break() -> None:
    text = "退出码：0 完成；4 burst（提前）结束，或连不上 broker。"
    for columns in range(8, 60):
        lines = output.wrapped(text, columns)
        assert all(output.width(line) <= columns for line in lines), columns
        assert not any(line[0] in "，。；：）" or line[-1] == "（" for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert output.wrapped("", 10) == [""]
    assert output.wrapped("averylongword more", 5) == ["averylongword", "more"]


def test_what_is_wrong_in_the_environment_is_said_in_the_chosen_language(
    tmp_path: Path,
) -> None:
    cwd = module(tmp_path, "app", APP.format(queue="q"))
    flags = ("--language", "zh")
    done = rmqarq("tasks", "app:app", *flags, cwd=cwd, RMQARQ_CONCURENCY="1")
    assert "环境变量 RMQARQ_CONCURENCY 不是设置项" in done.stderr
    assert english_in(done.stdout + done.stderr) == []
    where = {"RMQARQ_LOG_FORMAT": "json", "RMQARQ_CONCURENCY": "1"}
    done = rmqarq("dlq", "list", "app:app", *flags, cwd=cwd, **where)
    first = json.loads(done.stderr.splitlines()[0])
    assert first["variable"] == "RMQARQ_CONCURENCY"


def test_a_terminal_without_chinese_characters_gets_something(tmp_path: Path) -> None:
    given = environment(PYTHONIOENCODING="iso-8859-1")
    command = [sys.executable, "-m", "rmqarq", "--language", "zh", "--help"]
    done = subprocess.run(command, env=given, capture_output=True, check=True)
    assert done.stdout.isascii()
    assert b"--language" in done.stdout


def test_a_day_in_chinese(
    broker: Broker,
    queue: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cwd = module(tmp_path, "day", APP.format(queue=queue))
    module(cwd, "fill", FILL.format(app="day"))
    given = environment(RMQARQ_URL=broker.url)
    subprocess.run([sys.executable, "fill.py"], cwd=cwd, env=given, check=True)
    where = {"RMQARQ_URL": broker.url, "LC_ALL": "zh_CN.UTF-8"}
    log = rmqarq("run", "day:app", "--burst", cwd=cwd, **where).stderr
    assert "，重试次数用尽，尝试次数：2 (ValueError: 坏了)" in log
    assert "，被拒绝，尝试次数：1" in log
    assert "队列已空 ◆ 完成 0" in log
    assert english_in(log) == []

    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("LANG", "zh_TW")
    monkeypatch.setenv("RMQARQ_URL", broker.url)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    def run(*args: str) -> str:
        shown = printed(*args, monkeypatch=monkeypatch, capsys=capsys)
        assert english_in(shown.partition("调用栈")[0]) == []
        return shown

    assert run("tasks", "day:app").startswith("任务    队列")
    assert re.match(
        "队列 +待处理  消费者  可疑  死信\n", run("queue", "info", "day:app")
    )
    letters = run("dlq", "list", "day:app")
    headings, first, *_, last = letters.splitlines()
    assert headings.split() == [
        "作业",
        "ID",
        "队列",
        "任务",
        "原因",
        "尝试次数",
        "死亡时间",
        "错误",
    ]
    assert "重试次数用尽 (retries used up)" in letters
    assert last.endswith("共 2 条，符合 2 条，显示 2 条")
    column = output.width(headings.partition("队列")[0])
    assert output.width(first.partition(queue)[0]) == column
    page = run("dlq", "show", "r-1", "day:app")
    assert re.search("^原因 +被拒绝 \\(rejected\\)$", page, re.MULTILINE)
    assert re.search(r"^大小 +\d+ 字节$", page, re.MULTILINE)
    asked = run("dlq", "drop", "day:app", "--reason", "rejected")
    assert "要删除其中 1 条吗？ [y/N]" in asked
    assert asked.endswith("用 --yes 可直接回答。\n没有任何更改。\n")
    put_back = run("dlq", "requeue", "day:app", "--all")
    assert put_back.endswith("已放回 2 条，共 2 条\n")
    assert run("queue", "purge", "day:app", "--yes").endswith("已删除 2 个\n")


def test_a_worker_writes_json_that_carries_the_job(
    broker: Broker, queue: str, tmp_path: Path
) -> None:
    cwd = module(tmp_path, "app", APP.format(queue=queue))
    module(cwd, "fill", FILL.format(app="app"))
    given = environment(RMQARQ_URL=broker.url)
    subprocess.run([sys.executable, "fill.py"], cwd=cwd, env=given, check=True)
    flags = ("--burst", "--log-format", "json", "--language", "zh")
    done = rmqarq("run", "app:app", *flags, cwd=cwd, RMQARQ_URL=broker.url)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (again,) = [each for each in lines if "runs again" in each["event"]]
    assert again["message"].endswith("第 1 次尝试 (ValueError: 坏了)")
    assert (again["task"], again["queue"], again["try"]) == ("fail", queue, 1)
    own = [each for each in lines if each["logger"] == "shop"]
    assert [each["try"] for each in own] == [1, 2]
    assert {each["job_id"] for each in own} == {again["job_id"]}
    assert {(each["order"], each["message"]) for each in own} == {(7, "试 1")}
    dead = {each["reason"] for each in lines if "reason" in each}
    assert dead == {"retries used up", "rejected"}
    assert lines[-1]["why"] == "queues empty"
    assert lines[-1]["message"].startswith("队列已空 ◆")


def test_the_language_of_the_code_is_that_of_the_log_unless_a_flag_differs(
    broker: Broker, queue: str, tmp_path: Path
) -> None:
    text = APP.replace("app = App(", "app = App(language='zh', ")
    cwd = module(tmp_path, "app", text.format(queue=queue))
    where = {"RMQARQ_URL": broker.url, "RMQARQ_LANGUAGE": "en"}
    done = rmqarq("run", "app:app", "--burst", cwd=cwd, **where)
    assert "worker 已启动" in done.stderr
    flag = ("--language", "en")
    done = rmqarq("run", "app:app", "--burst", *flag, cwd=cwd, **where)
    assert "worker started" in done.stderr
    done = rmqarq("queue", "info", "app:app", cwd=cwd, **where)
    assert done.stdout.startswith("queue ")
