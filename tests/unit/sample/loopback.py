"""An HTTP server on loopback that answers requests of the OpenAI API as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
"""Status, and an object for JSON or bytes as they are."""


@dataclass
class Loopback:
    """``asked``: path, headers and body of every request so far."""

    url: str
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def bodies(self, path: str) -> list[Any]:
        return [body for asked, _, body in self.asked if asked == f"/v1/{path}"]


@contextmanager
def serving(answer: Callable[[str, Any], Answer]) -> Iterator[Loopback]:
    """A server whose answer to a path and a body is ``answer``'s."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "null")
            state.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
            status, value = answer(self.path.removeprefix("/v1/"), body)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # of a client that waits no longer, as some tests have it
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Loopback(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
