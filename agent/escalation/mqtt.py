"""The way to the cloud by MQTT 5, and the way in: a device's requests to a gateway, and questions asked of the device.

`MqttPath` sends a request to ``outpost/<site>/<device>/escalate/request`` and waits on ``.../escalate/response`` for
the gateway's answer (agent/escalation/envelope.py). Nothing less counts: not PUBACK, not a gateway's word that it
works on it. While nothing is heard the request is sent again, to whichever gateway the broker picks, so a gateway, a
broker or a queue that fails costs time and loses nothing; second answers are dropped.

A request over the broker's largest message is announced, and its parts go to the one gateway that says it is ready:
parts sent to the shared subscription would be dealt out among the gateways.

`MqttAsk` answers questions from ``outpost/<site>/<device>/ask`` on the response topic that the asker names.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from agent.errors import CloudRefused, CloudUnavailable, InvalidRequest, OutpostError, Overloaded
from agent.escalation import envelope
from agent.escalation.link import MqttLink, Received, leave
from agent.messages import CloudDelta, CloudReply, CloudRequest

SILENCE_S = 4.0
"""Nothing heard for so long: the request is sent again. A gateway at work says so every second."""
MAX_SILENCE_S = 30.0
_MISSING = 4
"""Times the silence without a word since the request went out: there is no gateway, nobody is kept waiting for one."""
QUIET_S, MAX_QUIET_S = 5.0, 60.0
"""After a request of which nothing at all was heard the path counts as offline for so long, doubled each time."""
_NOTICE_S = 0.2
"""So much before its deadline the path gives up, to say itself what it waited for."""
_PATIENT = frozenset({"overloaded", "quota_exceeded"})
"""What another gateway, or the same a little later, may not say."""
_GATEWAY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_log = logging.getLogger("outpost.mqtt")


@dataclass(slots=True)
class Traffic:
    """Counts since start: requests, sent again, second answers dropped."""

    requests: int = 0
    resent: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Heard:
    reply: envelope.Reply
    gateway: str


@dataclass(slots=True)
class _Exchange:
    """One request under way; ``heard`` holds None where a new connection stands."""

    silence_s: float
    heard: asyncio.Queue[_Heard | None] = field(default_factory=asyncio.Queue)
    assemblies: dict[tuple[str, str], envelope.Assembly] = field(default_factory=dict)
    resend_at: float = 0.0
    streams_from: str | None = None
    next_delta: int = 0
    anything: bool = False
    sent: bool = False
    unheard_since: float = field(default_factory=time.monotonic)


class MqttPath:
    """A path of the escalation (async context manager). To be made before the link is entered, for it subscribes.

    ``silence_s``: nothing heard for so long, the request is sent again; more than a second.
    """

    def __init__(self, link: MqttLink, *, silence_s: float = SILENCE_S) -> None:
        self.traffic = Traffic()
        self._silence_s = silence_s
        self._missing_s = _MISSING * silence_s
        self._link = link
        self._exchanges: dict[str, list[_Exchange]] = {}
        self._quiet_until = 0.0
        self._quiet_s = 0.0
        self._response = f"{link.prefix}/escalate/response"
        link.handle(self._response, self._on_reply, on_connect=self._on_connect)

    async def __aenter__(self) -> MqttPath:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The link is the caller's."""

    def online(self) -> bool:
        """There is a connection, and a gateway was not just found missing."""
        return self._link.online() and time.monotonic() >= self._quiet_until

    async def ask(self, request: CloudRequest, *, deadline_s: float) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """Pieces of the answer, then the answer. Pieces may be missing or stop; the answer holds everything.

        Raises CloudUnavailable (no connection, no gateway, no answer within ``deadline_s``, the gateway's upstream is
        down), CloudRefused (the upstream will not answer this, or it is over the limit).
        """
        payload = envelope.encode_request(request)
        if len(payload) > envelope.LARGEST_BYTES:
            raise CloudRefused(f"a request of {len(payload)} bytes; by MQTT the limit is {envelope.LARGEST_BYTES}")
        if not self._link.online():
            raise CloudUnavailable(f"no connection to the MQTT broker: {self._link.problem}", retry_after_s=5.0)
        end = time.monotonic() + deadline_s - _NOTICE_S
        exchange = _Exchange(self._silence_s)
        waiting = self._exchanges.setdefault(request.key, [])
        waiting.append(exchange)
        self.traffic.requests += 1
        try:
            await self._try_send(request, payload, exchange, end)
            while True:
                heard = await self._hear(exchange, request, payload, end)
                match heard.reply:
                    case envelope.Ready():
                        exchange.sent = True
                        await self._send_parts(request, payload, heard.gateway, end)
                    case envelope.Delta(number, text) if self._continues(exchange, heard.gateway, number):
                        yield CloudDelta(text)
                    case envelope.Final() as final:
                        yield CloudReply(
                            request.key,
                            final.text,
                            "mqtt",
                            final.endpoint,
                            final.model,
                            final.usage,
                            final.cost,
                            lost=final.lost,
                            cut=final.cut,
                        )
                        return
                    case envelope.Failed() as failed:
                        self._bear(failed, exchange, end)
        finally:
            waiting.remove(exchange)
            if not waiting:
                self._exchanges.pop(request.key, None)

    # ------------------------------------------------------------ sending

    async def _try_send(self, request: CloudRequest, payload: bytes, exchange: _Exchange, end: float) -> None:
        """Publish the request, or that it comes in parts; where that fails it is tried again after the silence, and at
        once when a new connection stands."""
        exchange.sent = exchange.sent or len(payload) <= self._link.largest_bytes  # else that it comes is
        try:
            await self._send(request, payload, end)
        except CloudUnavailable as error:
            _log.info("%s is sent again later: %s", request.key, error)
        # the clock of silence starts when the line has carried the request
        exchange.resend_at = time.monotonic() + exchange.silence_s * random.uniform(0.8, 1.2)

    async def _send(self, request: CloudRequest, payload: bytes, end: float) -> None:
        """Raises CloudUnavailable."""
        left = end - time.monotonic()
        labels = {"largest": str(self._link.largest_bytes)}
        body = payload
        if len(payload) > self._link.largest_bytes:
            labels, body = labels | envelope.cut(payload, self._link.largest_bytes).labels(), b"{}"
        await self._link.send(
            f"{self._link.prefix}/escalate/request",
            body,
            response_topic=self._response,
            correlation=request.key.encode(),
            expires_in_s=min(left, request.expires_at - time.time()),
            properties=labels,
            timeout_s=max(left, 0.1),
        )

    async def _send_parts(self, request: CloudRequest, payload: bytes, gateway: str, end: float) -> None:
        pieces = envelope.cut(payload, self._link.largest_bytes)
        try:
            for number, part in enumerate(pieces.parts):
                await self._link.send(
                    f"{self._link.prefix}/escalate/parts/{gateway}",
                    part,
                    response_topic=self._response,
                    correlation=request.key.encode(),
                    expires_in_s=end - time.monotonic(),
                    properties={"largest": str(self._link.largest_bytes), **pieces.labels(number)},
                    timeout_s=max(end - time.monotonic(), 0.1),
                )
        except CloudUnavailable as error:  # announced again at the next connection
            _log.info("the parts of %s were not all sent: %s", request.key, error)

    # ------------------------------------------------------------ hearing

    async def _hear(self, exchange: _Exchange, request: CloudRequest, payload: bytes, end: float) -> _Heard:
        """The next word of a gateway; sends the request again where there is silence. Raises CloudUnavailable."""
        while True:
            now = time.monotonic()
            missing = not exchange.anything and self._link.online() and now >= exchange.unheard_since + self._missing_s
            if now >= end or missing:
                raise self._given_up(exchange)
            try:
                heard = await asyncio.wait_for(exchange.heard.get(), max(0.0, min(end, exchange.resend_at) - now))
            except TimeoutError:
                if time.monotonic() < end:
                    exchange.silence_s = min(2 * exchange.silence_s, MAX_SILENCE_S)
                    self.traffic.resent += 1
                    await self._try_send(request, payload, exchange, end)
                continue
            if heard is None:
                exchange.unheard_since = time.monotonic()
                self.traffic.resent += 1
                await self._try_send(request, payload, exchange, end)
                continue
            exchange.anything = True
            exchange.silence_s = self._silence_s
            exchange.resend_at = time.monotonic() + self._silence_s * random.uniform(0.8, 1.2)
            self._quiet_until = self._quiet_s = 0.0
            return heard

    def _given_up(self, exchange: _Exchange) -> CloudUnavailable:
        """What was sent may be at work at a gateway, unless none said a word while there was time for one."""
        lost = exchange.sent
        if exchange.anything:
            error = CloudUnavailable("the gateway did not answer in time", retry_after_s=5.0)
        elif not self._link.online():
            error = CloudUnavailable(f"no connection to the MQTT broker: {self._link.problem}", retry_after_s=5.0)
        else:
            if time.monotonic() - exchange.unheard_since >= self._silence_s / 2:  # time enough for a word
                self._quiet_s = min(MAX_QUIET_S, max(QUIET_S, 2 * self._quiet_s))
                self._quiet_until = time.monotonic() + self._quiet_s
                lost = False
            error = CloudUnavailable(
                f"no gateway answers on {self._response}",
                remedy="Is `outpost gateway` running, and may this device read that topic? "
                "A broker's ACL drops silently.",
                retry_after_s=max(QUIET_S, self._quiet_s),
            )
        error.lost = int(lost)
        return error

    def _continues(self, exchange: _Exchange, gateway: str, number: int) -> bool:
        """Whether this piece is the next of the first stream: two gateways' pieces never mix, and no gap is shown."""
        if exchange.streams_from is None:
            exchange.streams_from = gateway
        if gateway != exchange.streams_from or number != exchange.next_delta:
            return False
        exchange.next_delta += 1
        return True

    def _bear(self, failed: envelope.Failed, exchange: _Exchange, end: float) -> None:
        """Wait and send again where that may help within the deadline. Raises CloudUnavailable, CloudRefused."""
        wait = (failed.retry_after_s or 1.0) * random.uniform(1.0, 1.5)
        if failed.code in _PATIENT and time.monotonic() + wait < end:
            exchange.resend_at = time.monotonic() + wait
            return
        error: CloudRefused | CloudUnavailable
        if failed.code == CloudRefused.code:
            error = CloudRefused(failed.message)
        else:
            error = CloudUnavailable(failed.message, retry_after_s=failed.retry_after_s)
        error.lost = failed.lost
        raise error

    def _on_connect(self) -> None:
        for exchange in self._all_exchanges():
            exchange.heard.put_nowait(None)

    def _all_exchanges(self) -> list[_Exchange]:
        return [exchange for waiting in self._exchanges.values() for exchange in waiting]

    def _on_reply(self, message: Received) -> None:
        waiting = self._exchanges.get(message.correlation.decode("utf-8", "replace"), [])
        gateway = message.properties.get("gateway", "")
        if not waiting or message.retained or not _GATEWAY.fullmatch(gateway):
            self.traffic.dropped += 1
            return
        for exchange in waiting:
            try:
                payload = _whole(exchange, gateway, message)
                if payload is not None:
                    exchange.heard.put_nowait(_Heard(envelope.decode_reply(payload), gateway))
            except InvalidRequest as error:
                _log.warning("a reply of the gateway %r was dropped: %s", gateway, error)


