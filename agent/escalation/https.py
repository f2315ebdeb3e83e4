"""The way to the cloud by HTTPS: any OpenAI-compatible server, several in order, streamed, within a deadline.

`Https.ask` goes through the endpoints in their order, round after round (`Escalation.attempts` rounds at most). What
another try may mend moves on to the next endpoint and, after all of them, waits with full jitter or as long as the
server asked (Retry-After). What it will not mend (a wrong key, an unknown model, a request that is not accepted) takes
the endpoint out of this question. Once a piece of an answer was handed out nothing is tried again: another answer
would not go on where this one broke off.

Every endpoint has a circuit breaker (agent/escalation/breaker.py): a question never waits for a server that has just
shown that it is gone. Deadlines: a connection, the longest silence, and the total, of which an endpoint that has not
begun to answer may use no more than its share while others are left. A reply is bounded in bytes and never unpacked,
and no redirect is followed: the key and the question go to the configured server or nowhere.

What ends a try is read in agent/escalation/failures.py, and becomes CloudUnavailable (worth another try, with
``retry_after_s``) or CloudRefused here.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from agent import __version__
from agent.config import Endpoint, Escalation
from agent.errors import CloudRefused, CloudUnavailable
from agent.escalation import completions
from agent.escalation.breaker import Breaker, State
from agent.escalation.completions import Chunk, Dialect
from agent.escalation.endpoints import Target, client, targets
from agent.escalation.failures import Empty, Failed, Refused, content_kind, declined, empty, translated
from agent.messages import CloudDelta, CloudReply, CloudRequest, Outgoing, Usage

if TYPE_CHECKING:
    import httpx  # at run time with the first connection: a device that never asks does without it

_BACKOFF_S, _BACKOFF_MAX_S = 0.25, 4.0
_REPLY_BYTES, _TOKEN_BYTES = 65_536, 1024
"""A reply may have so many bytes, and so many more a token asked for; a streamed token needs 200 to 500."""
_ERROR_BYTES = 16_384
_DRAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, so that a test can pass its own. ``wall`` in Unix seconds (only for dates in Retry-After)."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform


class Records(Protocol):
    """Who keeps what leaves the device (the Escalator's recorder)."""

    async def record(self, payload: bytes, *, key: str, path: str, endpoint: str) -> object:
        """On the disk when it returns; where it raises nothing is sent."""
        ...


@dataclass(slots=True)
class _Lane:
    """An endpoint with what was learnt about it."""

    target: Target
    client: httpx.AsyncClient
    breaker: Breaker = field(default_factory=Breaker)
    dialect: Dialect = field(default_factory=Dialect)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Of one try: when its answer must have begun and ended (monotonic, seconds), and how many bytes it may have."""

    begin_by: float
    ends: float
    size: int


class _Sending:
    """Watches a request leave: whether its body began to."""

    def __init__(self) -> None:
        self.begun = False

    async def saw(self, event: str, info: Mapping[str, object]) -> None:
        """httpx's ``trace`` extension; a proxy's CONNECT is none of ours."""
        sent = info.get("request")
        if event.endswith("send_request_body.started") and getattr(sent, "method", b"") == b"POST":
            self.begun = True


class Https:
    """The path ``https``; an async context manager that holds the connections.

    ``environ``: where OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL are looked up (default: the process's own).
    ``recorder`` keeps every body before it is sent, also of a try that fails. Raises ConfigError, on construction for
    settings and key files, on entering for certificates.
    """

    def __init__(
        self,
        escalation: Escalation,
        *,
        environ: Mapping[str, str] | None = None,
        recorder: Records | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = escalation
        self._recorder = recorder
        self._clock = clock or Clock()
        self._targets = targets(escalation, environ)
        self._lanes: list[_Lane] = []
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Https:
        async with AsyncExitStack() as exits:
            for target in self._targets:
                connections = await asyncio.to_thread(client, target, self._settings)
                self._lanes.append(_Lane(target, await exits.enter_async_context(connections)))
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lanes = []
        await self._exits.aclose()

    def online(self) -> bool:
        """Whether an endpoint may be asked now: it does not rest after failures."""
        now = self._clock.monotonic()
        return any(lane.breaker.admits(now) for lane in self._lanes)

    def preview(self, request: CloudRequest) -> Outgoing:
        """What the endpoint whose turn it is would be sent."""
        now = self._clock.monotonic()
        lane = next((lane for lane in self._lanes if lane.breaker.admits(now)), self._lanes[0])
        payload = completions.body(request, lane.target.model, lane.dialect)
        return Outgoing("https", lane.target.name, payload.decode())

    def breakers(self) -> dict[str, State]:
        """Every endpoint's circuit breaker by the endpoint's name, for status."""
        now = self._clock.monotonic()
        return {lane.target.name: lane.breaker.state(now) for lane in self._lanes}

    async def ask(self, request: CloudRequest, *, deadline_s: float) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """The pieces of the answer as they come, then the whole of it, within ``deadline_s``.

        Every try of a question carries its key as Idempotency-Key. Raises CloudUnavailable (``retry_after_s``: not
        worth asking before; also after pieces were handed out) and CloudRefused (every endpoint refused); what the
        recorder raises passes through.
        """
        ends = self._clock.monotonic() + deadline_s
        size = _REPLY_BYTES + _TOKEN_BYTES * request.max_tokens
        failed: dict[str, Failed | Refused] = {}
        lanes, lost = list(self._lanes), 0
        for attempt in range(self._settings.attempts):
            if attempt and not await self._pause(attempt, ends, lanes):
                break
            for left, lane in zip(range(len(lanes), 0, -1), tuple(lanes), strict=True):
                now = self._clock.monotonic()
                if now >= ends or not lane.breaker.admits(now):
                    continue
                shown = False
                limits = _Limits(now + (ends - now) / left, ends, size)
                try:
                    async with aclosing(self._try(lane, request, limits)) as events:
                        async for event in events:
                            shown = True
                            yield replace(event, lost=lost) if isinstance(event, CloudReply) else event
                    return
                except Refused as error:
                    failed[lane.target.name] = error
                    lost += error.lost
                    lanes.remove(lane)
                except Failed as error:
                    failed[lane.target.name] = error
                    lost += error.lost
                    if shown:
                        raise self._gave_up(failed, lanes, deadline_s, lost) from error
            if not lanes:
                break
        raise self._gave_up(failed, lanes, deadline_s, lost) from next(reversed(failed.values()), None)

    async def _pause(self, attempt: int, ends: float, lanes: list[_Lane]) -> bool:
        """Wait before the next round; False where that is hopeless: every endpoint rests after failures, or none would
        be free before the deadline."""
        now = self._clock.monotonic()
        rests = [lane.breaker.wait_s(now) for lane in lanes if lane.breaker.admits(now) or not lane.breaker.tripped]
        if not rests:
            return False
        rest = min(rests)
        backoff = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (attempt - 1))
        # A server's wish is a lower bound; the jitter on top keeps a fleet from coming back in one moment.
        wait = rest + self._clock.uniform(0.0, max(backoff, rest / 10))
        if now + wait >= ends:
            return False
        await self._clock.sleep(wait)
        return True

    def _gave_up(
        self, failed: Mapping[str, Failed | Refused], lanes: list[_Lane], deadline_s: float, lost: int
    ) -> CloudUnavailable | CloudRefused:
        """What to tell the caller; ``lanes`` are those that did not refuse, ``lost`` counts tries that may cost."""
        now = self._clock.monotonic()
        rests = {lane.target.name: lane.breaker.wait_s(now) for lane in lanes}
        said = [f"{name}: {error}" for name, error in failed.items()]
        said += [f"{name}: rests for {rest:.0f} s" for name, rest in rests.items() if rest and name not in failed]
        message = "; ".join(said) or f"no endpoint was free within {deadline_s:g} s"
        remedy = " ".join(dict.fromkeys(error.remedy for error in failed.values() if error.remedy))
        error: CloudUnavailable | CloudRefused
        if not lanes:
            error = CloudRefused(message, remedy=remedy)
        else:
            error = CloudUnavailable(message, remedy=remedy, retry_after_s=min(rests.values()) or None)
        error.lost = lost
        return error

    async def _try(
        self, lane: _Lane, request: CloudRequest, limits: _Limits
    ) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """One try at one endpoint, and what its breaker learns from it. Raises Failed, Refused."""
        lane.breaker = lane.breaker.sent(self._clock.monotonic())
        learnt = False
        try:
            async with aclosing(self._exchange(lane, request, limits)) as events:
                async for event in events:
                    if isinstance(event, CloudReply):
                        lane.breaker, learnt = lane.breaker.succeeded(), True
                    yield event
        except (Refused, Empty):
            lane.breaker, learnt = lane.breaker.succeeded(), True
            raise
        except Failed as error:
            lane.breaker, learnt = lane.breaker.failed(self._clock.monotonic(), error.after_s), True
            raise
        finally:
            if not learnt:
                lane.breaker = lane.breaker.abandoned()

    async def _exchange(
        self, lane: _Lane, request: CloudRequest, limits: _Limits
    ) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """Send and read. Raises Failed, Refused."""
        target = lane.target
        text, finish, model, usage = "", None, target.model, None
        response = await self._open(lane, request, limits)
        try:
            kind = content_kind(target, response)
            async with aclosing(self._chunks(target, response, kind, limits)) as chunks:
                async for found in chunks:
                    finish, model, usage = found.finish_reason or finish, found.model or model, found.usage or usage
                    if found.text:
                        text += found.text
                        yield CloudDelta(found.text)
        finally:
            await response.aclose()
        if not text.strip():
            raise empty(finish)
        used = usage or completions.estimated_usage(request, text)
        cost, cut = _cost(target.endpoint, used), finish == "length"
        yield CloudReply(request.key, text, "https", target.name, model, used, cost, cut=cut)

    async def _open(self, lane: _Lane, request: CloudRequest, limits: _Limits) -> httpx.Response:
        """The response with its body unread; a dialect that the server does not understand is changed on the way."""
        target = lane.target
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            "accept-encoding": "identity",  # what is unpacked has no bound
            "idempotency-key": request.key,
            "user-agent": f"outpost/{__version__}",
        }
        if target.key:
            headers["authorization"] = f"Bearer {target.key}"
        while True:
            content = completions.body(request, target.model, lane.dialect)
            if self._recorder is not None:
                await self._recorder.record(content, key=request.key, path="https", endpoint=target.name)
            sending = _Sending()
            message = lane.client.build_request(
                "POST",
                f"{target.url}/chat/completions",
                headers=headers,
                content=content,
                extensions={"trace": sending.saw},
            )
            try:
                with translated(target, self._settings):
                    async with self._until(limits.begin_by):
                        response = await lane.client.send(message, stream=True)
            except Failed as error:
                error.lost = sending.begun
                raise
            if response.status_code == 200:
                return response
            try:
                with translated(target, self._settings):
                    async with self._until(limits.begin_by):
                        data = await _beginning(response)
            finally:
                await response.aclose()
            dialect = (
                lane.dialect.after(data.decode("utf-8", "replace")) if response.status_code in (400, 422) else None
            )
            if dialect is None:
                raise declined(target, response, data, self._clock.wall())
            lane.dialect = dialect

    async def _chunks(
        self, target: Target, response: httpx.Response, kind: str, limits: _Limits
    ) -> AsyncGenerator[Chunk, None]:
        """What the body holds, to its end. Raises Failed, lost: the endpoint has begun to answer."""
        try:
            async with aclosing(self._read(target, response, kind, limits)) as chunks:
                async for found in chunks:
                    yield found
        except Failed as error:
            error.lost = True
            raise

    async def _read(
        self, target: Target, response: httpx.Response, kind: str, limits: _Limits
    ) -> AsyncGenerator[Chunk, None]:
        if (packed := response.headers.get("content-encoding", "identity")) != "identity":
            raise Failed(f"packed its answer ({packed[:20]}) though asked not to")
        parts = aiter(response.aiter_raw())
        events, kept, size = completions.Events(), bytearray(), 0
        begun = finished = False
        try:
            while (data := await self._next(target, parts, limits.ends if begun else limits.begin_by)) is not None:
                size += len(data)
                if size > limits.size:
                    raise Failed(f"sent more than the {limits.size} bytes that a reply may have")
                if kind == "application/json":
                    kept += data
                    continue
                for event in events.feed(data):
                    found = completions.chunk(event)
                    begun, finished = begun or bool(found.text), finished or bool(found.finish_reason)
                    yield found
                    if found.done:
                        await self._drain(parts)
                        return
            if kind == "application/json":
                yield completions.whole(bytes(kept))
                return
        except completions.Unreadable as error:
            raise Failed(f"sent {error}") from error
        except completions.ServerError as error:
            raise Failed(f"broke off: {error}") from error
        if not finished:  # some servers leave OpenAI's closing mark out, but none the reason for the end
            raise Failed(f"ended in the middle of its answer, after {size} bytes")

    async def _next(self, target: Target, parts: AsyncIterator[bytes], until: float) -> bytes | None:
        with translated(target, self._settings):
            async with self._until(until):
                return await anext(parts, None)

    @staticmethod
    async def _drain(parts: AsyncIterator[bytes]) -> None:
        """Read to the end of a body that said that it is done, so that the connection can be used again."""
        import httpx

        try:
            async with asyncio.timeout(_DRAIN_S):
                await anext(parts, None)
        except (TimeoutError, httpx.TransportError):
            return  # the answer is there; this connection is closed instead

    def _until(self, moment: float) -> asyncio.Timeout:
        return asyncio.timeout(max(0.0, moment - self._clock.monotonic()))


async def _beginning(response: httpx.Response) -> bytes:
    """As much of an error's body as is worth reading."""
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) >= _ERROR_BYTES:
            break
    return bytes(data[:_ERROR_BYTES])


def _cost(endpoint: Endpoint, usage: Usage) -> float:
    return (endpoint.price_in * usage.prompt_tokens + endpoint.price_out * usage.completion_tokens) / 1_000_000
