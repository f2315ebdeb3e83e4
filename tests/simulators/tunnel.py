"""An HTTP proxy on loopback that opens tunnels (CONNECT), as companies put one before the internet."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType


class Tunnel:
    """Async context manager; ``targets`` are the hosts that it was asked for, ``carried`` what clients sent through."""

    def __init__(self) -> None:
        self.url = ""
        self.targets: list[str] = []
        self.carried = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Tunnel:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split(" ", 2)
            assert method == "CONNECT", method
            self.targets.append(target)
            host, _, port = target.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                await asyncio.gather(self._pass(reader, far_writer, self.carried), self._pass(far_reader, writer))
            finally:
                far_writer.close()
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None = None) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if seen is not None:
                    seen += data
                writer.write(data)
                await writer.drain()
            writer.write_eof()
