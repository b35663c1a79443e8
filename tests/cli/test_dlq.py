"""`rmqarq dlq`: what is shown stays, what is put back is stored before it is taken."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, Message
from rmqarq.wire.codec import Codec
from rmqarq.wire.publication import Forward, Letter, Publication
from tests.broker.kit import channel_to, take_all, wait_for_count
from tests.broker.raw import properties, raw_publisher
from tests.broker.test_dead_letter import POISON
from tests.chaos.crafted import CRAFTED
from tests.cli.kit import environment, rmqarq

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.broker import Broker


class Place:
    """A queue with dead letters, and commands about it."""

    def __init__(self, broker: Broker, queue: str, directory: Path) -> None:
        self.url, self.queue, self.directory = broker.url, queue, directory
        self.dead = f"{queue}_dlq"
        self.app = App(broker.url, queue=queue)
        self.now = time.time()

    def run(self, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        given = {"RMQARQ_URL": self.url, "RMQARQ_QUEUE": self.queue, **more}
        return rmqarq("dlq", *args, cwd=self.directory, **given)

    def found(self, *args: str) -> list[dict[str, Any]]:
        done = self.run("list", "--json", "--all", *args)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def on_terminal(self, *args: str) -> str:
        """Run a command whose standard error is a terminal; give what stood there."""
        outside, inside = os.openpty()
        given = environment(RMQARQ_URL=self.url, RMQARQ_QUEUE=self.queue)
        command = [sys.executable, "-m", "rmqarq", "dlq", *args]
        with os.fdopen(outside, "rb", buffering=0) as screen:
            with os.fdopen(inside, "wb") as end:
                out = subprocess.DEVNULL
                process = subprocess.Popen(
                    command, cwd=self.directory, env=given, stdout=out, stderr=end
                )
            shown = b""
            with contextlib.suppress(OSError):  # the other side is closed
                while data := screen.read(4096):
                    shown += data
        assert process.wait(20) == 0
        return shown.decode()

    def letter(self, number: int, age: float = 60, **fields: Any) -> Publication:
        """Make a dead letter as a worker writes it."""
        message = Message(
            id=f"job-{number}",
            task=f"task.{number % 3}",
            args=(number,),
            job_try=4,
            enqueued_at=self.now - 3600,
            **fields,
        )
        encoded = Codec(self.app.settings).encode(message)
        letter = Letter(
            task=message.task,
            job_id=message.id,
            body=encoded.body,
            content_type=encoded.content_type,
            headers={
                "x-rmqarq-reason": "rejected" if number % 2 else "retries used up",
                "x-rmqarq-queue": self.queue,
                "x-rmqarq-attempts": 4,
                "x-rmqarq-error": "builtins.OSError",
                "x-rmqarq-message": f"number {number}\x1b[31m",
                "x-rmqarq-traceback": "Traceback:\n  here\n",
                "x-rmqarq-last-at": int((self.now - age) * 1000),
            },
        )
        ready = letter.template(letter.headers)
        return Publication("", self.dead, ready, letter.body, (self.queue,))

    async def fill(self, *letters: Publication) -> None:
        async with self.app:
            assert await self.app.transport.publish_many(letters, 30) == {}
        await wait_for_count(self.url, self.dead, ready=len(letters))


@pytest.fixture
def place(broker: Broker, queue: str, tmp_path: Path) -> Place:
    return Place(broker, queue, tmp_path)


class TestLooking:
    async def test_filters_pick_and_everything_stays_in_its_order(
        self, place: Place
    ) -> None:
        count = 4500  # more than two channels may hold
        await place.fill(*(place.letter(n, age=n) for n in range(count)))
        every = [f"job-{n}" for n in range(count)]
        assert [each["id"] for each in place.found()] == every
        found = place.found("--task", "task.1", "--reason", "rejected")
        assert [each["id"] for each in found] == every[1::6]
        found = place.found("--error", "NUMBER 7\x1b", "--error", "number 8\x1b")
        assert [each["id"] for each in found] == ["job-7", "job-8"]
        found = place.found("--older-than", "1h", "--newer-than", "2h")
        assert 890 < len(found) < 990
        done = place.run("list", "--limit", "2", "--task", "task.2")
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["id", "job-2", "job-5"]
        assert f"{place.dead}: 1500 of 4500 letters fit, 2 are shown" in done.stderr
        assert "\x1b" not in done.stdout
        assert "100%" in place.on_terminal("list")
        await wait_for_count(place.url, place.dead, ready=count)
        assert [each["id"] for each in place.found()] == every

    async def test_show_tells_all_that_a_letter_says(self, place: Place) -> None:
        await place.fill(place.letter(1, generation=2, headers={"trace": "t-1"}))
        done = place.run("show", "job-1")
        assert (done.returncode, done.stderr) == (0, "")
        for text in ("rejected", "builtins.OSError: number 1", "Traceback:\n    here"):
            assert text in done.stdout
        (found,) = json.loads(place.run("show", "job-1", "--json").stdout)
        assert (found["args"], found["kwargs"]) == ([1], {})
        assert (found["attempts"], found["job_try"], found["generation"]) == (4, 4, 2)
        assert found["headers"] == {"trace": "t-1"}
        assert found["traceback"] == "Traceback:\n  here\n"
        assert found["died_at"].endswith("+00:00")

    async def test_a_message_of_another_producer_is_shown_as_it_came(
        self, place: Place
    ) -> None:
        @place.app.consume("theirs", name="followed")
        async def followed(event: bytes) -> None: ...

        raw = properties(content_type=b"text/plain", message_id=b"m-1", type=b"T")
        headers = {"x-rmqarq-task": "followed", "x-rmqarq-reason": "rejected"}
        letter = Forward(task="followed", job_id="m-1", body=b"<\xff>", properties=raw)
        ready = letter.template({**headers, "x-rmqarq-id": "m-1"})
        dead = Publication("", place.dead, ready, letter.body, (place.queue,))
        await place.fill(dead)
        (found,) = place.found("--task", "followed")
        assert (found["id"], found["reason"]) == ("m-1", "rejected")
        done = place.run("show", "m-1")
        assert (done.returncode, done.stderr) == (0, "")
        shown = [line.split() for line in done.stdout.splitlines()]
        assert ["body", "<\\xff>"] in shown
        assert "arguments" not in done.stdout
        (found,) = json.loads(place.run("show", "m-1", "--json").stdout)
        assert (found["body"], found["problem"]) == ("<\\xff>", None)

    async def test_what_is_not_there_ends_with_2(self, place: Place) -> None:
        done = place.run("list")
        assert done.returncode == 2
        assert f"there is no queue '{place.dead}'" in done.stderr
        await place.fill(place.letter(1))
        for args in (
            ("show", "job-2"),
            ("requeue", "--id", "job-2"),
            ("drop", "--id", "job-2", "--yes"),
        ):
            done = place.run(*args)
            assert done.returncode == 2
            assert "no letter of the job job-2 is there" in done.stderr
        await wait_for_count(place.url, place.dead, ready=1)

    async def test_another_reader_is_mentioned(self, place: Place) -> None:
        await place.fill(place.letter(1))
        async with channel_to(place.url) as channel:
            await channel.basic_consume(place.dead, ignore)
            await wait_for_count(place.url, place.dead, ready=0, consumers=1)
            done = place.run("list")
        assert done.returncode == 0
        assert f"{place.dead} has 1 consumers" in done.stderr


async def ignore(_: object) -> None:
    """Hold what comes."""


class TestPuttingBack:
    async def test_a_job_begins_anew_under_its_id(self, place: Place) -> None:
        await place.fill(
            place.letter(1, expires=5.0, eta=1.0, first_failed_at=1.0),
            place.letter(2),
        )
        done = place.run("requeue", "--id", "job-1")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{place.queue}: requeued 1 of 2\n"
        (letter,) = await take_all(place.url, place.queue)
        body = json.loads(letter.body)
        assert (body["id"], body["args"], body["generation"]) == ("job-1", [1], 1)
        assert body.keys().isdisjoint({"try", "eta", "expires", "first_failed_at"})
        assert letter.properties.correlation_id == "job-1"
        assert not [each for each in letter.headers if "rmqarq" in each]
        assert [each["id"] for each in place.found()] == ["job-2"]

    async def test_what_dies_again_meanwhile_is_left_for_the_next_time(
        self, place: Place
    ) -> None:
        await place.fill(*(place.letter(n) for n in range(300)))
        done = place.run("requeue", "--all", "--to", place.dead)
        assert done.stdout == f"{place.queue}: requeued 300 of 300\n"
        await wait_for_count(place.url, place.dead, ready=300)

    async def test_a_queue_that_is_gone_is_not_made_and_the_letters_stay(
        self, place: Place
    ) -> None:
        await place.fill(place.letter(1), place.letter(2))
        async with channel_to(place.url) as channel:
            await channel.queue_delete(place.queue)
        done = place.run("requeue", "--all")
        assert done.returncode == 1
        no_queue = f"the broker has no queue for '{place.queue}' (NO_ROUTE)"
        assert f"2 had to stay ({no_queue})" in done.stderr
        assert done.stdout == f"{place.queue}: requeued 0 of 2\n"
        await wait_for_count(place.url, place.dead, ready=2)

    async def test_the_word_of_the_broker_stands_where_no_worker_wrote_one(
        self, place: Place
    ) -> None:
        async with place.app:
            await place.app.ref("t").options(job_id="job-1").enqueue(1)
        async with channel_to(place.url) as channel:
            got = await channel.basic_get(place.queue)
            await channel.basic_nack(got.delivery_tag or 0, requeue=False)
        await wait_for_count(place.url, place.dead, ready=1)
        (found,) = place.found("--reason", "broker*")
        assert (found["id"], found["reason"]) == ("job-1", "broker: rejected")
        assert place.run("requeue", "--id", "job-1").returncode == 0
        (letter,) = await take_all(place.url, place.queue)
        assert "x-death" not in letter.headers


class TestDropping:
    async def test_it_asks_and_drops_no_more_than_it_asked_for(
        self, place: Place
    ) -> None:
        await place.fill(*(place.letter(n) for n in range(12)))
        for typed in (None, "n\n"):
            done = place.run("drop", "--task", "task.0", typed=typed)
            assert done.returncode == 1
            question = f"Drop 4 of the 12 dead letters of {place.queue}? [y/N]"
            assert question in done.stderr
        await wait_for_count(place.url, place.dead, ready=12)
        done = place.run("drop", "--task", "task.0", "--limit", "3", typed="y\n")
        assert done.stdout == f"{place.queue}: dropped 3 of 12\n"
        done = place.run("drop", "--reason", "rejected", "--yes", "--json")
        (told,) = json.loads(done.stdout)
        assert told["dropped"] == 5
        left = [each["id"] for each in place.found()]
        assert left == ["job-2", "job-4", "job-8", "job-10"]

    async def test_nothing_is_done_to_all_by_mistake(self, place: Place) -> None:
        await place.fill(place.letter(1))
        for args in (("requeue",), ("drop", "--yes"), ("drop", "--older-than", "soon")):
            done = place.run(*args)
            assert done.returncode == 2
            assert "--all" in done.stderr or "'soon' is no time" in done.stderr
        assert place.run("drop", "--all", "--yes").returncode == 0
        await wait_for_count(place.url, place.dead, ready=0)


class TestSeveralQueues:
    async def test_a_limit_is_for_all_of_them_together(
        self, broker: Broker, place: Place, queue: str, tmp_path: Path
    ) -> None:
        other = Place(broker, f"{queue}-2", tmp_path)
        await place.fill(*(place.letter(n) for n in range(2)))
        await other.fill(*(other.letter(n) for n in range(2, 5)))
        both = ("--queue", queue, "--queue", other.queue, "--limit", "3")
        done = place.run("list", "--json", *both)
        assert [each["id"] for each in json.loads(done.stdout)] == [
            f"job-{n}" for n in range(3)
        ]
        done = place.run("drop", *both, typed="y\nn\n")
        assert done.returncode == 1
        assert f"Drop 1 of the 3 dead letters of {other.queue}? [y/N]" in done.stderr
        done = place.run("requeue", *both)
        assert done.stdout == (
            f"{queue}: requeued 2 of 2\n{other.queue}: requeued 1 of 3\n"
        )
        assert [each["id"] for each in other.found()] == ["job-3", "job-4"]


class TestPoison:
    async def test_no_letter_can_kill_the_tool_or_is_lost(
        self, place: Place, broker: Broker
    ) -> None:
        await place.fill(place.letter(1))
        bodies = [b"\xff%d" % number for number in range(len(POISON))]
        async with raw_publisher(broker) as raw:
            for body, poison in zip(bodies, POISON.values(), strict=True):
                await raw.publish(place.dead, properties(**poison), body)
        bodies.append(b"[" * 9999)
        total = 1 + len(bodies)
        async with raw_publisher(broker) as raw:
            await raw.publish(place.dead, properties(correlation_id=b"j"), bodies[-1])
        await wait_for_count(place.url, place.dead, ready=total)
        assert len(place.found()) == total
        assert place.run("list").returncode == 0
        (found,) = json.loads(place.run("show", "j", "--json").stdout)
        assert "can't be read" in found["problem"]
        assert found["body"].startswith("[[[")
        done = place.run("requeue", "--all")
        assert done.returncode == 1
        assert done.stdout == f"{place.queue}: requeued 1 of {total}\n"
        assert f"{len(bodies)} had to stay (the message can't be read" in done.stderr
        done = place.run("requeue", "--all", "--as-is")
        assert done.returncode == 0, done.stderr
        assert f": requeued {len(bodies)} of {len(bodies)}\n" in done.stdout
        await wait_for_count(place.url, place.dead, ready=0)
        back = [each.body for each in await take_all(place.url, place.queue)]
        assert back[1:] == bodies

    async def test_messages_made_to_break_a_worker_can_be_looked_at(
        self, place: Place, broker: Broker
    ) -> None:
        await place.fill(place.letter(1))
        async with raw_publisher(broker) as raw:
            for each in CRAFTED.values():
                await raw.publish(place.dead, each.properties, each.body)
        found = place.found()
        assert len(found) == 1 + len(CRAFTED)
        ids = [each["id"] for each in found if each["id"].isprintable()]
        for job_id in sorted(set(filter(None, ids)))[:3]:
            assert place.run("show", "--", job_id).returncode == 0
        await wait_for_count(place.url, place.dead, ready=1 + len(CRAFTED))
