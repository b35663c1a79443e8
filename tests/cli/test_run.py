"""`rmqarq run`: what it says, how it ends, and which setting counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import admin
from tests.harness.broker import free_ports
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from tests.harness.broker import Broker

ROOT = Path(__file__).parents[2]
APP = """
from rmqarq import App
app = App({arguments})

@app.task
async def work(number: int) -> None:
    print("ran", number, flush=True)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a module `jobs` that holds one App."""
    return module(tmp_path, "jobs", APP.format(arguments=""))


def module(directory: Path, name: str, text: str) -> Path:
    (directory / f"{name}.py").write_text(text)
    return directory


def rmqarq(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; no setting but a dead broker in the environment."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RMQARQ_")}
    inherited |= {"RMQARQ_URL": "amqp://127.0.0.1:1/"}
    return subprocess.run(
        [sys.executable, "-m", "rmqarq", *args],
        cwd=cwd,
        env={**inherited, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


class TestFindingTheApp:
    def test_a_module_that_is_not_there_is_named_with_where_was_looked(
        self, here: Path
    ) -> None:
        done = rmqarq("run", "jbos:app", cwd=here)
        assert done.returncode == 2
        assert said(done).startswith("rmqarq: there is no module 'jbos' for 'jbos:app'")
        assert str(here) in said(done)
        assert "Traceback" not in done.stderr

    def test_a_package_without_that_module_is_told_from_a_missing_package(
        self, here: Path
    ) -> None:
        (here / "shop").mkdir()
        (here / "shop" / "__init__.py").touch()
        done = rmqarq("run", "shop.jobs:app", cwd=here)
        assert done.returncode == 2
        assert "there is no module 'shop.jobs'" in said(done)

    @pytest.mark.parametrize("path", ["jobs.py:app", "./jobs.py:app", "jobs.py"])
    def test_a_file_path_is_answered_with_the_module_path(
        self, here: Path, path: str
    ) -> None:
        done = rmqarq("run", path, cwd=here)
        assert done.returncode == 2
        assert said(done) == f"rmqarq: {path!r} is a file; name the module: jobs:app"

    @pytest.mark.parametrize("name", ["ap", "work", "app.nothing"])
    def test_a_wrong_name_is_answered_with_the_apps_that_are_there(
        self, here: Path, name: str
    ) -> None:
        done = rmqarq("run", f"jobs:{name}", cwd=here)
        assert done.returncode == 2
        assert f"'jobs:{name}'" in said(done)
        assert said(done).endswith("the module holds jobs:app")

    def test_a_module_without_any_app_says_so(self, tmp_path: Path) -> None:
        module(tmp_path, "empty", "app = 'not an App'\n")
        for path in ("empty", "empty:app"):
            done = rmqarq("run", path, cwd=tmp_path)
            assert done.returncode == 2
            assert "the module 'empty' holds no App" in said(done)

    def test_two_apps_are_both_named_when_none_is_chosen(self, tmp_path: Path) -> None:
        module(tmp_path, "two", "from rmqarq import App\none = App()\nother = App()\n")
        done = rmqarq("run", "two", cwd=tmp_path)
        assert done.returncode == 2
        assert said(done).endswith("the module holds two:one, two:other")

    def test_a_module_that_fails_at_import_shows_its_traceback_and_the_sentence(
        self, tmp_path: Path
    ) -> None:
        module(tmp_path, "boom", "def f():\n    raise RuntimeError('no luck')\nf()\n")
        done = rmqarq("run", "boom:app", cwd=tmp_path)
        assert done.returncode == 2
        assert "boom.py" in done.stderr
        assert "RuntimeError: no luck" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("rmqarq: ")

    def test_an_import_missing_inside_the_module_is_not_taken_for_the_module(
        self, tmp_path: Path
    ) -> None:
        module(tmp_path, "needy", "import nowhere_to_be_found\n")
        done = rmqarq("run", "needy:app", cwd=tmp_path)
        assert done.returncode == 2
        assert "No module named 'nowhere_to_be_found'" in done.stderr
        assert "there is no module 'needy'" not in done.stderr

    def test_an_app_that_can_not_be_made_ends_with_3_and_its_sentence(
        self, tmp_path: Path
    ) -> None:
        module(tmp_path, "bad", APP.format(arguments="'amqp://u:marker-word@h/a/b'"))
        done = rmqarq("run", "bad:app", cwd=tmp_path)
        assert done.returncode == 3
        assert "must be written %2F" in said(done)
        assert "marker-word" not in said(done)


class TestUsage:
    def test_version_is_printed(self, tmp_path: Path) -> None:
        done = rmqarq("--version", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"rmqarq {version('rmqarq')}\n"

    def test_the_installed_program_is_the_same(self, tmp_path: Path) -> None:
        program = Path(sys.executable).with_name("rmqarq")
        done = subprocess.run(
            [program, "--version"], cwd=tmp_path, capture_output=True, check=True
        )
        assert done.stdout.decode() == f"rmqarq {version('rmqarq')}\n"

    def test_help_shows_every_flag_with_its_short_form(self, tmp_path: Path) -> None:
        done = rmqarq("run", "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        for flag in (
            "-b, --burst ",
            "--burst-timeout",
            "--burst-check-interval",
            "--no-wait-tasks",
            "--wait-delayed",
            "-u, --url",
            "-q, --queue",
            "-p, --prefetch-count",
            "-c, --concurrency",
            "--max-jobs",
            "--fail-on-dead",
            "-l, --log-level",
            "--shutdown-grace",
        ):
            assert flag in done.stdout
        assert "130 or 143" in said(done)

    @pytest.mark.parametrize(
        "args",
        [(), ("run",), ("run", "jobs:app", "--brust"), ("walk",)],
        ids=["nothing", "no App", "unknown flag", "unknown command"],
    )
    def test_wrong_usage_ends_with_2_and_the_usage(
        self, here: Path, args: tuple[str, ...]
    ) -> None:
        done = rmqarq(*args, cwd=here)
        assert done.returncode == 2
        assert "Usage: " in said(done)
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("flags", "name"),
        [
            (("-c", "0"), "concurrency"),
            (("-p", "70000"), "prefetch"),
            (("-l", "loud"), "log_level"),
            (("--burst-timeout", "-1"), "burst_timeout"),
            (("-u", "http://u:marker-word@localhost/"), "amqp://"),
            (("-q", "amq.mine"), "queue name"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_a_value_that_can_not_be_ends_with_3_and_names_the_setting(
        self, here: Path, flags: tuple[str, ...], name: str
    ) -> None:
        done = rmqarq("run", "jobs:app", *flags, cwd=here)
        assert done.returncode == 3, said(done)
        assert done.stderr.startswith("rmqarq: ")
        assert name in said(done)
        assert "marker-word" not in said(done)

    def test_a_variable_that_can_not_be_read_ends_with_3_and_its_name(
        self, here: Path
    ) -> None:
        done = rmqarq("run", "jobs:app", cwd=here, RMQARQ_CONCURRENCY="many")
        assert done.returncode == 3
        assert "the environment variable RMQARQ_CONCURRENCY can't be 'many'" in said(
            done
        )

    def test_errors_are_in_chinese_where_the_locale_is(self, here: Path) -> None:
        done = rmqarq("run", "jbos:app", cwd=here, LC_ALL="zh_CN.UTF-8")
        assert done.returncode == 2
        assert done.stderr.startswith("rmqarq: ")
        assert re.search("[\u4e00-\u9fff]", done.stderr)


class TestSettings:
    """The start line tells how many jobs run at a time, from which queues."""

    @pytest.mark.parametrize(
        ("flag", "code", "variable", "wanted"),
        [
            ("11", "22", "33", 11),
            (None, "22", "33", 22),
            (None, None, "33", 33),
            (None, None, "", 100),
            (None, None, None, 100),
        ],
        ids=["flag", "code", "environment", "empty variable", "default"],
    )
    def test_a_flag_beats_the_code_beats_the_environment_beats_the_default(
        self,
        broker: Broker,
        queue: str,
        tmp_path: Path,
        flag: str | None,
        code: str | None,
        variable: str | None,
        wanted: int,
    ) -> None:
        arguments = f"queue={queue!r}" + (f", concurrency={code}" if code else "")
        module(tmp_path, "jobs", APP.format(arguments=arguments))
        flags = ["-c", flag] if flag else []
        env = {} if variable is None else {"RMQARQ_CONCURRENCY": variable}
        given = ["run", "jobs:app", "--burst", *flags]
        done = rmqarq(*given, cwd=tmp_path, RMQARQ_URL=broker.url, **env)
        assert done.returncode == 0, said(done)
        assert f"queues {queue}; {wanted} at a time" in said(done)

    def test_what_the_app_configures_is_not_thrown_away(
        self, broker: Broker, queue: str, tmp_path: Path
    ) -> None:
        text = f"""
