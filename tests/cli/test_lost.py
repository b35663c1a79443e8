"""`rmqarq lost`: what was due for a queue that is gone can be seen and sent on."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App
from tests.broker.kit import channel_to, take_all, wait_for_count
from tests.cli.kit import rmqarq

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.harness.broker import Broker


class Place:
    """A prefix with lost messages, and commands about it."""

    def __init__(self, broker: Broker, queue: str, directory: Path) -> None:
        self.url, self.queue, self.directory = broker.url, queue, directory
        self.prefix = f"p{secrets.token_hex(4)}"
        self.lost = f"{self.prefix}.lost"
        self.app = App(broker.url, queue=queue, prefix=self.prefix)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        given = {"RMQARQ_URL": self.url, "RMQARQ_PREFIX": self.prefix}
        return rmqarq("lost", *args, cwd=self.directory, **given)

    def found(self, *args: str) -> list[dict[str, Any]]:
        done = self.run("list", "--json", *args)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    async def lose(self, *queues: str) -> None:
        """Send a delayed job to each queue, and delete the queues before it is due."""
        async with self.app:
            for number, queue in enumerate(queues):
                task = self.app.ref("t").options(queue=queue, job_id=f"job-{number}")
                await task.defer(1.5, number)
            await self.delete(*queues)
        await wait_for_count(self.url, self.lost, ready=len(queues))

    async def delete(self, *queues: str) -> None:
        async with channel_to(self.url) as channel:
            for queue in queues:
                await channel.queue_delete(queue)

    async def make(self, queue: str) -> None:
        """Let the queue be there again, empty."""
        async with self.app:
            await self.app.ref("t").options(queue=queue).enqueue()
        await wait_for_count(self.url, queue, ready=1)
        await take_all(self.url, queue)


@pytest.fixture
def place(broker: Broker, queue: str, tmp_path: Path) -> Place:
    return Place(broker, queue, tmp_path)


async def test_lost_messages_are_listed_and_stay(place: Place) -> None:
    other = f"{place.queue}-2"
    await place.lose(place.queue, other)
    found = {each["id"]: each["queue"] for each in place.found()}
    assert found == {"job-0": place.queue, "job-1": other}
    assert [each["id"] for each in place.found("-q", other)] == ["job-1"]
    done = place.run("list", "--task", "t", "--newer-than", "1h", "--limit", "1")
    assert done.stdout.splitlines()[0].split() == ["id", "task", "due", "for", "since"]
    assert len(done.stdout.splitlines()) == 2
    assert f"{place.lost}: 2 of 2 letters fit, 1 are shown" in done.stderr
    await wait_for_count(place.url, place.lost, ready=2)


async def test_they_go_on_unchanged_when_their_queue_is_there_again(
    place: Place,
) -> None:
    other = f"{place.queue}-2"
    await place.lose(place.queue, other)
    await place.make(place.queue)
    done = place.run("requeue", "--all")
    assert done.returncode == 1
    assert done.stdout == f"{place.lost}: requeued 1 of 2\n"
    assert f"1 had to stay (the broker has no queue for '{other}'" in done.stderr
    (letter,) = await take_all(place.url, place.queue)
    body = json.loads(letter.body)
    assert (body["id"], body["args"]) == ("job-0", [0])
    assert "generation" not in body
    assert letter.headers.keys().isdisjoint({"x-death", "CC"})
    done = place.run("requeue", "-q", other, "--to", place.queue)
    assert (done.returncode, done.stderr) == (0, "")
    (letter,) = await take_all(place.url, place.queue)
    assert json.loads(letter.body)["id"] == "job-1"
    await wait_for_count(place.url, place.lost, ready=0)


async def test_a_prefix_that_nobody_used_ends_with_2(place: Place) -> None:
    done = place.run("list")
    assert done.returncode == 2
    assert f"there is no queue '{place.lost}'" in done.stderr
    done = place.run("requeue")
    assert done.returncode == 2
    assert "say which, or --all" in done.stderr
