"""`rmqarq queue`: exact numbers, nothing created, nothing deleted without a yes."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App
from tests.broker.kit import channel_to, declared, wait_for_count
from tests.cli.kit import module, rmqarq, said

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.harness.broker import Broker

MODULE = """
from rmqarq import App
app = App({url!r}, queue={queue!r}, prefix={prefix!r})

@app.task
async def work(number: int) -> None: ...

@app.task(queue={queue!r} + "-2")
async def more(number: int) -> None: ...
"""


class Place:
    """An App on the broker, also as a module that commands can load."""

    def __init__(self, broker: Broker, queue: str, directory: Path) -> None:
        prefix = f"p{secrets.token_hex(4)}"
        self.url, self.queue, self.directory = broker.url, queue, directory
        text = MODULE.format(url=broker.url, queue=queue, prefix=prefix)
        module(directory, "jobs", text)
        self.app = App(broker.url, queue=queue, prefix=prefix)

    def run(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return rmqarq("queue", *args, cwd=self.directory, **more)

    async def fill(self, jobs: int, delayed: int = 0, queue: str = "") -> None:
        """Send jobs, and see them in their queue."""
        queue = queue or self.queue
        work = self.app.ref("work").options(queue=queue)
        async with self.app:
            specs = [work.job(number) for number in range(jobs)]
            specs += [
                work.job(number).defer(3600 + number) for number in range(delayed)
            ]
            await self.app.enqueue_many(specs)
        await wait_for_count(self.url, queue, ready=jobs)


@pytest.fixture
def place(broker: Broker, queue: str, tmp_path: Path) -> Place:
    return Place(broker, queue, tmp_path)


class TestInfo:
    async def test_the_numbers_are_exact(self, place: Place) -> None:
        await place.fill(3, delayed=5)
        await place.fill(2, queue=f"{place.queue}-2")
        async with channel_to(place.url) as channel:
            await channel.basic_publish(b"", routing_key=f"{place.queue}.suspect")
            for _ in range(4):
                await channel.basic_publish(b"", routing_key=f"{place.queue}_dlq")
            exchange = f"{place.app.settings.prefix}.due"
            await channel.basic_publish(b"", exchange=exchange, routing_key="gone")
        await wait_for_count(place.url, f"{place.queue}_dlq", ready=4)
        await wait_for_count(place.url, f"{place.app.settings.prefix}.lost", ready=1)
        done = place.run("info", "jobs:app", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert (found["delayed"], found["lost"]) == (5, 1)
        first, second = found["queues"]
        assert first == {
            "queue": place.queue,
            "ready": 3,
            "consumers": 0,
            "suspects": 1,
            "dead": 4,
            "dead_letter_queue": f"{place.queue}_dlq",
        }
        assert (second["ready"], second["dead"]) == (2, 0)
        table = place.run("info", "jobs:app").stdout.splitlines()
        assert table[0].split() == ["queue", "ready", "consumers", "suspects", "dead"]
        assert table[1].split() == [place.queue, "3", "0", "1", "4"]
        assert table[4].endswith(": 5 delayed, 1 lost")

    async def test_it_says_where_the_plugin_may_hold_more(self, place: Place) -> None:
        """A plain exchange stands for the plugin's: it is the name that counts."""
        await place.fill(1)
        assert "can't be counted" not in said(place.run("info", "jobs:app"))
        name = f"{place.app.settings.prefix}.delayed"
        async with channel_to(place.url) as channel:
            await channel.exchange_declare(name, durable=True)
            done = place.run("info", "jobs:app")
            as_json = place.run("info", "jobs:app", "--json")
            await channel.exchange_delete(name)
        assert "what the delayed-message plugin holds can't be counted" in said(done)
        assert json.loads(as_json.stdout)["plugin"] is True

    async def test_without_an_app_the_flags_say_what_is_meant(
        self, place: Place
    ) -> None:
        await place.fill(1)
        done = place.run("info", "-q", place.queue, "-u", place.url)
        assert done.stdout.splitlines()[1].split() == [place.queue, "1", "0", "0", "0"]

    async def test_what_is_not_there_is_a_dash_and_stays_away(
        self, place: Place
    ) -> None:
        done = place.run("info", "jobs:app")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[1].split() == [place.queue, *"----"]
        assert await declared(place.url, place.queue) == (None, None)
        assert await declared(place.url, f"{place.queue}_dlq") == (None, None)

    def test_a_broker_that_is_not_there_ends_with_4(self, place: Place) -> None:
        done = place.run("info", RMQARQ_CONNECT_TIMEOUT="0.3")
        assert done.returncode == 4
        assert "no broker could be reached in time" in said(done)

    def test_a_wrong_password_ends_with_3(self, place: Place) -> None:
        url = place.url.replace("guest:guest", "guest:marker-word")
        done = place.run("info", "-u", url)
        assert done.returncode == 3
        assert "marker-word" not in said(done)


class TestPurge:
    async def test_it_asks_and_no_changes_nothing(self, place: Place) -> None:
        await place.fill(3)
        for typed in ("n\n", "\n", None):
            done = place.run("purge", "-q", place.queue, "-u", place.url, typed=typed)
            assert done.returncode == 1
            assert f"Delete what waits in {place.queue} (3)? [y/N]" in said(done)
            assert said(done).endswith("Nothing was changed.")
        await wait_for_count(place.url, place.queue, ready=3)

    async def test_yes_deletes_what_waits_in_this_queue_only(
        self, place: Place
    ) -> None:
        await place.fill(3, delayed=1)
        await place.fill(2, queue=f"{place.queue}-2")
        done = place.run("purge", "jobs:app", "-q", place.queue, typed="y\n")
        assert done.returncode == 0
        assert done.stdout == f"{place.queue}: 3 deleted\n"
        await place.fill(1)
        done = place.run("purge", "-q", place.queue, "-u", place.url, "--yes")
        assert said(done) == f"{place.queue}: 1 deleted"
        found = json.loads(place.run("info", "jobs:app", "--json").stdout)
        assert [each["ready"] for each in found["queues"]] == [0, 2]
        assert found["delayed"] == 1

    async def test_of_several_queues_one_must_be_named(self, place: Place) -> None:
        done = place.run("purge", "jobs:app", "--yes")
        assert done.returncode == 2
        assert f"say which: {place.queue}, {place.queue}-2" in said(done)

    async def test_of_several_queues_none_is_touched_before_all_are_agreed_upon(
        self, place: Place
    ) -> None:
        other = f"{place.queue}-2"
        await place.fill(3)
        await place.fill(2, queue=other)
        both = ("purge", "jobs:app", "-q", place.queue, "-q", other)
        done = place.run(*both, typed="y\nn\n")
        assert done.returncode == 1
        assert f"Delete what waits in {other} (2)? [y/N]" in said(done)
        await wait_for_count(place.url, place.queue, ready=3)
        done = place.run(*both, typed="y\ny\n")
        assert done.stdout == f"{place.queue}: 3 deleted\n{other}: 2 deleted\n"

    def test_a_queue_that_is_not_there_ends_with_2(self, place: Place) -> None:
        done = place.run("purge", "-q", place.queue, "-u", place.url, "--yes")
        assert done.returncode == 2
        assert said(done) == f"rmqarq: there is no queue '{place.queue}'"
