"""Everything that goes wrong on purpose; each fault proves that it happened.

A fault is a function that spoils a stage, puts it in order again, and returns the
moment from which work can go on. It raises `Harmless` when it had no effect.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tests.broker.kit import channel_to, until, wait_for_count
from tests.chaos.producer import SIDE
from tests.harness.admin import close_all_connections
from tests.harness.broker import AMQP_HEADER, answers

if TYPE_CHECKING:
    from tests.chaos.stage import Stage
    from tests.harness.broker import Broker

Fault: TypeAlias = Callable[["Stage"], Awaitable[float]]

STALL = 2.0
HOLE = 1.5
LONG_HOLE = 8.0  # more than three of the longer heartbeats
FREEZE = 3.0
ALARM = 2.0
DOWN = 3.0  # what the other nodes have to show that they go on
LATE = 5.0  # what was on its way when a network stood still has come by then
GONE = (
    f"consumer of {SIDE} ended (the broker cancelled",
    f"consumer of {SIDE} ended (NOT_FOUND",  # a cluster may say nothing until asked
)
LOOKED_FOR = 75.0  # two looks of a worker that was told nothing
GRACE = 10.0  # a worker that is told to stop has ended by then


class Harmless(Exception):
    """A fault had no effect: a run with it proves nothing."""


def proven(happened: object, what: str) -> None:
    """Insist that a fault took place."""
    if not happened:
        raise Harmless(what)


async def cut(stage: Stage) -> float:
    """Reset every connection."""
    before = stage.networks.cuts
    stage.networks.cut()
    back = time.monotonic()
    proven(stage.networks.cuts > before, "no connection was cut")
    return back


async def fin(stage: Stage) -> float:
    """Close every connection in good order, without a word of AMQP."""
    links, before = stage.networks.links, stage.networks.connections
    stage.networks.fin()
    back = time.monotonic()
    proven(links, "no connection was there")
    await until(lambda: stage.networks.connections > before, what="a reconnect")
    return back


async def stall(stage: Stage) -> float:
    """Let no byte pass for a while, and lose none."""
    stage.networks.pause()
    await silence(stage, STALL)
    stage.networks.resume()
    return time.monotonic()


async def hole(stage: Stage) -> float:
    """Swallow every byte for a while; what was swallowed breaks the connections."""
    stage.networks.blackhole()
    await silence(stage, HOLE)
    return mend(stage)


async def long_hole(stage: Stage) -> float:
    """Swallow every byte until both sides must have noticed."""
    stage.networks.blackhole()
    await silence(stage, LONG_HOLE)
    return mend(stage)


def mend(stage: Stage) -> float:
    """End a black hole; no connection goes on where bytes were swallowed."""
    stage.networks.resume()
    stage.networks.cut()
    return time.monotonic()


async def silence(stage: Stage, seconds: float) -> None:
    """Wait until no enqueue has been confirmed for so long."""
    begin = start = time.monotonic()
    while time.monotonic() < begin + seconds:
        await asyncio.sleep(0.05)
        if heard := stage.account.confirmed_since(begin):
            begin = heard[-1].at
            proven(begin < start + LATE, "enqueues are confirmed nevertheless")


async def kill_worker(stage: Stage) -> float:
    """End a worker as a crash would, and start another."""
    end = await stage.fleet.kill(stage.fleet.any())
    back = time.monotonic()
    proven(end.code == -signal.SIGKILL, f"a killed worker ended with {end.code}")
    await stage.fleet.start()
    return back


async def stop_worker(stage: Stage) -> float:
    """Let a worker stop in good order, and start another."""
    worker = stage.fleet.any()
    end = await stage.fleet.terminate(worker)
    back = time.monotonic()
    proven("received SIGTERM, stopping" in worker.output, "nobody heard of SIGTERM")
    if end.code or end.seconds > GRACE:
        stage.complain(f"SIGTERM: {end}: {worker.output[-2000:]}")
    await stage.fleet.start()
    return back


async def freeze_worker(stage: Stage) -> float:
    """Freeze a worker for longer than its heartbeats allow."""
    worker = stage.fleet.any()
    worker.stop()
    await until(lambda: state(worker.pid) == "T", what="a frozen worker")
    await asyncio.sleep(FREEZE)
    proven(state(worker.pid) == "T", "the worker did not stay frozen")
    worker.cont()
    return time.monotonic()


def state(pid: int) -> str:
    """Give the state of a process: T if it is frozen."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def close_connections(stage: Stage) -> float:
    """Let a node close every connection by AMQP, as an operator can."""
    before = stage.networks.connections
    await asyncio.to_thread(close_all_connections, stage.some_node())
    back = time.monotonic()
    await until(lambda: stage.networks.connections > before, what="a reconnect")
    return back


