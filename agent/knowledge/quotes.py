"""Choosing what to quote (pure): from the sentences that search found to the best one to three, verbatim.

Every sentence gets a score, a weighted sum of its features (features.py). The scores become shares of one probability
(softmax), and a quote is the run of up to three neighbouring sentences of one chunk that gathers the most of it: a
second sentence is taken in only for what it adds. The weights are data (quote_model.json), made by
models/reference/natural-dev/fit.py; nothing here knows a venue.

Evidence about a quote (`Quote.signals`), for confidence only:

    share              the quote's share of all sentences' probability
    raw                its best sentence's score before the softmax, in tenths
    headed, following  the best of the cosines among its sentences
    covered            share of the question's content words found in the quote or its heading, weighted by rarity
    soft_covered       the same with words that are merely near
    weakest            how near the question's least supported word is (1 where the question has no content word)
    absent             weight of the question's words that no sentence found holds, nor a synonym
    kind, no_kind      kinds asked for that the quote holds; 1 where a kind is asked for and none is held
    yesno              the best of its sentences'
    condition_met, condition_missed   a named day or month is covered; is not covered
    sentences          how many there are, in thirds
    now                1 where the question asks how things stand at this moment
    exists_absent, exists_uncovered   absent, and 1 - covered, where it asks whether there is something
    names_person       1 where it asks who somebody is
    kind_covered       kind times the best sentence's context
    judged             logit by the ranking model that the best sentence answers; only where one has judged
    judged_lead        how far that is above the best verdict on a sentence outside of the quote, at most 10

A ranking model (models/reference/ranker), where there is one, judges the best JUDGED sentences: `weigh`, then
`Weighed.texts` to the model, then `chosen` with what it says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from agent.knowledge import words
from agent.knowledge.chunks import StoredSentence, with_heading
from agent.knowledge.features import FEATURES, Asked, Matrix, Table, Vector, features, same_chunk, understand
from agent.messages import Quote

MAX_SENTENCES = 3
MAX_QUOTES = 5
JUDGED = 6
"""Sentences that a ranking model reads: the right one is among the best three nearly always, each costs some 6 ms."""
_JUDGED_WEIGHT = 1.4
"""What the ranking model's logit counts in a score: it was trained to be added to 0.7 of the score."""
_MOST_LEAD = 10.0
_MODEL = Path(__file__).with_name("quote_model.json")


@dataclass(frozen=True, slots=True)
class QuoteModel:
    """Weights by feature, with embeddings and without; ``cost`` is what a further sentence must add in probability."""

    weights: Mapping[str, float]
    keyword_weights: Mapping[str, float]
    cost: float


def probe_words(question: str) -> tuple[str, ...]:
    """The words whose embeddings `candidates` can use (``word_vectors``), at most eight."""
    return words.content_words(question)[:8]


def candidates(
    question: str,
    sentences: Sequence[StoredSentence],
    vector: Vector | None = None,
    word_vectors: Mapping[str, Vector] | None = None,
) -> tuple[Quote, ...]:
    """The best quotes, best first, none overlapping another.

    ``sentences`` in any order, best chunks' whole sentences; ``vector`` is the question's (None: keywords only).
    """
    return chosen(weigh(question, sentences, vector, word_vectors)) if sentences else ()


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """A question's sentences in document order with their features and scores."""

    wanted: Asked
    ordered: Sequence[StoredSentence]
    table: Table
    scores: Matrix
    embedded: bool
    cost: float

    @property
    def best(self) -> list[int]:
        """The sentences that a ranking model should judge."""
        return [int(at) for at in np.argsort(-self.scores, kind="stable")[:JUDGED]]

    @property
    def texts(self) -> list[str]:
        """`best` as the ranking model reads them."""
        return [with_heading(self.ordered[at].heading, self.ordered[at].sentence.search) for at in self.best]


def weigh(
    question: str,
    sentences: Sequence[StoredSentence],
    vector: Vector | None = None,
    word_vectors: Mapping[str, Vector] | None = None,
) -> Weighed:
    """The first half of `candidates`; there must be a sentence."""
    ordered = sorted(sentences, key=lambda s: (s.document, s.chunk, s.position))
    wanted = understand(question)
    table = features(wanted, ordered, vector, word_vectors or {})
    return scored(wanted, ordered, table, model(), embedded=vector is not None)


@lru_cache(maxsize=1)
def model() -> QuoteModel:
    """The committed model."""
    data = json.loads(_MODEL.read_text(encoding="utf-8"))
    return QuoteModel(dict(data["weights"]), dict(data["keyword_weights"]), float(data["cost"]))


# ---------------------------------------------------------------- choosing


def scored(
    wanted: Asked, ordered: Sequence[StoredSentence], table: Table, ranker: QuoteModel, *, embedded: bool
) -> Weighed:
    """Sentences in document order as a model scores them; `weigh` with the committed one."""
    weights = ranker.weights if embedded else ranker.keyword_weights
    scores = table.values @ np.array([weights.get(name, 0.0) for name in FEATURES])
    return Weighed(wanted, ordered, table, scores, embedded, ranker.cost)


