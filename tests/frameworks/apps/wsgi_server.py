"""A server for WSGI applications, a thread a request: `wsgi_server.py MODULE`."""

from __future__ import annotations

import importlib
import signal
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread."""


def main(module: str) -> None:
    web = importlib.import_module(module).web
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with make_server("127.0.0.1", 0, web, Server, WSGIRequestHandler) as server:
        print(f"running on http://127.0.0.1:{server.server_port}")
        server.serve_forever()


main(sys.argv[1])
