"""Foreign properties that are sent on: what stays, what goes, what is added."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq.wire.origin import properties_of, texts
from rmqarq.wire.properties import (
    LATEST,
    PropertyError,
    cut,
    decode,
    encode_table,
    entries,
    join,
    template,
)
from rmqarq.wire.relay import MOST, number_in, relay
from tests.broker.raw import long, properties, short

SHORT = st.binary(max_size=255).map(lambda raw: raw.decode("ascii", "ignore").encode())
NAMES = ("content_type", "correlation_id", "reply_to", "message_id", "type", "app_id")
TABLES = st.dictionaries(
    st.text("abcxyz-", min_size=1, max_size=20),
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=50)),
    max_size=5,
)


@given(st.dictionaries(st.sampled_from(NAMES), SHORT), TABLES)
def test_what_is_cut_apart_can_be_put_together(
    given: dict[str, bytes], table: dict[str, Any]
) -> None:
    encoded = encode_table(table)
    raw = properties(**given, headers=encoded)
    parts = cut(raw)
    assert join(parts) == raw
    assert parts["headers"] == encoded
    assert [name for name, _ in entries(encoded)] == list(table)
    assert b"".join(entry for _, entry in entries(encoded)) == encoded[4:]


@given(st.binary(max_size=60))
def test_no_bytes_do_more_harm_than_an_error(raw: bytes) -> None:
    try:
        parts = cut(raw)
        assert join(parts) == raw
        relay(raw, {})
        properties_of(raw)
    except PropertyError:
        pass


@given(st.dictionaries(st.sampled_from(NAMES), SHORT), TABLES)
def test_a_relay_says_what_the_producer_said_and_has_a_number_of_its_own(
    given: dict[str, bytes], table: dict[str, Any]
) -> None:
    raw = properties(
        **given, headers=encode_table(table), user_id=b"u", expiration=b"9"
    )
    sent = relay(raw, {"x-rmqarq-try": 2}).fill(b"ours.17")
    before, after = decode(raw), decode(sent)
    for name in NAMES:
        assert getattr(after, name) == getattr(before, name)
    ours = {"x-rmqarq-try": 2, "x-rmqarq-publish": "ours.17"}
    assert dict(after.headers) == {**table, **ours}
    assert (after.user_id, after.expiration) == (None, None)
    assert number_in(sent) == "ours.17"


def test_a_relay_of_a_relay_has_one_set_of_our_headers() -> None:
    once = relay(properties(), {"x-rmqarq-try": 2, "x-rmqarq-eta": 5}).fill(b"a.1")
    twice = relay(once, {"x-rmqarq-try": 3}).fill(b"b.2")
    assert dict(decode(twice).headers) == {
        "x-rmqarq-try": 3,
        "x-rmqarq-publish": "b.2",
    }


def test_notes_of_the_broker_stay_behind() -> None:
    names = (b"x-death", b"x-first-death-queue", b"x-last-death-reason", b"CC", b"BCC")
    names += (b"x-delivery-count", b"x-acquired-count")
    table = b"".join(short(each) + b"S" + long(b"?") for each in names)
    raw = properties(headers=long(table + short(b"x-deathly") + b"S" + long(b"kept")))
    assert texts(decode(raw).headers) == {"x-deathly": "kept"}
    left = decode(relay(raw, {}).fill(b"1")).headers
    assert set(left) == {"x-deathly", "x-rmqarq-publish"}


def test_the_number_of_a_message_of_ours_is_its_message_id() -> None:
    ready = template(content_type=None, correlation_id="j", type="t")
    assert number_in(ready.fill(b"c.3")) == "c.3"
    assert number_in(b"") is None


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (1_700_000_000, 1_700_000_000),
        (LATEST, LATEST),
        (1_700_000_000_123, 1_700_000_000),
        (2**64 - 1, None),
    ],
)
def test_a_time_in_milliseconds_is_read_and_stays_as_it_is(
    sent: int, read: int | None
) -> None:
    stamp = struct.pack(">Q", sent)
    raw = properties(timestamp=stamp, type=b"t")
    found = properties_of(raw)
    assert (found.timestamp, found.type) == (read, "t")
    assert cut(relay(raw, {}).fill(b"1"))["timestamp"] == stamp


def test_what_would_not_fit_a_frame_is_refused() -> None:
    entry = short(b"big") + b"S" + long(bytes(MOST))
    with pytest.raises(PropertyError, match="are allowed"):
        relay(properties(headers=long(entry)), {})


def test_headers_are_told_as_text_where_they_can_be() -> None:
    headers = {
        "text": "é",
        "number": -7,
        "half": 0.5,
        "yes": True,
        "no": False,
        "bytes": b"\x00",
        "list": [1],
        "table": {"a": 1},
        "nothing": None,
        "x-rmqarq-try": 2,
    }
    assert texts(headers) == {
        "text": "é",
        "number": "-7",
        "half": "0.5",
        "yes": "true",
        "no": "false",
    }
