"""A real HTTP server on loopback that speaks chat completions, badly where a test says so.

`FaultyCloud` takes one `Fault` a request from its queue and answers properly once the queue is empty. Every request is
kept with its headers, so that a test can see what was asked again. It runs in the test's own event loop; connections
that hang are cut when it is left.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]
ANSWER = "The last boat leaves at 17:30."


@dataclass(frozen=True)
class Asked:
    """A request as it came; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class FaultyCloud:
    """Async context manager; ``url`` is the base URL up to /v1."""

    def __init__(self) -> None:
        self.url = ""
        self.faults: deque[Fault] = deque()
        self.asked: list[Asked] = []
        self.connections = 0
        self._more = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultyCloud:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def has_been_asked(self, times: int, within_s: float = 10) -> None:
        """Returns when so many requests came; raises TimeoutError."""
        async with asyncio.timeout(within_s), self._more:
            await self._more.wait_for(lambda: len(self.asked) >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
                    headers = {
                        name.strip().lower(): value.strip()
                        for name, _, value in (line.partition(":") for line in head[1:] if line)
                    }
                    body = await reader.readexactly(int(headers.get("content-length", "0")))
                    self.asked.append(Asked(head[0].split()[1], headers, json.loads(body)))
                    async with self._more:
                        self._more.notify_all()
                    fault = self.faults.popleft() if self.faults else good
                    await fault(writer)
                    await writer.drain()
                    if fault is not good:
                        return
        finally:
            self._connections.discard(task)
            writer.close()


# ---------------------------------------------------------------- proper answers


def event(text: str = "", *, finish_reason: str | None = None, **more: Any) -> bytes:
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return data({"object": "chat.completion.chunk", "model": "faulty-1", "choices": [choice]} | more)


def data(found: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(found).encode() + b"\n\n"


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def head(status: int = 200, content_type: str = "text/event-stream", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"content-type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


STREAM = head(transfer_encoding="chunked")
USAGE = data({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 9}})
DONE = b"data: [DONE]\n\n"


async def good(writer: asyncio.StreamWriter) -> None:
    """An answer in three pieces, with usage, on a connection that stays open."""
    first, second, third = ANSWER[:8], ANSWER[8:19], ANSWER[19:]
    writer.write(STREAM + chunk(event(first)) + chunk(event(second)))
    writer.write(chunk(event(third)) + chunk(event(finish_reason="stop")) + chunk(USAGE) + chunk(DONE) + chunk(b""))


def says(*payloads: bytes, ends: bytes = b"0\r\n\r\n") -> Fault:
    """A stream of just these bytes; by default it ends as HTTP wants it."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"".join(chunk(payload) for payload in payloads) + ends)

    return answer


def replies(status: int, body: bytes = b"", content_type: str = "application/json", **headers: str) -> Fault:
    """A whole response; underscores in header names stand for hyphens."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, content_type, content_length=str(len(body)), **headers) + body)

    return answer


def declines(status: int, message: str = "no", code: str | None = None, **headers: str) -> Fault:
    """An error of OpenAI's shape."""
    error = {"message": message, "type": "some_error", "code": code}
    return replies(status, json.dumps({"error": error}).encode(), **headers)


# ---------------------------------------------------------------- faults


async def hangs_before_headers(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_mid_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + chunk(event("The last boat")))
    await asyncio.Event().wait()


async def hangs_before_text(writer: asyncio.StreamWriter) -> None:
    """Alive, and says so with comments for ever, as servers behind a proxy do; a word never comes."""
    writer.write(STREAM)
    while True:
        writer.write(chunk(b": still there\n\n"))
        await writer.drain()
        await asyncio.sleep(0.02)


async def streams_forever(writer: asyncio.StreamWriter) -> None:
    """Slowly enough that only the total deadline ends it."""
    writer.write(STREAM)
    while True:
        writer.write(chunk(event("and ")))
        await writer.drain()
        await asyncio.sleep(0.02)


async def floods(writer: asyncio.StreamWriter) -> None:
    """10 MB of an answer as fast as they are taken."""
    writer.write(STREAM)
    for _ in range(1000):
        writer.write(chunk(event("x" * 10_000)))
        await writer.drain()


async def floods_one_line(writer: asyncio.StreamWriter) -> None:
    """10 MB without a line's end."""
    writer.write(STREAM)
    for _ in range(1000):
        writer.write(chunk(b"x" * 10_000))
        await writer.drain()


async def closes_mid_chunk(writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + chunk(event("The last boat")) + b"ff\r\ndata: {")


async def closes_at_once(writer: asyncio.StreamWriter) -> None:
    pass


async def no_http(writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 4)
