"""Rows of `map` and `starmap`, as far as no broker is needed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, ConfigurationError, DecodeError, EncodeError, Settings
from rmqarq.rows import chunks
from rmqarq.signature import Signature
from rmqarq.wire.codec import Codec
from rmqarq.wire.properties import template

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rmqarq.wire.codec import Decoded

app = App(queue="rows")


@app.task
async def add(a: int, b: float = 1.5, *, sign: int = 1) -> None: ...


@app.task
async def named(*, sign: int) -> None: ...


def untyped(task: Any) -> Any:
    """Hide from type checkers what they would find."""
    return task


def decoded(body: bytes) -> Decoded:
    made = template(content_type="application/json", correlation_id="c", type="t")
    return Codec(Settings()).decode(made.fill(b""), body)


async def cut(rows: Any, size: int) -> list[list[Any]]:
    return [chunk async for chunk in chunks(rows, size, lambda row: row)]


async def test_rows_are_cut_into_chunks_of_any_source() -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(7):
            yield number

    assert await cut(range(7), 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert await cut(source(), 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert await cut(range(4), 2) == [[0, 1], [2, 3]]
    assert await cut((), 2) == []


async def test_rows_are_taken_only_as_they_are_wanted() -> None:
    taken: list[int] = []

    def source() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    async for _ in chunks(source(), 5, lambda row: (row,)):
        break
    assert taken == [*range(5)]


@pytest.mark.parametrize("end", ["closed", "failed", "done"])
async def test_what_gives_the_rows_is_closed_at_once(end: str) -> None:
    events: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            events.append("closed")

    def arguments(row: int) -> tuple[int]:
        if end == "failed" and row == 3:
            raise TypeError("too many")
        return (row,)

    cutting = chunks(source(), 2, arguments)
    try:
        async for _ in cutting:
            if end == "closed":
                await cutting.aclose()
    except TypeError as error:
        kept = error  # it would keep the source open, too
        assert str(kept) == "row 3: too many"
    assert events == ["closed"]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([(1,), (2, "x")], "the argument 'b' of add does not fit"),
        ([(1,), (2, object())], "the argument 'b' of add can't be encoded"),
        ([(1,), (1.5,)], "the argument 'a' of add does not fit"),
    ],
)
def test_a_row_that_would_not_arrive_is_found(rows: list[Any], text: str) -> None:
    signature = add.signature
    assert signature is not None
    with pytest.raises(EncodeError, match=text) as caught:
        signature.encode_rows("json", rows, validate=True)
    assert caught.value.row == 1


def test_a_row_that_comes_back_equal_in_another_guise_passes() -> None:
    async def whole(numbers: list[int]) -> None: ...

    signature = Signature(whole, "whole")
    written = signature.encode_rows("json", [((1, 2),), ([3],)], validate=True)
    assert bytes(written) == b"[[[1,2]],[[3]]]"


def test_without_validation_only_what_can_not_be_written_is_refused() -> None:
    signature = add.signature
    assert signature is not None
    raw = signature.encode_rows("json", [("x",), (1,)], validate=False)
    assert bytes(raw) == b'[["x"],[1]]'
    with pytest.raises(EncodeError):
        signature.encode_rows("json", [(object(),)], validate=False)


async def test_a_call_that_does_not_fit_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match=r"^row 1: add\(\) too many"):
        await untyped(add).starmap([(1, 2.0), (1, 2.0, 3)])
    with pytest.raises(TypeError, match=r"^row 0: 'int' object is not iterable"):
        await untyped(add).starmap([1])
    with pytest.raises(TypeError, match=r"named\(\) too many"):
        await untyped(named).map([1])
    with pytest.raises(ValueError, match="at least one"):
        await add.map([1], chunk=0)
    for size in (2.5, "5", True, None):
        with pytest.raises(TypeError, match="chunk must be a whole number, not"):
            await untyped(add).map([1], chunk=size)
    with pytest.raises(ConfigurationError, match="job id"):
        await add.options(job_id="one").map([1])


def test_the_jobs_of_a_chunk_are_named_by_it() -> None:
    whole = decoded(
        b'{"task":"t","id":"c","rows":[[1],[2,"x"]],"enqueued_at":5,"expires":3,'
        b'"max_retries":2,"headers":{"a":"b"}}'
    ).message
    first, second = whole.jobs()
    assert (first.id, second.id) == ("c:0", "c:1")
    assert (bytes(first.args), bytes(second.args)) == (b"[1]", b'[2,"x"]')
    for each in (first, second):
        assert (each.task, each.rows, each.job_try) == ("t", (), 1)
        assert not each.kwargs
        assert (each.enqueued_at, each.expires, each.max_retries) == (5, 3, 2)
        assert each.headers == {"a": "b"}
    rest = decoded(b'{"task":"t","id":"c","rows":[[1],[2]],"numbers":[7,9]}').message
    assert [each.id for each in rest.jobs()] == ["c:7", "c:9"]


def test_what_a_chunk_says_beside_its_rows_is_said_of_each() -> None:
    whole = decoded(
        b'{"id":"c","rows":[[1],[2]],"kwargs":{"n":3},"try":2,"enqueued_at":5,'
        b'"first_failed_at":6}'
    )
    for job in whole.message.jobs():
        assert (bytes(job.kwargs), job.job_try, job.first_failed_at) == (
            b'{"n":3}',
            2,
            6,
        )
        written = Codec(Settings()).encode_again(job, whole)
        assert decoded(written.body).message == job


@pytest.mark.parametrize(
    "body",
    [
        b'{"task":"t","rows":[]}',
        b'{"task":"t","rows":[[1],[2]],"numbers":[7]}',
        b'{"task":"t","numbers":[7]}',
        b'{"task":"t","rows":[[1]],"numbers":[-1]}',
        b'{"task":"t","rows":3}',
    ],
)
def test_a_chunk_that_contradicts_itself_can_not_be_read(body: bytes) -> None:
    with pytest.raises(DecodeError):
        decoded(body)
