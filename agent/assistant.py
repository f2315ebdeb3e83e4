"""The assistant: from a question to a decided answer (L2).

    clean -> language -> intent (an action or a set reply) -> retrieval -> two answerers, quote and generate
          -> evidence with confidence -> routing.decide -> Answer, remembered in session and journal

`Assistant.stream` yields stages while it works and one Answer at the end; `Assistant.answer` is that Answer alone. What
the parts must be is declared here as Protocols; the daemon hands them in. A part that is missing or fails takes its
route away and is named in ``Answer.notes``, it never takes the answer away: quotes need no SLM, keyword search needs no
embedding.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent import prompts
from agent.confidence import provisional, routing, signals
from agent.config import Assistant as AssistantConfig
from agent.errors import OutpostError, StorageFailed, StorageFull
from agent.intake import bounded, clean
from agent.knowledge.intents import Intent
from agent.knowledge.language import Language, supported
from agent.messages import (
    Action,
    Answer,
    AnswerEvent,
    ChatMessage,
    Evidence,
    GenerationEnd,
    GenerationRequest,
    IntentResult,
    Provisional,
    Question,
    Quote,
    Retrieval,
    Sampling,
    Source,
    Stage,
    TextDelta,
    TokenLogprob,
    Usage,
)
from agent.sessions import Sessions, in_context
from agent.telemetry.journal import Event, Journal
from agent.telemetry.metrics import Metrics

ANSWER_TOKENS = 96


class TextModel(Protocol):
    """The SLM of the assistant."""

    @property
    def model(self) -> str: ...

    def generate(
        self, request: GenerationRequest, *, deadline_s: float
    ) -> AsyncGenerator[TextDelta | GenerationEnd, None]: ...

    async def forget(self) -> None: ...


class Retriever(Protocol):
    """Search in a collection; says by ``Retrieval.mode`` whether embeddings took part."""

    async def retrieve(self, question: str, collection: str) -> Retrieval: ...


class Understanding(Protocol):
    """Language and intent of an utterance; no intent where no pack is in use."""

    async def identify(self, text: str) -> Language: ...

    async def classify(self, text: str) -> tuple[IntentResult, Intent] | None: ...


@dataclass(slots=True)
class _Candidate:
    """One answer that could be served, with the evidence for it."""

    evidence: Evidence
    text: str
    sources: tuple[Source, ...] = ()
    intent: Intent | None = None
    action: Action | None = None


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


@dataclass(slots=True)
class _Work:
    """What is known so far of the question in hand."""

    question: Question
    text: str
    window: tuple[ChatMessage, ...]
    started: float
    language: str = "en"
    language_supported: bool = True
    intent: str | None = None
    person_requested: bool = False
    retrieval: Retrieval | None = None
    candidates: list[_Candidate] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)


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
    ) -> None:
        self._config = config
        self._retriever = retriever
        self._text = text
        self._understanding = understanding
        self._journal = journal
        self._metrics = metrics
        self._deadline_s = deadline_s
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
        async with aclosing(self._gather(work)) as events:
            async for _ in events:
                pass
        answers = tuple(Examined(candidate.evidence, candidate.text) for candidate in work.candidates)
        return Examination(answers, tuple(work.notes))

    async def stream(self, question: Question) -> AsyncGenerator[AnswerEvent, None]:
        """Stages, provisional text where the question allows it, then exactly one Answer."""
        work = self._begun(question)
        async with aclosing(self._gather(work)) as events:
            async for event in events:
                yield event
        answer = self._decide(work)
        self.sessions.remember(question.session, work.text, answer.text)
        answer = await self._recorded(answer)
        self._observe(answer)
        yield answer

    def _begun(self, question: Question) -> _Work:
        text = clean(question.text, self._config.max_question_chars)
        window = question.history or self.sessions.window(question.session)
        turns = bounded(window, self._config.session_turns, self._config.max_question_chars)
        return _Work(question, text, turns, time.perf_counter())

    async def _gather(self, work: _Work) -> AsyncGenerator[Stage | Provisional, None]:
        """All candidates with their evidence, into ``work``."""
        yield Stage("understanding")
        await self._understand(work)
        if self._wants_documents(work):
            yield Stage("searching")
            await self._search(work)
            if self._text is not None and work.retrieval is not None and work.retrieval.quotes:
                yield Stage("reading")
                async with aclosing(self._generate(work, self._text)) as provisional_texts:
                    async for provisional_text in provisional_texts:
                        yield provisional_text

    # ------------------------------------------------------------ understanding

    async def _understand(self, work: _Work) -> None:
        started = time.perf_counter()
        if self._understanding is not None:
            try:
                guess = await self._understanding.identify(work.text)
                work.language_supported = supported(guess, self._config.languages)
                work.language = self._config.languages[0] if work.language_supported else guess.code
                if guess.code in self._config.languages:
                    work.language = guess.code
                if work.language_supported and (match := await self._understanding.classify(work.text)):
                    self._take_intent(work, *match)
            except OutpostError as error:
                work.notes.append(f"language and intents unavailable: {error.code}")
        work.timings["understand"] = _since(started)

    def _take_intent(self, work: _Work, result: IntentResult, intent: Intent) -> None:
        features = signals.intent(result)
        confidence = provisional.confidence("intent", features)
        if confidence < self._config.min_confidence:
            return
        work.intent = intent.name
        work.person_requested = intent.handoff
        action = Action(intent.action, dict(result.slots)) if intent.action else None
        work.candidates.append(
            _Candidate(
                Evidence("intent", features, confidence), intent.reply(result.slots), intent=intent, action=action
            )
        )

    @staticmethod
    def _wants_documents(work: _Work) -> bool:
        return work.language_supported and not work.candidates

    # ------------------------------------------------------------ the knowledge route

    async def _search(self, work: _Work) -> None:
        started = time.perf_counter()
        query = in_context(work.text, work.window)
        collection = work.question.collection or self._config.collection
        work.retrieval = await self._retriever.retrieve(query, collection)
        if work.retrieval.mode == "keyword":
            work.notes.append("keyword search only: embeddings are missing")
        if work.retrieval.quotes:
            features = signals.quote(query, work.retrieval)
            best = work.retrieval.quotes[0]
            evidence = Evidence("quote", features, provisional.confidence("quote", features))
            work.candidates.append(_Candidate(evidence, best.text, (_source(best),)))
        work.timings["search"] = _since(started)

    async def _generate(self, work: _Work, model: TextModel) -> AsyncGenerator[Provisional, None]:
        """Let the SLM answer from the best quotes; a refusal is evidence against the quote, never an answer."""
        assert work.retrieval is not None
        started = time.perf_counter()
        quotes = work.retrieval.quotes[: prompts.PASSAGES]
        query = in_context(work.text, work.window)
        sampling = replace(work.question.sampling or Sampling(max_tokens=ANSWER_TOKENS), logprobs=2)
        request = GenerationRequest(sampling, prompts.grounded(query, quotes, work.window))
        pieces: list[str] = []
        tokens: list[TokenLogprob] = []
        try:
            async with aclosing(model.generate(request, deadline_s=self._deadline_s)) as events:
                async for event in events:
                    if isinstance(event, GenerationEnd):
                        work.usage = event.usage
                        continue
                    pieces.append(event.text)
                    tokens.extend(event.logprobs)
                    if work.question.stream_provisional and event.text:
                        yield Provisional(event.text)
        except OutpostError as error:
            work.notes.append(f"no generated answer: {error.code}")
        else:
            work.model = model.model
            self._weigh(work, query, "".join(pieces).strip(), tokens, quotes)
        work.timings["generate"] = _since(started)

    @staticmethod
    def _weigh(work: _Work, query: str, text: str, tokens: Sequence[TokenLogprob], quotes: Sequence[Quote]) -> None:
        assert work.retrieval is not None
        refused = prompts.is_refusal(text)
        features = signals.generated(query, text, tokens, work.retrieval, refused=refused)
        quote = next((c for c in work.candidates if c.evidence.route == "quote"), None)
        if quote is not None:
            agreed = {**quote.evidence.features, **signals.agreement(quote.text, text, refused=refused)}
            quote.evidence = Evidence("quote", agreed, provisional.confidence("quote", agreed))
        if not refused:
            evidence = Evidence("generated", features, provisional.confidence("generated", features))
            work.candidates.append(_Candidate(evidence, text, tuple(_source(q) for q in quotes)))

    # ------------------------------------------------------------ the decision

    def _decide(self, work: _Work) -> Answer:
        route = routing.decide(
            [candidate.evidence for candidate in work.candidates],
            routing.Circumstances(
                self._config.policy, self._config.min_confidence, work.language_supported, work.person_requested
            ),
        )
        best = max((candidate.evidence.confidence for candidate in work.candidates), default=0.0)
        work.timings["total"] = _since(work.started)
        answer = Answer(
            event_id=f"evt-{uuid.uuid4().hex}",
            text=self._config.handoff_text,
            decision=route.decision.kind,
            reason=route.decision.reason,
            confidence=round(best, 4),
            language=work.language,
            intent=work.intent,
            retrieval=work.retrieval.mode if work.retrieval else "none",
            notes=(*work.question.notes, *work.notes),
            model=work.model,
            usage=work.usage,
            timings_ms={name: round(value, 2) for name, value in work.timings.items()},
        )
        served = next((c for c in work.candidates if route.served is not None and c.evidence is route.served), None)
        if served is None:
            said = next((c.text for c in work.candidates if work.person_requested and c.text), answer.text)
            return replace(answer, text=said)
        kind = "action" if served.evidence.route == "intent" else served.evidence.route
        return replace(
            answer,
            text=served.text or "OK.",
            answer_kind=kind if kind in ("quote", "generated", "action") else None,
            route=served.evidence.route,
            confidence=round(served.evidence.confidence, 4),
            sources=served.sources,
            action=served.action,
        )

    async def _recorded(self, answer: Answer) -> Answer:
        """The answer, once it is in the journal; where that fails the visitor is answered all the same."""
        try:
            await self._journal.record(_event(answer))
        except (StorageFull, StorageFailed) as error:
            self._metrics.journal_failures.inc()
            return replace(answer, notes=(*answer.notes, f"not in the journal: {error.code}"))
        return answer

    def _observe(self, answer: Answer) -> None:
        self._metrics.answers.labels(answer.decision, answer.reason).inc()
        self._metrics.answer_seconds.observe(answer.timings_ms["total"] / 1000)
        for stage, milliseconds in answer.timings_ms.items():
            if stage != "total":
                self._metrics.stage_seconds.labels(stage).observe(milliseconds / 1000)


def _source(quote: Quote) -> Source:
    return Source(quote.document, quote.title, quote.heading, quote.text, round(quote.score, 4))


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


def _since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)
