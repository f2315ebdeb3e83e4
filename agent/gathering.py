"""What the device itself can say to a question: candidate answers with the evidence for each (L2).

    language -> intent (an action or a set reply) -> retrieval -> two answerers, quote and generate

Nothing is decided here, but what is not worth trying is left out (``doomed``). What the parts must be is declared here
as Protocols. A part that is missing or fails takes its route away and is named in ``Work.notes``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from agent import prompts
from agent.confidence import provisional, signals
from agent.config import Assistant as AssistantConfig
from agent.errors import OutpostError
from agent.knowledge.intents import Intent
from agent.knowledge.language import Language, supported
from agent.messages import (
    Action,
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
from agent.sessions import in_context

ANSWER_TOKENS = 96
KEYWORD_ONLY = "keyword search only: embeddings are missing"
"""The note of an answer that was searched for by keywords alone."""


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
class Candidate:
    """One answer that could be served, with the evidence for it."""

    evidence: Evidence
    text: str
    sources: tuple[Source, ...] = ()
    intent: Intent | None = None
    action: Action | None = None


@dataclass(slots=True)
class Work:
    """What is known so far of the question in hand. ``window`` are the earlier turns, ``leaving`` those of them that
    may leave the device; ``skipped``: why the SLM was not asked."""

    question: Question
    text: str
    window: tuple[ChatMessage, ...]
    leaving: tuple[ChatMessage, ...]
    started: float
    event_id: str
    collection: str
    language: str = "en"
    language_supported: bool = True
    intent: str | None = None
    person_requested: bool = False
    retrieval: Retrieval | None = None
    candidates: list[Candidate] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    skipped: str | None = None
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)


class Gatherer:
    """See the module. Every part but the retriever may be absent (None)."""

    def __init__(
        self,
        config: AssistantConfig,
        *,
        retriever: Retriever,
        text: TextModel | None,
        understanding: Understanding | None,
        deadline_s: float,
    ) -> None:
        self._config = config
        self._retriever = retriever
        self._text = text
        self._understanding = understanding
        self._deadline_s = deadline_s

    async def gather(
        self, work: Work, doomed: Callable[[Evidence], str | None] | None = None
    ) -> AsyncGenerator[Stage | Provisional, None]:
        """The candidates with their evidence, into ``work``. ``doomed`` says of a quote why the SLM need not be asked;
        None asks it always. Raises StorageFailed where nothing can be searched."""
        yield Stage("understanding")
        await self._understand(work)
        if not self._wants_documents(work):
            return
        yield Stage("searching")
        await self._search(work)
        if self._text is None or work.retrieval is None or not work.retrieval.quotes:
            return
        work.skipped = doomed(work.candidates[-1].evidence) if doomed is not None else None
        if work.skipped is None:
            yield Stage("reading")
            async with aclosing(self._generate(work, self._text)) as provisional_texts:
                async for provisional_text in provisional_texts:
                    yield provisional_text

    async def _understand(self, work: Work) -> None:
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
        work.timings["understand"] = since(started)

    def _take_intent(self, work: Work, result: IntentResult, intent: Intent) -> None:
        features = signals.intent(result)
        confidence = provisional.confidence("intent", features)
        if confidence < self._config.min_confidence:
            return
        work.intent = intent.name
        work.person_requested = intent.handoff
        action = Action(intent.action, dict(result.slots)) if intent.action else None
        work.candidates.append(
            Candidate(
                Evidence("intent", features, confidence), intent.reply(result.slots), intent=intent, action=action
            )
        )

    @staticmethod
    def _wants_documents(work: Work) -> bool:
        return work.language_supported and not work.candidates

    async def _search(self, work: Work) -> None:
        started = time.perf_counter()
        query = in_context(work.text, work.window)
        work.retrieval = await self._retriever.retrieve(query, work.collection)
        if work.retrieval.mode == "keyword":
            work.notes.append(KEYWORD_ONLY)
        work.notes.extend(work.retrieval.notes)
        if work.retrieval.quotes:
            features = signals.quote(query, work.retrieval)
            best = work.retrieval.quotes[0]
            evidence = Evidence("quote", features, provisional.confidence("quote", features))
            work.candidates.append(Candidate(evidence, best.text, (_source(best),)))
        work.timings["search"] = since(started)

    async def _generate(self, work: Work, model: TextModel) -> AsyncGenerator[Provisional, None]:
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
        work.timings["generate"] = since(started)

    @staticmethod
    def _weigh(work: Work, query: str, text: str, tokens: Sequence[TokenLogprob], quotes: Sequence[Quote]) -> None:
        assert work.retrieval is not None
        refused = prompts.is_refusal(text)
        features = signals.generated(query, text, tokens, work.retrieval, refused=refused)
        quote = next((c for c in work.candidates if c.evidence.route == "quote"), None)
        if quote is not None:
            agreed = {**quote.evidence.features, **signals.agreement(quote.text, text, refused=refused)}
            quote.evidence = Evidence("quote", agreed, provisional.confidence("quote", agreed))
        if not refused:
            evidence = Evidence("generated", features, provisional.confidence("generated", features))
            work.candidates.append(Candidate(evidence, text, tuple(_source(q) for q in quotes)))


def _source(quote: Quote) -> Source:
    return Source(quote.document, quote.title, quote.heading, quote.text, round(quote.score, 4))


def since(started: float) -> float:
    """Milliseconds since ``started`` (``time.perf_counter``)."""
    return 1000 * (time.perf_counter() - started)