from rmqarq import App
app = App({broker.url!r}, queue={queue!r}, concurrency=7, burst=True,
          max_jobs=2, burst_check_interval=0.2, log_level="WARNING")

@app.on_startup
async def enqueue(state) -> None:
    for number in range(3):
        await work.enqueue(number)

@app.on_shutdown
async def tell(state) -> None:
    print(app.settings, flush=True)

@app.task
async def work(number: int) -> None:
    print("ran", number, flush=True)
"""
        module(tmp_path, "jobs", text)
        done = rmqarq("run", "jobs", "--shutdown-grace", "3", cwd=tmp_path)
        assert done.returncode == 0, said(done)
        ran = re.findall(r"ran (\d)", done.stdout)
        assert len(ran) == 2
        assert f"queue={queue!r}" in done.stdout
        wanted = ("concurrency=7", "burst=True", "max_jobs=2", "shutdown_grace=3.0")
        assert all(each in done.stdout for each in wanted)
        assert "worker started" not in done.stderr  # WARNING, as the code says

    def test_every_flag_reaches_the_worker(
        self, broker: Broker, queue: str, tmp_path: Path
    ) -> None:
        text = """
from rmqarq import App
app = App()

@app.on_shutdown
async def tell(state) -> None:
    print(app.settings, flush=True)
