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

Errors of httpx become CloudUnavailable (worth another try, with ``retry_after_s``) or CloudRefused here and nowhere
else.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from agent import __version__
from agent.config import Endpoint, Escalation
from agent.errors import CloudRefused, CloudUnavailable
from agent.escalation import completions
from agent.escalation.breaker import Breaker, State
from agent.escalation.completions import Chunk, Dialect
from agent.escalation.endpoints import Target, client, targets
from agent.messages import CloudDelta, CloudReply, CloudRequest, Outgoing, Usage

if TYPE_CHECKING:
    import httpx  # at run time with the first connection: a device that never asks does without it

_BACKOFF_S, _BACKOFF_MAX_S = 0.25, 4.0
_RETRY_AFTER_MAX_S = 3600.0
"""A server that names a later moment is asked again after an hour."""
_REPLY_BYTES, _TOKEN_BYTES = 65_536, 1024
"""A reply may have so many bytes, and so many more a token asked for; a streamed token needs 200 to 500."""
_ERROR_BYTES = 16_384
_DRAIN_S = 0.2
_RETRYABLE = frozenset({408, 409, 425, 429})
_UNTOUCHED = frozenset({501, 503, 505})
"""Of the server's own errors those that say that it did no work; behind the others (a proxy's 502 and 504) it may."""


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


