"""How large a body may be, by our own limit and by the broker's."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from rmqarq import App, ConfigurationError
from tests.broker.kit import running, take_all, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.broker import Broker

MOST = 128 * 1024 * 1024
"""What RabbitMQ 3.10 takes unless told otherwise; RabbitMQ 4 takes 16 MiB."""


@pytest.fixture(scope="module")
def room(broker: Broker) -> Iterator[None]:
    """Let bodies of 128 MiB pass on every version."""
    usual = broker.eval(f"persistent_term:get(max_message_size, {MOST}).")
    limit_messages(broker, MOST)
    yield
    limit_messages(broker, int(usual))


def limit_messages(broker: Broker, size: int) -> None:
    """Set the largest body that channels opened from now on take."""
    broker.eval(
        f"application:set_env(rabbit, max_message_size, {size}),"
        f" persistent_term:put(max_message_size, {size}).",
    )


@pytest.mark.usefixtures("room")
async def test_a_body_above_the_limit_of_the_broker_is_refused_and_harms_no_other(
    broker: Broker, queue: str
) -> None:
    await to_thread.run_sync(limit_messages, broker, 100_000)
    try:
        async with App(broker.url, queue=queue) as app:
            text = app.ref("text")
            bodies = ("x" * size for size in (50, 99_000, 150_000, 50))
            found = await asyncio.gather(
                *map(text.enqueue, bodies), return_exceptions=True
            )
            await text.enqueue("after")
    finally:
        await to_thread.run_sync(limit_messages, broker, MOST)
    errors = [each for each in found if isinstance(each, BaseException)]
    assert [type(each) for each in errors] == [ConfigurationError]
    assert "larger than configured max size 100000" in str(errors[0])
    # what was on its way beside it is sent again, and may have been stored before
    letters = await take_all(broker.url, queue)
    assert len({each.properties.correlation_id for each in letters}) == 4


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("compression", [False, True], ids=["plain", "gzip"])
async def test_a_body_of_20_megabytes_arrives_whole(
    broker: Broker, queue: str, serializer: Any, compression: bool
) -> None:
    app = App(
        broker.url,
        queue=queue,
        max_body=64 * 1024 * 1024,
        serializer=serializer,
        compression=compression,
    )
    arrived: list[str] = []

    @app.task
    async def digest(text: str, raw: bytes) -> None:
        arrived.append(hashlib.sha256(text.encode() + raw).hexdigest())

    block = secrets.token_hex(50_000)
    text = block * 140 + "✓"
    raw = block.encode() * 45
    assert len(text) + len(raw) > 18_000_000
    async with running(app):
        await digest.enqueue(text, raw)
        await until(lambda: arrived, timeout=30)
    assert arrived == [hashlib.sha256(text.encode() + raw).hexdigest()]