"""
        module(tmp_path, "jobs", text)
        flags = {
            "--burst": "burst=True",
            "--burst-timeout 7": "burst_timeout=7.0",
            "--burst-check-interval 0.3": "burst_check_interval=0.3",
            "--no-wait-tasks": "burst_wait=False",
            "--wait-delayed": "wait_delayed=True",
            f"--url {broker.url}": "url='amqp://guest:***@",
            f"--queue {queue}": "",  # what is consumed; the setting stays
            "--prefetch-count 3": "prefetch=3",
            "--concurrency 2": "concurrency=2",
            "--max-jobs 9": "max_jobs=9",
            "--fail-on-dead": "fail_on_dead=True",
            "--log-level info": "",  # the default, said in small letters
            "--shutdown-grace 4": "shutdown_grace=4.0",
            "--log-format json": "log_format='json'",
            "--language en": "language='en'",
            f"--health-port {free_ports(1)[0]}": "health_port=",
        }
        given = [word for flag in flags for word in flag.split()]
        done = rmqarq("run", "jobs:app", *given, cwd=tmp_path)
        assert done.returncode == 0, said(done)
        assert [each for each in flags.values() if each not in done.stdout] == []
        assert f"queues {queue}; 2 at a time" in said(done)
        shown = rmqarq("run", "--help", cwd=tmp_path).stdout
        known = set(re.findall(r"--[a-z][a-z-]+", shown))
        named = {flag.split()[0] for flag in flags}
        assert {"--help", "--fail-on-dead"} <= known  # named in the text, too
        elsewhere = {"--processes", "--reload"}  # tests/broker/test_processes.py
        assert known - {"--help"} == named | elsewhere

    def test_a_settings_value_is_taken_whole_and_the_environment_does_not_count(
        self, broker: Broker, queue: str, tmp_path: Path
    ) -> None:
        arguments = f"Settings(url={broker.url!r}, queue={queue!r})"
        text = "from rmqarq import Settings\n" + APP.format(arguments=arguments)
        module(tmp_path, "jobs", text)
        env = {"RMQARQ_CONCURRENCY": "33", "RMQARQ_URL": "amqp://127.0.0.1:1/"}
        done = rmqarq("run", "jobs:app", "-b", cwd=tmp_path, **env)
        assert done.returncode == 0, said(done)
        assert "; 100 at a time" in said(done)

    def test_queues_on_the_command_line_replace_those_of_the_tasks(
        self, broker: Broker, queue: str, here: Path
    ) -> None:
        other = f"{queue}-2"
        flags = ["-b", "-u", broker.url, "-q", queue, "--queue", other]
        done = rmqarq("run", "jobs:app", *flags, cwd=here)
        assert done.returncode == 0, said(done)
        assert f"queues {queue}, {other};" in said(done)

    @pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["one", "two"])
    def test_a_url_on_the_command_line_beats_even_that_of_rmqarq_dev(
        self, tmp_path: Path, more: tuple[str, ...]
    ) -> None:
        arguments = "'amqp://127.0.0.1:2/', publish_deadline=0.5"
        module(tmp_path, "jobs", APP.format(arguments=arguments))
        dev = "amqp://127.0.0.1:3/"
        run = ("run", "jobs:app", "--burst", *more)
        done = rmqarq(*run, cwd=tmp_path, RMQARQ_DEV_URL=dev)
        assert "127.0.0.1:3/" in said(done)
        assert "127.0.0.1:2/" not in said(done)
        flag = ("--url", "amqp://127.0.0.1:4/")
        done = rmqarq(*run, *flag, cwd=tmp_path, RMQARQ_DEV_URL=dev)
        assert "127.0.0.1:4/" in said(done)
        assert "127.0.0.1:3/" not in said(done)

    def test_a_variable_with_a_wrong_name_gets_a_hint(
        self, broker: Broker, queue: str, here: Path
    ) -> None:
        env = {"RMQARQ_URL": broker.url, "RMQARQ_QUEUE": queue, "RMQARQ_BURST": "1"}
        env |= {"RMQARQ_CONCURENCY": "5", "RMQARQ_PORT": "tcp://10.0.0.1:5672"}
        done = rmqarq("run", "jobs:app", cwd=here, **env)
        assert done.returncode == 0, said(done)
        assert "RMQARQ_CONCURENCY" in said(done)
        assert "did you mean RMQARQ_CONCURRENCY?" in said(done)


class TestRunning:
    @pytest.mark.parametrize(
        "url",
        [
            "amqp://guest:marker-word@127.0.0.1:{port}/",
            "amqp://guest:guest@127.0.0.1:{port}/marker-host",
        ],
        ids=["password", "virtual host"],
    )
    def test_a_broker_that_refuses_ends_the_worker_with_3(
        self, broker: Broker, here: Path, url: str
    ) -> None:
        done = rmqarq("run", "jobs:app", "-u", url.format(port=broker.port), cwd=here)
        assert done.returncode == 3
        assert "refuses us" in said(done)
        assert "check user, password, virtual host and permissions" in said(done)
        assert "marker-word" not in said(done)
        assert "Traceback" not in done.stderr

    def test_a_hint_that_can_not_be_built_ends_with_3_before_any_job(
        self, broker: Broker, tmp_path: Path
    ) -> None:
        text = APP.format(arguments=repr(broker.url)) + (
            "class Odd: ...\n@app.task\nasync def odd(thing: Odd) -> None: ...\n"
        )
        module(tmp_path, "jobs", text)
        done = rmqarq("run", "jobs:app", "-b", cwd=tmp_path)
        assert done.returncode == 3, said(done)
        assert "'thing'" in said(done)
        assert "odd" in said(done)
        assert "Traceback" not in done.stderr

    def test_a_password_is_in_no_output_whatever_happens(
        self, broker: Broker, queue: str, tmp_path: Path
    ) -> None:
        word = "marker-p@ss/word"
        quoted = "marker-p%40ss%2Fword"
        user = f"user-{queue[-8:]}"
        admin.add_user(broker, user, word)
        try:
            url = f"amqp://{user}:{quoted}@127.0.0.1:{broker.port}/"
            text = f"""
