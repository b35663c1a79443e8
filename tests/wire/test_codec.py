"""Messages as bytes: what is read, what is refused, and within which limits."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from pamqp import commands, header

from rmqarq import DecodeError, EncodeError, Message, Settings
from rmqarq.wire.codec import Codec, Decoded, encoder, is_pydantic, typed_decoder
from rmqarq.wire.properties import template

if TYPE_CHECKING:
    from rmqarq.wire.codec import Serializer

CODEC = Codec(Settings())
NOTHING = b"\x00\x00"
JSON, MSGPACK = "application/json", "application/msgpack"


def written(content_type: str | None = JSON, **fields: Any) -> bytes:
    """Properties as another program might write them."""
    made = commands.Basic.Properties(content_type=content_type, **fields)
    return header.ContentHeader(0, 0, made).marshal()[12:]


def arrived(codec: Codec, message: Message, compression: bool | None = None) -> Decoded:
    """Encode a message and decode it as a worker would."""
    content_type, encoding, body = codec.encode(message, compression)
    made = template(
        content_type=content_type,
        content_encoding=encoding,
        correlation_id=message.id,
        type=message.task,
    )
    return codec.decode(made.fill(b"1.1"), body)


FULL = Message(
    id="j-1",
    task="add",
    args=(1, "two", None),
    kwargs={"three": [3.5, True]},
    job_try=2,
    enqueued_at=1_700_000_000.5,
    eta=1_700_000_060.25,
    expires=30.0,
    max_retries=0,
    generation=1,
    first_failed_at=1_700_000_001.0,
    headers={"trace": "x"},
)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("compression", [True, False])
def test_a_message_arrives_as_it_was_sent(
    serializer: Serializer, compression: bool
) -> None:
    settings = Settings(serializer=serializer, compression_threshold=0)
    message, found, ours, packed, _ = arrived(Codec(settings), FULL, compression)
    assert (found, ours, packed) == (serializer, True, compression)
    for name in Message.__struct_fields__:
        if name not in ("args", "kwargs"):
            assert getattr(message, name) == getattr(FULL, name), name
    module = msgspec.json if serializer == "json" else msgspec.msgpack
    assert module.decode(message.args) == [1, "two", None]
    assert module.decode(message.kwargs) == {"three": [3.5, True]}


def test_the_body_is_one_flat_object_without_defaults() -> None:
    encoded = CODEC.encode(Message(id="j", task="add", args=(1,), enqueued_at=5.0))
    assert encoded.content_type == JSON
    assert encoded.content_encoding is None
    assert encoded.body == b'{"id":"j","task":"add","args":[1],"enqueued_at":5.0}'


@pytest.mark.parametrize("packed", [True, False])
def test_what_follows_a_message_is_written_and_packed_as_that_was(packed: bool) -> None:
    sender = Codec(Settings(serializer="msgpack", compression_threshold=10))
    assert sender.encode(FULL).content_type == MSGPACK
    came = arrived(sender, FULL, packed)
    # whatever the worker itself would do
    worker = Codec(Settings(compression=not packed, compression_threshold=0))
    assert worker.encode(FULL).content_type == JSON
    again = worker.encode_again(came.message, came)
    assert again.content_type == MSGPACK
    assert again.content_encoding == ("gzip" if packed else None)
    assert again == sender.encode(FULL, packed)


def test_a_message_may_be_packed_or_not_whatever_the_settings_say() -> None:
    for compression in (True, False):
        codec = Codec(Settings(compression=compression, compression_threshold=500))
        large = Message(task="t", args=("x" * 1000,))
        assert codec.encode(large, compression=True).content_encoding == "gzip"
        assert codec.encode(large, compression=False).content_encoding is None
        # the threshold holds in any case
        assert codec.encode(FULL, compression=True).content_encoding is None


def test_encoded_arguments_are_carried_over_byte_by_byte() -> None:
    raw = Raw(b'[1,    "spaces are kept"]')
    body = CODEC.encode(Message(task="t", args=raw)).body
    assert bytes(raw) in body


# --- limits ---


def test_a_message_larger_than_max_body_is_not_sent() -> None:
    codec = Codec(Settings(max_body=100))
    small = Message(task="t", args=("x" * 50,))
    assert codec.encode(small)
    with pytest.raises(EncodeError) as caught:
        codec.encode(Message(task="resize", args=("x" * 200,)))
    assert "a message for resize takes 2" in str(caught.value)
    assert "max_body allows 100" in str(caught.value)


def test_compression_does_not_lift_the_limit_of_the_unpacked_body() -> None:
    codec = Codec(Settings(max_body=1000, compression=True))
    with pytest.raises(EncodeError, match="max_body allows 1000"):
        codec.encode(Message(task="t", args=("x" * 5000,)))


def test_only_bodies_above_the_threshold_are_packed() -> None:
    codec = Codec(Settings(compression=True, compression_threshold=500))
    assert codec.encode(Message(task="t", args=("x" * 100,))).content_encoding is None
    packed = codec.encode(Message(task="t", args=("x" * 1000,)))
    assert packed.content_encoding == "gzip"
    assert len(packed.body) < 200
    assert gzip.decompress(packed.body).startswith(b'{"task":"t"')
    off = Codec(Settings(compression=False))
    assert off.encode(Message(task="t", args=("x" * 5000,))).content_encoding is None


def test_the_same_message_packs_to_the_same_bytes() -> None:
    codec = Codec(Settings(compression=True, compression_threshold=0))
    assert codec.encode(FULL).body == codec.encode(FULL).body


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_a_body_larger_than_max_body_is_not_read(encoding: str | None) -> None:
    body = b'{"task":"t","args":["' + b"x" * 2000 + b'"]}'
    body = body if encoding is None else gzip.compress(body)
    raw = written(content_encoding=encoding or "")
    with pytest.raises(DecodeError, match=r"larger than max_body allows \(1000 bytes"):
        Codec(Settings(max_body=1000)).decode(raw, body)


def test_a_body_of_exactly_max_body_is_read() -> None:
    body = b'{"task":"t"}'
    for size, sent in ((None, body), ("gzip", gzip.compress(body))):
        raw = written(content_encoding=size or "")
        codec = Codec(Settings(max_body=len(body)))
        assert codec.decode(raw, sent).message.task == "t"
        with pytest.raises(DecodeError):
            Codec(Settings(max_body=len(body) - 1)).decode(raw, sent)


def test_a_bomb_does_not_go_off() -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), 9)
    assert len(bomb) < 250_000
    raw = written(content_encoding="gzip")
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(DecodeError, match="larger than max_body"):
            CODEC.decode(raw, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
    assert time.perf_counter() - began < 1


# --- what is refused ---


@pytest.mark.parametrize(
    ("raw", "body", "problem"),
    [
        (written(), b"", "can't be read"),
        (written(), b"{", "can't be read"),
        (written(), b"7", "Expected `object`"),
        (written(), b"[]", "Expected `object`"),
        (written(), b"null", "Expected `object`"),
        (written(), b'{"task":7}', "Expected `str`, got `int` - at `$.task`"),
        (written(), b'{"task":"t","id":null}', "at `$.id`"),
        (written(), b'{"task":"t","try":"1"}', "at `$.try`"),
        (written(), b'{"task":"t","eta":"soon"}', "at `$.eta`"),
        (written(), b'{"task":"t","headers":[]}', "at `$.headers`"),
        (written(), b'{"task":"t","headers":{"a":1}}', "at `$.headers"),
        (written(), b'{"task":"t","args":[1,]}', "can't be read"),
        (written(), b'{"task":"\xff"}', "can't be read"),
        (written(), b'{"task":"t"} trailing', "can't be read"),
        (written(), b'{"v":2,"task":"t"}', "format version 2; this worker reads 1"),
        (written(), b'{"v":0,"task":"t"}', "format version 0"),
        (written(), b"{}", "names no task, neither in body nor in 'type'"),
        (NOTHING, b'{"id":"j"}', "names no task"),
        (written(MSGPACK), b"", "can't be read"),
        (written(MSGPACK), b"\xc1", "can't be read"),
        (written(MSGPACK), b'{"task":"t"}', "can't be read"),
        (written("text/plain"), b"", "'text/plain' is neither JSON nor MessagePack"),
        (written("application/x-python-serialize"), b"", "is neither JSON nor"),
        (written("application/json;x", content_encoding="zstd"), b"", "'zstd' is not"),
        (written(content_encoding="gzip"), b'{"task":"t"}', "the body is not gzip"),
        (written(content_encoding="gzip"), b"", "cut short"),
        (
            written(content_encoding="gzip"),
            gzip.compress(b'{"task":"t"}', mtime=0)[:-9],
            "the gzip body is cut short",
        ),
        (b"\x80\x00\x09abc", b'{"task":"t"}', "a value is cut short"),
        (b"", b'{"task":"t"}', "can't be read"),
        (b"\x00\x40" + (2**64 - 1).to_bytes(8), b"{}", "beyond the year 9999"),
    ],
)
def test_what_is_no_message_is_refused_with_the_reason(
    raw: bytes, body: bytes, problem: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(raw, body)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "fields"),
    [
        (JSON, {"enqueued_at": 1e300}),
        (JSON, {"enqueued_at": -1e300}),
        (JSON, {"first_failed_at": 1e300}),
        (JSON, {"try": 2**64}),
        (MSGPACK, {"enqueued_at": float("nan")}),
        (MSGPACK, {"enqueued_at": float("inf")}),
        (MSGPACK, {"eta": float("nan")}),
        (MSGPACK, {"expires": float("nan")}),
        (MSGPACK, {"first_failed_at": float("nan")}),
    ],
)
def test_a_number_that_no_worker_can_handle_is_refused(
    content_type: str, fields: dict[str, Any]
) -> None:
    serializer: Serializer = "json" if content_type == JSON else "msgpack"
    body = encoder(serializer).encode({"task": "t", "id": "j", **fields})
    with pytest.raises(DecodeError):
        CODEC.decode(written(content_type), body)


def test_a_body_nested_too_deep_is_refused() -> None:
    for body in (b'{"task":"t","args":' + b"[" * 100_000, b"[" * 100_000):
        with pytest.raises(DecodeError):
            CODEC.decode(written(), body)


# --- foreign producers ---


@pytest.mark.parametrize(
    "content_type",
    [None, JSON, "APPLICATION/JSON", "application/json; charset=utf-8"],
)
def test_json_goes_by_several_names(content_type: str | None) -> None:
    assert CODEC.decode(written(content_type), b'{"task":"t"}').serializer == "json"


@pytest.mark.parametrize(
    "content_type", [MSGPACK, "application/x-msgpack", "application/vnd.msgpack"]
)
def test_message_pack_goes_by_several_names(content_type: str) -> None:
    body = msgspec.msgpack.encode({"task": "t"})
    assert CODEC.decode(written(content_type), body).serializer == "msgpack"


def test_a_foreign_producer_needs_only_the_type_property() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    raw = written(
        message_type="add", message_id="m-7", timestamp=moment, delivery_mode=2
    )
    message = CODEC.decode(raw, b'{"args":[1,2]}').message
    assert (message.task, message.id) == ("add", "m-7")
    assert message.enqueued_at == moment.timestamp()
    assert message.job_try == 1


def test_what_the_body_says_beats_the_properties() -> None:
    raw = written(message_type="other", correlation_id="c")
    message = CODEC.decode(raw, b'{"task":"add","id":"j","enqueued_at":5}').message
    assert (message.task, message.id, message.enqueued_at) == ("add", "j", 5.0)


def test_the_correlation_id_is_the_job_id_before_the_message_id_is() -> None:
    raw = written(correlation_id="c", message_id="m")
    assert CODEC.decode(raw, b'{"task":"t"}').message.id == "c"


def test_a_message_that_names_no_time_was_enqueued_now() -> None:
    before = time.time()
    message = CODEC.decode(NOTHING, b'{"task":"t"}').message
    assert before <= message.enqueued_at <= time.time()


def test_what_we_do_not_know_is_passed_over() -> None:
    body = b'{"task":"t","colour":{"deep":["er"]},"origin":"elsewhere"}'
    assert CODEC.decode(NOTHING, body).message.task == "t"


# --- pydantic, without importing it ---


class User(pydantic.BaseModel):
    name: str
    born: date


def test_pydantic_models_are_written_and_built() -> None:
    user = User(name="Ann", born=date(1990, 1, 2))
    raw = encoder("json").encode([user])
    assert json.loads(raw) == [{"name": "Ann", "born": "1990-01-02"}]
    assert typed_decoder("json", list[User]).decode(raw) == [user]
    assert is_pydantic(User)
    assert not is_pydantic(user)
    assert not is_pydantic(int)


# --- anything at all ---


@settings(max_examples=5000)
@given(st.binary(max_size=80), st.sampled_from([None, JSON, MSGPACK]))
def test_any_bytes_are_decoded_or_refused(body: bytes, content_type: str) -> None:
    with suppress(DecodeError):
        assert isinstance(CODEC.decode(written(content_type), body), Decoded)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=5),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=5,
)
FIELDS = [*msgspec.structs.fields(Message)]
bodies = st.dictionaries(
    st.sampled_from([each.encode_name for each in FIELDS]), anything, max_size=6
)


@settings(max_examples=500)
@given(bodies, st.sampled_from(["json", "msgpack"]))
def test_anything_in_our_own_fields_is_decoded_or_refused(
    body: dict[str, Any], serializer: Serializer
) -> None:
    content_type = JSON if serializer == "json" else MSGPACK
    data = encoder(serializer).encode(body)
    with suppress(DecodeError):
        CODEC.decode(written(content_type, message_type="t"), data)


@settings(max_examples=3000)
@given(st.integers(0), st.integers(0, 255), st.booleans())
def test_one_wrong_byte_in_a_good_body_is_decoded_or_refused(
    place: int, byte: int, packed: bool
) -> None:
    data = bytearray(CODEC.encode(FULL, "msgpack" if byte % 2 else "json").body)
    data = bytearray(gzip.compress(data)) if packed else data
    data[place % len(data)] = byte
    raw = written(
        MSGPACK if byte % 2 else JSON, content_encoding="gzip" if packed else ""
    )
    with suppress(DecodeError):
        CODEC.decode(raw, bytes(data))


@settings(max_examples=1500)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_properties_with_any_body_are_decoded_or_refused(
    raw: bytes, body: bytes
) -> None:
    with suppress(DecodeError):
        CODEC.decode(raw, body)
