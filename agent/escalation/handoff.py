"""Telling people: questions that wait for a person, and late answers for who asked by MQTT.

The queue itself is the outbox (rows ``handed_off``); the operator page and `outpost events` read and answer it. What
this module adds is that nobody has to look: every such question is announced by a webhook (POST, JSON) and by MQTT
(topic ``handoff``), and every late answer by MQTT (topic ``events``). Announcements are rows of their own, written in
the same transaction as what they announce, and sent until they were taken: at least once, each with its event id.

A question that holds personal data is announced without its words: they stay on this device, for the operator page.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import apsw

from agent.config import Device, Handoff
from agent.errors import CloudUnavailable, ConfigError, InputTooLarge, NotFound, StorageFailed, StorageFull
from agent.escalation.cases import Case, Channel, Notices, Topic, backoff, set_within
from agent.escalation.endpoints import is_near
from agent.escalation.outbox import Outbox
from agent.escalation.store import Store

if TYPE_CHECKING:
    import httpx  # at run time with the first webhook

_WEBHOOK_S = 10.0
_TICK_S = 5.0
_LONGEST_WAIT_S = 3600.0
_BATCH = 16
_log = logging.getLogger("outpost.handoff")


class Publisher(Protocol):
    """Publishes below the device's MQTT prefix. Raises CloudUnavailable while there is no connection."""

    async def publish(self, topic: str, payload: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class _Notice:
    event_id: str
    topic: Topic
    attempts: int


def notices(config: Handoff, *, mqtt: bool, outward: bool) -> Notices:
    """Which channels there are: ``mqtt``, there is a broker; ``outward`` False: nothing may leave (local-only)."""
    webhook: tuple[Channel, ...] = ("webhook",) if outward and config.webhook else ()
    by_mqtt: tuple[Channel, ...] = ("mqtt",) if outward and mqtt else ()
    return Notices(handoff=(*webhook, *(by_mqtt if config.mqtt else ())), events=by_mqtt)


class Announcer:
    """See the module; an async context manager, which raises ConfigError for a webhook that is none. ``publisher``
    None: no MQTT. ``outward`` False: nothing is announced, also nothing that was due from before. ``problems`` says
    what could not be announced lately, by channel."""

    def __init__(
        self,
        config: Handoff,
        device: Device,
        store: Store,
        outbox: Outbox,
        publisher: Publisher | None = None,
        *,
        outward: bool = True,
    ) -> None:
        self._config = config
        self._outward = outward
        self._device = device
        self._store = store
        self._outbox = outbox
        self._publisher = publisher
        self._client: httpx.AsyncClient | None = None
        self.problems: dict[Channel, str] = {}

    async def __aenter__(self) -> Announcer:
        if self._outward and self._config.webhook:
            _check(self._config.webhook)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def announce(self) -> None:
        """Send what is due, by all channels beside each other; runs until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._outward and self._config.webhook:
                tasks.create_task(self._serve("webhook"), name="handoff:webhook")
            if self._outward and self._publisher is not None:
                tasks.create_task(self._serve("mqtt"), name="handoff:mqtt")

    async def _serve(self, channel: Channel) -> None:
        while True:
            changed = self._outbox.next_change
            try:
                while await self._send_some(channel):
                    pass
            except (StorageFull, StorageFailed) as error:
                _log.warning("announcements cannot be read: %s", error)
            await set_within(changed, _TICK_S)

    async def _send_some(self, channel: Channel) -> bool:
        """Whether there was something to send, and the channel took it."""
        due = await self._due(channel)
        for notice in due:
            try:
                case = await self._outbox.get(notice.event_id)
                await self._send(channel, notice, _message(notice.topic, case, self._device))
            except CloudUnavailable as error:
                self.problems[channel] = str(error)
                await self._defer(channel, notice)
                return False
            except (NotFound, InputTooLarge) as error:
                _log.info("nothing to announce for %s: %s", notice.event_id, error)
            self.problems.pop(channel, None)
            await self._done(channel, notice)
        return bool(due)

    async def _send(self, channel: Channel, notice: _Notice, message: dict[str, Any]) -> None:
        payload = json.dumps(message, ensure_ascii=False).encode()
        if channel == "mqtt":
            assert self._publisher is not None
            await self._publisher.publish(notice.topic, payload)
        else:
            await self._post(notice, payload)

    async def _post(self, notice: _Notice, payload: bytes) -> None:
        """Raises CloudUnavailable for everything but a 2xx: who set up the webhook wants the question to arrive."""
        if self._client is None:
            self._client = await asyncio.to_thread(_open_client)
        import httpx

        headers = {"content-type": "application/json", "idempotency-key": f"{notice.topic}-{notice.event_id}"}
        try:
            reply = await self._client.post(self._config.webhook, content=payload, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # without its address, which may hold a secret: everybody may read the device's notes
            raise CloudUnavailable(f"the webhook cannot be reached ({type(error).__name__})") from error
        if not reply.is_success:
            raise CloudUnavailable(f"the webhook answered {reply.status_code}")

    # ------------------------------------------------------------ the table

    async def _due(self, channel: Channel) -> tuple[_Notice, ...]:
        def select(db: apsw.Connection) -> tuple[_Notice, ...]:
            rows: list[Any] = db.execute(
                "SELECT event_id, topic, attempts FROM notice WHERE channel = ? AND next_try <= ? LIMIT ?",
                (channel, time.time(), _BATCH),
            ).fetchall()
            return tuple(_Notice(*row) for row in rows)

        return await self._store.submit(select)

    async def _done(self, channel: Channel, notice: _Notice) -> None:
        await self._store.execute(
            "DELETE FROM notice WHERE event_id = ? AND topic = ? AND channel = ?",
            notice.event_id, notice.topic, channel,
        )  # fmt: skip

    async def _defer(self, channel: Channel, notice: _Notice) -> None:
        next_try = time.time() + backoff(notice.attempts, _LONGEST_WAIT_S)
        await self._store.execute(
            "UPDATE notice SET attempts = attempts + 1, next_try = ? WHERE event_id = ? AND topic = ? AND channel = ?",
            next_try, notice.event_id, notice.topic, channel,
        )  # fmt: skip


def _open_client() -> httpx.AsyncClient:
    """In a thread: the first import takes long, and certificates are read."""
    import httpx

    return httpx.AsyncClient(timeout=_WEBHOOK_S)


def _check(webhook: str) -> None:
    """Its address is not repeated: it may hold a secret. Raises ConfigError."""
    try:
        parts = urlsplit(webhook)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"handoff.webhook is no URL: {error}", remedy="Begin it with https://.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("handoff.webhook is no URL of a web server", remedy="Begin it with https://.")
    if parts.scheme == "http" and not is_near(host):
        raise ConfigError(
            f"handoff.webhook leads to {host} by http: questions would cross the internet in the clear",
            remedy="Use https.",
        )


def _message(topic: Topic, case: Case, device: Device) -> dict[str, Any]:
    """What others script against; fields may be added."""
    about = {
        "event_id": case.event_id,
        "device": device.name,
        "site": device.site,
        "state": case.state,
        "reason": case.reason,
        "language": case.language,
        "personal": case.personal,
        "at": case.changed_at,
    }
    if topic == "handoff":
        question = None if case.personal else case.question
        return about | {"question": question, "collection": case.collection, "expires_at": case.expires_at}
    return about | {"answer": None if case.personal else case.answer, "answer_kind": case.answer_kind}
