"""The harness does what the other tests rely on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiormq
import anyio
import pytest
from anyio import to_thread

from tests.harness import broker as broker_module
from tests.harness.broker import Broker, BrokerError, alive, descendants
from tests.harness.proxy import Proxy
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BROKER_PROGRAM = str(Path(broker_module.__file__))


@pytest.fixture(scope="module")
def node() -> Iterator[Broker]:
    """A node that the tests of this file may ill-treat."""
    with Broker() as node:
        yield node


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("waited in vain")


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class TestBroker:
    async def test_a_node_starts_and_carries_messages(
        self, broker: Broker, queue: str
    ) -> None:
        async with channel_to(broker.url) as channel:
            await channel.queue_declare(queue)
            await channel.basic_publish(b"hello", routing_key=queue)
            message = await channel.basic_get(queue)
        assert message.body == b"hello"

    async def test_queues_tells_what_is_ready_unacknowledged_and_consumed(
        self, broker: Broker, queue: str
    ) -> None:
        async with channel_to(broker.url) as channel:
            await channel.queue_declare(queue)
            for _ in range(3):
                await channel.basic_publish(b"", routing_key=queue)
            await channel.basic_get(queue)
            queues = await to_thread.run_sync(broker.queues)
        assert queues[queue] == {
            "messages_ready": 2,
            "messages_unacknowledged": 1,
            "consumers": 0,
        }

    async def test_a_persistent_message_survives_a_kill_and_an_orderly_restart(
        self, node: Broker, queue: str
    ) -> None:
        persistent = aiormq.spec.Basic.Properties(delivery_mode=2)
        async with channel_to(node.url) as channel:
            await channel.queue_declare(queue, durable=True)
            await channel.basic_publish(
                b"kept", routing_key=queue, properties=persistent
            )
        # RabbitMQ writes down a new queue with some delay, a new message at once
        await to_thread.run_sync(node.ctl, "eval", "mnesia:sync_log().")
        port, pid = node.port, node.pid
        await to_thread.run_sync(node.kill)
        assert not alive(pid)
        assert refuses(port)
        await to_thread.run_sync(node.start)
        await to_thread.run_sync(node.restart)
        assert (node.port, node.pid == pid) == (port, False)
        async with channel_to(node.url) as channel:
            message = await channel.basic_get(queue)
        assert message.body == b"kept"

    def test_the_application_stops_and_starts_inside_the_same_process(
        self, node: Broker
    ) -> None:
        pid = node.pid
        node.stop_app()
        assert refuses(node.port)
        with pytest.raises(BrokerError, match="failed"):
            node.queues()
        node.start_app()
        assert not refuses(node.port)
        assert node.pid == pid

    def test_the_memory_alarm_can_be_raised_and_cleared(self, node: Broker) -> None:
        alarms = partial(node.ctl, "eval", "rabbit_alarm:get_alarms().")
        node.alarm(True)
        assert "memory" in alarms()
        node.alarm(False)
        assert "memory" not in alarms()

    async def test_two_nodes_do_not_clash(
        self, broker: Broker, node: Broker, queue: str
    ) -> None:
        assert broker.pid != node.pid
        async with channel_to(node.url) as channel:
            await channel.queue_declare(queue)
            assert queue in await to_thread.run_sync(node.queues)
            assert queue not in await to_thread.run_sync(broker.queues)

    def test_stop_leaves_no_process_and_no_file(
        self, broker: Broker, node: Broker
    ) -> None:
        home = node.home
        processes = [node.pid, *descendants(node.pid)]
        assert len(mentions(home)) >= len(processes) > 2
        node.stop()
        assert not any(map(alive, processes))
        assert mentions(home) == []
        assert not home.exists()
        assert refuses(node.port)
        assert broker.running

    def test_a_node_that_cannot_start_says_why_and_leaves_nothing(self) -> None:
        node = Broker()
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", node._distribution_port))
            squatter.listen()
            with pytest.raises(BrokerError, match=r"(?s)while starting.*eaddrinuse"):
                node.start()
        with pytest.raises(BrokerError, match="has not been started"):
            _ = node.home


def mentions(home: Path) -> list[str]:
    """List the processes that were started with a directory in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(home).encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


