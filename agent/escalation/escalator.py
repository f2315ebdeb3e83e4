"""Asking the cloud: what leaves is built, budgeted and stored first, then sent by the first path that works.

    ask: request.build -> cache.find -> budget.reserve -> outbox.put -> paths in order -> outbox.settle -> reply
                                                              | no line, or nobody answers within ``total_s``
                                                              v
                                                          Deferred; `deliver` sends it again until it is answered

`deliver` is the daemon's task: it resends what waits as soon as a path is online again, one question at first and more
while that works, and hands over to a person what waited too long. An answer counts only when it is in the outbox.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from agent.config import Escalation
from agent.errors import (
    BudgetExhausted,
    CloudRefused,
    CloudUnavailable,
    NotFound,
    PrivacyFailed,
    StorageFailed,
    StorageFull,
)
from agent.escalation.audit import AuditLog
from agent.escalation.budget import Budget, Spent, estimate
from agent.escalation.cache import Cache
from agent.escalation.cases import OutboxStatus, Waiting, backoff, set_within
from agent.escalation.outbox import Outbox
from agent.escalation.personal import Restoration
from agent.escalation.request import build, finder
from agent.messages import CloudDelta, CloudReply, CloudRequest, Deferred, Inquiry, Outgoing, Quote

_TICK_S = 0.5
"""How soon a line that came back is noticed."""
_LOOK_S = 10.0
_WIDTH = 4
_WITHOUT_HISTORY = 2
"""Messages of a request that stands for itself: system and question."""
_FULL_BUDGET_S = 300.0
_GRACE_S = 0.1
"""So much later than its deadline a path is cut off that has not given up by itself: only it knows what it had sent."""
_PATIENCE_S = 60.0
"""How long an answer may take where nobody stands waiting for it, if ``total_s`` is less."""
_log = logging.getLogger("outpost.escalation")


class Path(Protocol):
    """One way to the cloud."""

    def ask(self, request: CloudRequest, *, deadline_s: float) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """Ends with one CloudReply. Raises CloudUnavailable (with ``retry_after_s`` where the cloud named one) and
        CloudRefused."""
        ...

    def online(self) -> bool:
        """Whether a request has a chance now; from memory."""
        ...

    def preview(self, request: CloudRequest) -> Outgoing:
        """What `ask` would send first."""
        ...


@dataclass(frozen=True, slots=True)
class EscalationStatus:
    """What status pages show; ``reason``: why the cloud may not be asked, None where it may; ``trouble``: what the last
    try failed by, for the operator, None since a path answered."""

    reason: str | None
    online: bool
    outbox: OutboxStatus
    spent: Spent
    trouble: str | None


class Recorder:
    """The audit log as the paths see it: they know what they send, the Escalator knows for whom."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._sessions: dict[str, str | None] = {}

    async def record(self, payload: bytes, *, key: str, session: str | None = None, path: str, endpoint: str) -> int:
        """`AuditLog.record`, with the session that asks under this key."""
        known = session or self._sessions.get(key)
        return await self._audit.record(payload, key=key, session=known, path=path, endpoint=endpoint)

    def begin(self, key: str, session: str | None) -> None:
        self._sessions[key] = session

    def end(self, key: str) -> None:
        self._sessions.pop(key, None)