def chosen(weighed: Weighed, judged: Sequence[float] | None = None) -> tuple[Quote, ...]:
    """The best quotes; ``judged``: what a ranking model said to `Weighed.texts`, one number a text."""
    scores = weighed.scores
    known: dict[int, float] = {}
    if judged is not None:
        known = dict(zip(weighed.best, judged, strict=True))
        said = np.full(len(scores), min(judged))  # a sentence that was not judged is no better than the worst
        said[list(known)] = list(known.values())
        scores = scores + _JUDGED_WEIGHT * said
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    ranked = sorted(runs(weighed.ordered, shares, weighed.cost), key=lambda run: -run[2])
    taken: list[tuple[int, int]] = []
    for first, last, _ in ranked:
        if len(taken) == MAX_QUOTES:
            break
        if all(last < begin or first > end for begin, end in taken):
            taken.append((first, last))
    return tuple(_quote(first, last, weighed, shares, known) for first, last in taken)


def runs(ordered: Sequence[StoredSentence], shares: Matrix, cost: float) -> list[tuple[int, int, float]]:
    """All runs of one to MAX_SENTENCES sentences within a chunk: first, last, worth."""
    found = []
    for first in range(len(ordered)):
        worth = 0.0
        for last in range(first, min(first + MAX_SENTENCES, len(ordered))):
            if not same_chunk(ordered[first], ordered[last]):
                break
            worth += float(shares[last]) - cost
            found.append((first, last, worth))
    return found


def _quote(first: int, last: int, weighed: Weighed, shares: Matrix, judged: Mapping[int, float]) -> Quote:
    ordered, table, embedded, wanted = weighed.ordered, weighed.table, weighed.embedded, weighed.wanted
    within = slice(first, last + 1)
    best = first + int(shares[within].argmax())
    source = ordered[best]
    kind = table.column("kind")[within].max()
    similarity = (table.column("plain") + table.column("headed")) / 2
    elsewhere = np.delete(similarity, np.s_[within])
    keyword = table.column("context") if not embedded else table.column("keyword")
    return Quote(
        document=source.document,
        title=source.title,
        heading=source.heading,
        text=_text(ordered[within]),
        score=float(shares[within].sum()),
        similarity=float(similarity[best]) if embedded else None,
        gap=float(similarity[best] - elsewhere.max()) if embedded and len(elsewhere) else 0.0,
        keyword=float(table.column("context")[within].max()),
        heading_match=float(table.column("heading")[best]),
        agreement=first <= int(keyword.argmax()) <= last
        and (not embedded or first <= int(similarity.argmax()) <= last),
        kind_match=bool(kind > 0) if wanted.kinds else None,
        signals=_signals(within, weighed, shares) | _verdict(within, best, judged),
    )


def _verdict(within: slice, best: int, judged: Mapping[int, float]) -> dict[str, float]:
    if not judged:
        return {}
    said = judged.get(best, min(judged.values()))
    others = [value for at, value in judged.items() if not within.start <= at < within.stop]
    return {"judged": said, "judged_lead": min(_MOST_LEAD, said - max(others)) if others else _MOST_LEAD}


def _signals(within: slice, weighed: Weighed, shares: Matrix) -> dict[str, float]:
    wanted, table, scores = weighed.wanted, weighed.table, weighed.scores
    matched, near = table.matches[within].max(axis=0), table.near[within].max(axis=0)
    kind = float(table.column("kind")[within].max())
    covered = float(matched @ table.rarity)
    absent = float(table.rarity[table.matches.max(axis=0) == 0].sum()) if len(near) else 0.0
    conditions = np.stack([table.column("day")[within], table.column("month")[within]])
    asked_for = [bool(wanted.conditions.days), bool(wanted.conditions.months)]
    met = [bool((row > 0).any()) for row in conditions]
    return {
        "share": float(shares[within].sum()),
        "raw": float(scores[within].max()) / 10,
        "headed": float(table.column("headed")[within].max()),
        "following": float(table.column("following")[within].max()),
        "covered": covered,
        "soft_covered": float(near @ table.rarity),
        "weakest": float(near.min()) if len(near) else 1.0,
        "absent": absent,
        "kind": kind,
        "no_kind": float(bool(wanted.kinds) and kind == 0),
        "yesno": float(table.column("yesno")[within].max()),
        "condition_met": float(any(met)),
        "condition_missed": float(any(named and not m for named, m in zip(asked_for, met, strict=True))),
        "sentences": (within.stop - within.start) / MAX_SENTENCES,
        "now": float(wanted.now),
        "exists_absent": absent * wanted.exists,
        "exists_uncovered": (1.0 - covered) * wanted.exists,
        "names_person": float(wanted.identity),
        "kind_covered": kind * float(table.column("context")[within].max()),
    }


def _text(run: Sequence[StoredSentence]) -> str:
    """The sentences verbatim; what leads several of them (a list's lead-in, a table's header) is given once."""
    parts: list[str] = []
    lead = ""
    for stored in run:
        sentence = stored.sentence
        if sentence.lead and sentence.lead not in (lead, parts[-1] if parts else ""):
            parts.append(sentence.lead)
        lead = sentence.lead
        joins = bool(parts) and sentence.kind == "sentence" and not parts[-1].endswith(("|", ":"))
        if joins and parts[-1].count("\n") == 0 and not parts[-1].startswith(("- ", "* ", "|")):
            parts[-1] += f" {sentence.text}"
        else:
            parts.append(sentence.text)
    return "\n".join(parts)
