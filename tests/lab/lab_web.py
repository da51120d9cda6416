# Copyright (c) 2026, gpuops.fleet contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A web server on this machine that says what a test tells it to, as GitHub and its API do, or worse."""

from __future__ import annotations

import ssl
import threading
import time
import typing as t
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    body: bytes | str = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/plain; charset=utf-8"})
    # Seconds before the first byte, and after each byte of the body.
    wait: float = 0
    drip: float = 0
    # Announced but never sent.
    missing: int = 0


class Web:
    """`pages` are by path and query; what was asked for is in `asked`."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.busiest = 0
        self._busy = 0
        self._lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web._serve(self)

            def log_message(self, *_arguments: t.Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def says(self, path: str, body: bytes | str = b"", **more: t.Any) -> str:
        self.pages[path] = Reply(body, **more)
        return self.url + path

    def paths(self) -> list[str]:
        return [path for path, _headers in self.asked]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.asked.append((handler.path, dict(handler.headers)))
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        reply = self.pages.get(handler.path, Reply("404: Not Found", 404))
        time.sleep(reply.wait)
        with self._lock:
            self._busy -= 1
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        try:
            handler.send_response(reply.status)
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body) + reply.missing))
            handler.end_headers()
            for part in [bytes([byte]) for byte in body] if reply.drip else [body]:
                handler.wfile.write(part)
                handler.wfile.flush()
                time.sleep(reply.drip)
        except OSError:
            pass  # whoever asked has had enough
