"""Who is told of questions that wait for a person: a webhook on loopback that keeps what it heard."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Webhook:
    """Context manager; refuses the first ``failures`` requests with 503. Messages with an Idempotency-Key that was
    heard before are not kept again."""

    def __init__(self, failures: int = 0) -> None:
        self.heard: list[dict[str, Any]] = []
        self.refused = 0
        self._failures = failures
        self._keys: set[str] = set()
        self._more = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/questions"

    def __enter__(self) -> Webhook:
        threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, count: int, within_s: float = 20.0) -> list[dict[str, Any]]:
        """What was heard, once it is so much."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.heard) >= count, within_s), self.heard
            return list(self.heard)

    def _take(self, key: str, body: bytes) -> int:
        with self._more:
            if self.refused < self._failures:
                self.refused += 1
                return 503
            if key not in self._keys:
                self._keys.add(key)
                self.heard.append(json.loads(body))
                self._more.notify_all()
            return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(webhook._take(self.headers["idempotency-key"], body))
                self.end_headers()

            def log_message(self, format: str, *values: object) -> None:
                pass

        return Handler
