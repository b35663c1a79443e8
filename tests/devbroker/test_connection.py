"""Connections: over a port and without one, opened, kept alive, cut, refused."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import aiormq
import pika
import pytest
from anyio import to_thread
from pamqp import commands
from pamqp.frame import marshal

from rmqarq.devbroker import Broker, Depth, frames
from rmqarq.devbroker.connection import MUCH
from tests.devbroker.kit import bodies, get, put, until
from tests.devbroker.refusals import HEADER, Ended, Session, publish, queue, refused

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel

    from tests.devbroker.conftest import Dialled

NO_PROPERTIES = b"\x00\x3c" + bytes(12)


async def test_aiormq_speaks_to_it_over_a_port(dev: Broker) -> None:
    port = await dev.serve()
    connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
    channel = await connection.channel()
    await channel.queue_declare("q")
    await put(channel, "q", "one", "two")
    assert await bodies(channel, "q") == ["one", "two"]
    properties = connection.server_properties
    assert properties["product"] == "rmqarq dev broker"
    assert str(properties["version"]).startswith("3.10.")
    await connection.close()


async def test_pika_speaks_to_it_over_a_port(dev: Broker) -> None:
    port = await dev.serve()

    def talk() -> list[bytes]:
        parameters = pika.ConnectionParameters("127.0.0.1", port)
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("q")
            for body in (b"one", b"two"):
                channel.basic_publish("", "q", body, mandatory=True)
            with pytest.raises(pika.exceptions.UnroutableError):
                channel.basic_publish("", "nowhere", b"three", mandatory=True)
            found: list[bytes] = []
            for method, _, body in channel.consume("q", inactivity_timeout=5):
                assert method is not None
                assert body is not None
                channel.basic_ack(method.delivery_tag)
                found.append(body)
                if len(found) == 2:
                    break
            channel.cancel()
            return found

    assert await to_thread.run_sync(talk) == [b"one", b"two"]


async def test_it_starts_within_five_milliseconds() -> None:
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        broker = Broker()
        await broker.serve()
        times.append(time.perf_counter() - began)
        await broker.close()
    assert min(times) < 0.005


async def test_it_listens_where_others_reach_it_only_when_told_to() -> None:
    async with Broker() as broker:
        for host in ("0.0.0.0", "::", "example.com"):
            with pytest.raises(ValueError, match="no loopback address"):
                await broker.serve(host)
        assert await broker.serve("0.0.0.0", any_host=True)


async def test_a_message_larger_than_a_frame_comes_in_pieces(
    dev: Broker, dialled: Dialled
) -> None:
    raw = await dialled()
    await raw.open(frame_max=4096)
    factory: Any = dev
    other = await aiormq.connect("amqp://nowhere/", transport_factory=factory)
    channel = await other.channel()
    await channel.queue_declare("q")
    await put(channel, "q", "x" * 9000)
    raw.send(commands.Channel.Open())
    await raw.receive()
    raw.send(commands.Basic.Get(queue="q", no_ack=True))
    assert isinstance(await raw.receive(), commands.Basic.GetOk)
    await raw.receive()
    sizes = [len((await raw.receive()).value) for _ in range(3)]
    assert sizes == [4088, 4088, 824]
    await other.close()


async def test_a_frame_that_comes_in_pieces_is_put_together(dialled: Dialled) -> None:
    raw = await dialled()
    for octet in HEADER:
        raw.writer.write(bytes((octet,)))
        await asyncio.sleep(0)
    assert isinstance(await raw.receive(), commands.Connection.Start)


async def test_another_protocol_is_answered_with_the_right_one(
    dialled: Dialled,
) -> None:
    raw = await dialled()
    raw.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await raw.reader.read() == HEADER


async def test_a_wrong_password_is_refused_in_words_to_clients_that_want_them(
    dialled: Dialled,
) -> None:
    able = {"authentication_failure_close": True}
    with pytest.raises(Ended) as ended:
        await (await dialled()).open(password="wrong", capabilities=able)
    found = refused(ended.value.args[0])
    assert found.code == 403
    assert found.text == (
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN."
        " For details see the broker logfile."
    )
    with pytest.raises(asyncio.IncompleteReadError):
        await (await dialled()).open(password="wrong")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"vhost": "other"}, "vhost other not found"),
        (
            {"frame_max": 100},
            "lower than the minimum allowed value (4096)",
        ),
        (
            {"frame_max": 1_000_000},
            "higher than the maximum allowed value (131072)",
        ),
    ],
)
async def test_terms_that_nobody_can_meet_are_refused(
    arguments: dict[str, Any],
    text: str,
    dialled: Dialled,
) -> None:
    with pytest.raises(Ended) as ended:
        await (await dialled()).open(**arguments)
    found = refused(ended.value.args[0])
    assert (found.where, found.code) == ("connection", 530)
    start = "NOT_ALLOWED - "
    if "frame_max" in arguments:
        start += f"negotiated frame_max = {arguments['frame_max']} is "
    assert found.text == start + text


async def test_a_silent_client_is_cut_off_and_its_messages_are_given_back(
    dev: Broker,
    channel: AbstractChannel,
    dialled: Dialled,
) -> None:
    await channel.queue_declare("q")
    await put(channel, "q", "one")
    raw = await dialled()
    raw.writer.write(HEADER)
    await raw.receive()
    start_ok = commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US")
    raw.send(start_ok, 0)
    await raw.receive()
    raw.send(commands.Connection.TuneOk(10, 131_072, 1), 0)
    raw.send(commands.Connection.Open("/"), 0)
    raw.send(commands.Channel.Open())
    raw.send(commands.Basic.Get(queue="q"))
    await until(lambda: dev.queues()["q"] == Depth(ready=0, unacked=1, consumers=0))
    rest = await asyncio.wait_for(raw.reader.read(), 10)
    assert b"\x08\x00\x00\x00\x00\x00\x00\xce" in rest  # it sent signs of life itself
    await until(lambda: dev.queues()["q"] == Depth(ready=1, unacked=0, consumers=0))
    message = await get(channel, "q")
    assert message is not None
    assert message.delivery.redelivered


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00\x3c\x00\x00" + bytes(7) + b"\x02",
        b"\x00\x3c\x00\x00" + bytes(7) + b"\x02\x80\x00\x09text",
        b"\x00\x3c\x00\x00" + bytes(7) + b"\x02\x20\x00\x00\x00\x00\x02\x01",
        b"\x00\x3c\x00\x00" + bytes(7) + b"\x02\x20\x00\x00\x00\x00\x03\x01ai",
        b"\x00\x3c\x00\x00" + bytes(7) + b"\x02\x20\x00\x00\x00\x00\x03\x01a?",
    ],
)
async def test_a_malformed_message_ends_the_connection_of_who_sent_it(
    dev: Broker, channel: AbstractChannel, dialled: Dialled, header: bytes
) -> None:
    quorum = {"x-queue-type": "quorum"}
    await channel.queue_declare("q", durable=True, arguments=quorum)
    raw = await dialled()
    await raw.open()
    raw.send(commands.Channel.Open())
    await raw.receive()
    raw.send(commands.Basic.Publish(routing_key="q"))
    raw.writer.write(frames.frame(frames.HEADER, 1, header))
    raw.writer.write(frames.frame(frames.BODY, 1, b"hi"))
    found = refused(await raw.receive())
    assert (found.where, found.code) in (("connection", 541), ("connection", 505))
    assert dev.queues()["q"].ready == 0


async def test_it_says_goodbye_when_it_closes() -> None:
    async with Broker() as broker:
        raw = Session(*await broker.connect())
        await raw.open()
    found = refused(await raw.receive())
    assert (found.where, found.code) == ("connection", 320)
    assert await raw.reader.read() == b""
    await raw.close()


async def test_a_confirm_that_fills_the_buffer_is_said_once(
    dev: Broker, dialled: Dialled
) -> None:
    raw = await dialled()
    await raw.open()
    for call in (commands.Channel.Open(), commands.Confirm.Select(), queue()):
        raw.send(call)
        await raw.receive()
    around = 58  # bytes of get-ok and its frames
    sizes = [130_000] * 8
    sizes.append(MUCH - sum(sizes) - around * 9)
    got = (commands.Basic.Get(queue="q", no_ack=True) for _ in sizes)
    for size in sizes:
        assert dev.put("q", NO_PROPERTIES, b"x" * size)
    told = [*got, *publish(key="nowhere"), queue(), queue("end")]
    raw.writer.write(b"".join(marshal(each, 1) for each in told))
    answers: list[Any] = []
    while not answers or getattr(answers[-1], "queue", "") != "end":
        answers.append(await raw.receive())
    acks = [each for each in answers if isinstance(each, commands.Basic.Ack)]
    assert len(acks) == 1


async def test_nobody_logs_in_for_another(dialled: Dialled) -> None:
    raw = await dialled()
    raw.writer.write(HEADER)
    await raw.receive()
    raw.send(commands.Connection.StartOk({}, "PLAIN", "me\0guest\0guest", "en_US"), 0)
    assert await raw.reader.read() == b""


async def test_a_malformed_method_is_named(dialled: Dialled) -> None:
    raw = await dialled()
    await raw.open()
    raw.send(commands.Channel.Open())
    await raw.receive()
    raw.writer.write(frames.frame(frames.METHOD, 1, b"\x00\x32\x00\x0a\x00\x00\x05a"))
    assert refused(await raw.receive()).method == (50, 10)


async def test_tables_deeper_than_anybody_needs_are_refused(dialled: Dialled) -> None:
    raw = await dialled()
    await raw.open()
    raw.send(commands.Channel.Open())
    await raw.receive()
    table: dict[str, Any] = {}
    for _ in range(150):
        table = {"a": table}
    raw.send(commands.Queue.Declare(queue="q", arguments=table))
    found = refused(await raw.receive())
    assert (found.where, found.code) == ("connection", 501)


async def test_nobody_says_much_before_terms_are_agreed_on(dialled: Dialled) -> None:
    raw = await dialled()
    raw.writer.write(HEADER)
    await raw.receive()
    properties = {"who": "x" * 5000}
    start_ok = commands.Connection.StartOk(properties, "PLAIN", "\0guest\0guest")
    raw.send(start_ok, 0)
    assert refused(await raw.receive()).code == 501


async def test_more_channels_than_agreed_on_end_the_connection(
    dialled: Dialled,
) -> None:
    raw = await dialled()
    await raw.open()
    for number in range(1, 2048):
        raw.send(commands.Channel.Open(), number)
        await raw.receive()
    raw.send(commands.Channel.Open(), 3000)
    found = refused(await raw.receive())
    assert (found.where, found.code) == ("connection", 530)
    assert found.text == (
        "NOT_ALLOWED - number of channels opened (2047) has reached the negotiated"
        " channel_max (2047)"
    )
    assert found.method == (0, 0)


async def test_nowait_is_not_answered(dialled: Dialled) -> None:
    raw = await dialled()
    await raw.open()
    for frame in (
        commands.Channel.Open(),
        queue(nowait=True),
        commands.Queue.Bind(queue="q", exchange="amq.direct", nowait=True),
        commands.Queue.Purge(queue="q", nowait=True),
        commands.Confirm.Select(nowait=True),
        commands.Basic.Consume(queue="q", consumer_tag="c", nowait=True),
        commands.Basic.Cancel(consumer_tag="c", nowait=True),
        commands.Queue.Delete(queue="q", nowait=True),
        commands.Channel.Close(200, "", 0, 0),
    ):
        raw.send(frame)
    assert isinstance(await raw.receive(), commands.Channel.OpenOk)
    assert isinstance(await raw.receive(), commands.Channel.CloseOk)