class _Failed(Exception):
    """This try came to nothing; another may not. ``lost``: it was sent and not refused, so it may be billed."""

    def __init__(self, reason: str, *, after_s: float | None = None, remedy: str = "", lost: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.remedy = remedy
        self.lost = lost


class _Empty(_Failed):
    """The endpoint is at work, and had nothing to say to this request."""


class _Refused(Exception):
    """This endpoint will not answer this request. ``lost`` as _Failed's: it worked on it all the same."""

    def __init__(self, reason: str, remedy: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.lost = lost


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
        failed: dict[str, _Failed | _Refused] = {}
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
                except _Refused as error:
                    failed[lane.target.name] = error
                    lost += error.lost
                    lanes.remove(lane)
                except _Failed as error:
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
        self, failed: Mapping[str, _Failed | _Refused], lanes: list[_Lane], deadline_s: float, lost: int
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
        """One try at one endpoint, and what its breaker learns from it. Raises _Failed, _Refused."""
        lane.breaker = lane.breaker.sent(self._clock.monotonic())
        learnt = False
        try:
            async with aclosing(self._exchange(lane, request, limits)) as events:
                async for event in events:
                    if isinstance(event, CloudReply):
                        lane.breaker, learnt = lane.breaker.succeeded(), True
                    yield event
        except (_Refused, _Empty):
            lane.breaker, learnt = lane.breaker.succeeded(), True
            raise
        except _Failed as error:
            lane.breaker, learnt = lane.breaker.failed(self._clock.monotonic(), error.after_s), True
            raise
        finally:
            if not learnt:
                lane.breaker = lane.breaker.abandoned()

    async def _exchange(
        self, lane: _Lane, request: CloudRequest, limits: _Limits
    ) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """Send and read. Raises _Failed, _Refused."""
        target = lane.target
        text, finish, model, usage = "", None, target.model, None
        response = await self._open(lane, request, limits)
        try:
            kind = _kind(target, response)
            async with aclosing(self._chunks(target, response, kind, limits)) as chunks:
                async for found in chunks:
                    finish, model, usage = found.finish_reason or finish, found.model or model, found.usage or usage
                    if found.text:
                        text += found.text
                        yield CloudDelta(found.text)
        finally:
            await response.aclose()
        if not text.strip():
            raise _empty(finish)
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
                with self._translated(target):
                    async with self._until(limits.begin_by):
                        response = await lane.client.send(message, stream=True)
            except _Failed as error:
                error.lost = sending.begun
                raise
            if response.status_code == 200:
                return response
            try:
                with self._translated(target):
                    async with self._until(limits.begin_by):
                        data = await _beginning(response)
            finally:
                await response.aclose()
            dialect = (
                lane.dialect.after(data.decode("utf-8", "replace")) if response.status_code in (400, 422) else None
            )
            if dialect is None:
                raise _declined(target, response, data, self._clock.wall())
            lane.dialect = dialect

    async def _chunks(
        self, target: Target, response: httpx.Response, kind: str, limits: _Limits
    ) -> AsyncGenerator[Chunk, None]:
        """What the body holds, to its end. Raises _Failed, lost: the endpoint has begun to answer."""
        try:
            async with aclosing(self._read(target, response, kind, limits)) as chunks:
                async for found in chunks:
                    yield found
        except _Failed as error:
            error.lost = True
            raise

    async def _read(
        self, target: Target, response: httpx.Response, kind: str, limits: _Limits
    ) -> AsyncGenerator[Chunk, None]:
        if (packed := response.headers.get("content-encoding", "identity")) != "identity":
            raise _Failed(f"packed its answer ({packed[:20]}) though asked not to")
        parts = aiter(response.aiter_raw())
        events, kept, size = completions.Events(), bytearray(), 0
        begun = finished = False
        try:
            while (data := await self._next(target, parts, limits.ends if begun else limits.begin_by)) is not None:
                size += len(data)
                if size > limits.size:
                    raise _Failed(f"sent more than the {limits.size} bytes that a reply may have")
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
            raise _Failed(f"sent {error}") from error
        except completions.ServerError as error:
            raise _Failed(f"broke off: {error}") from error
        if not finished:  # some servers leave OpenAI's closing mark out, but none the reason for the end
            raise _Failed(f"ended in the middle of its answer, after {size} bytes")

    async def _next(self, target: Target, parts: AsyncIterator[bytes], until: float) -> bytes | None:
        with self._translated(target):
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

    @contextmanager
    def _translated(self, target: Target) -> Iterator[None]:
        """httpx's errors, and those of a deadline, as ours."""
        import httpx

        try:
            yield
        except TimeoutError as error:
            raise _Failed("did not answer in time") from error
        except httpx.ConnectTimeout as error:
            raise _Failed(f"no connection within {self._settings.connect_s:g} s") from error
        except httpx.PoolTimeout as error:
            raise _Failed("all connections to it are in use") from error
        except httpx.TimeoutException as error:
            raise _Failed(f"silent for {self._settings.read_s:g} s") from error
        except httpx.ProxyError as error:
            raise _Failed(f"the proxy refused: {error}", remedy=f"Check {target.field('proxy')}.") from error
        except httpx.TransportError as error:
            raise _broken(target, error) from error

    def _until(self, moment: float) -> asyncio.Timeout:
        return asyncio.timeout(max(0.0, moment - self._clock.monotonic()))


def _kind(target: Target, response: httpx.Response) -> str:
    """The content type of a completion. Raises _Failed for any other: it is not the endpoint that speaks."""
    kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if kind not in ("text/event-stream", "application/json"):
        raise _Failed(
            f"answered with {kind[:60] or 'no content type'} instead of a completion",
            remedy=f"Check {target.field('url')}, and that no network's sign-in page lies in between.",
        )
    return kind


async def _beginning(response: httpx.Response) -> bytes:
    """As much of an error's body as is worth reading."""
    data = bytearray()
    async for part in response.aiter_raw():
        data += part
        if len(data) >= _ERROR_BYTES:
            break
    return bytes(data[:_ERROR_BYTES])


def _declined(target: Target, response: httpx.Response, data: bytes, wall: float) -> _Failed | _Refused:
    """What a status other than 200 means."""
    status, said = response.status_code, completions.refusal(data)
    if target.key:
        said = said.replace(target.key, "***")
    reason = f"HTTP {status}" + (f" ({said})" if said else "")
    if status == 429 and "insufficient_quota" in said:
        return _Refused(reason, f"The account of {target.key_from} has no money left.")
    if status in _RETRYABLE or status >= 500:
        after_s = retry_after_s(response.headers.get("retry-after", ""), wall)
        return _Failed(reason, after_s=after_s, lost=status >= 500 and status not in _UNTOUCHED)
    if status in (301, 308):
        to = response.headers.get("location", "")[:200]
        return _Refused(f"{reason}: it moved to {to!r}", f"Set {target.field('url')} to where it is now.")
    if status < 400:
        return _Failed(
            reason, remedy=f"Check {target.field('url')}, and that no network's sign-in page lies in between."
        )
    remedies = {
        401: f"Check the key in {target.key_from}."
        if target.key
        else f"Set {target.field('key_file')} or OPENAI_API_KEY.",
        403: f"Check what the key in {target.key_from} may do, and {target.field('model')} ({target.model!r}).",
        404: f"Check {target.field('url')} ({target.url}) and {target.field('model')} ({target.model!r}).",
        413: "Lower escalation.passages or escalation.history.",
    }
    fallback = f"Check {target.field('model')} ({target.model!r}) and escalation.max_tokens."
    return _Refused(reason, remedies.get(status, fallback))


def _broken(target: Target, error: httpx.TransportError) -> _Failed:
    """What a connection that failed means. A server that wants another client certificate says so in an alert that may
    be lost behind the broken connection (TLS 1.3 ends the handshake before), so there it is only a hint."""
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _Failed(
                f"its certificate is not trusted ({cause.verify_message})",
                remedy=f"Check {target.field('ca_file')}, {target.field('url')} and the device's clock.",
            )
        cause = cause.__cause__ or cause.__context__
    secure = target.url.startswith("https:")
    shaken = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
    remedy = f"If it wants a client certificate, check {target.field('client_cert')}." if shaken and secure else ""
    return _Failed(f"the connection failed ({type(error).__name__}: {error}".rstrip(": ") + ")", remedy=remedy)


def _empty(finish: str | None) -> _Failed | _Refused:
    if finish == "length":
        return _Refused("spent all its tokens without an answer", "Raise escalation.max_tokens.", lost=True)
    if finish == "content_filter":
        return _Refused("its content filter keeps the answer back", "A person has to answer this one.", lost=True)
    return _Empty("gave an empty answer", lost=True)


def _cost(endpoint: Endpoint, usage: Usage) -> float:
    return (endpoint.price_in * usage.prompt_tokens + endpoint.price_out * usage.completion_tokens) / 1_000_000


def retry_after_s(header: str, wall: float) -> float | None:
    """Seconds from now, of seconds or an HTTP date (RFC 9110, 10.2.3), at most an hour; None for neither."""
    given = header.strip()
    if given.isascii() and given.isdigit():
        return min(_RETRY_AFTER_MAX_S, float(given[:12]))
    try:
        date = email.utils.parsedate_to_datetime(given)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None
    return min(_RETRY_AFTER_MAX_S, max(0.0, seconds))
