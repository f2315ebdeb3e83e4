"""The assistant: from a question to a decided answer (L2).

    clean -> language -> intent (an action or a set reply) -> retrieval -> two answerers, quote and generate
          -> evidence with confidence -> decision (agent/deciding.py): served locally | the cloud | later | a person
          -> Answer, remembered in session and journal

`Assistant.stream` yields stages while it works and one Answer at the end; `Assistant.answer` is that Answer alone;
`Assistant.explain` goes as far as the decision and no further. What the parts must be is declared as Protocols, here,
in agent/gathering.py (what the device itself can say) and in agent/deciding.py; the daemon hands them in. A part that
is missing or fails takes its route away and is named in ``Answer.notes``, it never takes the answer away: quotes need
no SLM, keyword search needs no embedding.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from agent import prompts, sayings
from agent.audits import Held, Seen
from agent.config import Assistant as AssistantConfig
from agent.config import Overrides
from agent.deciding import Certificates, Decider, Escalator, Facts, Outcome, Verdict, asked
from agent.errors import PrivacyFailed, StorageFailed, StorageFull
from agent.gathering import Candidate, Gatherer, Retriever, TextModel, Understanding, Work, since
from agent.intake import bounded, clean
from agent.messages import (
    Answer,
    AnswerEvent,
    Evidence,
    Inquiry,
    Outgoing,
    Piece,
    Question,
    Stage,
)
from agent.sessions import Sessions, in_context
from agent.telemetry.journal import Event, Journal
from agent.telemetry.metrics import Metrics


class People(Protocol):
    """Who takes over what neither the device nor the cloud answers."""

    async def hand_over(self, inquiry: Inquiry, reason: str) -> None:
        """Put a question into a person's queue; one that is there stays as it is. Raises StorageFull, StorageFailed."""
        ...


