"""One connection to the MQTT 5 broker, for everything that a device or a gateway does by MQTT.

`MqttLink` stays connected on its own: it comes back with jittered back-off, subscribes again and says that it is there
(a retained ``status``, which the broker turns to offline by the last will). Every connection starts clean and no
message is trusted to a session of the broker, nor is a PUBACK taken for delivery: mosquitto acknowledges messages and
drops them where a queue is full or an ACL forbids reading. Who needs an answer waits for the answer and sends again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent import __version__
from agent.config import Mqtt
from agent.errors import CloudUnavailable, ConfigError, InputTooLarge
from agent.escalation.endpoints import is_near

BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
_STABLE_S = 10.0
"""A connection that held so long starts the back-off anew."""
_BROKER_S = 5.0
"""How long the broker may take for CONNACK and SUBACK."""
_GOODBYE_S = 1.0
_QUEUE = 10_000
"""Incoming messages that wait for their handlers; more are dropped, and sent again by those who need an answer."""
_HEADER_BYTES = 4096
"""Room beside the payload for topic and properties."""
_log = logging.getLogger("outpost.mqtt")


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the broker; ``expires_in_s`` is what is left of its lifetime by the broker's clock."""

    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation: bytes = b""
    properties: Mapping[str, str] = field(default_factory=dict)
    expires_in_s: int | None = None
    retained: bool = False


Handler = Callable[[Received], None]
"""Takes a message on the event loop; must neither block nor raise."""


class MqttLink:
    """Async context manager; connects behind its caller's back, so that a device starts without a line.

    ``prefix`` (``outpost/<site>/<device>``) is where `publish` and the status topic lie. Raises ConfigError on entry
    where certificates or the password cannot be read, or without TLS for a broker beyond the device's own network.
    """

    def __init__(self, settings: Mqtt, *, client_id: str, prefix: str) -> None:
        self.prefix = prefix
        self.connections = 0
        self.problem = ""
        """Why there is no connection, for people; empty while there is one."""
        self._settings = settings
        self._client_id = client_id
        self._handlers: dict[str, Handler] = {}
        self._on_connect: list[Callable[[], None]] = []
        self._client: aiomqtt.Client | None = None
        self._lost: asyncio.Future[None] | None = None
        self._connected = asyncio.Event()
        self._closing = False
        self._tasks = asyncio.TaskGroup()
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> MqttLink:
        tls, password = await asyncio.to_thread(_credentials, self._settings)
        await self._tasks.__aenter__()
        self._keeping = self._tasks.create_task(self._keep_connected(tls, password), name="mqtt:link")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if self._keeping is not None:
            self._keeping.cancel()
        await leave(self._tasks, error)

    @property
    def largest_bytes(self) -> int:
        """The largest payload of one message."""
        return self._settings.max_message_kb * 1024

    def online(self) -> bool:
        return self._client is not None

    async def wait_online(self, timeout_s: float) -> bool:
        """Whether there is a connection within ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), timeout_s)
        return self.online()

    def handle(self, topic_filter: str, handler: Handler, *, on_connect: Callable[[], None] | None = None) -> None:
        """Subscribe at every connection; to be called before the context is entered. ``on_connect`` is called when the
        subscriptions of a new connection stand."""
        self._handlers[topic_filter] = handler
        if on_connect is not None:
            self._on_connect.append(on_connect)

    async def stop_handling(self, topic_filter: str) -> None:
        """Let no more messages come for a filter."""
        self._handlers.pop(topic_filter, None)
        if self._client is not None:
            with contextlib.suppress(aiomqtt.MqttError):  # a lost connection has no subscriptions either
                await self._client.unsubscribe(topic_filter)

    async def publish(self, topic: str, payload: bytes) -> None:
        """Send to ``<prefix>/<topic>``; the broker has it on return, which is not delivery. Raises CloudUnavailable
        while there is no connection, InputTooLarge."""
        await self.send(f"{self.prefix}/{topic}", payload)

    async def send(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: Literal[0, 1] = 1,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        expires_in_s: float | None = None,
        properties: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Publish to a whole topic; with ``qos`` 1 the broker has acknowledged it on return, which means little.

        Raises CloudUnavailable where there is no connection, it breaks or ``timeout_s`` passes; InputTooLarge.
        """
        client, lost = self._client, self._lost
        if client is None or lost is None:
            raise CloudUnavailable(f"no connection to the MQTT broker: {self.problem or 'not yet'}", retry_after_s=5.0)
        if len(payload) > self.largest_bytes:
            raise InputTooLarge(
                f"a message of {len(payload)} bytes for {topic}; the limit is {self.largest_bytes}",
                remedy="Raise mqtt.max_message_kb here and at the broker.",
            )
        wire = _properties(response_topic, correlation, expires_in_s, properties or {})
        try:
            if qos == 0:
                await client.publish(topic, payload, qos=0, properties=wire, timeout=timeout_s)
                return
            sending = asyncio.create_task(
                client.publish(topic, payload, qos=qos, properties=wire, timeout=timeout_s), name="mqtt:publish"
            )
            try:
                await asyncio.wait({sending, lost}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not sending.done():
                    sending.cancel()
            if not sending.done():
                raise CloudUnavailable("the connection to the MQTT broker broke", retry_after_s=1.0)
            await sending
        except aiomqtt.MqttError as error:
            raise CloudUnavailable(f"the MQTT broker did not take a message: {error}", retry_after_s=1.0) from error

    # ------------------------------------------------------------ the connection

    async def _keep_connected(self, tls: ssl.SSLContext | None, password: str | None) -> None:
        failures = 0
        while not self._closing:
            started = time.monotonic()
            try:
                await self._connection(tls, password)
            except (aiomqtt.MqttError, OSError) as error:
                self.problem = _told(error)
            if self._closing:
                return  # the goodbye failed, which ended the cancellation
            failures = 1 if time.monotonic() - started > _STABLE_S else failures + 1
            pause = random.uniform(0.2, 1.0) * min(MAX_BACKOFF_S, BACKOFF_S * 2 ** min(failures - 1, 10))
            _log.warning(
                "no connection to %s:%d (%s); again in %.1f s",
                self._settings.host, self._settings.port, self.problem, pause,
            )  # fmt: skip
            await asyncio.sleep(pause)

    async def _connection(self, tls: ssl.SSLContext | None, password: str | None) -> None:
        """One connection from CONNECT until it breaks. Raises MqttError."""
        properties = Properties(PacketTypes.CONNECT)
        properties.MaximumPacketSize = self.largest_bytes + _HEADER_BYTES
        status = f"{self.prefix}/status"
        client = aiomqtt.Client(
            self._settings.host,
            self._settings.port,
            identifier=self._client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            username=self._settings.username or None,
            password=password,
            tls_context=tls,
            keepalive=self._settings.keepalive_s,
            timeout=_BROKER_S,
            will=aiomqtt.Will(status, json.dumps({"state": "offline"}), qos=1, retain=True),
            properties=properties,
            max_queued_incoming_messages=_QUEUE,
            socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),  # else 40 ms and more a round trip
        )
        client.pending_calls_threshold = _QUEUE  # many publishes at a time are meant
        async with client:
            for topic_filter in self._handlers:
                granted = await client.subscribe(topic_filter, qos=1)
                refused = [code for code in granted if not isinstance(code, int) and code.is_failure]
                if refused:
                    _log.warning("the broker refuses the subscription %s: %s", topic_filter, refused[0])
            online = {"state": "online", "version": __version__, "since": round(time.time(), 3)}
            await client.publish(status, json.dumps(online), qos=1, retain=True)
            self._client, self._lost = client, asyncio.get_running_loop().create_future()
            self.connections += 1
            self.problem = ""
            self._connected.set()
            try:
                for called in self._on_connect:
                    called()
                async for message in client.messages:
                    self._dispatch(message)
            except asyncio.CancelledError:
                client.timeout = _GOODBYE_S
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.publish(status, json.dumps({"state": "offline"}), qos=1, retain=True)
                raise
            finally:
                self._connected.clear()
                self._client = None
                self._lost.set_result(None)

    def _dispatch(self, message: aiomqtt.Message) -> None:
        received = _received(message)
        for topic_filter, handler in self._handlers.items():
            if message.topic.matches(topic_filter):
                handler(received)
                return


