"""Messages made to break a worker: all end dead, byte for byte, and hurt nobody.

The limits of size are tested beside the codec (`tests/wire/test_codec.py`) and in
`tests/broker/test_dead_letter.py`; here they are among many others.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from rmqarq import App, Context
from tests.broker.kit import dead_letters, running, until, wait_for_count
from tests.broker.test_dead_letter import Tasks, ours
from tests.chaos.crafted import CRAFTED, REFUSABLE, Crafted
from tests.chaos.offering import offering
from tests.chaos.tools import resident

if TYPE_CHECKING:
    import pytest

    from tests.broker.kit import Letter
    from tests.harness.broker import Broker

called: list[str] = []


def canary(*_: Any) -> None:
    """Be called by nobody: some messages name it as their task."""
    called.append("canary")


class Prey(Tasks):
    """The tasks of the dead-letter tests, and one that knows its context."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        app.task(name="who")(self._who)

    async def _who(self, ctx: Context, number: int) -> None:
        called.append(ctx.job_id)


async def feed(
    broker: Broker, queue: str, tasks: Tasks, messages: dict[str, Crafted]
) -> dict[str, Crafted]:
    """Publish messages with a good job before each; give those the broker took."""
    taken: dict[str, Crafted] = {}
    async with offering(broker) as publisher:
        for number, (name, crafted) in enumerate(messages.items()):
            await tasks.good.enqueue(number)
            if await publisher.offer(queue, crafted.properties, crafted.body):
                taken[name] = crafted
    return taken


def check(letters: list[Letter], taken: dict[str, Crafted]) -> None:
    """Each message is there, its bytes unchanged, with a reason that fits."""
    assert Counter(each.body for each in letters) == Counter(
        each.body for each in taken.values()
    )
    reasons: dict[bytes, list[str]] = defaultdict(list)
    for letter in letters:
        reasons[letter.body].append(letter.headers["x-rmqarq-reason"])
    odd = {
        name: reasons[crafted.body]
        for name, crafted in taken.items()
        if not set(crafted.reasons) & set(reasons[crafted.body])
    }
    assert not odd


def test_no_two_crafted_messages_have_one_body() -> None:
    bodies = Counter(each.body for each in CRAFTED.values())
    again = [name for name, each in CRAFTED.items() if bodies[each.body] > 1]
    assert not again
    assert len(bodies) >= 40


async def test_crafted_messages_end_dead_and_all_good_jobs_are_done(
    broker: Broker, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(broker.url, queue=queue, unknown_task_wait=0)
    tasks = Prey(app)
    called.clear()
    async with running(app) as worker:
        before = await to_thread.run_sync(ours, broker)
        memory = resident()
        taken = await feed(broker, queue, tasks, CRAFTED)
        assert taken.keys() == CRAFTED.keys()
        await until(lambda: worker.stats.dead_lettered >= len(taken), timeout=20)
        await until(lambda: len(tasks.ran) >= len(CRAFTED))
        assert await to_thread.run_sync(ours, broker) == before
        assert len(before) == 2
        print("GREW", (resident() - memory) / 2**20)
        assert resident() - memory < 100 * 2**20
    assert sorted(tasks.ran) == list(range(len(CRAFTED)))
    assert worker.stats.completed == len(CRAFTED)
    assert worker.stats.dead_lettered == len(taken)
    assert worker.stats.reconnects == 0
    assert worker.stats.returned == 0
    assert "an error inside rmqarq" not in caplog.text
    check(await dead_letters(broker.url, queue, len(taken)), taken)
    await wait_for_count(broker.url, queue, ready=0)
    # nothing in a message chose what was run
    assert called == []
    assert "this" not in sys.modules


async def test_what_the_broker_refuses_does_not_reach_the_worker_either(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue, unknown_task_wait=0)
    tasks = Prey(app)
    async with running(app) as worker:
        taken = await feed(broker, queue, tasks, REFUSABLE)
        await until(lambda: worker.stats.dead_lettered >= len(taken))
        await until(lambda: len(tasks.ran) >= len(REFUSABLE))
    assert 0 < len(taken) < len(REFUSABLE)
    assert worker.stats.reconnects == 0
    assert worker.stats.returned == 0
    check(await dead_letters(broker.url, queue, len(taken)), taken)
