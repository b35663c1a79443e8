"""The small HTTP server: what it answers, and what does not bring it down."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from rmqarq import ConfigurationError
from rmqarq.worker import endpoint
from rmqarq.worker.endpoint import Endpoint, Page
from tests.harness.broker import HOST, free_ports
from tests.harness.exposition import fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGE = "x" * 20_000_000  # more than the buffers between two sockets


def broken() -> Page:
    raise RuntimeError("out of order")


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """Serve some pages; give the port."""
    (port,) = free_ports(1)
    pages = {
        "/ok": lambda: Page("ok\n"),
        "/bad": lambda: Page("no\n", status=503),
        "/broken": broken,
        "/large": lambda: Page(LARGE),
    }
    server = Endpoint(HOST, port, pages)
    await server.start()
    try:
        yield port
    finally:
        await server.close()


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    return await to_thread.run_sync(fetch, port, path, method)


async def talk(port: int, said: bytes, *, end: bool = True) -> bytes:
    """Say something, and give all that is answered."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(said)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_pages_are_read_with_get_and_head() -> None:
    async with served() as port:
        assert await ask(port, "/ok") == (200, "ok\n")
        assert await ask(port, "/ok?verbose=1") == (200, "ok\n")
        assert await ask(port, "/bad") == (503, "no\n")
        assert await ask(port, "/ok", "HEAD") == (200, "")
        head = await talk(port, b"HEAD /ok HTTP/1.1\r\n\r\n")
        assert b"\r\nContent-Length: 3\r\n" in head
        assert head.endswith(b"\r\n\r\n")


async def test_what_is_not_there_is_said_to_be_not_there() -> None:
    async with served() as port:
        status, text = await ask(port, "/")
        assert status == 404
        assert "/ok /bad" in text


@pytest.mark.parametrize("method", ["POST", "DELETE", "BREW", "get"])
async def test_no_other_method_is_allowed(method: str) -> None:
    async with served() as port:
        said = await talk(port, f"{method} /ok HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD\r\n" in said


async def test_a_page_that_fails_is_an_error_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as port:
        assert await ask(port, "/broken") == (500, "internal server error\n")
        assert await ask(port, "/ok") == (200, "ok\n")
    (record,) = caplog.records
    assert "/broken" in record.getMessage()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /ok\r\n\r\n", 400),
        (b"GET  /ok HTTP/1.1\r\n\r\n", 400),
        (b"GET /ok SMTP/1.0\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\xff\xfe\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /ok HTTP/1.1\r\n" + b"a: b\r\n" * 3000, 431),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(
    said: bytes, status: int
) -> None:
    async with served() as port:
        answer = await talk(port, said)
        assert answer.startswith(b"HTTP/1.1 %d " % status) or (
            status == 431 and not answer  # it left before we had said it all
        )
        assert await ask(port, "/ok") == (200, "ok\n")


async def test_garbage_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(7)
    async with served() as port:
        for _ in range(200):
            await talk(port, dice.randbytes(dice.randrange(3000)))
        assert await ask(port, "/ok") == (200, "ok\n")
    assert caplog.records == []


async def test_a_client_that_says_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.2)
    async with served() as port:
        assert await talk(port, b"GET /ok HTTP/1.1\r\n", end=False) == b""
        assert await talk(port, b"", end=False) == b""


async def test_a_client_that_does_not_read_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.2)
    async with served() as port:
        reader, writer = await asyncio.open_connection(HOST, port, limit=1000)
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.6)
        found = b""
        with suppress(ConnectionError):
            found = await reader.read()
        assert len(found) < len(LARGE)
        writer.close()
        assert await ask(port, "/ok") == (200, "ok\n")


async def test_many_idle_clients_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 60)
    async with served() as port:
        idle = [await asyncio.open_connection(HOST, port) for _ in range(100)]
        assert await ask(port, "/ok") == (200, "ok\n")
        for reader, _ in idle[: 100 - endpoint.MOST]:
            assert await rest_of(reader) == b""
        for _, writer in idle:
            writer.close()


async def test_at_its_end_it_cuts_off_who_is_there_and_frees_the_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 60)
    async with served() as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        await ask(port, "/ok")
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert await rest_of(reader) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await ask(port, "/ok")
    again = Endpoint(HOST, port, {})
    await again.start()
    await again.close()


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Read until we are cut off."""
    async with asyncio.timeout(20):
        with suppress(ConnectionError):
            return await reader.read()
    return b""


async def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    async with served() as port:
        second = Endpoint(HOST, port, {})
        with pytest.raises(ConfigurationError, match=f"port {port} .*health_port"):
            await second.start()
        await second.close()


async def test_a_host_that_is_not_ours_is_named() -> None:
    foreign = Endpoint("192.0.2.1", free_ports(1)[0], {})
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        await foreign.start()
