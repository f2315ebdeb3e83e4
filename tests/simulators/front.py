"""A TLS front for a server on loopback: HTTP/2 and HTTP/1.1, client certificates on demand, everything passed on.

async with Front(upstream, certificate, ...) as front: ...        # in the test's own event loop
python -m tests.simulators.front UPSTREAM CERTIFICATE.pem         # a process of its own; prints its URL
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from hypercorn.asyncio import serve
from hypercorn.config import Config

_HOP = frozenset({b"host", b"connection", b"transfer-encoding", b"content-length", b"keep-alive"})


class Front:
    """``certificate``: PEM with key and chain; with ``client_ca`` a client must show a certificate of that authority.
    ``versions`` are the HTTP versions of the requests that came."""

    def __init__(self, upstream: str, certificate: Path, client_ca: Path | None = None) -> None:
        self.versions: list[str] = []
        self._upstream = upstream
        self._end = asyncio.Event()
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        self.url = f"https://localhost:{listening.getsockname()[1]}"
        self._config = Config()
        self._config.bind = [f"fd://{listening.detach()}"]
        self._config.certfile = self._config.keyfile = str(certificate)
        self._config.graceful_timeout = 0.1
        self._config.errorlog = logging.getLogger("tests.front")  # handshakes that a test wants to fail
        if client_ca is not None:
            self._config.ca_certs = str(client_ca)
            self._config.verify_mode = ssl.CERT_REQUIRED

    async def __aenter__(self) -> Front:
        self._client = httpx.AsyncClient(base_url=self._upstream, timeout=60, trust_env=False)
        self._task = asyncio.create_task(
            serve(self._app, self._config, shutdown_trigger=self._end.wait),
            name="tls front",  # type: ignore[arg-type]
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        await self._task
        await self._client.aclose()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.versions.append(scope["http_version"])
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP and not name.startswith(b":")]
        async with self._client.stream(scope["method"], scope["path"], headers=headers, content=body) as response:
            kept = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in _HOP]
            await send({"type": "http.response.start", "status": response.status_code, "headers": kept})
            async for part in response.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def main() -> None:
    async with Front(sys.argv[1], Path(sys.argv[2])) as front:
        print(front.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