class Escalator:
    """See the module. The parts are opened and closed by who built them; `deliver` must run for anything deferred to be
    sent. ``consent`` False: nothing ever leaves (the policy local-only)."""

    def __init__(
        self,
        config: Escalation,
        *,
        paths: Sequence[Path],
        outbox: Outbox,
        budget: Budget,
        recorder: Recorder,
        cache: Cache | None = None,
        consent: bool = True,
    ) -> None:
        self._config = config
        self._paths = tuple(paths)
        self._outbox = outbox
        self._budget = budget
        self._recorder = recorder
        self._cache = cache
        self._consent = consent and config.enabled
        self._finder = finder(config)
        self._busy: set[str] = set()
        self._abandoned: list[str] = []
        self._learnt: list[tuple[Inquiry, CloudReply]] = []
        self._trouble: str | None = None
        self.outbox_seen: OutboxStatus | None = None
        """The outbox as `deliver` saw it last, for metrics; at most some seconds old while it runs."""

    def allowed(self) -> str | None:
        """None where the cloud may be asked, else ``escalation_disabled``, ``no_path`` or ``budget_exhausted``."""
        if not self._consent:
            return "escalation_disabled"
        if not self._paths:
            return "no_path"
        return "budget_exhausted" if self._budget.exhausted() else None

    def online(self) -> bool:
        return any(path.online() for path in self._paths)

    async def status(self) -> EscalationStatus:
        outbox = await self._outbox.status()
        return EscalationStatus(self.allowed(), self.online(), outbox, self._budget.spent(), self._trouble)

    async def ask(self, inquiry: Inquiry) -> AsyncGenerator[CloudDelta | CloudReply | Deferred, None]:
        """Pieces as they come, then one CloudReply, or Deferred: the question is on the disk and will be answered under
        its event id. Texts are restored: they hold what the visitor wrote, not the placeholders.

        Raises PrivacyFailed, BudgetExhausted, StorageFull, StorageFailed: nothing has left, nothing waits.
        CloudRefused: the question is in a person's queue now. An asker that goes away before the end takes it back.
        """
        request, restoration, personal = await self._build(inquiry)
        event_id, restore = inquiry.event_id, restoration.dump()
        if self._cache is not None and not personal and (kept := await self._cache.find(inquiry, request.key)):
            yield kept
            return
        wait_s = self._config.total_s if inquiry.wait_s is None else min(inquiry.wait_s, self._config.total_s)
        if wait_s <= 0 or not self.online():
            reason = "deadline" if self.online() else "offline"
            await self._outbox.put(inquiry, request, restore, personal=personal, reason=reason)
            self._outbox.stir()
            yield Deferred(event_id, reason)
            return
        hold = await self._budget.reserve(*self._estimate(request))
        self._busy.add(event_id)
        stored = False
        try:
            await self._outbox.put(inquiry, request, restore, personal=personal)
            stored = True
            async with aclosing(self._answer(request, restoration, inquiry.session, wait_s)) as events:
                async for event in events:
                    if isinstance(event, CloudReply):
                        await self._keep(hold, event_id, event)
                        if not personal and not event.cut:
                            self._learnt.append((inquiry, event))
                    yield event
        except CloudUnavailable as error:
            await self._budget.release(hold, lost=error.lost)
            reason = "busy" if self.online() else "offline"
            await self._outbox.defer(event_id, error.retry_after_s or 1.0, reason)
            yield Deferred(event_id, reason)
        except CloudRefused as error:
            await self._outbox.refuse(event_id, "cloud_refused")
            await self._budget.release(hold, lost=error.lost)
            raise
        except (StorageFull, StorageFailed):
            self._abandoned.append(event_id)
            if not stored:  # else something may have left before the disk was full: it stays counted
                await self._budget.release(hold)
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._abandoned.append(event_id)  # no waiting here: the asker's task is being ended
            raise
        finally:
            self._busy.discard(event_id)
            self._outbox.stir()

    async def preview(self, inquiry: Inquiry) -> Outgoing | None:
        """What `ask` would send first, None where nothing would leave because a kept answer is given again. Nothing is
        sent, stored, recorded or counted. Raises PrivacyFailed."""
        request, _, personal = await self._build(inquiry)
        if self._cache is not None and not personal and await self._cache.holds(inquiry):
            return None
        path = next((path for path in self._paths if path.online()), self._paths[0])
        return path.preview(request)

    async def distrust(self, event_id: str) -> None:
        """A visitor says that this answer was wrong: it is given to nobody again."""
        if self._cache is not None:
            await self._cache.distrust(event_id)

    async def hand_over(self, inquiry: Inquiry, reason: str) -> None:
        """Put a question into a person's queue on this device; what they answer is under its event id. Works without
        consent: the words of a private question, and of one that holds personal data or may hold some, do not leave
        even to announce it. Raises StorageFull, StorageFailed."""
        try:
            personal = inquiry.privacy == "private" or reason == "privacy_failed"
            personal = personal or await asyncio.to_thread(self._is_personal, inquiry)
        except PrivacyFailed:
            personal = True
        await self._outbox.hand_over(inquiry, reason, personal=personal)

    async def consult(self, inquiry: Inquiry) -> CloudReply:
        """The cloud's answer now or not at all: for audits, nobody waits for it and it is never kept. Raises what `ask`
        raises, and CloudUnavailable."""
        request, restoration, _ = await self._build(inquiry)
        hold = await self._budget.reserve(*self._estimate(request))
        try:
            return await self._whole(request, restoration, inquiry.session, hold)
        except (CloudUnavailable, CloudRefused) as error:
            await self._budget.release(hold, lost=error.lost)
            raise

    # ------------------------------------------------------------ the daemon's task

    async def deliver(self) -> None:
        """Send what waits until it is answered; runs until it is cancelled."""
        was_online = False  # the first line that is found hastens what waited through a restart
        width, failures, rest_until = 1, 0, 0.0
        changed, looked_at = asyncio.Event(), 0.0
        while True:
            stale = changed.is_set() or time.monotonic() >= looked_at + _LOOK_S
            changed = self._outbox.next_change
            try:
                await self._tidy()
                if stale:
                    await self._outbox.expire()
                    self.outbox_seen, looked_at = await self._outbox.status(), time.monotonic()
                online = self.online()
                if online and not was_online:
                    await self._outbox.hasten()
                    width, failures, rest_until = 1, 0, 0.0
                was_online = online
                waits = self.outbox_seen is None or self.outbox_seen.waiting > 0
                if waits and online and time.monotonic() >= rest_until and self.allowed() is None:
                    sent = await self._deliver_some(width)
                    if sent == "failed":
                        width, failures, rest_until = 1, failures + 1, time.monotonic() + backoff(failures, 60.0)
                    elif sent == "answered":
                        width, failures = min(_WIDTH, 2 * width), 0
                        continue
            except (StorageFull, StorageFailed) as error:
                _log.warning("the outbox cannot be worked on: %s", error)
            await set_within(changed, _TICK_S if self._paths else _LOOK_S)

    async def _tidy(self) -> None:
        while self._abandoned:
            await self._outbox.withdraw(self._abandoned[-1])
            self._abandoned.pop()
        while self._learnt:
            inquiry, reply = self._learnt.pop(0)
            if self._cache is not None:
                await self._cache.keep(inquiry, reply)

    async def _deliver_some(self, width: int) -> str:
        """``nothing`` was due, all were ``answered`` (or refused), or some ``failed``."""
        # Whoever left while this looked is no longer busy and not yet withdrawn: nobody would read that answer.
        due = [row for row in await self._outbox.due(width, self._busy) if row.request.event_id not in self._abandoned]
        if not due:
            return "nothing"
        self._busy |= {row.request.event_id for row in due}
        try:
            async with asyncio.TaskGroup() as sending:
                tasks = [sending.create_task(self._resend(row), name="escalation:resend") for row in due]
        finally:
            self._busy -= {row.request.event_id for row in due}
        return "answered" if all(task.result() for task in tasks) else "failed"

    async def _resend(self, row: Waiting) -> bool:
        """Whether this row needs no more sending."""
        try:
            return await self._resend_stored(row)
        except NotFound:  # deleted meanwhile
            return True
        except (StorageFull, StorageFailed) as error:  # sent again when there is room: the row still waits
            _log.warning("an answer could not be stored: %s", error)
            return False

    async def _resend_stored(self, row: Waiting) -> bool:
        event_id = row.request.event_id
        try:
            hold = await self._budget.reserve(*self._estimate(row.request))
        except BudgetExhausted:
            await self._outbox.defer(event_id, _FULL_BUDGET_S, "budget_exhausted")
            return False
        try:
            restoration = Restoration.load(row.restore)
            reply = await self._whole(row.request, restoration, row.session, hold)
        except CloudUnavailable as error:
            await self._budget.release(hold, lost=error.lost)
            delay = max(error.retry_after_s or 0.0, backoff(row.attempts))
            await self._outbox.defer(event_id, delay, "busy" if self.online() else "offline")
            return False
        except CloudRefused as error:
            await self._outbox.refuse(event_id, error.code)
            await self._budget.release(hold, lost=error.lost)
            return True
        except PrivacyFailed as error:
            await self._outbox.refuse(event_id, error.code)
            await self._budget.release(hold)
            return True
        case = await self._outbox.get(event_id)
        if not await self._outbox.settle(event_id, reply.text, "cloud", reply.endpoint, cut=reply.cut):
            _log.info("a second answer to %s was dropped", event_id)
        elif not case.personal and not reply.cut and len(row.request.messages) == _WITHOUT_HISTORY:
            found = tuple(Quote("", "", "", text, 0.0) for text in case.passages)
            inquiry = Inquiry(event_id, case.question, row.session, found, (), case.language, case.collection)
            self._learnt.append((inquiry, reply))
        return True

    # ------------------------------------------------------------ sending

    async def _build(self, inquiry: Inquiry) -> tuple[CloudRequest, Restoration, bool]:
        """The request, what restores its answer, and whether the asker's own words hold personal data."""
        if not self._consent:
            raise PrivacyFailed(
                "escalation is not enabled, so nothing may leave this device", remedy="Set escalation.enabled = true."
            )
        expires_at = time.time() + 3600 * self._config.outbox_hours

        def work() -> tuple[CloudRequest, Restoration, bool]:
            return (
                *build(inquiry, self._config, self._finder, expires_at=expires_at),
                self._is_personal(inquiry),
            )

        return await asyncio.to_thread(work)

    def _is_personal(self, inquiry: Inquiry) -> bool:
        return any(self._finder.spans(text) for text in (inquiry.text, *(turn.content for turn in inquiry.history)))

    def _estimate(self, request: CloudRequest) -> tuple[int, float]:
        return estimate(request.messages, request.max_tokens, self._config.endpoints)

    async def _keep(self, hold: int, event_id: str, reply: CloudReply) -> None:
        """Settle what was answered while the asker waits; where that fails they are answered all the same."""
        try:
            await self._budget.settle(hold, reply.usage, reply.cost, lost=reply.lost)
            await self._outbox.settle(event_id, reply.text, "cloud", reply.endpoint, late=False, cut=reply.cut)
        except (StorageFull, StorageFailed) as error:
            _log.warning("an answer could not be stored: %s", error)
            self._abandoned.append(event_id)

    async def _whole(
        self, request: CloudRequest, restoration: Restoration, session: str | None, hold: int
    ) -> CloudReply:
        deadline_s = min(max(self._config.total_s, _PATIENCE_S), max(1.0, request.expires_at - time.time()))
        async with aclosing(self._answer(request, restoration, session, deadline_s)) as events:
            async for event in events:
                if isinstance(event, CloudReply):
                    await self._budget.settle(hold, event.usage, event.cost, lost=event.lost)
                    return event
        raise AssertionError("an answer ends with a reply")

    async def _answer(
        self, request: CloudRequest, restoration: Restoration, session: str | None, deadline_s: float
    ) -> AsyncGenerator[CloudDelta | CloudReply, None]:
        """Restored pieces, then the restored reply, by the first path that answers; once a piece was handed out no
        other path is tried, for its answer would not go on where this one broke off. Raises CloudUnavailable,
        CloudRefused."""
        ends, lost = time.monotonic() + deadline_s, 0
        problem: CloudUnavailable | CloudRefused = CloudUnavailable("no path to the cloud is online")
        self._recorder.begin(request.key, session)
        try:
            for path in self._paths:
                if not path.online():
                    continue
                pieces, shown = restoration.stream(), False
                try:
                    async with aclosing(path.ask(request, deadline_s=ends - time.monotonic())) as events:
                        async for event in _until(ends + _GRACE_S, events):
                            if isinstance(event, CloudReply):
                                self._trouble = None
                                yield replace(event, text=restoration.restore(event.text), lost=lost + event.lost)
                                return
                            if text := pieces.feed(event.text):
                                shown = True
                                yield CloudDelta(text)
                    problem = CloudUnavailable("the cloud's answer broke off")
                    problem.lost = 1
                except CloudUnavailable as error:
                    problem = error
                    self._trouble = str(error)
                except CloudRefused as error:
                    self._trouble = str(error)
                    error.lost += lost
                    raise
                lost = problem.lost = lost + problem.lost
                if shown or time.monotonic() >= ends:
                    break
            raise problem
        finally:
            self._recorder.end(request.key)


async def _until(
    ends: float, events: AsyncGenerator[CloudDelta | CloudReply, None]
) -> AsyncGenerator[CloudDelta | CloudReply, None]:
    """The events that come before ``ends`` (monotonic seconds). Raises CloudUnavailable at that moment."""
    while True:
        try:
            async with asyncio.timeout(ends - time.monotonic()):
                event = await anext(events)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            late = CloudUnavailable("the cloud did not answer in time")
            late.lost = 1  # nobody knows what the path had sent
            raise late from error
        yield event