class TestBrokerProgram:
    def run(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, BROKER_PROGRAM, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def test_it_exits_with_the_code_of_its_command_and_leaves_nothing(self) -> None:
        with self.run("--", "sh", "-c", "echo $RMQARQ_URL; exit 7") as program:
            told, shown = program.communicate(timeout=40)
        assert program.returncode == 7
        assert re.fullmatch(r"amqp://guest:guest@127\.0\.0\.1:\d+/\n", told)
        assert shown == f"RabbitMQ is ready at {told}"
        assert refuses(int(told.rstrip("/\n").rpartition(":")[2]))

    def test_it_passes_a_signal_on_and_stops_the_node(self) -> None:
        script = "trap 'exit 3' TERM; echo here; while :; do sleep 0.05; done"
        with self.run("sh", "-c", script) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "here\n"
            below = descendants(program.pid)
            program.terminate()
            assert program.wait(30) == 3
        assert not any(map(alive, below))

    def test_nothing_is_left_when_it_is_killed(self) -> None:
        with self.run("sh", "-c", "echo here; exec sleep 60") as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "here\n"
            below = descendants(program.pid)
            [home] = {
                path
                for pid in below
                if (path := Path(f"/proc/{pid}/cwd").readlink()).name.startswith(
                    "rmqarq-broker-"
                )
            }
            os.killpg(program.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(alive, below)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(alive, below))
        assert not home.exists()

    def test_it_needs_a_command(self) -> None:
        with self.run("--") as program:
            told, _ = program.communicate(timeout=10)
        assert program.returncode == 2
        assert told.startswith("usage:")


class Echo:
    """A tiny server that sends back what it gets and notes how it was left."""

    def __init__(self) -> None:
        self.received = 0
        self.goodbyes: list[str] = []
        self.open = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.open += 1
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
            self.goodbyes.append("fin")
        except ConnectionResetError:
            self.goodbyes.append("reset")
        finally:
            self.open -= 1
            writer.close()


class Client:
    """The other end of the echo, by way of the proxy."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self, size: int, seconds: float = 5.0) -> bytes:
        async with asyncio.timeout(seconds):
            return await self.reader.readexactly(size)

    async def hears_nothing(self) -> None:
        with pytest.raises(TimeoutError):
            await self.hear(1, seconds=0.15)


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Echo, Proxy, Client]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        client.say(b"hello")
        assert await client.hear(5) == b"hello"
        yield echo, proxy, client
        client.writer.close()
    await until(lambda: echo.open == 0)
    server.close()
    await server.wait_closed()


class TestProxy:
    async def test_cut_resets_both_ends_and_new_connections_pass(self) -> None:
        async with echoing() as (echo, proxy, client):
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await client.hear(1)
            await until(lambda: echo.goodbyes == ["reset"])
            again = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
            again.say(b"again")
            assert await again.hear(5) == b"again"
            again.writer.close()
            assert (proxy.connections, proxy.cuts) == (2, 1)

    async def test_fin_ends_both_streams_in_good_order(self) -> None:
        async with echoing() as (echo, proxy, client):
            proxy.fin()
            assert await client.reader.read() == b""
            client.writer.close()
            await until(lambda: echo.goodbyes == ["fin"])
            await until(lambda: not proxy.links)

    async def test_a_close_by_the_client_reaches_the_server(self) -> None:
        async with echoing() as (echo, proxy, client):
            client.say(b"last")
            client.writer.write_eof()
            assert await client.reader.read() == b"last"
            await until(lambda: echo.goodbyes == ["fin"])
            await until(lambda: not proxy.links)

    async def test_a_pause_of_both_directions_delays_bytes_but_loses_none(self) -> None:
        async with echoing() as (echo, proxy, client):
            proxy.pause()
            client.say(b"later")
            await client.hears_nothing()
            assert echo.received == 5
            proxy.resume()
            assert await client.hear(5) == b"later"

    async def test_a_pause_of_the_way_down_lets_bytes_go_up(self) -> None:
        async with echoing() as (echo, proxy, client):
            proxy.pause("down")
            client.say(b"later")
            await until(lambda: echo.received == 10)
            await client.hears_nothing()
            proxy.resume()
            assert await client.hear(5) == b"later"

    async def test_a_pause_also_stalls_connections_made_during_it(self) -> None:
        async with echoing() as (echo, proxy, _):
            proxy.pause("up")
            late = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
            late.say(b"late")
            await until(lambda: echo.open == 2)
            await late.hears_nothing()
            proxy.resume()
            assert await late.hear(4) == b"late"
            late.writer.close()

    async def test_a_black_hole_swallows_bytes_for_ever(self) -> None:
        async with echoing() as (echo, proxy, client):
            proxy.blackhole()
            client.say(b"gone")
            await client.hears_nothing()
            assert echo.received == 5
            proxy.resume()
            client.say(b"back")
            assert await client.hear(4) == b"back"

    async def test_a_black_hole_hides_a_goodbye_until_the_network_is_back(self) -> None:
        async with echoing() as (echo, proxy, client):
            proxy.blackhole()
            client.writer.close()
            await asyncio.sleep(0.1)
            assert echo.open == 1
            proxy.resume()
            await until(lambda: echo.goodbyes == ["reset"])

    async def test_refused_connections_end_at_once_and_live_ones_stay(self) -> None:
        async with echoing() as (_, proxy, client):
            proxy.refuse()
            with pytest.raises(ConnectionError):
                await greet(proxy.port)
            client.say(b"still")
            assert await client.hear(5) == b"still"
            proxy.accept()
            assert await greet(proxy.port) == b"hello"
            assert proxy.connections == 2

    async def test_latency_delays_both_ways_and_keeps_the_order(self) -> None:
        async with echoing() as (_, proxy, client):
            proxy.latency = 0.1
            begin = time.monotonic()
            client.say(b"one")
            await asyncio.sleep(0.02)
            proxy.latency = 0.0
            client.say(b"two")
            assert await client.hear(6) == b"onetwo"
            assert 0.1 <= time.monotonic() - begin < 1

    async def test_garbage_reaches_the_client(self) -> None:
        async with echoing() as (_, proxy, client):
            proxy.garbage(1000)
            assert len(set(await client.hear(1000))) > 50

    async def test_megabytes_pass_unharmed_through_a_slow_reader(self) -> None:
        async with echoing() as (_, proxy, client):
            sent = os.urandom(8_000_000)
            client.say(sent)
            proxy.pause("down")
            await asyncio.sleep(0.05)
            proxy.resume()
            assert await client.hear(len(sent), seconds=20) == sent

    async def test_no_server_behind_means_a_reset(self) -> None:
        [port] = broker_module.free_ports(1)
        async with Proxy(port) as proxy:
            with pytest.raises(ConnectionError):
                await greet(proxy.port)
            await until(lambda: not proxy.links)

    async def test_a_port_that_is_picked_is_not_picked_by_others(self) -> None:
        code = (
            "import sys; from tests.harness import broker;"
            " broker.PORTS = [*map(int, sys.argv[1:])]; print(broker.free_ports(1)[0])"
        )
        picked = broker_module.free_ports(20)
        *kept, free = picked
        broker_module.release([free])
        words = [sys.executable, "-c", code, *map(str, picked)]
        for _ in range(3):
            done = await anyio.run_process(words)
            assert int(done.stdout) == free
        broker_module.release(kept)

    async def test_no_task_is_left_behind(self) -> None:
        before = asyncio.all_tasks()
        async with echoing() as (_, proxy, _client):
            proxy.cut()
        assert asyncio.all_tasks() == before

    async def test_it_stands_in_front_of_the_broker(
        self, broker: Broker, proxy: Proxy, queue: str
    ) -> None:
        assert str(proxy.port) in proxy.url(broker)
        async with channel_to(proxy.url(broker)) as channel:
            assert (await channel.queue_declare(queue)).queue == queue
        assert proxy.connections == 1


async def greet(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"hello")
        await writer.drain()
        async with asyncio.timeout(5):
            data = await reader.read(5)
        if not data:
            raise ConnectionAbortedError
        return data
    finally:
        writer.close()


class Program(WorkerProcess):
    """A worker process that runs a few lines of Python instead."""

    def __init__(self, lines: str, **options: object) -> None:
        super().__init__("unused:app", **options)  # type: ignore[arg-type]
        self.command = [sys.executable, "-c", lines]


class TestWorkerProcess:
    def test_it_runs_the_command_of_a_user(self) -> None:
        worker = WorkerProcess("jobs:app", ["--burst"])
        assert worker.command[1:] == ["-m", "rmqarq", "run", "jobs:app", "--burst"]

    def test_it_collects_output_and_tells_the_exit_code(self, tmp_path: Path) -> None:
        lines = (
            "import os, sys; print(os.getcwd(), os.environ['EXTRA']);"
            "print('oops', file=sys.stderr); sys.exit(4)"
        )
        with Program(lines, cwd=tmp_path, env={"EXTRA": "more"}) as worker:
            assert worker.wait(10) == 4
            assert worker.output == f"{tmp_path} more\noops\n"

    async def test_an_asynchronous_test_can_wait_for_words(self) -> None:
        lines = "import time; time.sleep(0.1); print('ready'); time.sleep(60)"
        with Program(lines) as worker:
            await to_thread.run_sync(worker.wait_for, "ready", 10)
            worker.terminate()
            assert await to_thread.run_sync(worker.wait, 10) == -signal.SIGTERM

    def test_waiting_for_words_ends_with_the_process_or_in_time(self) -> None:
        ended = pytest.raises(TimeoutError, match="ended without 'ready':\nother")
        with Program("print('other')") as worker, ended:
            worker.wait_for("ready", 10)
        with Program("import time; time.sleep(60)") as worker:
            with pytest.raises(TimeoutError, match=r"0\.1 s without 'ready'"):
                worker.wait_for("ready", 0.1)
            with pytest.raises(TimeoutError, match="still running after 0"):
                worker.wait(0.1)

    def test_it_can_be_frozen_thawed_and_killed(self) -> None:
        lines = "import time\nwhile True: print('tick'); time.sleep(0.01)"
        with Program(lines) as worker:
            worker.wait_for("tick", 10)
            worker.stop()
            time.sleep(0.1)
            frozen = worker.output
            time.sleep(0.1)
            assert worker.output == frozen
            worker.cont()
            worker.wait_for(frozen + "tick", 10)
            worker.kill()
            assert worker.wait(10) == -signal.SIGKILL

    def test_its_children_are_ended_with_it(self) -> None:
        lines = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"
        with Program(lines) as worker:
            worker.wait_for("\n", 10)
            child = int(worker.output)
            assert alive(child)
        broker_module.wait_until_gone([child], seconds=5)
        assert not alive(child)


def test_queue_names_are_short_unique_and_plain(
    queue: str, request: pytest.FixtureRequest
) -> None:
    assert re.fullmatch("[a-z0-9_-]{1,60}", queue)
    assert queue.startswith("test_queue_names_are_short")
    assert request.node.name.startswith("test_queue_names_are_short")
