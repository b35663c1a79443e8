from __future__ import annotations

import asyncio
import gc
import time

from rmqarq.devbroker import Clock
from rmqarq.devbroker.clock import Timer


async def test_what_falls_due_is_called_in_order_and_at_its_time() -> None:
    clock = Clock(None)
    seen: list[tuple[str, float]] = []
    for name, due in (("late", 9.0), ("early", 2.0), ("early too", 2.0)):
        clock.call_at(due, lambda name=name: seen.append((name, clock.now())))
    clock.advance(5)
    assert seen == [("early", 2.0), ("early too", 2.0)]
    assert clock.now() == 5
    assert clock.next_due == 4
    clock.advance(4)
    assert seen[-1] == ("late", 9.0)
    assert clock.next_due is None


async def test_a_timer_made_by_another_is_called_in_the_same_advance() -> None:
    clock = Clock(None)
    seen: list[float] = []

    def again() -> None:
        seen.append(clock.now())
        clock.call_at(clock.now() + 10, again)

    clock.call_at(10, again)
    clock.advance(35)
    assert seen == [10, 20, 30]


async def test_a_cancelled_timer_is_not_called() -> None:
    clock = Clock(None)
    seen: list[str] = []
    first = clock.call_at(1, lambda: seen.append("first"))
    clock.call_at(2, lambda: seen.append("second"))
    first.cancel()
    assert clock.next_due == 2
    clock.advance(3)
    assert seen == ["second"]


async def test_a_clock_goes_by_itself_and_skips_when_told() -> None:
    clock = Clock()
    seen: list[str] = []
    clock.call_at(clock.now() + 0.05, lambda: seen.append("soon"))
    clock.call_at(clock.now() + 3600, lambda: seen.append("in an hour"))
    await asyncio.sleep(0.3)
    assert seen == ["soon"]
    date = clock.date()
    assert abs(date - time.time()) < 1
    clock.advance(3600)
    assert seen == ["soon", "in an hour"]
    assert 3600 <= clock.date() - date < 3605


async def test_a_clock_that_stands_still_sets_no_alarm() -> None:
    clock = Clock(None)
    seen: list[str] = []
    clock.call_at(0.01, lambda: seen.append("never"))
    await asyncio.sleep(0.1)
    assert seen == []


async def test_cancelled_timers_are_forgotten_long_before_they_are_due() -> None:
    clock = Clock(None)
    for _ in range(1000):
        clock.call_at(3600, lambda: None).cancel()
    assert sum(isinstance(each, Timer) for each in gc.get_objects()) < 100
    assert clock.next_due is None


async def test_a_call_that_fails_does_not_stop_the_others() -> None:
    clock, failed = Clock(), asyncio.Event()
    seen = asyncio.Event()

    def fail() -> None:
        raise ValueError("one of many")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: failed.set())
    clock.call_at(clock.now() + 0.01, fail)
    clock.call_at(clock.now() + 0.02, seen.set)
    async with asyncio.timeout(5):
        await failed.wait()
        await seen.wait()
