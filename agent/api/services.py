"""What the API's endpoints share: the parts of the daemon, attending to clients that go away, and streaming (L3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar, cast

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agent.api.admission import Admission
from agent.api.guard import error_body
from agent.api.wire import sse
from agent.assistant import Assistant
from agent.audits import Audits
from agent.calibrating import Calibrating
from agent.confidence.certificate import Certificates
from agent.config import Config
from agent.engines.clients import EmbeddingClient, TextClient, TrainingReport
from agent.engines.pool import Pool
from agent.errors import Cancelled, OutpostError, UnknownModel
from agent.escalation.reach import Reach
from agent.library import Library
from agent.messages import Answer, InstalledModel, Usage
from agent.sameness import Sameness
from agent.telemetry.journal import Journal
from agent.telemetry.labels import Labels
from agent.telemetry.metrics import Metrics
from agent.understanding import Understanding

ASSISTANT = "outpost"
_T = TypeVar("_T")


@dataclass(slots=True)
class Services:
    """The running daemon as the endpoints see it. ``ready`` and ``notes`` change while it runs."""

    config: Config
    version: str
    started_at: int
    assistant: Assistant
    library: Library
    understanding: Understanding
    pool: Pool
    journal: Journal
    metrics: Metrics
    certificates: Certificates
    calibrating: Calibrating
    sameness: Sameness
    reach: Reach
    audits: Audits
    labels: Labels
    admission: Admission
    models: Callable[[], Sequence[InstalledModel]]
    ready: Callable[[], bool]
    notes: Callable[[], Sequence[str]]
    memory_bytes: Callable[[], Awaitable[int]]
    train_intents: Callable[[str], Coroutine[None, None, TrainingReport]]
    rescan: Callable[[], Awaitable[Sequence[InstalledModel]]]
    recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def text(self, name: str) -> TextClient:
        """The client of an installed SLM. Raises UnknownModel."""
        return TextClient(self.pool, self._installed(name, "slm").name)

    def embedding(self, name: str) -> EmbeddingClient:
        """The client of an installed embedding model. Raises UnknownModel."""
        return EmbeddingClient(self.pool, self._installed(name, "embedding").name)

    def _installed(self, name: str, kind: str) -> InstalledModel:
        for model in self.models():
            if model.name == name and model.kind == kind:
                return model
        raise self.unknown_model(name)

    def unknown_model(self, name: str) -> UnknownModel:
        names = ", ".join(sorted([ASSISTANT, *(model.name for model in self.models())]))
        return UnknownModel(f"no model {name!r} can serve this", remedy=f"There are: {names}.", param="model")

    def remember_latency(self, answer: Answer) -> None:
        """For the quantiles of the status page; /metrics has histograms."""
        self.recent_ms.append(answer.timings_ms["total"])
        self.count_tokens(answer.usage)

    def count_tokens(self, usage: Usage) -> None:
        self.metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.metrics.tokens.labels("cached").inc(usage.cached_tokens)
        self.metrics.tokens.labels("completion").inc(usage.completion_tokens)


async def services(request: Request) -> Services:
    """The daemon behind a request (a FastAPI dependency; a plain function would be run in a thread)."""
    return cast(Services, request.app.state.services)


async def attended(request: Request, work: Coroutine[None, None, _T], daemon: Services) -> _T:
    """The result of ``work``, admitted to the queue; work whose client has gone is cancelled at once.

    Raises Overloaded; Cancelled when the client went away (nobody is there to read it).
    """
    return await unless_gone(request.receive, _admitted(work, daemon))


async def _admitted(work: Coroutine[None, None, _T], daemon: Services) -> _T:
    try:
        with daemon.admission.enter():
            return await work
    finally:
        work.close()


class EventStream(StreamingResponse):
    """Server-sent events, admitted to the queue; nothing goes out before the first of them is there, so that whatever
    forbids an answer (Overloaded, a bad question, a model that does not fit) is a plain HTTP error.

    When the client goes away the response is cancelled once, and what ``events`` holds has the time to let go of it
    (starlette's own way cancels again at every wait, those of the clean-up too).
    """

    def __init__(self, events: AsyncGenerator[bytes, None], daemon: Services) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events = events
        self._admission = daemon.admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._admission.enter():
            try:
                first = await unless_gone(receive, _first(self._events))
                self.body_iterator = _told(first, self._events)
                with suppress(Cancelled):
                    await unless_gone(receive, self.stream_response(send))
            finally:
                await self._events.aclose()


async def _first(events: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(events)


async def _told(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The events, and an error as the last of them: the status line has gone out already."""
    yield first
    try:
        async for event in rest:
            yield event
    except OutpostError as error:
        yield sse(error_body(error))


async def unless_gone(receive: Receive, work: Coroutine[None, None, _T]) -> _T:
    """The result of ``work``, cancelled when the client goes away (Cancelled then)."""
    working = asyncio.create_task(work, name="request")
    watching = asyncio.create_task(_gone(receive), name="request:client")
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})
    if working.cancelled():
        raise Cancelled("the client went away")
    return working.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
