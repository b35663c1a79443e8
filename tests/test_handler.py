"""Consume functions: what may be one, what they may share, and what they are given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from pydantic import BaseModel

from rmqarq import (
    App,
    ConfigurationError,
    Context,
    DecodeError,
    Handler,
    Incoming,
    Settings,
    TaskAlreadyRegistered,
)
from rmqarq.body import Body
from rmqarq.wire.origin import Origin
from rmqarq.wire.properties import Properties

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Followed:
    """What somebody else publishes."""

    user: int


class Model(BaseModel):
    """The same, as pydantic has it."""

    user: int


class Opaque:
    """Nothing that a message could hold."""


async def event(event: Followed) -> None: ...


# --- registration ---


def test_a_consume_function_is_known_by_its_queue_and_sends_nothing() -> None:
    app = App(queue="own")
    made = app.consume("theirs", max_retries=5, timeout=60, name="follow")(event)
    assert isinstance(made, Handler)
    assert (made.name, made.queue, made.fn) == ("follow", "theirs", event)
    assert (made.policy.max_retries, made.policy.timeout) == (5, 60)
    for verb in ("enqueue", "defer", "job", "options"):
        assert not hasattr(made, verb)
    assert app.tasks == {}
    assert app.queues == ("theirs",)
    mail = app.task(_coroutine("mail"))
    assert app.queues == ("own", "theirs")
    assert app.registry.find("own", "mail") is mail
    assert app.registry.find("theirs", "mail") is made


def _coroutine(name: str) -> Callable[..., Any]:
    async def fn(user: int) -> None: ...

    fn.__name__ = fn.__qualname__ = name
    return fn


def test_a_queue_holds_jobs_or_messages_of_others_and_both_are_named() -> None:
    app = App(queue="shared")
    app.task(_coroutine("mail"))
    with pytest.raises(ConfigurationError, match=r"\.event, .*jobs of .*\.mail, too"):
        app.consume("shared")(event)
    app.consume("theirs")(event)
    with pytest.raises(ConfigurationError, match=r"'theirs' is consumed by .*\.event"):
        app.task(queue="theirs")(_coroutine("other"))
    with pytest.raises(ConfigurationError, match=r"\.event already; .*\.second can't"):
        app.consume("theirs")(_coroutine("second"))
    with pytest.raises(ConfigurationError, match=r"\.event, .*\.mail"):
        app.configure(Settings(queue="theirs"))
    assert set(app.tasks) == {"mail"}


async def test_no_job_is_sent_where_messages_of_others_are_consumed() -> None:
    app = App()
    mail = app.task(_coroutine("mail"))
    app.consume("theirs")(event)
    for job in (mail.options(queue="theirs").job(1), app.ref("event").job(1)):
        with pytest.raises(ConfigurationError, match="there event takes messages"):
            await app.enqueue(job)


def test_names_are_those_of_one_function_only() -> None:
    app = App()
    app.task(_coroutine("event"))
    with pytest.raises(TaskAlreadyRegistered, match="'event' is taken by"):
        app.consume("theirs")(event)
    app.consume("theirs", name="other")(event)
    with pytest.raises(TaskAlreadyRegistered, match="'other' is taken by"):
        app.task(_coroutine("other"))


async def test_an_app_that_includes_another_takes_over_its_functions() -> None:
    inner, outer = App(queue="inner"), App(queue="outer")
    seen: list[str] = []

    @inner.consume("theirs")
    async def followed(ctx: Context, event: str) -> None:
        seen.append(f"{ctx.queue} {ctx.state['db']} {event}")

    outer.include(inner)
    outer.state = outer.local_context("followed").state
    outer.state["db"] = "outer"
    await followed("x")
    assert seen == ["theirs outer x"]
    clash = App()
    clash.task(queue="theirs")(_coroutine("mail"))
    with pytest.raises(ConfigurationError, match="'theirs'"):
        clash.include(inner)


@pytest.mark.parametrize("queue", ["", "amq.x", "x.suspect", "ü"])
def test_a_queue_name_that_cannot_be_used_is_refused(queue: str) -> None:
    with pytest.raises(ConfigurationError, match="queue name"):
        App().consume(queue)


def test_options_that_do_not_exist_or_do_not_fit_are_refused() -> None:
    app = App()
    with pytest.raises(TypeError, match="no option priority"):
        app.consume("q", priority=3)(event)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="max_retries"):
        app.consume("q", max_retries=-1)(event)
    for thing in (app.task(_coroutine("mail")), Followed, 7):
        with pytest.raises(ConfigurationError, match="must be a function"):
            app.consume("q")(thing)  # type: ignore[call-overload]


async def none() -> None: ...
async def only_context(ctx: Context) -> None: ...
async def two(a: int, b: int) -> None: ...
async def three(ctx: Context, a: int, b: int = 0) -> None: ...
async def by_name(*, event: int) -> None: ...
async def many(*events: int) -> None: ...


@pytest.mark.parametrize("fn", [none, only_context, two, three, by_name, many])
def test_a_function_takes_one_body(fn: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="must take one parameter, the body"):
        App().consume("q")(fn).prepare()


def test_a_type_that_no_message_holds_is_said_at_the_start() -> None:
    async def opaque(event: Opaque) -> None: ...

    with pytest.raises(ConfigurationError, match="'event' in the task opaque"):
        App().consume("q")(opaque).prepare()


# --- the body ---


def given(
    kind: Any, raw: bytes, content_type: str | None = None, encoding: str | None = None
) -> Any:
    """Decode a body for a function whose parameter has a type."""

    async def fn(event: Any) -> None: ...

    fn.__annotations__["event"] = kind
    found = Properties(content_type=content_type, content_encoding=encoding)
    return Body(fn, "fn").decode(raw, Origin(found, "ex", "key"))


JSON = b'{"user": 7}'
PACKED = msgspec.msgpack.encode({"user": 7})


@pytest.mark.parametrize("kind", [Followed, Model, dict[str, int], Any])
@pytest.mark.parametrize(
    ("raw", "content_type", "encoding"),
    [
        (JSON, None, None),
        (JSON, "application/json", None),
        (JSON, "Application/JSON; charset=UTF-8", "identity"),
        (JSON, "application/vnd.follow.v1+json", "utf-8"),
        (JSON, "application/cloudevents+json; charset=utf-8", None),
        (JSON, "text/plain", "binary"),
        (JSON, "text/json", "UTF-8"),
        (JSON, "application/octet-stream", None),
        (b"\xef\xbb\xbf" + JSON, "application/json", None),
        (JSON.decode().encode("utf-16"), "application/json; charset=utf-16", None),
        (PACKED, "application/msgpack", None),
        (PACKED, "application/x-msgpack", "binary"),
        (PACKED, "application/vnd.follow+msgpack", None),
    ],
)
def test_json_and_messagepack_arrive_as_the_annotated_type(
    kind: Any, raw: bytes, content_type: str | None, encoding: str | None
) -> None:
    wanted = kind(user=7) if kind in (Followed, Model) else {"user": 7}
    assert given(kind, raw, content_type, encoding) == wanted


def test_bytes_and_text_are_given_as_they_are() -> None:
    assert given(bytes, b"\x00\xff", "application/json") == b"\x00\xff"
    assert given(str, JSON, "application/json") == JSON.decode()
    assert given(str, "é".encode(), None) == "é"
    assert given(str, "é".encode("cp1252"), 'text/plain; charset="windows-1252"') == "é"
    assert given(str, "坏".encode("gbk"), "text/plain", "GBK") == "坏"
    assert given(str, b"<a/>", "application/xml") == "<a/>"


def test_more_than_the_body_is_given_on_request() -> None:
    full = given(Incoming[Followed], JSON, "application/json")
    assert full.body == Followed(7)
    assert (full.raw, full.exchange, full.routing_key) == (JSON, "ex", "key")
    assert full.properties.content_type == "application/json"
    assert given(Incoming[bytes], PACKED).body == PACKED
    assert given(Incoming, JSON).body == {"user": 7}


@pytest.mark.parametrize(
    ("kind", "raw", "content_type", "problem"),
    [
        (Followed, b'{"user": "secret"}', None, r"Expected `int`, got `str`"),
        (Model, b'{"user": "secret"}', None, "valid integer"),
        (Followed, JSON, "application/xml", "annotate 'event' of fn as bytes"),
        (str, b"\xff", "text/plain", "no text in utf-8"),
        (Followed, b"\xff", "application/json", "no text in utf-8"),
        (Followed, b"", None, "truncated"),
    ],
)
def test_what_does_not_fit_is_said_without_a_word_of_it(
    kind: Any, raw: bytes, content_type: str | None, problem: str
) -> None:
    with pytest.raises(DecodeError, match=problem) as raised:
        given(kind, raw, content_type)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("charset", ["idna", "zlib", "unicode_escape", "no", "a b"])
def test_charsets_that_are_none_or_take_too_long_are_refused(charset: str) -> None:
    with pytest.raises(DecodeError, match="not known"):
        given(str, b"x", f"text/plain; charset={charset}")
    with pytest.raises(DecodeError, match="not known"):
        given(str, b"x", None, charset)


async def test_a_call_in_a_test_needs_no_broker() -> None:
    app = App()

    @app.consume("theirs")
    def followed(ctx: Context, event: Incoming[Followed]) -> str:
        return json.dumps([ctx.task, ctx.queue, event.body.user, event.routing_key])

    came = Incoming(body=Followed(7), routing_key="a.b")
    assert json.loads(await followed(came)) == ["followed", "theirs", 7, "a.b"]