async def delete_queue(stage: Stage) -> float:
    """Delete a queue, empty for once: its consumers must notice, told or not."""
    url = stage.cluster.alive().url

    def heard() -> int:
        return sum(map(stage.fleet.heard, GONE))

    before = heard()
    async with channel_to(url) as channel:
        await channel.queue_delete(SIDE)
    back = time.monotonic()
    await until(lambda: heard() > before, LOOKED_FOR, what="a cancel")
    everybody = len(stage.fleet.workers)
    await wait_for_count(url, SIDE, consumers=everybody, timeout=LOOKED_FOR)
    await stage.producer.send_aside()
    return back


async def restart_app(stage: Stage) -> float:
    """Stop RabbitMQ inside a node, and start it again."""
    node = stage.some_node()
    await asyncio.to_thread(node.stop_app)
    proven(is_down(node), "the node answers still")
    await asyncio.to_thread(node.start_app)
    return await whole(stage, time.monotonic())


async def alarm(stage: Stage) -> float:
    """Let a node run out of memory, so that it reads no publisher."""
    node = stage.some_node()
    await asyncio.to_thread(node.alarm, True)
    try:
        await silence(stage, ALARM)
    finally:
        await asyncio.to_thread(node.alarm, False)
    return time.monotonic()


async def kill_node(stage: Stage) -> float:
    """End a node as a crash would, and start it again."""
    return await crash(stage, stage.some_node())


def node_killer(index: int) -> Fault:
    """Make the fault that ends one particular node."""

    async def kill_this_node(stage: Stage) -> float:
        return await crash(stage, stage.cluster.nodes[index])

    return kill_this_node


async def crash(stage: Stage, node: Broker) -> float:
    """Kill a node and start it again; with others, work goes on at the kill."""
    await asyncio.to_thread(node.kill)
    killed = time.monotonic()
    proven(is_down(node), "the node answers still")
    alone = len(stage.cluster.nodes) == 1
    if not alone:
        await resumed_without(stage, killed)
    await asyncio.to_thread(node.start)
    return await whole(stage, time.monotonic() if alone else killed)


async def resumed_without(stage: Stage, killed: float) -> None:
    """Insist that jobs are enqueued and done while a node is down."""
    await asyncio.sleep(DOWN)
    fresh = {each.job_id for each in stage.account.confirmed_since(killed)}
    if stage.log.first_done(fresh, killed) is None:
        stage.complain(f"no new job was done in {DOWN} s without a node")


def is_down(node: Broker) -> bool:
    """Tell whether nobody answers on the port of a node."""
    return not answers(node.port, AMQP_HEADER)


async def whole(stage: Stage, back: float) -> float:
    """Wait until a cluster can bear the loss of another node."""
    if len(stage.cluster.nodes) > 1:
        await asyncio.to_thread(stage.cluster.wait_until_whole)
    return back


ALL: dict[str, Fault] = {
    "cut": cut,
    "kill worker": kill_worker,
    "stall": stall,
    "stop worker": stop_worker,
    "fin": fin,
    "kill node": kill_node,
    "hole": hole,
    "freeze worker": freeze_worker,
    "close connections": close_connections,
    "alarm": alarm,
    "delete queue": delete_queue,
    "restart app": restart_app,
}
LONG: dict[str, Fault] = {**ALL, "long hole": long_hole}
# after these nothing runs until the node is back, so the time until then tells much
OUTAGES = ("kill node", "restart app", "cut", "fin", "close connections")
