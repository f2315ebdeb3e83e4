"""The cloud side of the path MQTT: takes the devices' requests from a shared subscription and asks the upstream.

Any number of gateways share ``$share/outpost-gateway/outpost/+/+/escalate/request``; the broker gives each request to
one of them. A gateway keeps nothing on disk and promises nothing: it says every second which requests it works on, and
the device sends a request again when it hears nothing for a while, so a gateway that dies is replaced by the next. What
one gateway can know it does not do twice: a request whose key (of that device) is running or was answered in the last
``remember_s`` is not asked upstream again, its answer is sent again.

Who a device is follows from the topic alone, which the broker's ACL guards; answers go only below that device's own
topic, whatever response topic a message names.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agent.config import Gateway as GatewayConfig
from agent.errors import CloudRefused, CloudUnavailable, InvalidRequest, OutpostError
from agent.escalation import envelope
from agent.escalation.link import MqttLink, Received, leave
from agent.messages import CloudDelta, CloudReply, CloudRequest

SHARE = "outpost-gateway"
REQUESTS = f"$share/{SHARE}/outpost/+/+/escalate/request"
WORKING_S = 1.0
"""How often devices hear that their request is being worked on."""
_DELTA_S = 0.03
"""Pieces of an answer that come faster than this are put together."""
_ASSEMBLY_S = 60.0
_ASSEMBLIES = 32
"""Requests in parts that are being received; more push out the oldest."""
_REMEMBERED = 10_000
_REMEMBERED_BYTES = 64 << 20
_SMALLEST_BYTES, _LARGEST_BYTES = 1024, 128 << 10
"""The least that a device may name as its largest message, and what counts where it names none."""
_log = logging.getLogger("outpost.gateway")


class Upstream(Protocol):
    """What answers in the end; agent/escalation/https.py in operation."""

    def ask(self, request: CloudRequest, *, deadline_s: float) -> AsyncGenerator[CloudDelta | CloudReply, None]: ...


class GatewayMetrics:
    """``outpost_gateway_*`` in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "outpost_gateway_requests", "Requests by what became of them", ["outcome"], registry=self.registry
        )
        self.duplicates = Counter(
            "outpost_gateway_duplicates", "Requests sent again for one that runs or is answered", registry=self.registry
        )
        self.tokens = Counter("outpost_gateway_tokens", "Upstream tokens by kind", ["kind"], registry=self.registry)
        self.seconds = Histogram(
            "outpost_gateway_upstream_seconds", "Time of the upstream for an answer", registry=self.registry
        )
        self.running = Gauge("outpost_gateway_running", "Requests at the upstream", registry=self.registry)
        self.waiting = Gauge("outpost_gateway_waiting", "Requests that wait for their turn", registry=self.registry)
        self.connected = Gauge("outpost_gateway_connected", "1 while there is a broker", registry=self.registry)


@dataclass(frozen=True, slots=True)
class _Key:
    """Whose request: the device's topic (``outpost/<site>/<device>``) and the key that it gave."""

    device: str
    key: str


@dataclass(frozen=True, slots=True)
class _Asker:
    """Where the replies go, and the largest message that the device takes: a broker drops larger ones silently."""

    key: _Key
    topic: str
    largest_bytes: int


@dataclass(slots=True)
class _Job:
    """A request at work or waiting for it."""

    asker: _Asker
    request: CloudRequest
    ends: float


@dataclass(slots=True)
class _Usage:
    """One device's quota: a bucket of requests that refills within a minute, and the tokens of the day."""

    requests: float
    at: float
    day: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Quotas:
    """Pure but for the two clocks it is told: ``now`` monotonic, ``day`` any number that changes at midnight UTC."""

    requests_per_minute: int
    tokens_per_day: int
    devices: dict[str, _Usage] = field(default_factory=dict)

    def take(self, device: str, now: float, day: int) -> float | None:
        """Count a request; None where it is within the quota, else the seconds after which to come again."""
        usage = self.devices.setdefault(device, _Usage(self.requests_per_minute, now))
        if usage.day != day:
            usage.day, usage.tokens = day, 0
        if usage.tokens >= self.tokens_per_day:
            return 3600.0
        rate = self.requests_per_minute / 60
        usage.requests = min(self.requests_per_minute, usage.requests + (now - usage.at) * rate)
        usage.at = now
        if usage.requests < 1:
            return (1 - usage.requests) / rate
        usage.requests -= 1
        return None

    def count(self, device: str, tokens: int) -> None:
        self.devices[device].tokens += tokens


