"""Messages that somebody thought up to break a worker; all of them must end dead.

They add to those in `tests/broker/test_dead_letter.py`. What is not said otherwise
names the task `reject`, so that a message which can be read ends dead as well.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import NamedTuple

import msgspec

from tests.broker.raw import long, properties
from tests.broker.test_dead_letter import nested, table


class Crafted(NamedTuple):
    """One message as bytes, and the reasons for which it may be dead.

    Args:
        properties: Property flags and list.
        body: The payload.
        reasons: What the dead letter may say.
    """

    properties: bytes
    body: bytes
    reasons: tuple[str, ...] = ("undecodable",)


JSON, MSGPACK = b"application/json", b"application/msgpack"
REJECTED = ("rejected",)
UNKNOWN = ("unknown task",)
EITHER = ("undecodable", "rejected")
LANE = ("rejected", "crashed", "undecodable")  # it may be run apart
FIELDS: dict[str, bytes] = {
    "true": b"t\x01",
    "a truth of 2": b"t\x02",
    "int8": b"b\x80",
    "uint8": b"B\xff",
    "int16": b"s\x80\x00",
    "uint16": b"u\xff\xff",
    "int32": b"I\x80\x00\x00\x00",
    "uint32": b"i\xff\xff\xff\xff",
    "int64": b"l" + struct.pack(">q", -(2**63)),
    "float": b"f" + struct.pack(">f", 1e38),
    "double": b"d" + struct.pack(">d", 5e-324),
    "decimal": b"D\x02\x00\x00\x00\x01",
    "text": b"S" + long("ü".encode()),
    "bytes": b"x" + long(b"\x00\xff"),
    "array of all": b"A" + long(b"t\x01b\x01s\x00\x01VS" + long(b"a")),
    "table": b"F" + table((b"a", b"V")),
    "moment": b"T" + struct.pack(">Q", 0),
    "nothing": b"V",
}


def job(**fields: object) -> bytes:
    """A body in JSON."""
    return json.dumps({"args": [1], **fields}).encode()


def plain(body: bytes, *reasons: str) -> Crafted:
    """A message that says no more than its task."""
    raw = properties(type=b"reject", content_type=JSON)
    return Crafted(raw, body, reasons or ("undecodable",))


def packed(value: object, *reasons: str) -> Crafted:
    """A message in MessagePack, of a value or of bytes."""
    body = value if isinstance(value, bytes) else msgspec.msgpack.encode(value)
    raw = properties(type=b"reject", content_type=MSGPACK)
    return Crafted(raw, body, reasons or ("undecodable",))


def zipped(body: bytes, *reasons: str) -> Crafted:
    """A message that says it is gzip."""
    raw = properties(type=b"reject", content_encoding=b"gzip")
    return Crafted(raw, body, reasons or ("undecodable",))


def with_properties(reasons: tuple[str, ...], **given: bytes) -> Crafted:
    """A sound body under odd properties."""
    number = len(json.dumps(sorted(given))) * 1000 + sum(b"".join(given.values()))
    return Crafted(properties(type=b"reject", **given), job(args=[number]), reasons)


def heads(**fields: bytes) -> bytes:
    """A header table of our own bookkeeping."""
    named = ((name.replace("_", "-").encode(), raw) for name, raw in fields.items())
    return table(*named)


DEEP = 10_000
PAIR = b'{"task":"reject","args":[1]}'

HEADERS = {
    **{
        f"a header: {name}": with_properties(REJECTED, headers=table((b"a", field)))
        for name, field in FIELDS.items()
    },
    "tables 31 deep": with_properties(EITHER, headers=nested(b"F", 31)),
    "tables 33 deep": with_properties(EITHER, headers=nested(b"F", 33)),
    "tables 2000 deep": with_properties(("undecodable",), headers=nested(b"F", 2000)),
    "arrays 2000 deep": with_properties(("undecodable",), headers=nested(b"A", 2000)),
    "a name of 255 bytes": with_properties(REJECTED, headers=table((b"n" * 255, b"V"))),
    "a name with zeros": with_properties(REJECTED, headers=table((b"\0\0", b"V"))),
    "headers of 120 kB": with_properties(
        REJECTED, headers=table((b"a", b"x" + long(b"\xff" * 120_000)))
    ),
    "20 000 empty arrays": with_properties(
        REJECTED, headers=table((b"a", b"A" + long((b"A" + long(b"")) * 20_000)))
    ),
    "returns beyond all": with_properties(
        LANE, headers=heads(x_rmqarq_returns=b"l" + struct.pack(">q", 2**63 - 1))
    ),
    "returns below zero": with_properties(
        LANE, headers=heads(x_rmqarq_returns=b"l" + struct.pack(">q", -5))
    ),
    "crashes beyond all": with_properties(
        LANE, headers=heads(x_rmqarq_crashes=b"l" + struct.pack(">q", 2**62))
    ),
    "crashes of nothing": with_properties(
        LANE, headers=heads(x_rmqarq_crashes=b"V", x_rmqarq_suspect=b"d" + b"\x7f" * 8)
    ),
    "a forged obituary": with_properties(
        REJECTED,
        headers=heads(
            x_rmqarq_reason=b"S" + long(b"expired"),
            x_rmqarq_queue=b"S" + long(b"elsewhere"),
            x_rmqarq_worker=b"A" + long(b""),
        ),
    ),
    "a forged history": with_properties(
        REJECTED,
        headers=table((b"x-death", b"A" + long(b"F" + table((b"count", b"V"))))),
    ),
}

PROPERTIES = {
    "priority 255": with_properties(REJECTED, priority=b"\xff"),
    "a late timestamp": with_properties(
        ("rejected", "undecodable"), timestamp=struct.pack(">Q", 10**15)
    ),
    "the last timestamp": with_properties(EITHER, timestamp=b"\xff" * 8),
    "an id over lines": with_properties(REJECTED, correlation_id=b"a\r\nERROR fake"),
    "an id that colours": with_properties(REJECTED, correlation_id=b"\x1b[31m\x07"),
    "texts of 255 bytes": with_properties(
        REJECTED, correlation_id=b"c" * 255, message_id=b"m" * 255, reply_to=b"r" * 255
    ),
    "every text broken": with_properties(
        EITHER,
        correlation_id=b"\xff",
        reply_to=b"\xfe",
        message_id=b"\xfd",
        app_id=b"\xfc",
        cluster_id=b"\xfb",
    ),
    "broken content type": with_properties(("undecodable",), content_type=b"\xff\xff"),
    "empty content type": with_properties(EITHER, content_type=b""),
    "JSON in capitals": with_properties(REJECTED, content_type=b"APPLICATION/JSON"),
    "JSON in UTF-16": with_properties(
        EITHER, content_type=b"application/json; charset=utf-16"
    ),
    "pickle": with_properties(
        ("undecodable",), content_type=b"application/x-python-serialize"
    ),
    "YAML": with_properties(("undecodable",), content_type=b"application/yaml"),
    "JSON as MessagePack": with_properties(("undecodable",), content_type=MSGPACK),
    "empty encoding": with_properties(EITHER, content_encoding=b""),
    "gzip in capitals": with_properties(("undecodable",), content_encoding=b"GZIP"),
    "gzip twice": with_properties(("undecodable",), content_encoding=b"gzip, gzip"),
    "deflate": with_properties(("undecodable",), content_encoding=b"deflate"),
    "an encoding over lines": with_properties(
        ("undecodable",), content_encoding=b"gzip\nbr"
    ),
}

BODIES = {
    "a byte order mark": plain(b"\xef\xbb\xbf" + PAIR),
    "UTF-16": plain(PAIR.decode().encode("utf-16")),
    "UTF-32": plain(PAIR.decode().encode("utf-32")),
    "two documents": plain(PAIR * 2),
    "a zero behind": plain(PAIR + b"\0"),
    "a comment": plain(b"/* */" + PAIR),
    "pickled": plain(b"\x80\x04\x95\x1e\x00\x00\x00cos\nsystem\n(S'true'\ntR."),
    "NaN": plain(b'{"args":[NaN]}'),
    "infinity": plain(b'{"args":[-Infinity]}'),
    "a number beyond all": plain(b'{"args":[1e999999]}'),
    "10 000 digits": plain(b'{"args":[' + b"9" * DEEP + b"]}"),
    "a fraction of 100 000 digits": plain(b'{"args":[0.' + b"1" * 100_000 + b"]}"),
    "10 000 digits in a field": plain(b'{"args":[1],"try":' + b"9" * DEEP + b"}"),
    "half a character": plain(b'{"args":["\\ud800"]}'),
    "half a character as task": plain(b'{"task":"\\udfff","args":[1]}'),
    "overlong UTF-8": plain(b'{"args":[1],"id":"\xc0\x80"}'),
    "a field twice": plain(b'{"task":"good","task":"reject","args":[2]}', "rejected"),
    "arguments twice": plain(b'{"args":["a"],"args":[3]}', "rejected"),
    "10 000 unknown fields": plain(
        job(**{f"field{n}": n for n in range(DEEP)}), "rejected"
    ),
    "deep in an unknown field": plain(
        b'{"args":[4],"more":' + b"[" * DEEP + b"]" * DEEP + b"}", *EITHER
    ),
    "deep objects": plain(b'{"args":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}"),
    "deep and shut wrongly": plain(b'{"args":' + b"[{" * DEEP + b"]}" * DEEP + b"}"),
    "a context of its own": plain(
        b'{"task":"who","kwargs":{"ctx":{"state":1},"number":1}}'
    ),
    "magic names": plain(b'{"kwargs":{"number":1,"__class__":"os.system"}}'),
    "itself": plain(b'{"kwargs":{"self":1,"number":1}}'),
    "headers without end": plain(
        job(args=[5], headers={f"h{n}": "x" * 50 for n in range(5000)}), "rejected"
    ),
    "an id of 100 000": plain(job(args=[6], id="i" * 100_000), "rejected"),
    "an id over lines": plain(job(args=[7], id="a\n12:00:00 ERROR b"), "rejected"),
    "above max_body": plain(b'{"args":[1]' + b" " * 3_000_000 + b"}"),
    "350 000 objects": plain(b'{"args":[' + b"{}," * 340_000 + b"{}]}"),
    "not gzip at all": zipped(PAIR),
    "gzip in gzip": zipped(gzip.compress(gzip.compress(PAIR))),
    "gzip cut short": zipped(gzip.compress(PAIR)[:-4]),
    "gzip of zlib": zipped(zlib.compress(PAIR)),
    "gzip with a wrong sum": zipped(gzip.compress(PAIR)[:-8] + b"\0" * 8),
    "gzip of odd flags": zipped(b"\x1f\x8b\x08\xff" + b"\0" * 6 + b"\xff" * 40),
    "a bomb": zipped(gzip.compress(b" " * 30_000_000)),
    "a bomb behind a job": zipped(gzip.compress(PAIR + b" " * 30_000_000)),
    "an extension": packed({"args": [msgspec.msgpack.Ext(5, b"x" * 100)]}),
    "a moment as argument": packed({"args": [msgspec.msgpack.Ext(-1, b"\xff" * 12)]}),
    "4 GiB of items": packed(b"\x81\xa4args\xdd\xff\xff\xff\xff"),
    "4 GiB of pairs": packed(b"\xdf\xff\xff\xff\xff"),
    "4 GiB of text": packed(b"\x81\xa4task\xdb\xff\xff\xff\xff"),
    "4 GiB of extension": packed(b"\x81\xa4args\xc9\xff\xff\xff\xff\x05"),
    "bytes as task": packed({"task": b"reject", "args": [1]}),
    "numbers as keys": packed({1: 2, "args": [8]}, *EITHER),
    "a key that is a list": packed(b"\x81\x91\x01\x01"),
    "10 000 deep, packed": packed(b"\x81\xa4args" + b"\x91" * DEEP + b"\xc0"),
    "deep, packed, unknown": packed(
        b"\x82\xa4args\x91\x09\xa4more" + b"\x91" * DEEP + b"\xc0", *EITHER
    ),
    "an unused byte": packed(b"\xc1"),
    "infinite tries": packed({"args": [1], "try": float("inf")}),
    "not a number of retries": packed({"args": [1], "max_retries": float("nan")}),
}

NAMES = [
    "__import__('os').system('true')",
    "os.system",
    "builtins.eval",
    "eval",
    "exec",
    "this",
    "this.main",
    "subprocess:run",
    "tests.chaos.test_poison.canary",
    "tests.chaos.test_poison:canary",
    "canary",
    "tests.chaos.apps.crash_app:reject",
    "good.fn",
    "good.__call__",
    "good.__globals__",
    "__class__",
    "Tasks.good",
    "Good",
    " good",
    "good\0",
    "good\n",
    "go\u200bod",
    "g\u043e\u043ed",  # two letters are Cyrillic
    "../../../etc/passwd",
    "file:///etc/passwd",
    "%s%s%n%(task)s",
    "{0.__class__.__mro__}{task}",
    "${jndi:ldap://nowhere/x}",
    "\u202edoog",
    "t" * 300,
    "ü" * 300,
]

CRAFTED: dict[str, Crafted] = {
    **HEADERS,
    **PROPERTIES,
    **BODIES,
    **{
        f"the task {name[:40]!r}": Crafted(
            properties(content_type=JSON), job(task=name, args=["true"]), UNKNOWN
        )
        for name in NAMES
    },
}

REFUSABLE: dict[str, Crafted] = {
    name: Crafted(raw, job(args=[number]))
    for number, (name, raw) in enumerate(
        {
            "a flag that goes on": b"\x80\x01\x01j\x00\x00",
            "an unknown flag": b"\x80\x02\x01j",
            "headers promised": b"\x20\x00",
            "bytes left over": b"\x00\x00left over",
            "headers longer than all": b"\x20\x00\xff\xff\xff\xff",
            "an unknown field type": properties(headers=table((b"a", b"Z\x01"))),
            "not a number": properties(headers=table((b"a", b"d\x7f\xf8" + bytes(6)))),
            "a name cut short": properties(headers=long(b"\x03aV")),
            "delivery mode 0": properties(delivery_mode=b"\x00"),
            "delivery mode 255": properties(delivery_mode=b"\xff"),
            "no expiration": properties(expiration=b"soon"),
            "another user": properties(user_id=b"nobody"),
        }.items()
    )
}
"""The broker may refuse them; those it takes must end dead like the others."""