def _whole(exchange: _Exchange, gateway: str, message: Received) -> bytes | None:
    """A reply's payload, put together where it comes in parts. Raises InvalidRequest."""
    properties = dict(message.properties)
    if "part" not in properties:
        return message.payload
    known = (gateway, properties.get("digest", ""))
    assembly = exchange.assemblies.get(known)
    if assembly is None:
        exchange.assemblies.clear()  # one at a time bounds the memory
        assembly = exchange.assemblies[known] = envelope.Assembly.of(properties)
    return assembly.add(properties, message.payload)


# ---------------------------------------------------------------- asked by MQTT


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that came by MQTT: ``text`` as it is, the rest as in the HTTP API's ``outpost`` object."""

    text: str
    session: str | None = None
    collection: str | None = None
    private: bool = False
    deadline_s: float | None = None


_LONGEST_S = 3600.0
_SESSION = re.compile(r"(?s).{1,128}")
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
Answerer = Callable[[Asked], Awaitable[dict[str, Any]]]
"""Gives the JSON object that the asker gets; raises OutpostError, which the asker gets as ``{"error": ...}``."""

KEPT_ANSWERS = 256
"""Answers kept for askers that send again; see `MqttAsk`."""


class MqttAsk:
    """Answers ``outpost/<site>/<device>/ask`` (async context manager, made before the link is entered).

    The payload is a JSON object with ``question`` and optionally ``session``, ``collection``, ``private`` and
    ``deadline_s``, or the question as plain text. The answer goes to the message's response topic with its correlation
    data. An asker may send again until it has its answer: what has the same response topic and correlation data is
    answered once.
    """

    def __init__(self, link: MqttLink, answer: Answerer, *, limit: int) -> None:
        self._link = link
        self._answer = answer
        self._limit = limit
        self._answered: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._running: dict[tuple[str, bytes], asyncio.Task[None]] = {}
        self._tasks = asyncio.TaskGroup()
        link.handle(f"{link.prefix}/ask", self._on_question)

    async def __aenter__(self) -> MqttAsk:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running.values():
            task.cancel()
        await leave(self._tasks, error)

    def _on_question(self, message: Received) -> None:
        topic = message.response_topic
        if message.retained:
            return  # it was asked at another time; every new connection would ask it again
        if topic is None or not may_answer_to(topic, self._link.prefix):
            _log.warning("a question by MQTT is not answered: its response topic is %r", topic)
            return
        known = (topic, message.correlation or uuid.uuid4().bytes)  # without, nothing tells that it is the same
        if known in self._running:
            return
        task = self._tasks.create_task(self._serve(known, message), name="mqtt:ask")
        self._running[known] = task
        task.add_done_callback(lambda _: self._running.pop(known, None))

    async def _serve(self, known: tuple[str, bytes], message: Received) -> None:
        reply = self._answered.get(known)
        if reply is None:
            try:
                if len(self._running) > self._limit:
                    raise Overloaded("too many questions by MQTT at a time", remedy="Ask again in a moment.")
                reply = json.dumps(await self._answer(_asked(message.payload)), ensure_ascii=False).encode()
                self._answered[known] = reply
            except OutpostError as error:
                reply = json.dumps({"error": {"code": error.code, "message": str(error)}}, ensure_ascii=False).encode()
            while len(self._answered) > KEPT_ANSWERS:
                self._answered.popitem(last=False)
        try:
            await self._link.send(known[0], reply, correlation=message.correlation or None, expires_in_s=300)
        except OutpostError as error:
            _log.warning("an answer by MQTT could not be sent: %s", error)