class Gateway:
    """Async context manager over a link (to be made before the link is entered) and an upstream."""

    def __init__(
        self,
        settings: GatewayConfig,
        link: MqttLink,
        upstream: Upstream,
        *,
        name: str,
        deadline_s: float,
        max_tokens: int,
        metrics: GatewayMetrics,
    ) -> None:
        self.name = name
        self._settings = settings
        self._link = link
        self._upstream = upstream
        self._deadline_s = deadline_s
        self._max_tokens = max_tokens
        self._metrics = metrics
        self._quotas = Quotas(settings.requests_per_minute, settings.tokens_per_day)
        self._jobs: dict[_Key, _Job] = {}
        self._answers: OrderedDict[_Key, tuple[float, bytes]] = OrderedDict()
        self._answer_bytes = 0
        self._assemblies: OrderedDict[_Key, tuple[float, envelope.Assembly]] = OrderedDict()
        self._places = asyncio.Semaphore(settings.concurrency)
        self._at_upstream = 0
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        link.handle(REQUESTS, self._on_request)
        link.handle(f"outpost/+/+/escalate/parts/{name}", self._on_part)
        metrics.connected.set_function(lambda: float(link.online()))
        metrics.waiting.set_function(lambda: float(len(self._jobs)) - self._at_upstream)
        metrics.running.set_function(lambda: float(self._at_upstream))

    async def __aenter__(self) -> Gateway:
        await self._tasks.__aenter__()
        self._spawn(self._tell_working(), "working")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await leave(self._tasks, error)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and finish those at work; whether all were within ``timeout_s``. The others are taken
        over by another gateway, as after a crash."""
        await self._link.stop_handling(REQUESTS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return not self._jobs

    def _spawn(self, work: Coroutine[None, None, None], what: str) -> None:
        task = self._tasks.create_task(work, name=f"gateway:{what}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # ------------------------------------------------------------ taking requests

    def _on_request(self, message: Received) -> None:
        asker = _asker(message)
        if asker is None:
            self._refuse("malformed", message)
        elif not self._repeated(asker):
            if "parts" in message.properties:
                self._tell(asker, envelope.Ready())
            else:
                self._take(asker, message, message.payload)

    def _on_part(self, message: Received) -> None:
        asker = _asker(message)
        if asker is None:
            self._refuse("malformed", message)
            return
        known = asker.key
        if known in self._jobs:
            return
        now = time.monotonic()
        properties = dict(message.properties)
        try:
            began, assembly = self._assemblies.get(known, (0.0, None))
            if assembly is None or assembly.digest != properties.get("digest") or now - began > _ASSEMBLY_S:
                assembly = envelope.Assembly.of(properties)
                self._assemblies[known] = (now, assembly)
                while len(self._assemblies) > _ASSEMBLIES:
                    self._assemblies.popitem(last=False)
            whole = assembly.add(properties, message.payload)
        except InvalidRequest as error:
            self._assemblies.pop(known, None)
            self._tell(asker, envelope.Failed(CloudRefused.code, str(error)))
            return
        if whole is not None:
            del self._assemblies[known]
            self._take(asker, message, whole)

    def _repeated(self, asker: _Asker) -> bool:
        """Whether this request is at work (the device hears it every second) or answered: the answer goes again."""
        known = asker.key
        kept = self._answers.get(known)
        if kept is not None and time.monotonic() - kept[0] > self._settings.remember_s:
            self._forget(known)
            kept = None
        if kept is None and known not in self._jobs:
            return False
        self._metrics.duplicates.inc()
        if kept is not None:
            self._spawn(self._send_whole(asker, kept[1], self._deadline_s), "again")
        return True

    def _take(self, asker: _Asker, message: Received, payload: bytes) -> None:
        """Start the work, or say why not."""
        known = asker.key
        try:
            request = envelope.decode_request(payload)
            if request.key != known.key:
                raise InvalidRequest(f"the key {request.key!r} is not the correlation data")
        except InvalidRequest as error:
            self._metrics.requests.labels("malformed").inc()
            self._tell(asker, envelope.Failed(CloudRefused.code, str(error)))
            return
        if len(self._jobs) >= self._settings.concurrency + self._settings.queue:
            self._metrics.requests.labels("overloaded").inc()
            self._tell(asker, envelope.Failed("overloaded", "the gateway's queue is full", 2.0))
            return
        wait = self._quotas.take(known.device, time.monotonic(), int(time.time() // 86_400))
        if wait is not None:
            self._metrics.requests.labels("quota").inc()
            told = f"{known.device} has used up its quota at this gateway"
            self._tell(asker, envelope.Failed("quota_exceeded", told, wait))
            return
        left = self._deadline_s if message.expires_in_s is None else float(message.expires_in_s)
        bounded = replace(request, max_tokens=max(1, min(request.max_tokens, self._max_tokens)))
        ends = time.monotonic() + min(left, self._deadline_s)
        job = _Job(asker, bounded, ends)
        self._jobs[known] = job
        self._idle.clear()
        self._spawn(self._work(job), "request")

    # ------------------------------------------------------------ the work

    async def _work(self, job: _Job) -> None:
        outcome = "answered"
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + job.ends - time.monotonic()):
                await self._places.acquire()
            self._at_upstream += 1
            try:
                reply: envelope.Reply = await self._ask(job)
            finally:
                self._at_upstream -= 1
                self._places.release()
        except TimeoutError:
            outcome, reply = "overloaded", envelope.Failed("overloaded", "the gateway did not come to it in time", 5.0)
        except OutpostError as error:
            lost = error.lost if isinstance(error, CloudUnavailable | CloudRefused) else 0
            outcome, reply = error.code, envelope.Failed(error.code, str(error), error.retry_after_s, lost)
        self._metrics.requests.labels(outcome).inc()
        payload = envelope.encode_reply(reply)
        if isinstance(reply, envelope.Final) or outcome == CloudRefused.code:
            self._remember(job.asker.key, payload)
        del self._jobs[job.asker.key]
        if not self._jobs:
            self._idle.set()
        await self._send_whole(job.asker, payload, max(self._deadline_s, job.ends - time.monotonic()))

    async def _ask(self, job: _Job) -> envelope.Final:
        """Ask the upstream and pass on the pieces. Raises OutpostError."""
        started = told = time.monotonic()
        pending: list[str] = []
        number = 0
        async with aclosing(self._upstream.ask(job.request, deadline_s=max(0.1, job.ends - started))) as events:
            async for event in events:
                if isinstance(event, CloudReply):
                    usage = event.usage
                    self._quotas.count(job.asker.key.device, usage.prompt_tokens + usage.completion_tokens)
                    self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
                    self._metrics.tokens.labels("completion").inc(usage.completion_tokens)
                    self._metrics.seconds.observe(time.monotonic() - started)
                    if len(event.text.encode()) > envelope.LARGEST_BYTES // 2:
                        refused = CloudRefused("the upstream's answer is too large to be sent by MQTT")
                        refused.lost = 1 + event.lost
                        raise refused
                    return envelope.Final(
                        event.text, event.endpoint, event.model, usage, event.cost, event.lost, event.cut
                    )
                pending.append(event.text)
                if time.monotonic() - told >= _DELTA_S:
                    await self._send_piece(job, envelope.Delta(number, "".join(pending)))
                    pending, number, told = [], number + 1, time.monotonic()
        raise CloudUnavailable("the upstream ended without an answer")

    def _remember(self, known: _Key, payload: bytes) -> None:
        self._forget(known)
        self._answers[known] = (time.monotonic(), payload)
        self._answer_bytes += len(payload)
        while len(self._answers) > _REMEMBERED or self._answer_bytes > _REMEMBERED_BYTES:
            self._forget(next(iter(self._answers)))

    def _forget(self, known: _Key) -> None:
        kept = self._answers.pop(known, None)
        if kept is not None:
            self._answer_bytes -= len(kept[1])

    # ------------------------------------------------------------ telling devices

    async def _tell_working(self) -> None:
        while True:
            await asyncio.sleep(WORKING_S)
            for job in list(self._jobs.values()):
                await self._send_piece(job, envelope.Working())

    def _tell(self, asker: _Asker, reply: envelope.Reply) -> None:
        self._spawn(self._send_whole(asker, envelope.encode_reply(reply), WORKING_S), "tell")

    async def _send_piece(self, job: _Job, reply: envelope.Reply) -> None:
        """What may get lost."""
        with contextlib.suppress(OutpostError):
            await self._link.send(
                job.asker.topic,
                envelope.encode_reply(reply),
                qos=0,
                correlation=job.asker.key.key.encode(),
                expires_in_s=10,
                properties={"gateway": self.name},
            )

    async def _send_whole(self, asker: _Asker, payload: bytes, within_s: float) -> None:
        """Send a reply, in parts where it is large, and again when a connection broke under it. Where that fails the
        device asks again."""
        ends = time.monotonic() + within_s
        largest = min(self._link.largest_bytes, asker.largest_bytes)
        while (left := ends - time.monotonic()) > 0 and await self._link.wait_online(left):
            try:
                if len(payload) <= largest:
                    await self._send_reply(asker, payload, {})
                    return
                pieces = envelope.cut(payload, largest)
                for number, part in enumerate(pieces.parts):
                    await self._send_reply(asker, part, pieces.labels(number))
                return
            except OutpostError as error:
                _log.info("a reply to %s was not sent: %s", asker.key.device, error)
                if self._link.online():
                    return

    async def _send_reply(self, asker: _Asker, payload: bytes, labels: dict[str, str]) -> None:
        await self._link.send(
            asker.topic,
            payload,
            correlation=asker.key.key.encode(),
            expires_in_s=self._deadline_s,
            properties={"gateway": self.name, **labels},
        )

    def _refuse(self, outcome: str, message: Received) -> None:
        """Nobody can be told: the message names no device, no key, or a topic that is not the device's own."""
        self._metrics.requests.labels(outcome).inc()
        _log.warning("dropped a request on %s with response topic %r", message.topic, message.response_topic)


def _asker(message: Received) -> _Asker | None:
    """Whose request this is; None where it does not say, or wants the answer anywhere but at the device's own topic."""
    device = "/".join(message.topic.split("/")[:3])
    if message.response_topic != f"{device}/escalate/response":
        return None
    try:
        key, largest = message.correlation.decode("utf-8"), int(message.properties.get("largest", _LARGEST_BYTES))
    except ValueError:
        return None
    if not 0 < len(key) <= 256 or largest < _SMALLEST_BYTES:
        return None
    return _Asker(_Key(device, key), message.response_topic, largest)
