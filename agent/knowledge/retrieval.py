"""From a question to a `Retrieval`: passages for the language model, quotes for the person.

    retrieval = await Retriever(knowledge, embedder).retrieve("When do you open?", "default")

Search gives the best chunks, `agent.knowledge.quotes` chooses among their sentences. The question's words are embedded
one by one beside the question: a sentence about a "dryer" holds something near "tumble drier" though not the words.
Without embeddings the keywords are looked for with their synonyms. A ranking model, where there is one, judges the
best of those sentences; where it cannot be had, the quotes are chosen without it and carry no ``judged`` signal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from agent.errors import BadModel, Unavailable, UnknownModel
from agent.knowledge import words
from agent.knowledge.chunks import StoredSentence
from agent.messages import Passage, Quote, Retrieval

if TYPE_CHECKING:
    from agent.knowledge.knowledge import Embedder, Knowledge
    from agent.knowledge.quotes import Weighed
    from agent.knowledge.vectors import Floats

PASSAGES = 16
"""Chunks whose sentences are read: of a small venue's pages almost all, and few enough to weigh in milliseconds."""
WEIGHTS = Path(__file__).with_name("quote_model.json")
"""What quotes are chosen by (agent/knowledge/quotes.py reads it)."""
_EMBED_S = 5.0
_RANK_S = 5.0


class Ranker(Protocol):
    """A ranking model: how well each text answers the question, one number a text."""

    async def rank(self, question: str, texts: Sequence[str], *, deadline_s: float) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What search gave for a question: the material of its quotes. ``vector`` is None where nothing embeds."""

    passages: tuple[Passage, ...]
    sentences: tuple[StoredSentence, ...]
    vector: Floats | None = None
    word_vectors: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def mode(self) -> Literal["hybrid", "keyword"]:
        return "keyword" if self.vector is None else "hybrid"


_UNHEARD = "quotes chosen without the ranking model: it fails just now, or is too slow"


class Retriever:
    """Search and quotes in one; without an embedding model it goes by keywords, which ``Retrieval.mode`` says."""

    def __init__(self, knowledge: Knowledge, embedder: Embedder | None, ranker: Ranker | None = None) -> None:
        self._knowledge = knowledge
        self._embedder = embedder
        self._ranker = ranker

    async def retrieve(self, question: str, collection: str) -> Retrieval:
        """Raises NotFound for an unknown collection, and what `Knowledge.search` raises."""
        found = await self.gather(question, collection)
        chosen = await self.choose(question, found)
        unheard = self._ranker is not None and found.mode == "hybrid" and chosen and "judged" not in chosen[0].signals
        return Retrieval(found.passages, chosen, found.mode, (_UNHEARD,) if unheard else ())

    async def choose(self, question: str, found: Gathered) -> tuple[Quote, ...]:
        """The quotes from what `gather` gave."""
        if not found.sentences:
            return ()
        weighed = await asyncio.to_thread(_weigh, question, found)
        return await asyncio.to_thread(_chosen, weighed, await self._judge(question, weighed))

    async def _judge(self, question: str, weighed: Weighed) -> Sequence[float] | None:
        """None without a ranking model, where it fails just now, and where there are no embeddings: how confident a
        quote by keywords may be has not been measured with it."""
        if self._ranker is None or not weighed.embedded:
            return None
        try:
            return await self._ranker.rank(words.correct(question), weighed.texts, deadline_s=_RANK_S)
        except (Unavailable, BadModel, UnknownModel):
            return None

    async def gather(self, question: str, collection: str) -> Gathered:
        """Search, the sentences of what it found, and the vectors to weigh them by. Raises as `retrieve`."""
        found = await self._knowledge.search(collection, words.correct(question), PASSAGES)
        if found.mode == "keyword":
            found = await self._knowledge.search(collection, words.expanded(question), PASSAGES)
        sentences = await self._knowledge.sentences(collection, found.passages)
        vector, word_vectors = await self._embed(question) if found.mode == "hybrid" else (None, {})
        return Gathered(found.passages, sentences, vector, word_vectors)

    async def _embed(self, question: str) -> tuple[Floats | None, Mapping[str, Floats]]:
        """Vectors of the question and of its words; nothing where the model fails just now."""
        if self._embedder is None:
            return None, {}
        probes = await asyncio.to_thread(_probe_words, question)
        try:
            vectors = await self._embedder.embed([words.correct(question), *probes], deadline_s=_EMBED_S)
        except (Unavailable, BadModel, UnknownModel):
            return None, {}
        return vectors[0], dict(zip(probes, vectors[1:], strict=True))


# quotes brings numpy with it, which the control process does without until the first question.


def _weigh(question: str, found: Gathered) -> Weighed:
    from agent.knowledge import quotes

    return quotes.weigh(question, found.sentences, found.vector, found.word_vectors)


def _chosen(weighed: Weighed, judged: Sequence[float] | None) -> tuple[Quote, ...]:
    from agent.knowledge import quotes

    return quotes.chosen(weighed, judged)


def _probe_words(question: str) -> tuple[str, ...]:
    from agent.knowledge import quotes

    return quotes.probe_words(question)
