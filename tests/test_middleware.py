"""Middleware wraps, hooks watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rmqarq import Context, Message, Middleware, State
from rmqarq.middleware import call_hooks, enqueue_chain, run_chain, wraps_enqueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CTX = Context(Message(task="add", id="j"), State(), "q")


class Recorder(Middleware):
    """Writes down what passes through it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def enqueue(
        self, message: Message, call_next: Callable[[Message], Awaitable[None]]
    ) -> None:
        self.log.append(f"{self.name} sends")
        headers = {**message.headers, self.name: "was here"}
        await call_next(msgspec.structs.replace(message, headers=headers))
        self.log.append(f"{self.name} sent")

    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        self.log.append(f"{self.name} runs {ctx.task}")
        result = await call_next()
        self.log.append(f"{self.name} ran")
        return (self.name, result)


class OnlyRuns(Middleware):
    """Overrides one method only."""

    async def run(
        self, ctx: Context[Any], call_next: Callable[[], Awaitable[object]]
    ) -> object:
        try:
            return await call_next()
        except ValueError as error:
            return f"caught {error}"


async def test_the_first_middleware_is_the_outermost_of_a_run() -> None:
    log: list[str] = []

    async def function() -> object:
        log.append("function")
        return 7

    chain = run_chain([Recorder("a", log), Recorder("b", log)])
    assert chain is not None
    assert await chain(CTX, function) == ("a", ("b", 7))
    assert log == ["a runs add", "b runs add", "function", "b ran", "a ran"]


async def test_the_first_middleware_is_the_outermost_of_an_enqueue() -> None:
    log: list[str] = []
    sent: list[Message] = []

    async def send(message: Message) -> None:
        log.append("send")
        sent.append(message)

    await enqueue_chain([Recorder("a", log), Recorder("b", log)], send)(Message())
    assert log == ["a sends", "b sends", "send", "b sent", "a sent"]
    assert sent == [Message(headers={"a": "was here", "b": "was here"})]


async def test_what_is_not_overridden_costs_nothing() -> None:
    assert run_chain([]) is None
    assert run_chain([Middleware(), Middleware()]) is None
    wrapping = Recorder("a", [])
    assert wraps_enqueue([Middleware(), OnlyRuns(), wrapping]) == [wrapping]


async def test_a_plain_middleware_passes_everything_on() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def function() -> object:
        return 7

    await Middleware().enqueue(Message(task="t"), send)
    assert sent == [Message(task="t")]
    assert await Middleware().run(CTX, function) == 7


async def test_an_exception_passes_through_and_may_be_caught() -> None:
    async def function() -> object:
        msg = "oops"
        raise ValueError(msg)

    log: list[str] = []
    chain = run_chain([Recorder("a", log)])
    assert chain is not None
    with pytest.raises(ValueError, match="oops"):
        await chain(CTX, function)
    assert log == ["a runs add"]
    chain = run_chain([OnlyRuns(), Recorder("a", log)])
    assert chain is not None
    assert await chain(CTX, function) == "caught oops"


async def test_a_run_may_be_called_many_times() -> None:
    calls: list[int] = []

    async def function() -> object:
        calls.append(1)
        return len(calls)

    chain = run_chain([OnlyRuns(), OnlyRuns()])
    assert chain is not None
    assert [await chain(CTX, function) for _ in range(3)] == [1, 2, 3]


async def test_a_hook_that_fails_stops_neither_the_job_nor_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []

    async def first(ctx: Context[Any]) -> None:
        seen.append(f"first {ctx.job_id}")
        msg = "oops"
        raise RuntimeError(msg)

    async def second(ctx: Context[Any]) -> None:
        seen.append(f"second {ctx.job_id}")

    await call_hooks([first, second], CTX)
    assert seen == ["first j", "second j"]
    (record,) = caplog.records
    assert "the hook test_a_hook_that_fails" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)