def may_answer_to(topic: str, prefix: str) -> bool:
    """Whether an asker may name this response topic: it must not have the device speak in its own or another's name.

    >>> may_answer_to("lobby/display/answers", "outpost/hall/kiosk")
    True
    >>> may_answer_to("outpost/hall/kiosk/ask/response/7", "outpost/hall/kiosk")
    True
    >>> may_answer_to("outpost/hall/other/shadow/desired", "outpost/hall/kiosk")
    False
    """
    if not topic or any(sign in topic for sign in "+#\0") or topic.startswith("$"):
        return False
    return topic.startswith(f"{prefix}/ask/") or topic.split("/")[0] not in ("outpost", "outpost-gateway")


def _asked(payload: bytes) -> Asked:
    """Raises InvalidRequest."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest("the question is not UTF-8 text") from error
    if not text.lstrip().startswith("{"):
        return Asked(text)
    try:
        found = json.loads(text)
        values = {name: found.get(name) for name in ("question", "session", "collection", "private", "deadline_s")}
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the question is not valid JSON: {error}") from error
    if not isinstance(values["question"], str):
        raise InvalidRequest('the JSON object has no "question"', remedy='Send {"question": "..."} or plain text.')
    for name, form in (("session", _SESSION), ("collection", _COLLECTION)):
        value = values[name]
        if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
            raise InvalidRequest(f"{name} = {str(value)[:80]!r} is none", param=name)
    private, deadline_s = values["private"], values["deadline_s"]
    if not isinstance(private, bool | None):
        raise InvalidRequest(f"private = {str(private)[:80]!r} is neither true nor false", param="private")
    seconds = not isinstance(deadline_s, bool) and isinstance(deadline_s, int | float)
    if deadline_s is not None and not (seconds and 0 < deadline_s <= _LONGEST_S):
        raise InvalidRequest(f"deadline_s = {str(deadline_s)[:80]!r} is not 0..{_LONGEST_S:g}", param="deadline_s")
    return Asked(values["question"], values["session"], values["collection"], bool(private), deadline_s)
