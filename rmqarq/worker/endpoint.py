"""A small HTTP server: some pages to read, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec import Struct

from rmqarq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

LONGEST_HEAD = 8192
PATIENCE = 5.0
"""Seconds from a client's connection to the last byte of the answer."""
MOST = 32
"""Clients at the same time; one more, and the oldest is cut off."""
METHODS = ("GET", "HEAD")
PLAIN = "text/plain; charset=utf-8"


class Page(Struct, frozen=True):
    """What a client gets to read.

    Args:
        body: The text.
        status: The HTTP status.
        kind: The content type.
    """

    body: str
    status: int = 200
    kind: str = PLAIN


class Endpoint:
    """Answers GET and HEAD; one request a connection.

    The event loop of the jobs serves it, so that an answer proves that it turns.

    Args:
        host: The address to listen on.
        port: The port.
        pages: By path, what makes the page.
    """

    def __init__(
        self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]
    ) -> None:
        self._host = host
        self._port = port
        self._pages = pages
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: The address can't be listened on.
        """
        try:
            self._server = await asyncio.start_server(
                self._on_client, self._host, self._port, limit=LONGEST_HEAD
            )
        except OSError as error:
            raise ConfigurationError(
                "the health endpoint can't listen on {host}, port {port} ({problem});"
                " if another worker has the port, set another health_port",
                host=self._host,
                port=self._port,
                problem=error.strerror or str(error),
            ) from error

    async def close(self) -> None:
        """Listen no longer; whoever is not answered yet is cut off."""
        if self._server is None:
            return
        self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await self._server.wait_closed()

    def _on_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._clients) >= MOST:
            next(iter(self._clients)).cancel()
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients[client] = None
        client.add_done_callback(self._forget)

    def _forget(self, client: asyncio.Task[None]) -> None:
        self._clients.pop(client, None)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("a client of the health endpoint left: %(why)r", {"why": error})
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request and make the answer to it.

        Raises:
            EOFError: The client has left before.
        """
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(_refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(_refusal(HTTPStatus.BAD_REQUEST))
        method, target, _ = words
        if method not in METHODS:
            return _response(_refusal(HTTPStatus.METHOD_NOT_ALLOWED))
        return _response(self._page(target.partition("?")[0]), method=method)

    def _page(self, path: str) -> Page:
        make = self._pages.get(path)
        if make is None:
            return Page("there are: " + " ".join(self._pages) + "\n", 404)
        try:
            return make()
        except Exception:
            log.exception(
                "the page %(path)s of the health endpoint failed", {"path": path}
            )
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)


def _refusal(status: HTTPStatus) -> Page:
    return Page(f"{status.phrase.lower()}\n", status)


def _response(page: Page, method: str = "GET") -> bytes:
    body = page.body.encode()
    lines = [
        f"HTTP/1.1 {int(page.status)} {HTTPStatus(page.status).phrase}",
        f"Content-Type: {page.kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if page.status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: " + ", ".join(METHODS))
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if method == "HEAD" else head + body