async def leave(tasks: asyncio.TaskGroup, error: BaseException | None) -> None:
    """Leave a TaskGroup whose tasks are cancelled already; an error of the body stays what it is, in no group."""
    if isinstance(error, asyncio.CancelledError):
        await tasks.__aexit__(type(error), error, error.__traceback__)
    else:
        await tasks.__aexit__(None, None, None)


def _received(message: aiomqtt.Message) -> Received:
    wire = message.properties
    payload = message.payload if isinstance(message.payload, bytes) else b""
    return Received(
        topic=str(message.topic),
        payload=payload,
        response_topic=getattr(wire, "ResponseTopic", None),
        correlation=getattr(wire, "CorrelationData", b""),
        properties=dict(getattr(wire, "UserProperty", ())),
        expires_in_s=getattr(wire, "MessageExpiryInterval", None),
        retained=message.retain,
    )


def _properties(
    response_topic: str | None, correlation: bytes | None, expires_in_s: float | None, user: Mapping[str, str]
) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if correlation is not None:
        properties.CorrelationData = correlation
    if expires_in_s is not None:
        properties.MessageExpiryInterval = max(1, round(expires_in_s))
    if user:
        properties.UserProperty = list(user.items())
    return properties


def _credentials(settings: Mqtt) -> tuple[ssl.SSLContext | None, str | None]:
    """Reads certificates and password. Raises ConfigError."""
    password = None
    if settings.password_file is not None:
        try:
            password = settings.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable("password_file", settings.password_file, error) from error
    if not settings.tls:
        if not is_near(settings.host):
            raise ConfigError(
                f"mqtt.tls = false with mqtt.host = {settings.host!r}: questions, answers and the password would cross"
                " the internet in the clear",
                remedy="Set mqtt.tls = true.",
            )
        return None, password
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable("ca_file", settings.ca_file, error) from error
    if settings.client_cert is not None:
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable("client_cert", settings.client_cert, error) from error
    return context, password


def _unreadable(field_name: str, path: Path | None, error: Exception) -> ConfigError:
    return ConfigError(
        f"mqtt.{field_name} = {str(path)!r} cannot be used: {error}", remedy="Name a readable file (PEM)."
    )


def _told(error: Exception) -> str:
    if isinstance(error.__cause__, TimeoutError) or str(error) == "Operation timed out":
        return "the broker does not answer; does it accept this client's certificate?"
    cause = error.__cause__
    return str(error) + (f" ({cause})" if cause is not None and str(cause) not in str(error) else "")
