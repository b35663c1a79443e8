"""The portal: threads, errors, interrupts, forks and ends."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from rmqarq import (
    App,
    ConfigurationError,
    ConnectionFailed,
    Message,
    Middleware,
    OutcomeUnknown,
    Portal,
)
from tests.broker.kit import ROOT, running, take_all, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.harness.broker import Broker

NOWHERE = "amqp://127.0.0.1:9"


@pytest.fixture
def patient() -> Iterator[Portal]:
    """A portal of an App that never connects."""
    with Portal(App(NOWHERE)) as portal:
        yield portal


@pytest.fixture
def hasty() -> Iterator[Portal]:
    """The same with a short deadline."""
    with Portal(App(NOWHERE, publish_deadline=0.5)) as portal:
        yield portal


async def own_thread() -> threading.Thread:
    return threading.current_thread()


async def answer() -> int:
    return 42


def in_threads(count: int, fn: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(fn, range(count)))


async def test_twenty_threads_enqueue_a_thousand_jobs_that_run_once_each(
    broker: Broker, queue: str
) -> None:
    app = App(broker.url, queue=queue)
    ran: Counter[int] = Counter()

    @app.task
    async def note(number: int) -> None:
        ran[number] += 1

    portal = Portal(app)

    def send(thread: int) -> set[str]:
        numbers = range(thread * 50, thread * 50 + 50)
        return {portal.call(note.enqueue, number).id for number in numbers}

    async with running(app) as worker:
        ids = await asyncio.to_thread(in_threads, 20, send)
        await until(lambda: worker.stats.completed == 1000, 40)
    await asyncio.to_thread(portal.close)
    assert len(set().union(*ids)) == 1000
    assert ran == Counter(range(1000))


def test_one_thread_serves_all_and_starts_with_the_first_call(patient: Portal) -> None:
    before = threading.active_count()
    assert len(set(in_threads(10, lambda _: patient.call(own_thread)))) == 1
    assert threading.active_count() == before + 1
    patient.close()
    assert threading.active_count() == before
    assert patient.call(answer) == 42  # anew


async def test_a_call_that_would_block_an_event_loop_is_refused(
    patient: Portal,
) -> None:
    with pytest.raises(ConfigurationError, match=r"answer .* await it here instead"):
        patient.call(answer)
    with pytest.raises(ConfigurationError, match="would block"):
        patient.close()
    assert await asyncio.to_thread(patient.call, answer) == 42
    await asyncio.to_thread(patient.close)  # what the fixture may not do here


def test_errors_come_through_as_they_are_with_the_traceback_of_the_cause(
    patient: Portal,
) -> None:
    class Odd(Exception):
        pass

    raised = Odd("so")

    async def deep() -> NoReturn:
        raise raised

    with pytest.raises(Odd) as caught:
        patient.call(deep)
    assert caught.value is raised
    frames = [each.name for each in traceback.extract_tb(raised.__traceback__)]
    assert frames[0].startswith("test_errors_come_through")
    assert frames[-1] == "deep"

    async def late() -> NoReturn:
        await asyncio.sleep(1.2)  # longer than the portal waits before it looks
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        patient.call(late)


def test_a_wrong_call_is_a_type_error() -> None:
    app = App(NOWHERE)

    @app.task
    async def take(number: int) -> None: ...

    portal = Portal(app)
    with portal, pytest.raises(TypeError, match="missing a required argument"):
        portal.call(take.enqueue)  # type: ignore[call-arg]


def test_no_broker_is_an_error_within_the_deadline(hasty: Portal) -> None:
    app = App(NOWHERE, publish_deadline=0.5)
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="no broker could be reached"):
        hasty.call(app.ref("f").enqueue)
    assert time.monotonic() - began < 10
    hasty.call(app.close)


def test_the_call_sees_the_context_variables_of_its_caller() -> None:
    trace = contextvars.ContextVar("trace", default="-")
    seen: list[str] = []

    class Look(Middleware):
        async def enqueue(
            self, message: Message, call_next: Callable[[Message], Awaitable[None]]
        ) -> None:
            seen.append(trace.get())  # and drop it

    app = App(NOWHERE, middleware=[Look()])

    def send(number: int) -> None:
        trace.set(str(number))
        portal.call(app.ref("f").enqueue)

    with Portal(app) as portal:
        in_threads(5, send)
    assert sorted(seen) == list("01234")


def test_ctrl_c_ends_a_call_and_what_it_awaits(patient: Portal) -> None:
    ended = threading.Event()
    awaiting = threading.Event()

    async def long() -> None:
        awaiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    def interrupt() -> None:
        awaiting.wait()
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        patient.call(long)
    helper.join()
    assert ended.wait(10)
    assert patient.call(answer) == 42


def test_a_call_that_ends_the_program_ends_its_caller_alone(patient: Portal) -> None:
    async def leave() -> NoReturn:
        sys.exit(3)

    thread = patient.call(own_thread)
    with pytest.raises(SystemExit):
        patient.call(leave)
    assert patient.call(own_thread) is thread


def test_after_the_end_of_the_event_loop_calls_fail_and_the_next_one_starts_another(
    patient: Portal,
) -> None:
    async def leave() -> NoReturn:
        sys.exit(3)

    async def end_the_loop() -> None:
        task = asyncio.create_task(leave())  # nobody's call
        try:
            await asyncio.sleep(60)
        finally:
            task.cancelled() or task.exception()

    thread = patient.call(own_thread)
    with pytest.raises(OutcomeUnknown, match="cancelled before its end"):
        patient.call(end_the_loop)
    thread.join(10)
    assert patient.call(own_thread) is not thread


def test_an_event_loop_that_is_blocked_holds_no_caller_for_long(hasty: Portal) -> None:
    free = threading.Event()
    blocking = threading.Event()

    async def block() -> None:
        blocking.set()
        free.wait(30)

    def call(number: int) -> type[Exception]:
        if number:
            blocking.wait()
        with pytest.raises((ConnectionFailed, OutcomeUnknown)) as caught:
            hasty.call(answer if number else block)
        return type(caught.value)

    hasty.call(answer)
    kinds = in_threads(3, call)
    free.set()
    assert kinds == [OutcomeUnknown, ConnectionFailed, ConnectionFailed]
    assert hasty.call(answer) == 42


def test_close_waits_for_calls_under_way_but_not_for_ever(hasty: Portal) -> None:
    napping = threading.Semaphore(0)

    async def nap(seconds: float) -> str:
        napping.release()
        await asyncio.sleep(seconds)
        return "awake"

    def call(seconds: float) -> str:
        try:
            return hasty.call(nap, seconds)
        except OutcomeUnknown as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(call, seconds) for seconds in (0.2, 60.0)]
        for _ in results:
            assert napping.acquire(timeout=10)
        began = time.monotonic()
        hasty.close()
        assert time.monotonic() - began < 10
        assert [each.result(10) for each in results] == [
            "awake",
            "a call through the portal was cancelled before its end",
        ]


def test_a_call_may_take_longer_than_an_enqueue(hasty: Portal) -> None:
    hasty.call(asyncio.sleep, 2.5)


# --- programs ---


def program(broker: Broker, queue: str, name: str) -> list[str]:
    """Run a program of the app to its end; any warning would end up in its errors."""
    command = [sys.executable, "-W", "error", "-m", "tests.frameworks.apps.portal_app"]
    url = broker.url.replace("127.0.0.1", "localhost")  # looked up by a thread, too
    env = {**os.environ, "RMQARQ_URL": url, "RMQARQ_QUEUE": queue}
    done = subprocess.run(
        [*command, name],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


async def sent(broker: Broker, queue: str) -> Counter[tuple[str, int]]:
    letters = await take_all(broker.url, queue)
    return Counter(tuple(json.loads(each.body)["args"]) for each in letters)


def calls(*whos: str) -> Counter[tuple[str, int]]:
    return Counter((who, number) for who in whos for number in range(25))


def cut_off(broker: Broker) -> int:
    """How many connections ended without a word, as the broker saw it."""
    return broker.log.count("client unexpectedly closed TCP connection")


@pytest.mark.parametrize(
    ("name", "lines", "whos"),
    [
        ("forked", ["child 0", "parent 0 0"], ("before", "child", "parent", "after")),
        ("locked", ["child 0", "parent 0"], ("before", "child", "parent")),
        ("closed", ["child 0", "parent 0"], ("before", "child", "parent")),
        ("pool", ["parent 0"], ("before", "child", "parent")),
        (
            "forked_midst",
            ["child 0"] * 4 + ["parent 0 [0, 0, 0, 0]"],
            ("before", *"0123", *(f"child {n}" for n in range(4))),
        ),
        ("others", ["other"], ("other",)),
    ],
)
async def test_a_program_and_its_forks_send_each_call_once_and_say_goodbye(
    broker: Broker, queue: str, name: str, lines: list[str], whos: tuple[str, ...]
) -> None:
    before = cut_off(broker)
    printed = await asyncio.to_thread(program, broker, queue, name)
    assert printed == lines
    extra = {("main", 0): 1} if name == "others" else {}
    assert await sent(broker, queue) == calls(*whos) + Counter(extra)
    assert cut_off(broker) == before


async def test_a_program_that_ends_waits_for_what_is_being_sent(
    broker: Broker, queue: str
) -> None:
    before = cut_off(broker)
    printed = await asyncio.to_thread(program, broker, queue, "ended")
    stored = sum((await sent(broker, queue)).values())
    # who was told "sent" just before the end may not have come to print it
    assert 0 <= stored - printed.count("sent") <= 8
    assert printed.count("sent") > 8
    assert cut_off(broker) == before


def test_a_call_at_the_exit_of_the_interpreter_works_while_it_can(
    broker: Broker, queue: str
) -> None:
    assert program(broker, queue, "late") == ["registered late: 2"]


def test_a_portal_that_is_not_used_starts_nothing(broker: Broker, queue: str) -> None:
    assert program(broker, queue, "unused") == ["1"]


def test_the_thread_of_the_portal_has_a_name(patient: Portal) -> None:
    assert re.fullmatch("rmqarq-portal", patient.call(own_thread).name)
