"""A real HTTP server on loopback that misbehaves as told.

Files are served properly, with Range, If-Range and ETag, except where `fail` queued faults for a path: each request
takes one. Every request is logged with its Range, so that a test can see what a client asked for again.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Fault:
    """How one request goes wrong.

    ``status`` with ``headers`` answers with that and no file. ``body`` replaces the file. ``length`` is the
    Content-Length to claim. After ``send`` bytes the connection is cut or, with ``gate``, waits for the gate to open
    (or for the server's end) before it goes on. ``drip`` sends a byte every 20 ms.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    length: int | None = None
    send: int | None = None
    gate: threading.Event | None = None
    ignore_range: bool = False
    chunked: bool = False
    drip: bool = False


@dataclass(frozen=True)
class Seen:
    path: str
    range: str | None
    if_range: str | None


class FaultyServer:
    """Context manager; ``url`` is its base address. With ``certificate`` (a PEM file with its key) it speaks https."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.seen: list[Seen] = []
        self.sent = threading.Condition()
        self.bytes_sent: defaultdict[str, int] = defaultdict(int)
        self.closing = threading.Event()
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> FaultyServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def put(self, path: str, data: bytes) -> str:
        """Serve ``data``; returns its address."""
        self.files[f"/{path}"] = data
        return f"{self.url}/{path}"

    def fail(self, path: str, *faults: Fault) -> None:
        self._faults[f"/{path}"].extend(faults)

    def heal(self) -> None:
        """Drop every fault that nobody met yet."""
        self._faults.clear()

    def ranges(self, path: str) -> list[str | None]:
        return [seen.range for seen in self.seen if seen.path == f"/{path}"]

    def wait_sent(self, path: str, count: int, timeout: float = 10) -> bool:
        with self.sent:
            return self.sent.wait_for(lambda: self.bytes_sent[f"/{path}"] >= count, timeout)

    # ------------------------------------------------------------ answering

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        asked, if_range = request.headers.get("Range"), request.headers.get("If-Range")
        self.seen.append(Seen(request.path, asked, if_range))
        waiting = self._faults[request.path]
        fault = waiting.popleft() if waiting else Fault()
        if fault.status is not None:
            self._head(request, fault.status, {"Content-Length": "0", **fault.headers})
            return
        data = fault.body if fault.body is not None else self.files.get(request.path)
        if data is None:
            self._head(request, 404, {"Content-Length": "0"})
            return
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {"ETag": etag, **fault.headers}
        start = 0
        status = 200
        if asked and not fault.ignore_range and (if_range is None or if_range == etag):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            if start >= len(data):
                self._head(request, 416, {"Content-Length": "0", "Content-Range": f"bytes */{len(data)}"})
                return
            status = 206
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", **headers}
        body = data[start:]
        if fault.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body) if fault.length is None else fault.length)
        self._head(request, status, headers)
        self._body(request, body, fault)

    def _head(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()

    def _body(self, request: BaseHTTPRequestHandler, body: bytes, fault: Fault) -> None:
        try:
            if fault.drip:
                for at in range(len(body)):
                    self._write(request, body[at : at + 1], fault.chunked)
                    if self.closing.wait(0.02):
                        return
            first = body if fault.send is None else body[: fault.send]
            self._write(request, first, fault.chunked)
            if fault.gate is not None:
                while not fault.gate.wait(0.05):
                    if self.closing.is_set():
                        return
                self._write(request, body[len(first) :], fault.chunked)
            elif fault.send is not None:
                request.close_connection = True
                return
            if fault.chunked:
                request.wfile.write(b"0\r\n\r\n")
            if fault.length is not None:
                request.close_connection = True
        except OSError:
            request.close_connection = True  # the client has gone

    def _write(self, request: BaseHTTPRequestHandler, data: bytes, chunked: bool) -> None:
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            request.wfile.flush()
            with self.sent:
                self.bytes_sent[request.path] += len(piece)
                self.sent.notify_all()
