"""Properties and header tables, against pamqp in both directions, and poisoned."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, decode, header

from rmqarq.wire import properties
from rmqarq.wire.properties import (
    NO_HEADERS,
    Properties,
    PropertyError,
    Template,
    decode_head,
    encode_table,
    template,
)

short_texts = st.text(max_size=60)
keys = st.text(min_size=1, max_size=20)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=40),
    st.lists(st.text(max_size=20), max_size=4),
)


def read_by_pamqp(raw: bytes) -> commands.Basic.Properties:
    found = header.ContentHeader()
    found.unmarshal(struct.pack(">HHQ", 60, 0, 0) + raw)
    return found.properties


def written_by_pamqp(**fields: Any) -> bytes:
    made = commands.Basic.Properties(**fields)
    return header.ContentHeader(0, 0, made).marshal()[12:]


# --- what we write ---


@settings(max_examples=60)
@given(
    short_texts.filter(bool),
    short_texts,
    short_texts.filter(bool),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),  # pamqp takes more for milliseconds
    st.dictionaries(keys, values, max_size=5),
    st.sampled_from([None, "gzip"]),
)
def test_pamqp_reads_our_properties(
    content_type: str,
    job_id: str,
    task: str,
    priority: int,
    timestamp: int,
    headers: dict[str, Any],
    encoding: str | None,
) -> None:
    made = template(
        content_type=content_type,
        content_encoding=encoding,
        correlation_id=job_id,
        type=task,
        headers=headers,
        priority=priority,
        timestamp=timestamp,
    )
    found = read_by_pamqp(made.fill(b"1a2b.7"))
    assert found.content_type == content_type
    assert found.content_encoding == encoding
    assert (found.correlation_id, found.message_type) == (job_id, task)
    assert (found.priority, found.delivery_mode) == (priority, 2)
    assert (found.message_id, found.app_id) == ("1a2b.7", "rmqarq")
    assert found.timestamp == datetime.fromtimestamp(timestamp, UTC)
    assert (found.headers or {}) == headers
    assert found.expiration is None
    assert found.reply_to is None
    assert properties.decode(made.fill(b"1a2b.7")) == Properties(
        content_type=content_type,
        content_encoding=encoding,
        headers=headers or NO_HEADERS,
        delivery_mode=2,
        priority=priority,
        correlation_id=job_id,
        message_id="1a2b.7",
        timestamp=timestamp,
        type=task,
        app_id="rmqarq",
    )


def test_a_body_of_unknown_kind_is_sent_without_a_content_type() -> None:
    made = template(content_type=None, correlation_id="j", type="t")
    assert read_by_pamqp(made.fill(b"1")).content_type is None


def test_a_template_is_filled_again_and_again() -> None:
    made = Template(b"<", b">")
    assert made.fill(b"1") == b"<\x011>"
    assert made.fill(b"22") == b"<\x0222>"


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"x" * 129: 1}, "longer than 128 bytes"),
        ({"漢" * 43: 1}, "longer than 128 bytes"),
        ({"a": 2**63}, "'a' can't be int"),
        ({"a": -(2**63) - 1}, "'a' can't be int"),
        ({"a": 1.5}, "'a' can't be float"),
        ({"a": None}, "'a' can't be NoneType"),
        ({"a": {"b": 1}}, "'a' can't be dict"),
        ({"a": "x" * 65536}, "65536 are allowed"),
        ({"a": "漢" * 22000}, "65536 are allowed"),
        ({str(n): "x" * 100 for n in range(700)}, "65536 are allowed"),
    ],
)
def test_headers_that_cannot_travel_are_refused(headers: Any, problem: str) -> None:
    with pytest.raises(PropertyError, match=problem):
        encode_table(headers)


def test_a_header_name_with_half_a_character_is_a_property_error() -> None:
    with pytest.raises(PropertyError):
        encode_table({"\ud800": 1})


def test_headers_just_below_the_limit_travel() -> None:
    text = "x" * (65536 - 7)
    raw = encode_table({"a": text})
    assert decode.field_table(raw)[1] == {"a": text}


def test_half_a_character_in_a_header_is_written_out() -> None:
    raw = encode_table({"a": "x\ud800y", "b": ["\udfff"]})
    assert decode.field_table(raw)[1] == {"a": "x\\ud800y", "b": ["\\udfff"]}


@pytest.mark.parametrize("field", ["correlation_id", "type", "content_type"])
@pytest.mark.parametrize("text", ["x" * 256, "漢" * 86, "\ud800"])
def test_a_text_that_no_property_can_hold_is_refused(field: str, text: str) -> None:
    given: Any = {"content_type": "a", "correlation_id": "b", "type": "c", field: text}
    with pytest.raises(PropertyError):
        template(**given)


# --- what we read ---

foreign_values = st.recursive(
    st.one_of(
        values,
        st.none(),
        st.binary(max_size=20).map(bytearray),
        st.integers(0, 253402300799).map(lambda n: datetime.fromtimestamp(n, UTC)),
        st.floats(width=32, allow_nan=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content_type": short_texts,
            "content_encoding": short_texts,
            "delivery_mode": st.integers(1, 2),
            "priority": st.integers(0, 255),
            "correlation_id": short_texts,
            "reply_to": short_texts,
            "expiration": short_texts,
            "message_id": short_texts,
            "message_type": short_texts,
            "user_id": short_texts,
            "app_id": short_texts,
            "timestamp": st.integers(0, 253402300799),
            "headers": st.dictionaries(keys, foreign_values, max_size=4),
        },
    )
)
def test_we_read_what_pamqp_writes(fields: dict[str, Any]) -> None:
    given = dict(fields)
    if "timestamp" in given:
        given["timestamp"] = datetime.fromtimestamp(given["timestamp"], UTC)
    raw = written_by_pamqp(**given)
    found = properties.decode(raw)
    # pamqp writes no property that is empty
    sent = {name: value for name, value in fields.items() if value not in ("", {})}
    sent["type"] = sent.pop("message_type", None)
    for name in Properties.__struct_fields__:
        value = getattr(found, name)
        if name == "headers":
            assert plain(value) == plain(sent.get("headers", {}))
        else:
            assert (value or None) == (sent.get(name) or None), name
    assert decode_head(raw) == (
        found.content_type,
        found.content_encoding,
        found.headers,
    )


def plain(value: Any) -> Any:
    """Write moments as seconds and bytes as bytes, as we read them."""
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if hasattr(value, "items"):
        return {name: plain(each) for name, each in value.items()}
    return value


def field(kind: bytes, payload: bytes) -> bytes:
    """Properties with one header `h` of a field type."""
    table = b"\x01h" + kind + payload
    return b"\x20\x00" + struct.pack(">I", len(table)) + table


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        (b"t", b"\x01", True),
        (b"t", b"\x00", False),
        (b"b", b"\xff", -1),
        (b"B", b"\xff", 255),
        (b"s", b"\xff\xfe", -2),
        (b"u", b"\xff\xfe", 65534),
        (b"I", b"\xff\xff\xff\xff", -1),
        (b"i", b"\xff\xff\xff\xff", 2**32 - 1),
        (b"l", b"\xff" * 8, -1),
        (b"f", struct.pack(">f", 1.5), 1.5),
        (b"d", struct.pack(">d", math.pi), math.pi),
        (b"S", b"\x00\x00\x00\x02hi", "hi"),
        (b"S", b"\x00\x00\x00\x02h\xff", "h\ufffd"),
        (b"x", b"\x00\x00\x00\x02h\xff", b"h\xff"),
        (b"V", b"", None),
        (b"T", b"\x00" * 7 + b"\x05", 5),
        (b"A", b"\x00\x00\x00\x02VV", [None, None]),
        (b"A", b"\x00\x00\x00\x00", []),
        (b"F", b"\x00\x00\x00\x03\x01aV", {"a": None}),
    ],
)
def test_every_field_type_of_rabbitmq_is_read(
    kind: bytes, payload: bytes, value: Any
) -> None:
    headers = properties.decode(field(kind, payload)).headers
    assert dict(headers) == {"h": value}
    assert type(headers["h"]) is type(value)


def test_headers_cannot_be_changed_by_who_reads_them() -> None:
    headers: Any = properties.decode(field(b"V", b"")).headers
    with pytest.raises(TypeError):
        headers["h"] = 1


# --- poison ---


def nested(kind: bytes, depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        name = b"\x01n" if kind == b"F" else b""
        inner = name + kind + struct.pack(">I", len(inner)) + inner
    return inner


def flags(*numbers: int) -> bytes:
    return struct.pack(">H", sum(numbers))


SHORT_STRINGS = {
    "content_type": properties.CONTENT_TYPE,
    "content_encoding": properties.CONTENT_ENCODING,
    "correlation_id": properties.CORRELATION_ID,
    "reply_to": properties.REPLY_TO,
    "expiration": properties.EXPIRATION,
    "message_id": properties.MESSAGE_ID,
    "type": properties.TYPE,
    "user_id": properties.USER_ID,
    "app_id": properties.APP_ID,
    "cluster_id": properties.CLUSTER_ID,
}
STAMP = flags(properties.TIMESTAMP)
POISON: dict[str, bytes] = {
    "nothing at all": b"",
    "half of the flags": b"\x80",
    "a second word of flags": b"\x00\x01\x00\x00",
    "a flag that is not defined": b"\x00\x02",
    "bytes left over": b"\x00\x00\x00",
    "a timestamp of 2**63 - 1": STAMP + (2**63 - 1).to_bytes(8),
    "a timestamp of 2**64 - 1": STAMP + (2**64 - 1).to_bytes(8),
    "a timestamp in microseconds": STAMP + (10**15).to_bytes(8),
    "a timestamp a second after the year 9999": STAMP + (253402300800).to_bytes(8),
    "a timestamp cut short": STAMP + b"\x00" * 7,
    "a priority that is missing": flags(properties.PRIORITY),
    "a delivery mode that is missing": flags(properties.DELIVERY_MODE),
    "a header timestamp of 2**63": field(b"T", (2**63).to_bytes(8)),
    "a header timestamp of 10**15": field(b"T", (10**15).to_bytes(8)),
    "a header timestamp cut short": field(b"T", b"\x00" * 7),
    "tables nested 500 deep": field(
        b"F", struct.pack(">I", len(nested(b"F", 500))) + nested(b"F", 500)
    ),
    "arrays nested 500 deep": field(
        b"A", struct.pack(">I", len(nested(b"A", 500))) + nested(b"A", 500)
    ),
    "a header key that is not UTF-8": b"\x20\x00\x00\x00\x00\x03\x01\xffV",
    "a header key cut short": b"\x20\x00\x00\x00\x00\x02\x09a",
    "a header without a value": b"\x20\x00\x00\x00\x00\x02\x01a",
    "a header table cut short": b"\x20\x00\x00\x00\x00\x09\x01aV",
    "a header table without its length": b"\x20\x00\x00\x00",
    "a header table of 4 GiB": b"\x20\x00\xff\xff\xff\xff\x01aV",
    "a header text of 4 GiB": field(b"S", b"\xff\xff\xff\xffhi"),
    "a header text longer than its table": field(b"S", b"\x00\x00\x00\x03hi"),
    "a header array longer than its table": field(b"A", b"\x00\x00\x00\x03VV"),
    "a nested table longer than its table": field(b"F", b"\x00\x00\x00\x09\x01aV"),
    "a header integer cut short": field(b"l", b"\x00" * 7),
    "a header bool cut short": field(b"t", b""),
    "a header decimal cut short": field(b"D", b"\x02\x00\x00\x00"),
    "an unknown field type": field(b"Z", b"\x00" * 8),
    "an unknown field type in an array": field(b"A", b"\x00\x00\x00\x01Z"),
    **{
        f"a {name} that is not UTF-8": flags(flag) + b"\x02\xc3\x28"
        for name, flag in SHORT_STRINGS.items()
    },
    **{
        f"a {name} cut short": flags(flag) + b"\x05abc"
        for name, flag in SHORT_STRINGS.items()
    },
    **{
        f"a {name} that is missing": flags(flag) for name, flag in SHORT_STRINGS.items()
    },
}


@pytest.mark.parametrize("name", POISON)
def test_poisoned_properties_are_refused_and_nothing_worse(name: str) -> None:
    with pytest.raises(PropertyError):
        properties.decode(POISON[name])
    with suppress(PropertyError):  # it may stand behind what the head holds
        decode_head(POISON[name])


def test_what_is_nested_up_to_the_limit_is_read() -> None:
    inner = nested(b"A", properties.MAX_DEPTH - 1)
    raw = field(b"A", struct.pack(">I", len(inner)) + inner)
    assert properties.decode(raw).headers


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for read in (properties.decode, decode_head):
        with suppress(PropertyError):
            read(raw)


@given(
    st.integers(0, 0xFFFF),
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from([b"\x01h", b"\x00\x00\x00\x08", b"F", b"A", b"S", b"T"]),
        ),
        max_size=12,
    ),
)
def test_bytes_that_resemble_properties_are_read_or_refused(
    word: int, parts: list[bytes]
) -> None:
    raw = struct.pack(">H", word) + b"".join(parts)
    for read in (properties.decode, decode_head):
        with suppress(PropertyError):
            read(raw)


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_wrong_byte_in_good_properties_is_read_or_refused(
    place: int, byte: int
) -> None:
    made = template(
        content_type="application/json",
        correlation_id="01890a5d",
        type="add",
        headers={"a": 1, "b": "text", "c": ["x", "y"], "d": True},
    )
    raw = bytearray(made.fill(b"1.2"))
    raw[place % len(raw)] = byte
    for read in (properties.decode, decode_head):
        with suppress(PropertyError):
            read(bytes(raw))
