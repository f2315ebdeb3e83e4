"""Keeping the promise while the device runs: some local answers are judged, and a broken promise is revoked (L2).

    saw (every answer) -> drift of the confidences
                       -> a share of what was served locally waits in labels.db
                       -> what the cloud answered, now or later, says whether the device would have been right
    run (at idle)      -> the cloud is asked the same -> agreement -> label -> live risk -> revoked, once it is too high
    judged (feedback)  -> label, where the operator allows it

Which answers are audited depends on a seed that the device drew once and on the event id only, never on what is asked
or answered: else the labels would be about other answers than those that the promise is about. More than a day's
budget is never waiting; what is left out then is drawn evenly, too. Nothing is audited that may not leave the device.
The question is erased with its audit, whatever comes of it, a day later at the latest.

Quotes and generated answers are audited. An intent's replies and actions are the operator's own words, which no cloud
can compare itself with: their live risk stands on visitors' judgements alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, cast

from pydantic import TypeAdapter

from agent.confidence.certificate import ANSWERING as ROUTES
from agent.confidence.certificate import Standing
from agent.confidence.live import Judge, LiveRisk, Sequence, Source
from agent.config import Promise, Risk, RouteName
from agent.drifting import Drifting
from agent.errors import (
    BudgetExhausted,
    CloudRefused,
    CloudUnavailable,
    NotFound,
    PrivacyFailed,
    StorageFailed,
    StorageFull,
)
from agent.escalation.cases import Case
from agent.messages import CLOUD_CUT, Answer, CloudReply, Evidence, Inquiry, Note
from agent.prompts import is_refusal
from agent.telemetry.drift import Drift
from agent.telemetry.journal import Event, Journal, Rating
from agent.telemetry.labels import Example, Labels, Waiting
from agent.telemetry.metrics import Metrics

AUDITED: Final = ("quote", "generated")
KEEP_S: Final = 24 * 3600.0
"""How long a question waits for its audit at most."""
_PAUSE_S: Final = 1.0
_QUIET_PAUSES: Final = 3
"""Pauses without a question after which the device counts as idle."""
_WINDOW_PAUSES: Final = 30
"""Pauses between two moments at which the confidences are written down: a kill loses that many seconds of them."""
_LATE_PAUSES: Final = 5
_AGAIN_S: Final = 300.0
_INQUIRY: Final = TypeAdapter(Inquiry)
_log = logging.getLogger("outpost.audits")

_Audited = Literal["quote", "generated"]
Outcome = Literal["alike", "different", "refused", "unavailable"]


class Cloud(Protocol):
    """Who is asked (agent/escalation/escalator.py)."""

    def allowed(self) -> str | None: ...

    def online(self) -> bool: ...

    async def consult(self, inquiry: Inquiry) -> CloudReply:
        """The answer now or not at all, kept nowhere. Raises CloudUnavailable, CloudRefused, PrivacyFailed,
        BudgetExhausted."""
        ...


class Later(Protocol):
    """Where answers that come later are found (agent/escalation/outbox.py)."""

    async def ended(self, event_ids: Collection[str]) -> list[str]:
        """Those that wait for the cloud no longer."""
        ...

    async def get(self, event_id: str) -> Case:
        """Raises NotFound."""
        ...


class Certificates(Protocol):
    """What is promised now (agent/confidence/certificate.py)."""

    def current(self, route: RouteName) -> Standing: ...

    def revoke(self, id: str, reason: str) -> None: ...

    def reinstate(self, id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Held:
    """An answer that the device had, served or not."""

    evidence: Evidence
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A question that has been answered. ``inquiry`` is what the cloud is asked or would be; ``barrier`` why it may not
    be asked this at all (routing.Circumstances.barrier)."""

    answer: Answer
    inquiry: Inquiry
    candidates: tuple[Held, ...]
    barrier: str | None


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """A route's promise as it is kept. ``certificate`` None: what is served uncertified is watched, and nothing can be
    revoked. ``revoked`` says why it was."""

    route: RouteName
    certificate: str | None
    epsilon: float
    delta: float
    risk: LiveRisk
    revoked: str | None
    drift: Drift | None


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """``barrier``: why no audits are made, None where they are."""

    routes: tuple[RouteStatus, ...]
    barrier: str | None
    waiting: int
    today: int
    per_day: int
    examples: int


