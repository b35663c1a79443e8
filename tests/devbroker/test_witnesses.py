"""Clients that are not ours do on the dev broker what they do on RabbitMQ.

Each plays the same round: publish with confirms, get, consume, acknowledge, give back,
reject, let expire, and take the dead letters.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aio_pika
import kombu
import pika
import pytest

from tests.docs.test_protocol import client_for_node
from tests.harness.dev_broker import DevBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 5  # seconds
EXPECTED = [
    "1",
    [["2", False], ["3", False], ["3", True]],
    [["2", "rejected"], ["4", "expired"]],
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with DevBroker() as broker:
        yield broker.url


def verdict(body: str, redelivered: bool) -> str:
    """What the consumer of the round says to a message."""
    if body == "2":
        return "reject"
    return "ack" if redelivered else "requeue"


def test_pika_does_its_round(url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("pika-dead", durable=True)
    way = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "pika-dead"}
    channel.queue_declare("pika", durable=True, arguments=way)

    def get(queue: str) -> tuple[Any, Any, bytes]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = channel.basic_get(queue)
            if found[0] is not None:
                channel.basic_ack(found[0].delivery_tag)
                return found
            time.sleep(0.01)
        raise TimeoutError(queue)

    for body in "123":
        channel.basic_publish("", "pika", body.encode(), mandatory=True)
    first = get("pika")[2].decode()

    delivered: list[list[Any]] = []
    for method, _, body in channel.consume("pika", inactivity_timeout=PATIENCE):
        assert method is not None, f"nothing more came after {delivered}"
        text = body.decode()
        delivered.append([text, method.redelivered])
        said = verdict(text, method.redelivered)
        if said == "ack":
            channel.basic_ack(method.delivery_tag)
            break
        channel.basic_nack(method.delivery_tag, requeue=said == "requeue")
    channel.cancel()

    soon = pika.BasicProperties(expiration="20")
    channel.basic_publish("", "pika", b"4", soon)
    dead = [
        [body.decode(), properties.headers["x-death"][0]["reason"]]
        for _, properties, body in (get("pika-dead"), get("pika-dead"))
    ]
    connection.close()
    assert [first, delivered, dead] == EXPECTED


def test_kombu_does_its_round(url: str) -> None:
    dead_queue = kombu.Queue("kombu-dead", routing_key="kombu-dead")
    way = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "kombu-dead"}
    queue = kombu.Queue("kombu", routing_key="kombu", queue_arguments=way)
    confirms = {"confirm_publish": True}
    with kombu.Connection(url, transport_options=confirms) as connection:
        channel = connection.channel()
        bound, graves = queue(channel), dead_queue(channel)
        bound.declare()
        graves.declare()
        producer = connection.Producer(channel)

        def send(body: str, **properties: Any) -> None:
            producer.publish(body, routing_key="kombu", mandatory=True, **properties)

        def get(where: Any) -> Any:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if (found := where.get()) is not None:
                    found.ack()
                    return found
                time.sleep(0.01)
            raise TimeoutError(where)

        for body in "123":
            send(body)
        first = get(bound).body

        delivered: list[list[Any]] = []

        def seen(message: Any) -> None:
            again = message.delivery_info["redelivered"]
            delivered.append([message.body, again])
            said = verdict(message.body, again)
            {"ack": message.ack, "reject": message.reject, "requeue": message.requeue}[
                said
            ]()

        with connection.Consumer(bound, on_message=seen, channel=channel):
            while len(delivered) < 3:
                connection.drain_events(timeout=PATIENCE)

        send("4", expiration=0.02)  # seconds
        letters = [get(graves), get(graves)]
        dead = [[each.body, each.headers["x-death"][0]["reason"]] for each in letters]
        assert [first, delivered, dead] == EXPECTED


async def test_aio_pika_does_its_round(url: str) -> None:
    async with asyncio.timeout(PATIENCE), await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        graves = await channel.declare_queue("aio-dead", durable=True)
        way = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "aio-dead"}
        queue = await channel.declare_queue("aio", durable=True, arguments=way)

        async def send(body: str, **properties: Any) -> None:
            message = aio_pika.Message(body.encode(), **properties)
            await channel.default_exchange.publish(message, "aio")

        async def get(where: Any) -> Any:
            while (found := await where.get(fail=False)) is None:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            await found.ack()
            return found

        for body in "123":
            await send(body)
        first = (await get(queue)).body.decode()

        delivered: list[list[Any]] = []
        async with queue.iterator() as messages:
            async for message in messages:
                text, again = message.body.decode(), message.redelivered
                delivered.append([text, again])
                said = verdict(text, again is True)
                if said == "ack":
                    await message.ack()
                    break
                await message.nack(requeue=said == "requeue")

        await send("4", expiration=0.02)  # seconds
        letters = [await get(graves), await get(graves)]
        dead = [
            [each.body.decode(), each.headers["x-death"][0]["reason"]]
            for each in letters
        ]
    assert [first, delivered, dead] == EXPECTED


@pytest.mark.timeout(120)  # npm may have to fetch a library
def test_amqplib_of_node_does_its_round(url: str, tmp_path: Path) -> None:
    # Node looks for a library beside the program
    (tmp_path / "node_modules").symlink_to(client_for_node() / "node_modules")
    program = shutil.copy(Path(__file__).parent / "witness.mjs", tmp_path)
    done = subprocess.run(
        ["node", program],
        env={**os.environ, "RMQARQ_URL": url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == EXPECTED
