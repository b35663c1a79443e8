"""AMQP frames: our bytes read by pamqp, and pamqp's bytes read by us."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from rmqarq.wire import frames
from rmqarq.wire.frames import (
    BODY,
    HEADER,
    METHOD,
    Assembler,
    Blocked,
    Cancelled,
    Closed,
    Confirm,
    Deliver,
    FrameError,
    Returned,
    Splitter,
    decode_method,
    whole_delivery,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rmqarq.wire.frames import Event

FRAME_MAX = 131072
PERSISTENT = b"\x10\x00\x02"  # only delivery_mode = 2

channels = st.integers(1, 2047)
tags = st.integers(1, 2**63 - 1)  # pamqp reads them as signed
names = st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=60)
texts = st.text(max_size=60)
bodies = st.binary(max_size=200)


class Reader:
    """Reads a stream the way a connection does: one assembler a channel."""

    def __init__(self, frame_max: int = FRAME_MAX) -> None:
        self.splitter = Splitter(frame_max)
        self.assemblers: dict[int, Assembler] = {}
        self.events: list[tuple[int, Event | None]] = []

    def feed(self, data: bytes) -> None:
        buffer, found = self.splitter.feed(data)
        for kind, channel, start, stop in found:
            assembler = self.assemblers.setdefault(channel, Assembler())
            if kind == METHOD:
                event = decode_method(buffer, start, stop)
                if isinstance(event, Deliver | Returned):
                    assembler.begin(event)
                    continue
            else:
                event = assembler.feed(kind, buffer, start, stop)
                if event is None:
                    continue
            self.events.append((channel, event))


def read(stream: bytes, pieces: Iterable[int] = ()) -> list[tuple[int, Event | None]]:
    """Feed a stream cut at the given places."""
    reader = Reader()
    cuts = [0, *sorted({each % (len(stream) + 1) for each in pieces}), len(stream)]
    for start, stop in pairwise(cuts):
        reader.feed(stream[start:stop])
    return reader.events


def content(channel: int, payload: bytes, size: int = FRAME_MAX - 8) -> bytes:
    """Marshal a content header and its body frames with pamqp."""
    properties = commands.Basic.Properties(delivery_mode=2)
    head = header.ContentHeader(body_size=len(payload), properties=properties)
    parts = [frame.marshal(head, channel)]
    for at in range(0, len(payload), size):
        part = body.ContentBody(payload[at : at + size])
        parts.append(frame.marshal(part, channel))
    return b"".join(parts)


def deliver(
    channel: int, tag: int, payload: bytes, *, key: str = "k", exchange: str = ""
) -> bytes:
    method = commands.Basic.Deliver("ctag", tag, False, exchange, key)
    return frame.marshal(method, channel) + content(channel, payload)


# --- what we write ---


def unmarshal_all(data: bytes) -> list[tuple[int, Any]]:
    found: list[tuple[int, Any]] = []
    while data:
        size, channel, value = frame.unmarshal(data)
        found.append((channel, value))
        data = data[size:]
    return found


@given(channels, names, names, st.booleans())
def test_pamqp_reads_our_publish(
    channel: int, exchange: str, key: str, mandatory: bool
) -> None:
    data = frames.publish_method(channel, exchange, key, mandatory=mandatory)
    size, number, method = frame.unmarshal(data)
    assert (size, number) == (len(data), channel)
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == (exchange, key)
    assert (method.mandatory, method.immediate) == (mandatory, False)


@given(channels, tags, st.booleans())
def test_pamqp_reads_our_ack(channel: int, tag: int, multiple: bool) -> None:
    data = frames.ack(channel, tag, multiple=multiple)
    size, number, method = frame.unmarshal(data)
    assert (size, number) == (len(data), channel)
    assert isinstance(method, commands.Basic.Ack)
    assert (method.delivery_tag, method.multiple) == (tag, multiple)


@given(channels, tags, st.booleans(), st.booleans())
def test_pamqp_reads_our_nack(
    channel: int, tag: int, multiple: bool, requeue: bool
) -> None:
    data = frames.nack(channel, tag, multiple=multiple, requeue=requeue)
    size, number, method = frame.unmarshal(data)
    assert (size, number) == (len(data), channel)
    assert isinstance(method, commands.Basic.Nack)
    assert method.delivery_tag == tag
    assert (method.multiple, method.requeue) == (multiple, requeue)


@given(channels, st.binary(max_size=500), st.integers(9, 200))
def test_a_body_larger_than_a_frame_is_split_and_pamqp_reads_it(
    channel: int, payload: bytes, frame_max: int
) -> None:
    data = frames.content(channel, PERSISTENT, payload, frame_max)
    (number, head), *parts = unmarshal_all(data)
    assert number == channel
    assert isinstance(head, header.ContentHeader)
    assert head.body_size == len(payload)
    assert head.properties.delivery_mode == 2
    assert all(number == channel for number, _ in parts)
    assert b"".join(part.value for _, part in parts) == payload
    limit = frame_max - 8
    assert [len(part) for _, part in parts] == [
        min(limit, len(payload) - at) for at in range(0, len(payload), limit)
    ]


def test_a_body_of_any_size_is_one_frame_when_there_is_no_limit() -> None:
    payload = bytes(3_000_000)
    data = frames.content(1, PERSISTENT, payload, 0)
    assert [len(part) for _, part in unmarshal_all(data)[1:]] == [3_000_000]


def test_an_empty_body_has_no_body_frame() -> None:
    assert len(unmarshal_all(frames.content(1, PERSISTENT, b"", FRAME_MAX))) == 1


def test_a_name_that_amqp_cannot_carry_is_refused() -> None:
    assert frames.publish_method(1, "", "x" * 255, mandatory=True)
    with pytest.raises(ValueError, match="a name of 256 bytes; AMQP allows 255"):
        frames.publish_method(1, "", "x" * 256, mandatory=True)
    with pytest.raises(ValueError, match="a name of 258 bytes"):
        frames.publish_method(1, "漢" * 86, "", mandatory=True)


def test_the_heartbeat_is_the_one_of_the_specification() -> None:
    size, channel, beat = frame.unmarshal(frames.HEARTBEAT_FRAME)
    assert (size, channel, type(beat).__name__) == (8, 0, "Heartbeat")


# --- what we read ---


@given(channels, tags, names, names, st.booleans(), bodies, st.lists(st.integers(0)))
def test_a_delivery_from_pamqp_is_read(
    channel: int,
    tag: int,
    exchange: str,
    key: str,
    redelivered: bool,
    payload: bytes,
    pieces: list[int],
) -> None:
    method = commands.Basic.Deliver("ctag", tag, redelivered, exchange, key)
    stream = frame.marshal(method, channel) + content(channel, payload, 50)
    expected = Deliver(
        tag, redelivered, exchange.encode(), key.encode(), PERSISTENT, payload
    )
    assert read(stream, pieces) == [(channel, expected)]


@given(channels, texts, names, names, bodies, st.lists(st.integers(0)))
def test_a_return_from_pamqp_is_read(
    channel: int,
    text: str,
    exchange: str,
    key: str,
    payload: bytes,
    pieces: list[int],
) -> None:
    method = commands.Basic.Return(312, text, exchange, key)
    stream = frame.marshal(method, channel) + content(channel, payload, 50)
    expected = Returned(312, text, exchange, key, PERSISTENT)
    assert read(stream, pieces) == [(channel, expected)]


@given(channels, tags, st.booleans(), st.booleans())
def test_confirms_from_pamqp_are_read(
    channel: int, tag: int, multiple: bool, accepted: bool
) -> None:
    method = (
        commands.Basic.Ack(tag, multiple)
        if accepted
        else commands.Basic.Nack(tag, multiple, True)
    )
    expected = Confirm(tag, multiple, accepted)
    assert read(frame.marshal(method, channel)) == [(channel, expected)]


@given(st.integers(200, 599), texts)
def test_closes_from_pamqp_are_read(code: int, text: str) -> None:
    stream = frame.marshal(commands.Channel.Close(code, text, 60, 40), 1)
    stream += frame.marshal(commands.Connection.Close(code, text, 0, 0), 0)
    stream += frame.marshal(commands.Channel.CloseOk(), 2)
    assert read(stream) == [
        (1, Closed(code, text)),
        (0, Closed(code, text)),
        (2, Closed(0, "closed by us")),
    ]


@given(texts)
def test_other_methods_that_matter_are_read(text: str) -> None:
    stream = frame.marshal(commands.Basic.Cancel(text, True), 1)
    stream += frame.marshal(commands.Connection.Blocked(text), 0)
    stream += frame.marshal(commands.Connection.Unblocked(), 0)
    assert read(stream) == [
        (1, Cancelled(text)),
        (0, Blocked(text)),
        (0, Blocked(None)),
    ]


@pytest.mark.parametrize(
    "method",
    [
        commands.Basic.ConsumeOk("ctag"),
        commands.Basic.QosOk(),
        commands.Channel.OpenOk(),
        commands.Queue.DeclareOk("q", 1, 2),
        commands.Confirm.SelectOk(),
        commands.Connection.Tune(2047, FRAME_MAX, 60),
        commands.Basic.GetEmpty(),
    ],
)
def test_methods_that_are_aiormqs_business_mean_nothing_to_us(method: Any) -> None:
    assert read(frame.marshal(method, 1)) == [(1, None)]


def everything() -> bytes:
    """A stream with every kind of frame, two channels interleaved."""
    first = commands.Basic.Deliver("c", 7, True, "ex", "key")
    back = commands.Basic.Return(312, "NO_ROUTE", "", "gone")
    long = content(1, b"x" * 90, 40)
    head, rest = long[:23], long[23:]
    return b"".join(
        (
            frame.marshal(commands.Basic.Ack(1, True), 2),
            frame.marshal(first, 1),
            head,
            deliver(3, 1, b""),
            frame.marshal(commands.Basic.Nack(5, False), 2),
            rest,
            frame.marshal(back, 2),
            content(2, b"returned body"),
            frame.marshal(commands.Connection.Blocked("disk"), 0),
            frame.marshal(commands.Connection.Unblocked(), 0),
            frame.marshal(commands.Basic.Cancel("c", True), 1),
            frame.marshal(commands.Queue.DeclareOk("q", 1, 2), 4),
            frame.marshal(commands.Channel.Close(406, "unknown tag", 60, 80), 1),
            frame.marshal(commands.Channel.CloseOk(), 3),
            frame.marshal(commands.Connection.Close(320, "shutdown", 0, 0), 0),
        )
    )


def test_the_stream_may_be_split_at_every_byte() -> None:
    stream = everything()
    whole = read(stream)
    assert [type(event).__name__ for _, event in whole] == [
        "Confirm",
        "Deliver",
        "Confirm",
        "Deliver",
        "Returned",
        "Blocked",
        "Blocked",
        "Cancelled",
        "NoneType",
        "Closed",
        "Closed",
        "Closed",
    ]
    for cut in range(len(stream) + 1):
        assert read(stream, [cut]) == whole, f"split at {cut}"
    assert read(stream, range(len(stream))) == whole  # byte by byte


@given(st.lists(st.integers(0, 2000), max_size=60))
def test_the_stream_may_come_in_any_pieces(pieces: list[int]) -> None:
    stream = everything()
    assert read(stream, pieces) == read(stream)


def test_a_frame_is_not_handed_out_before_its_last_byte() -> None:
    stream = deliver(1, 1, b"body")
    reader = Reader()
    reader.feed(stream[:-1])
    assert not reader.events
    reader.feed(stream[-1:])
    assert len(reader.events) == 1


# --- what breaks the protocol ---


def test_a_frame_longer_than_agreed_is_refused_before_it_has_arrived() -> None:
    Splitter(20).feed(b"\x03\x00\x01\x00\x00\x00\x0c")
    with pytest.raises(FrameError, match="a frame of 21 bytes, more than 20"):
        Splitter(20).feed(b"\x03\x00\x01\x00\x00\x00\x0d!")
    splitter = Splitter(20)
    assert splitter.feed(b"\x03\x00\x01\x00\x00\x00\x0c" + b"x" * 12 + b"\xce")[1] == [
        (3, 1, 7, 19)
    ]


def test_a_frame_without_its_end_octet_is_refused() -> None:
    good = frame.marshal(commands.Basic.Ack(1), 1)
    with pytest.raises(FrameError, match="without its end octet"):
        Splitter(FRAME_MAX).feed(good[:-1] + b"\xcd")


@given(st.binary(min_size=8, max_size=100))
def test_any_bytes_are_split_or_refused(data: bytes) -> None:
    try:
        buffer, found = Splitter(FRAME_MAX).feed(data)
    except FrameError:
        return
    for _, _, start, stop in found:
        assert buffer[stop] == 0xCE
        assert 7 <= start <= stop < len(buffer)


METHOD_FRAME = Deliver(1, False, b"", b"", b"", b"")
HEAD = content(1, b"12345")[7:22]  # the payload of the header frame
EMPTY_HEAD = content(1, b"")[7:22]


@pytest.mark.parametrize(
    "steps",
    [
        [(HEADER, HEAD)],
        [(BODY, b"12345")],
        [METHOD_FRAME, METHOD_FRAME],
        [METHOD_FRAME, (BODY, b"12345")],
        [METHOD_FRAME, (HEADER, HEAD), (HEADER, HEAD)],
        [METHOD_FRAME, (HEADER, HEAD), METHOD_FRAME],
        [METHOD_FRAME, (HEADER, HEAD), (BODY, b"123"), METHOD_FRAME],
        [METHOD_FRAME, (HEADER, HEAD), (BODY, b"123"), (HEADER, HEAD)],
        [METHOD_FRAME, (HEADER, HEAD), (BODY, b"123456")],
        [METHOD_FRAME, (HEADER, HEAD), (BODY, b"123"), (BODY, b"456")],
        [METHOD_FRAME, (HEADER, HEAD), (BODY, b"")],
        [METHOD_FRAME, (HEADER, HEAD), (BODY, b"12345"), (BODY, b"1")],
        [METHOD_FRAME, (HEADER, EMPTY_HEAD), (BODY, b"1")],
        [METHOD_FRAME, (HEADER, EMPTY_HEAD), (HEADER, EMPTY_HEAD)],
        [METHOD_FRAME, (HEADER, HEAD[:13])],
        [METHOD_FRAME, (8, b"")],
    ],
)
def test_content_frames_out_of_order_are_refused(
    steps: Sequence[Deliver | tuple[int, bytes]],
) -> None:
    assembler = Assembler()
    *before, last = steps

    def take(step: Deliver | tuple[int, bytes]) -> None:
        if isinstance(step, Deliver):
            assembler.begin(step)
        else:
            kind, payload = step
            assembler.feed(kind, payload, 0, len(payload))

    for step in before:
        take(step)
    with pytest.raises(FrameError):
        take(last)


def test_one_content_follows_the_other() -> None:
    stream = deliver(1, 1, b"one") + deliver(1, 2, b"") + deliver(1, 3, b"three")
    bodies = [event.body for _, event in read(stream) if isinstance(event, Deliver)]
    assert bodies == [b"one", b"", b"three"]


CUT_SHORT: list[Any] = [
    commands.Basic.Deliver("ctag", 1, False, "ex", "rk"),
    commands.Basic.Return(312, "NO_ROUTE", "ex", "rk"),
    commands.Basic.Ack(1, True),
    commands.Basic.Nack(1, True),
    commands.Basic.Cancel("ctag", True),
    commands.Channel.Close(404, "text", 1, 2),
    commands.Connection.Close(320, "text", 1, 2),
    commands.Connection.Blocked("text"),
]


@pytest.mark.parametrize("method", CUT_SHORT, ids=lambda each: each.name)
def test_a_method_cut_short_at_its_numbers_is_refused(method: Any) -> None:
    payload = frame.marshal(method, 1)[7:-1]
    for stop in range(4):
        with pytest.raises(FrameError, match="a malformed method frame"):
            decode_method(payload[:stop], 0, stop)
    if len(payload) == 4 + 9:  # ack and nack
        for stop in range(4, len(payload)):
            with pytest.raises(FrameError):
                decode_method(payload[:stop], 0, stop)


@given(
    tags,
    names,
    bodies,
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3),
    st.integers(20, 400),
)
def test_a_message_read_in_one_go_is_the_one_read_piece_by_piece(
    tag: int, name: str, payload: bytes, damage: list[tuple[int, int]], cut: int
) -> None:
    """Whatever is wrong with it is left to the slower way, which says so."""
    method = commands.Basic.Deliver("ctag", tag, False, name, name)
    stream = bytearray(frame.marshal(method, 1) + content(1, payload, cut))
    for at, value in damage:
        stream[at % len(stream)] = value
    try:
        buffer, found = Splitter(FRAME_MAX).feed(bytes(stream))
    except FrameError:
        return
    if not found or found[0][0] != METHOD:
        return
    quick = whole_delivery(buffer, found, 0)
    reader = Reader()
    with suppress(FrameError):
        reader.feed(bytes(stream))
    if quick is not None:
        assert reader.events[0] == (found[0][1], quick)
    elif not damage and len(found) == 3:
        raise AssertionError("a whole message was not seen as one")


@given(st.binary(max_size=60), st.sampled_from(CUT_SHORT))
def test_any_bytes_of_a_method_are_decoded_or_refused(data: bytes, method: Any) -> None:
    payload = frame.marshal(method, 1)[7:11] + data
    with suppress(FrameError):
        decode_method(payload, 0, len(payload))


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (commands.Basic.Deliver("ctag", 1, False, "ex", "rk"), b"rk"),
        (commands.Basic.Deliver("ctag", 1, False, "ex", "rk"), b"ex"),
        (commands.Basic.Return(312, "NO_ROUTE", "ex", "rk"), b"rk"),
        (commands.Basic.Cancel("ctag", True), b"ctag"),
        (commands.Channel.Close(404, "why", 1, 2), b"why"),
        (commands.Connection.Close(320, "why", 1, 2), b"why"),
        (commands.Connection.Blocked("why"), b"why"),
    ],
)
def test_a_text_that_ends_beyond_its_frame_is_refused(method: Any, text: bytes) -> None:
    payload = bytearray(frame.marshal(method, 1)[7:-1])
    payload[payload.index(text) - 1] = 200
    with pytest.raises(FrameError):
        decode_method(bytes(payload), 0, len(payload))
    following = bytes(payload) + b"\xce" + everything()  # it must not read on there
    with pytest.raises(FrameError):
        decode_method(following, 0, len(payload))