class Audits:
    """See the module. `open` comes first, `run` is the daemon's task. ``agree`` compares the device's answer (first)
    with the cloud's; ``judges`` holds its errors and the cloud's. ``busy`` says whether anybody is being answered."""

    def __init__(
        self,
        risk: Risk,
        *,
        labels: Labels,
        certificates: Certificates,
        cloud: Cloud | None,
        agree: Callable[[str, str], bool],
        judges: Mapping[Source, Judge],
        journal: Journal,
        metrics: Metrics,
        busy: Callable[[], bool],
        later: Later | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._risk = risk
        self._labels = labels
        self._certificates = certificates
        self._cloud = cloud
        self._agree = agree
        self._judges = judges
        self._journal = journal
        self._metrics = metrics
        self._busy = busy
        self._later = later
        self._clock = clock
        self._states: dict[str, dict[str, Any]] = {}
        self._drifting = Drifting(labels, metrics, self._standing)
        self._counting = asyncio.Lock()

    async def open(self) -> None:
        """Take up what is on the disk. Raises StorageFailed, StorageFull."""
        self._states = await self._labels.sequences()
        await self._drifting.open()
        for state in self._states.values():
            self._show(state["route"], self._sequence(state).risk())
        if self._cloud is None or self._cloud.allowed() == "escalation_disabled":
            await self._labels.drop_before(float("inf"))  # consent was withdrawn

    # ------------------------------------------------------------ while answers are given

    async def saw(self, seen: Seen) -> None:
        """Take note of an answer. Raises StorageFull, StorageFailed: then it has no part in what is watched."""
        features: dict[str, Mapping[str, float]] = {
            held.evidence.route: held.evidence.features for held in seen.candidates
        }
        self._drifting.saw(features, searched=seen.answer.retrieval != "none")
        answer, event_id = seen.answer, seen.answer.event_id
        given_to_another = answer.cloud is not None and answer.cloud.similarity is not None
        if answer.answer_kind == "cloud" and answer.reason != CLOUD_CUT and not given_to_another:
            example = self._judged(self._unjudged(seen), answer.text)
            await self._labels.add_example(event_id, seen.inquiry.session, example)
        if answer.decision == "deferred":
            await self._labels.expect(event_id, seen.inquiry.session, self._unjudged(seen))
        if answer.decision not in ("local", "action") or answer.route not in ROUTES:
            return
        if self._risk.feedback_labels:
            await self._labels.remember_served(event_id, answer.route, answer.certificate)
        place = self._place(event_id)
        if place >= self._risk.audit_share or answer.route not in AUDITED or not self._may_leave(seen):
            return
        evidence = next(c.evidence for c in seen.candidates if c.evidence.route == answer.route)
        now = self._clock()
        waiting = Waiting(
            event_id=event_id,
            at=now,
            place=place,
            session=seen.inquiry.session,
            next_try=now,
            route=answer.route,
            certificate=answer.certificate,
            inquiry=_INQUIRY.dump_json(seen.inquiry).decode(),
            answer=answer.text,
            confidence=evidence.confidence,
            features=evidence.features,
        )
        await self._labels.put(waiting, self._risk.audits_per_day)

    async def judged(self, event_id: str, rating: Rating) -> bool:
        """Count a visitor's judgement as a label, the first of an answer that nobody else judges; whether it counted.
        Raises StorageFull, StorageFailed."""
        if not self._risk.feedback_labels:
            return False
        async with self._counting:
            found = await self._labels.to_judge(event_id)
            if found is not None:
                await self._count(event_id, *found, "visitor", rating == "wrong")
        return found is not None

    async def forget(self, session: str) -> int:
        """Erase what a session asked; how much that was."""
        return await self._labels.forget(session)

    def _place(self, event_id: str) -> float:
        """An even draw from 0..1, the same for the same seed and event."""
        drawn = hashlib.sha256(f"{self._labels.seed} {event_id}".encode()).digest()
        return int.from_bytes(drawn[:8], "big") / 2**64

    def _may_leave(self, seen: Seen) -> bool:
        return self._cloud is not None and seen.barrier in (None, "budget_exhausted")

    def _unjudged(self, seen: Seen) -> Example:
        """What the device would have said to a question that the cloud answers."""
        held = [c for c in seen.candidates if c.evidence.route in AUDITED]
        best = max(held, key=lambda c: c.evidence.confidence, default=Held(Evidence("none", {}, 0.0), ""))
        return _example(
            seen.inquiry,
            (best.text, best.evidence),
            "",
            right=False,
            source="escalation",
            share=1.0,
            at=self._clock(),
        )

    def _judged(self, example: Example, cloud: str) -> Example:
        """The cloud's answer judges what the device would have said."""
        right = bool(example.answer) and self._agree(example.answer, cloud)
        return replace(example, right=right, answers=_known(example.answer if right else cloud), cloud=cloud)

    async def learn_late(self) -> None:
        """Take the answers that came later for examples, as those that came at once. Raises StorageFull,
        StorageFailed."""
        expected = await self._labels.expected() if self._later is not None else {}
        if self._later is None or not expected:
            return
        for event_id in await self._later.ended(expected):
            session, example = expected[event_id]
            try:
                case = await self._later.get(event_id)
            except NotFound:  # forgotten, or the device was off for longer than answers are kept
                await self._labels.unexpect(event_id)
                continue
            whole = case.answer is not None and case.answer_kind == "cloud" and case.reason != CLOUD_CUT
            learnt = self._judged(example, case.answer or "") if whole else None
            await self._labels.unexpect(event_id, session, learnt)

    # ------------------------------------------------------------ audits

    async def run(self) -> None:
        """Audit at idle; runs until it is cancelled."""
        quiet = pauses = 0
        try:
            while True:
                await asyncio.sleep(_PAUSE_S)
                pauses += 1
                quiet = 0 if self._busy() else quiet + 1
                try:
                    if pauses % _WINDOW_PAUSES == 1:
                        await self.enforce()
                        await self._drifting.keep()
                    if pauses % _LATE_PAUSES == 0:
                        await self.learn_late()
                    if quiet >= _QUIET_PAUSES:
                        await self.audit()
                except (StorageFull, StorageFailed) as error:  # tried again in a moment; the daemon goes on
                    _log.warning("live risk: %s", error)
        finally:
            await self._drifting.keep()

    async def audit(self) -> Outcome | None:
        """Audit the next waiting answer; None where there is none, or nothing may be asked now. Raises StorageFull,
        StorageFailed."""
        await self._labels.drop_before(self._clock() - KEEP_S)
        if self._cloud is None or self._cloud.allowed() is not None or not self._cloud.online():
            return None
        waiting = await self._labels.due()
        if waiting is None:
            return None
        if waiting.certificate not in (None, self._current_id(cast(RouteName, waiting.route))):
            await self._labels.drop(waiting.event_id)  # its certificate is in force no more
            return None
        if not await self._labels.spend(self._today(), self._risk.audits_per_day):
            return None
        outcome = await self._ask(self._cloud, waiting)
        self._metrics.audits.labels(waiting.route, outcome).inc()
        return outcome

    async def _ask(self, cloud: Cloud, waiting: Waiting) -> Outcome:
        inquiry = _INQUIRY.validate_json(waiting.inquiry)
        try:
            reply = await cloud.consult(inquiry)
        except (CloudUnavailable, BudgetExhausted) as error:
            await self._labels.postpone(waiting.event_id, self._clock() + (error.retry_after_s or _AGAIN_S))
            return "unavailable"
        except (CloudRefused, PrivacyFailed):
            await self._labels.drop(waiting.event_id)
            return "refused"
        if reply.cut:  # what the rest would have said, nobody knows
            await self._labels.drop(waiting.event_id)
            return "refused"
        alike = self._agree(waiting.answer, reply.text)
        example = _example(
            inquiry,
            (waiting.answer, Evidence(cast(_Audited, waiting.route), waiting.features, waiting.confidence)),
            reply.text,
            right=alike,
            source="audit",
            share=self._risk.audit_share,
            at=self._clock(),
        )
        async with self._counting:
            await self._count(
                waiting.event_id, waiting.route, waiting.certificate, "cloud", not alike, example, waiting.session
            )
        return "alike" if alike else "different"

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self._clock()))

    # ------------------------------------------------------------ the promise

    async def _count(
        self,
        event_id: str,
        route: str,
        certificate: str | None,
        source: Source,
        wrong: bool,
        example: Example | None = None,
        session: str | None = None,
    ) -> None:
        """One label into its sequence. What is in memory is what is on the disk, also where that fails."""
        key = certificate or f"{route} uncertified"
        state = self._states.get(key) or self._fresh(cast(RouteName, route), certificate)
        sequence = self._sequence(state)
        sequence.add(source, wrong)
        state = {**state, "sequence": sequence.state()}
        await self._labels.settle(event_id, key, state, example=example, session=session)
        self._states[key] = state
        self._show(route, sequence.risk())
        if sequence.broken:
            await self.enforce()

    def _fresh(self, route: RouteName, certificate: str | None) -> dict[str, Any]:
        promise = self._risk.promise(route)
        held = self._standing(route).certificate
        if held is not None and held.id == certificate:
            promise = Promise(epsilon=held.epsilon, delta=held.delta)
        terms = {"epsilon": promise.epsilon, "delta": promise.delta}
        return {"route": route, "certificate": certificate, **terms, "sequence": {}}

    def _sequence(self, state: Mapping[str, Any]) -> Sequence:
        promise = Promise(epsilon=state["epsilon"], delta=state["delta"])
        return Sequence.restore(state["sequence"], promise, self._judges)

    async def enforce(self) -> None:
        """Revoke every certificate in force whose promise does not hold. The labels that say so are on the disk
        already, so that a crash before the revocation leads here again. Raises StorageFull, StorageFailed."""
        for route in ROUTES:
            id = self._current_id(route)
            state = self._states.get(id) if id is not None else None
            if state is None or id is None or not (sequence := self._sequence(state)).broken:
                continue
            reason = _reason(sequence.risk(), state["epsilon"])
            await asyncio.to_thread(self._certificates.revoke, id, reason)
            self._metrics.revoked.labels(route).inc()
            _log.warning("certificate %s is revoked: %s", id, reason)
            await self._journal.record(Event(f"evt-{uuid.uuid4().hex}", "revoked", "live_risk", route, 0.0, ""))

    async def reinstate(self, id: str) -> None:
        """Trust a revoked certificate again, with its live evidence begun anew. Raises NotFound where it is not
        revoked, StorageFull, StorageFailed."""
        async with self._counting:
            await asyncio.to_thread(self._certificates.reinstate, id)
            await self._labels.restart(id)
            self._states.pop(id, None)

    def _standing(self, route: RouteName) -> Standing:
        try:
            return self._certificates.current(route)
        except StorageFailed as error:  # what it depends on cannot be read, so nobody knows that it holds
            return Standing(None, "certificate_unreadable", str(error))

    def _current_id(self, route: RouteName) -> str | None:
        certificate = self._standing(route).certificate
        return certificate.id if certificate is not None else None

    def _show(self, route: str, risk: LiveRisk) -> None:
        self._metrics.live_risk["lower"].labels(route).set(risk.lower)
        self._metrics.live_risk["upper"].labels(route).set(risk.upper)
        self._metrics.live_risk["labels"].labels(route).set(sum(risk.labels.values()))
        if risk.estimate is not None:
            self._metrics.live_risk["estimate"].labels(route).set(risk.estimate)

    # ------------------------------------------------------------ what others read

    def notes(self) -> list[str]:
        """What an operator should know now."""
        notes: list[str] = []
        for route in ROUTES:
            standing = self._standing(route)
            if standing.reason == "certificate_revoked":
                text = f"the certificate of the route {route} is revoked: {standing.detail}"
                notes.append(Note(text, "revoked", route=route))
            elif standing.certificate is not None and self._drifting.of(standing.certificate).warning:
                text = f"the confidences of the route {route} have drifted from those it was calibrated on"
                notes.append(Note(text, "drifted", route=route))
        return notes

    async def status(self) -> AuditStatus:
        """Everything for status pages. Raises StorageFull, StorageFailed."""
        routes = [each for route in ROUTES for each in self._route_status(route)]
        return AuditStatus(
            routes=tuple(routes),
            barrier="escalation_disabled" if self._cloud is None else self._cloud.allowed(),
            waiting=await self._labels.waiting(),
            today=await self._labels.spent(self._today()),
            per_day=self._risk.audits_per_day,
            examples=await self._labels.count_examples(),
        )

    def _route_status(self, route: RouteName) -> list[RouteStatus]:
        """Of the certificate in force, or of one that was revoked; and of what is served uncertified."""
        standing = self._standing(route)
        held = standing.certificate
        watched = {held.id: self._states.get(held.id) or self._fresh(route, held.id)} if held else {}
        for key, state in self._states.items():
            gone = standing.reason == "certificate_revoked" and self._sequence(state).broken
            if state["route"] == route and (state["certificate"] is None or gone):
                watched[key] = state
        return [
            RouteStatus(
                route=route,
                certificate=state["certificate"],
                epsilon=state["epsilon"],
                delta=state["delta"],
                risk=self._sequence(state).risk(),
                revoked=standing.detail if held is None and state["certificate"] else None,
                drift=self._drifting.of(held) if held and state["certificate"] == held.id else None,
            )
            for state in watched.values()
        ]


def _reason(risk: LiveRisk, epsilon: float) -> str:
    counts = ", ".join(f"{risk.wrong[source]} of {count} by {source}" for source, count in risk.labels.items() if count)
    return f"at least {risk.lower:.1%} of its answers are wrong, and it promises {epsilon:.1%} (called wrong: {counts})"


def _example(
    inquiry: Inquiry,
    device: tuple[str, Evidence],
    cloud: str,
    *,
    right: bool,
    source: Literal["audit", "escalation"],
    share: float,
    at: float,
) -> Example:
    answer, evidence = device
    return Example(
        question=inquiry.text,
        answers=_known(answer if right else cloud),
        collection=inquiry.collection,
        language=inquiry.language,
        route=evidence.route,
        answer=answer,
        right=right,
        source=source,
        confidence=evidence.confidence,
        features=evidence.features,
        share=share,
        at=at,
        cloud=cloud,
    )


def _known(answer: str) -> tuple[str, ...]:
    """Acceptable answers, where this is the best that is known."""
    return () if is_refusal(answer) else (answer,)