class Witness(Protocol):
    """Who keeps an eye on what is served (agent/audits.py)."""

    async def saw(self, seen: Seen) -> None:
        """Take note of an answer. Raises StorageFull, StorageFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Examined:
    """What a route would answer, and the evidence for it."""

    evidence: Evidence
    text: str


@dataclass(frozen=True, slots=True)
class Examination:
    """All routes' answers to one question; ``notes`` say what was missing while they were found."""

    answers: tuple[Examined, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a question would be answered: the Answer as far as the device alone can say it (not recorded anywhere; its
    text is empty where the cloud would be asked), the verdict, what every candidate of it says, ``skipped``: why the
    SLM was not asked, and ``outgoing``: what would leave the device, which holds what is not recognised as personal."""

    answer: Answer
    verdict: Verdict
    texts: tuple[str, ...]
    skipped: str | None
    outgoing: Outgoing | None


class Assistant:
    """Answers questions. Every part but the retriever may be absent (None)."""

    def __init__(
        self,
        config: AssistantConfig,
        *,
        retriever: Retriever,
        text: TextModel | None,
        understanding: Understanding | None,
        journal: Journal,
        metrics: Metrics,
        deadline_s: float,
        overrides: Overrides | None = None,
        certificates: Certificates | None = None,
        escalator: Escalator | None = None,
        people: People | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._config = config
        self._text = text
        self._gatherer = Gatherer(
            config, retriever=retriever, text=text, understanding=understanding, deadline_s=deadline_s
        )
        self._journal = journal
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._escalator = escalator
        self._people = people
        self._witness = witness
        self._decider = Decider(config, overrides or Overrides(), certificates, escalator)
        self._cache_is_stale = False
        self.sessions = Sessions(config.session_turns, config.session_idle_s)

    async def answer(self, question: Question) -> Answer:
        """The decided answer. Raises InvalidRequest, InputTooLarge; StorageFailed where nothing can be searched."""
        async with aclosing(self.stream(question)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return event
        raise AssertionError("a stream ends with an Answer")

    async def end_session(self, id: str) -> bool:
        """Forget a conversation, in the context and in the text engine's cache; whether there was one."""
        known = self.sessions.end(id)
        self._cache_is_stale = True
        await self._forget_cache()
        return known

    async def expire_sessions(self) -> int:
        """Forget the idle conversations as `end_session` does; how many there were. A cache that could not be dropped
        is tried again at the next call. Raises what the text engine raises."""
        expired = self.sessions.expire()
        self._cache_is_stale = self._cache_is_stale or bool(expired)
        await self._forget_cache()
        return len(expired)

    async def _forget_cache(self) -> None:
        if self._cache_is_stale and self._text is not None:
            await self._text.forget()
        self._cache_is_stale = False

    async def examine(self, question: Question) -> Examination:
        """What every route would answer, found as for a visitor; nothing is decided, remembered or recorded. For
        calibration, whose evidence must be that of the real pipeline. Raises as `answer`."""
        work = self._begun(question)
        async with aclosing(self._gatherer.gather(work)) as events:
            async for _ in events:
                pass
        answers = tuple(Examined(candidate.evidence, candidate.text) for candidate in work.candidates)
        return Examination(answers, tuple(work.notes))

    async def explain(self, question: Question) -> Explanation:
        """How this question would be answered now. Everything on the device is done as for a visitor, nothing outside
        of it, and nothing is remembered or recorded. Raises as `answer`."""
        work = self._begun(question)
        async with aclosing(self._gatherer.gather(work, lambda quote: self._doomed(work, quote))) as events:
            async for _ in events:
                pass
        verdict = self._decider.decide([c.evidence for c in work.candidates], self._facts(work))
        answer, outgoing = self._answer(work, verdict), None
        if answer.decision in ("escalated", "deferred") and self._escalator is not None:
            answer = replace(answer, text="")
            try:
                outgoing = await self._escalator.preview(self._inquiry(work, verdict, None))
                note = None if outgoing else "nothing would leave: an answer is kept for this question"
            except (PrivacyFailed, StorageFull, StorageFailed) as error:
                note = f"nothing would leave: {error.message} ({error.code})"
            answer = replace(answer, notes=(*answer.notes, *([note] if note else [])))
        return Explanation(answer, verdict, tuple(c.text for c in work.candidates), work.skipped, outgoing)

    async def stream(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Stages, provisional text where the question allows it, the cloud's words as they come, then exactly one
        Answer."""
        work = self._begun(question)
        async with aclosing(self._gatherer.gather(work, lambda quote: self._doomed(work, quote))) as gathering:
            async for event in gathering:
                yield event
        verdict = self._decider.decide([c.evidence for c in work.candidates], self._facts(work))
        answer = self._answer(work, verdict)
        if self._escalator is not None and answer.decision in ("escalated", "deferred"):
            yield Stage("asking")
            async with aclosing(self._ask_cloud(work, verdict, answer, self._escalator)) as asking:
                async for told in asking:
                    if isinstance(told, Answer):
                        answer = told
                    else:
                        yield told
        if answer.decision == "handoff":
            answer = await self._handed_over(work, verdict, answer)
        answer = replace(answer, timings_ms=_rounded({**work.timings, "total": since(work.started)}))
        self.sessions.remember(question.session, work.text, answer.text, confined=_confined(work, verdict, answer))
        answer = await self._recorded(answer)
        answer = await self._witnessed(work, verdict, answer)
        self._observe(answer)
        yield answer

    def _begun(self, question: Question) -> Work:
        text = clean(question.text, self._config.max_question_chars)
        session, turns, chars = question.session, self._config.session_turns, self._config.max_question_chars
        window = bounded(question.history or self.sessions.window(session), turns, chars)
        leaving = bounded(question.history or self.sessions.window(session, leaving=True), turns, chars)
        collection = question.collection or self._config.collection
        return Work(question, text, window, leaving, time.perf_counter(), f"evt-{uuid.uuid4().hex}", collection)

    def _doomed(self, work: Work, quote: Evidence) -> str | None:
        return self._decider.doomed(quote, self._facts(work))

    def _facts(self, work: Work) -> Facts:
        return Facts(
            collection=work.collection,
            intent=work.intent,
            language_supported=work.language_supported,
            person_requested=work.person_requested,
            privacy=work.question.privacy,
            ends=work.started + min(self._deadline_s, work.question.deadline_s or self._deadline_s),
        )

    # ------------------------------------------------------------ the decision

    def _answer(self, work: Work, verdict: Verdict) -> Answer:
        """What is said by the verdict; an interim answer where that is for the cloud or a person to know."""
        route = verdict.route
        best = max((candidate.confidence for candidate in verdict.candidates), default=0.0)
        answer = Answer(
            event_id=work.event_id,
            text=self._config.handoff_text or sayings.handoff(route.decision.reason, work.language),
            decision=route.decision.kind,
            reason=route.decision.reason,
            confidence=round(best, 4),
            language=work.language,
            intent=work.intent,
            retrieval=work.retrieval.mode if work.retrieval else "none",
            notes=(*work.question.notes, *work.notes),
            model=work.model,
            usage=work.usage,
            timings_ms=_rounded({**work.timings, "total": since(work.started)}),
        )
        for candidate, weighed in zip(work.candidates, verdict.candidates, strict=True):
            if weighed is route.served:
                return _served(answer, candidate, weighed, verdict.certificate)
        if route.barrier is not None and route.cause not in (None, route.decision.reason):
            answer = replace(answer, notes=(*answer.notes, f"not answered by the device: {route.cause}"))
        said = next((c.text for c in work.candidates if work.person_requested and c.text), answer.text)
        return replace(answer, text=said)

    async def _ask_cloud(
        self, work: Work, verdict: Verdict, answer: Answer, escalator: Escalator
    ) -> AsyncGenerator[Piece | Answer, None]:
        """The cloud's words as they come, then the answer as it is now."""
        started = time.perf_counter()
        wait_s = 0.0 if verdict.route.decision.kind == "deferred" else self._facts(work).left_s
        async with aclosing(asked(escalator, self._inquiry(work, verdict, wait_s), verdict.route)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    work.timings["escalate"] = since(started)
                    yield self._after(work, verdict, answer, event)
                else:
                    yield event

    def _after(self, work: Work, verdict: Verdict, answer: Answer, outcome: Outcome) -> Answer:
        """The answer with what came of asking the cloud. Where that was to come first only, and the question is with
        nobody now, the device answers after all."""
        if outcome.unasked and verdict.route.cause == "cloud_first":
            answer = self._answer(work, self._decider.without_cloud(verdict, outcome.decision.reason))
            return replace(answer, notes=(*answer.notes, *([outcome.note] if outcome.note else [])))
        notes = answer.notes if outcome.note is None else (*answer.notes, outcome.note)
        answer = replace(answer, decision=outcome.decision.kind, reason=outcome.decision.reason, notes=notes)
        if outcome.reply is not None:
            return replace(answer, text=outcome.reply.text, answer_kind="cloud", cloud=outcome.reply)
        if outcome.decision.kind == "deferred":
            return replace(answer, text=self._config.deferred_text.replace("{event_id}", answer.event_id))
        return answer

    async def _handed_over(self, work: Work, verdict: Verdict, answer: Answer) -> Answer:
        """The answer, once its question is in a person's queue; where that fails the visitor is told all the same whom
        to ask."""
        if self._people is None:
            return answer
        try:
            await self._people.hand_over(self._inquiry(work, verdict, None), answer.reason)
        except (StorageFull, StorageFailed) as error:
            return replace(answer, notes=(*answer.notes, f"not in the queue for a person: {error.code}"))
        return answer

    @staticmethod
    def _inquiry(work: Work, verdict: Verdict, wait_s: float | None) -> Inquiry:
        # What was found with the words of a turn that must stay would tell what it was about.
        may_leave = in_context(work.text, work.window) == in_context(work.text, work.leaving)
        return Inquiry(
            event_id=work.event_id,
            text=work.text,
            session=work.question.session,
            passages=work.retrieval.quotes[: prompts.PASSAGES] if work.retrieval and may_leave else (),
            history=work.leaving,
            language=work.language,
            collection=work.collection,
            wait_s=wait_s,
            privacy="private" if verdict.circumstances.confined else "shareable",
        )

    async def _recorded(self, answer: Answer) -> Answer:
        """The answer, once it is in the journal; where that fails the visitor is answered all the same."""
        try:
            await self._journal.record(_event(answer))
        except (StorageFull, StorageFailed) as error:
            self._metrics.journal_failures.inc()
            return replace(answer, notes=(*answer.notes, f"not in the journal: {error.code}"))
        return answer

    async def _witnessed(self, work: Work, verdict: Verdict, answer: Answer) -> Answer:
        """The answer, once those have seen it who watch over the promise."""
        if self._witness is None:
            return answer
        texts = [candidate.text for candidate in work.candidates]
        seen = Seen(
            answer=answer,
            inquiry=self._inquiry(work, verdict, None),
            candidates=tuple(Held(one, text) for one, text in zip(verdict.candidates, texts, strict=True)),
            barrier=verdict.circumstances.barrier,
        )
        try:
            await self._witness.saw(seen)
        except (StorageFull, StorageFailed) as error:
            self._metrics.journal_failures.inc()
            return replace(answer, notes=(*answer.notes, f"not among the answers that are watched: {error.code}"))
        return answer

    def _observe(self, answer: Answer) -> None:
        self._metrics.answers.labels(answer.decision, answer.reason).inc()
        self._metrics.answer_seconds.observe(answer.timings_ms["total"] / 1000)
        for stage, milliseconds in answer.timings_ms.items():
            if stage != "total":
                self._metrics.stage_seconds.labels(stage).observe(milliseconds / 1000)


def _served(answer: Answer, candidate: Candidate, evidence: Evidence, certificate: str | None) -> Answer:
    """The answer as this candidate gives it, with its evidence as it was weighed."""
    kind = "action" if evidence.route == "intent" else evidence.route
    return replace(
        answer,
        text=candidate.text or "OK.",
        answer_kind=kind if kind in ("quote", "generated", "action") else None,
        route=evidence.route,
        confidence=round(evidence.confidence, 4),
        sources=candidate.sources,
        action=candidate.action,
        certificate=certificate,
    )


def _confined(work: Work, verdict: Verdict, answer: Answer) -> bool:
    """Whether question and answer must not leave with a later question either: what the SLM said may repeat earlier
    turns that must not."""
    return verdict.circumstances.confined or (answer.answer_kind == "generated" and work.leaving != work.window)


def _rounded(timings: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in timings.items()}


def _event(answer: Answer) -> Event:
    return Event(
        id=answer.event_id,
        decision=answer.decision,
        reason=answer.reason,
        route=answer.route,
        confidence=answer.confidence,
        language=answer.language,
        answer_kind=answer.answer_kind,
        intent=answer.intent,
        timings_ms=answer.timings_ms,
    )