from rmqarq import App
app = App(queue={queue!r}, max_retries=0)

@app.on_startup
async def enqueue(state) -> None:
    await work.enqueue(1)

@app.task
async def work(number: int) -> None:
    raise LookupError(app.settings)
"""
            module(tmp_path, "jobs", text)
            env = {"RMQARQ_URL": f"amqp://127.0.0.1:1/,{url}", "PYTHONDEVMODE": "1"}
            flags = ["-b", "--fail-on-dead", "-l", "debug"]
            done = rmqarq("run", "jobs:app", *flags, cwd=tmp_path, **env)
            assert done.returncode == 5, said(done)
            assert user in said(done)
            admin.change_password(broker, user, "another")
            refused = rmqarq("run", "jobs:app", *flags, cwd=tmp_path, **env)
            assert refused.returncode == 3, said(refused)
            output = said(done) + said(refused)
            assert "marker" not in output
            assert "***" in output
        finally:
            admin.delete_user(broker, user)

    def test_the_start_and_the_end_are_one_line_each(
        self, broker: Broker, queue: str, here: Path
    ) -> None:
        flags = ["-b", "-u", broker.url, "-q", queue]
        done = rmqarq("run", "jobs:app", *flags, cwd=here)
        assert done.returncode == 0
        assert done.stdout == ""
        first, last = done.stderr.splitlines()
        assert re.match(
            r"\d\d:\d\d:\d\d\.\d{3} INFO +worker started: tasks work;", first
        )
        assert re.search(r"INFO +queues empty ◆ 0 completed ◆ 0 failed", last)

    def test_a_worker_waits_for_its_broker_until_it_is_told_to_stop(
        self, here: Path
    ) -> None:
        nobody = ["-u", "amqp://guest:marker-word@127.0.0.1:1/"]
        with WorkerProcess("jobs:app", nobody, cwd=here) as worker:
            worker.wait_for("can't be reached", 10)
            assert worker.process.poll() is None
            worker.terminate()
            assert worker.wait(5) == 0
        assert "marker-word" not in worker.output
        assert "guest:***@127.0.0.1:1" in worker.output


def test_no_password_is_shown_of_a_module_that_fails(tmp_path: Path) -> None:
    text = "raise ValueError('no answer from amqp://joe:s3cr3t@host:5672/')"
    module(tmp_path, "own", text)
    for words in (["run"], ["run", "--processes", "2"], ["tasks"], ["doctor"]):
        done = rmqarq(*words, "own:app", cwd=tmp_path)
        assert done.returncode in (1, 2), said(done)
        assert "amqp://joe:***@host:5672/" in said(done)
        assert "s3cr3t" not in said(done)
