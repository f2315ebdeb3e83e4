"""Choosing what to quote (pure): from the sentences that search found to the best one to three, verbatim.

Every sentence gets a score, a weighted sum of the features in `FEATURES`. The scores become shares of one probability
(softmax), and a quote is the run of up to three neighbouring sentences of one chunk that gathers the most of it: a
second sentence is taken in only for what it adds. The weights are data (quote_model.json), made by
models/reference/natural-dev/fit.py; nothing here knows a venue.

Features of a sentence, all in about -1..1:

    plain, headed      cosine of question and sentence, alone and with its heading; 0 without embeddings
    neighbour          the better plain cosine of the sentences before and after it in its chunk
    following          cosine with the sentence and the one after it together
    keyword            share of the question's content words that it holds, weighted by rarity (evidence, not ranked by)
    context            the same with its heading and the sentence before it
    heading            the same for the heading alone
    foreign            words of its headings that the question does not name, in tenths, at most 1: under "The café >
                       Hours" it speaks of the café, not of the venue
    soft               the same as keyword where a word also counts as held when its embedding is near the sentence
    lead               the same for the sentence's first words, or a row's first cell: what it is about
    precision          share of its own content words that the question names
    kind               share of the kinds of answer asked for that it holds (asked.py)
    yesno              1 where a yes or no is asked and it permits, forbids, offers or denies
    day, month         1 where it covers a weekday or month that the question names, -1 where it names only others
    moment             1 where it names a time of day that the question names
    opens_list         1 for a mere lead-in

Evidence about a quote (`Quote.signals`), for confidence only:

    share              the quote's share of all sentences' probability
    raw                its best sentence's score before the softmax, in tenths
    headed, following  the best of the cosines among its sentences
    covered            share of the question's content words found in the quote or its heading, weighted by rarity
    soft_covered       the same with words that are merely near
    weakest            how near the question's least supported word is (1 where the question has no content word)
    absent             weight of the question's words that no sentence found holds, nor a synonym
    kind, no_kind      kinds asked for that the quote holds; 1 where a kind is asked for and none is held
    yesno              as above
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
from numpy.typing import NDArray

from agent.knowledge import asked, words
from agent.knowledge.chunks import StoredSentence, with_heading
from agent.messages import Quote

Vector = NDArray[np.float32]
Matrix = NDArray[np.float64]

FEATURES = (
    "plain headed neighbour following keyword context heading foreign soft lead precision "
    "kind yesno day month moment opens_list"
).split()
MAX_SENTENCES = 3
MAX_QUOTES = 5
JUDGED = 6
"""Sentences that a ranking model reads: the right one is among the best three nearly always, each costs some 6 ms."""
_JUDGED_WEIGHT = 1.4
"""What the ranking model's logit counts in a score: it was trained to be added to 0.7 of the score."""
_MOST_LEAD = 10.0
_LEAD_WORDS = 4
_SOFT_FROM, _SOFT_SPAN = 0.15, 0.4
"""A word's cosine with a sentence counts from the first and is full at the sum of both."""
_MOST_FOREIGN = 10
_MODEL = Path(__file__).with_name("quote_model.json")


@dataclass(frozen=True, slots=True)
class QuoteModel:
    """Weights by feature, with embeddings and without; ``cost`` is what a further sentence must add in probability."""

    weights: Mapping[str, float]
    keyword_weights: Mapping[str, float]
    cost: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, read once."""

    words: tuple[str, ...]
    stems: tuple[str, ...]
    kinds: frozenset[str]
    yesno: bool
    conditions: asked.Conditions
    now: bool
    exists: bool
    identity: bool


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


def understand(question: str) -> Asked:
    found = words.content_words(question)
    kinds = asked.kinds_asked(question)
    return Asked(
        found,
        tuple(words.stem(word) for word in found),
        kinds - {"yesno"},
        "yesno" in kinds,
        asked.conditions(question, question=True),
        asked.asks_about_now(question),
        asked.asks_whether_there_is(question),
        asked.asks_who_it_is(question),
    )


# ---------------------------------------------------------------- features


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What is known about every sentence: ``values`` one row a sentence, columns as in FEATURES; ``matches`` and
    ``near`` how each question word is held (by the words; by the words or embeddings), ``rarity`` its weight."""

    values: Matrix
    matches: Matrix
    near: Matrix
    rarity: Matrix

    def column(self, name: str) -> Matrix:
        return self.values[:, FEATURES.index(name)]


def features(
    wanted: Asked, ordered: Sequence[StoredSentence], vector: Vector | None, word_vectors: Mapping[str, Vector]
) -> Table:
    """The features of sentences in document order."""
    values = np.zeros((len(ordered), len(FEATURES)))
    column = {name: values[:, index] for index, name in enumerate(FEATURES)}
    held = [_held(sentence.sentence.search) for sentence in ordered]
    own = _matches(wanted.stems, [sentence.stems for sentence in held])
    above = _matches(wanted.stems, [words.stems(sentence.heading) for sentence in ordered])
    before = np.zeros_like(own)
    for at in range(1, len(ordered)):
        if _same_chunk(ordered[at - 1], ordered[at]):
            before[at] = own[at - 1]
    both = np.maximum(own, above)
    rarity = _rarity(both)
    near = np.maximum(np.maximum(own, 0.8 * above), _near_words(wanted, ordered, word_vectors))
    plain = _cosines(vector, ordered, [sentence.vector for sentence in ordered])
    column["plain"][:] = plain
    column["headed"][:] = _cosines(vector, ordered, [sentence.heading_vector for sentence in ordered])
    column["following"][:] = _cosines(vector, ordered, [_pair_or_own(sentence) for sentence in ordered])
    column["neighbour"][:] = _neighbours(ordered, plain)
    column["keyword"][:] = own @ rarity
    column["heading"][:] = above @ rarity
    column["context"][:] = np.maximum(both, before) @ rarity
    column["lead"][:] = _matches(wanted.stems, [sentence.lead for sentence in held]) @ rarity
    column["soft"][:] = near @ rarity
    column["foreign"][:] = [_foreign(sentence.heading, wanted.stems) for sentence in ordered]
    for at, (sentence, known) in enumerate(zip(ordered, held, strict=True)):
        _describe(values[at], wanted, sentence, known)
    return Table(values, both, near, rarity)


def _pair_or_own(sentence: StoredSentence) -> Vector | None:
    return sentence.vector if sentence.pair_vector is None else sentence.pair_vector


@dataclass(frozen=True, slots=True)
class _Held:
    """A sentence, read once; collections are small and asked often, so readings are kept."""

    stems: frozenset[str]
    content: tuple[str, ...]
    lead: frozenset[str]
    kinds: frozenset[str]
    conditions: asked.Conditions


@lru_cache(maxsize=4096)
def _held(text: str) -> _Held:
    content = tuple(words.stem(word) for word in words.content_words(text))
    return _Held(
        words.stems(text),
        content,
        frozenset(content[:_LEAD_WORDS]),
        asked.kinds_held(text),
        asked.conditions(text),
    )


def _describe(row: NDArray[np.float64], wanted: Asked, stored: StoredSentence, held: _Held) -> None:
    """The features of one sentence that need no other."""
    set_ = {name: index for index, name in enumerate(FEATURES)}
    if wanted.kinds:
        row[set_["kind"]] = asked.share(wanted.kinds, held.kinds)
    row[set_["yesno"]] = float(wanted.yesno and "yesno" in held.kinds)
    above = _heading_conditions(stored.heading)
    always = held.conditions.every_day or above.every_day
    row[set_["day"]] = _covers(wanted.conditions.days, held.conditions.days or above.days, always)
    row[set_["month"]] = _covers(wanted.conditions.months, held.conditions.months or above.months, False)
    row[set_["moment"]] = float(not wanted.conditions.moments.isdisjoint(held.conditions.moments))
    if held.content:
        hits = sum(words.match(word, wanted.stems) for word in held.content)
        row[set_["precision"]] = hits / (len(held.content) + 2)
    row[set_["opens_list"]] = float(stored.sentence.search.endswith(":"))


@lru_cache(maxsize=1024)
def _heading_conditions(heading: str) -> asked.Conditions:
    """A heading's days and months hold for every sentence below it that names none itself."""
    return asked.conditions(heading)


def _foreign(heading: str, named: Sequence[str]) -> float:
    strange = sum(words.match(word, named) == 0 for word in _heading_words(heading))
    return min(strange, _MOST_FOREIGN) / _MOST_FOREIGN


@lru_cache(maxsize=1024)
def _heading_words(heading: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words.stem(word) for word in words.content_words(heading)))


def _covers(wanted: frozenset[int], held: frozenset[int], always: bool) -> float:
    if not wanted or not (held or always):
        return 0.0
    return 1.0 if always or wanted & held else -1.0


def _cosines(vector: Vector | None, ordered: Sequence[StoredSentence], vectors: Sequence[Vector | None]) -> Matrix:
    if vector is None:
        return np.zeros(len(ordered))
    zero = np.zeros_like(vector)
    cosines: Matrix = (np.stack([zero if v is None else v for v in vectors]) @ vector).astype(np.float64)
    return cosines


def _neighbours(ordered: Sequence[StoredSentence], plain: Matrix) -> Matrix:
    best = np.zeros(len(ordered))
    for at in range(1, len(ordered)):
        if _same_chunk(ordered[at - 1], ordered[at]):
            best[at] = max(best[at], plain[at - 1])
            best[at - 1] = max(best[at - 1], plain[at])
    return best


def _matches(stems: Sequence[str], among: Sequence[frozenset[str]]) -> Matrix:
    """`words.match` of every stem with every set: each distinct word is compared once, not once a sentence."""
    table = np.zeros((len(among), len(stems)))
    vocabulary = frozenset[str]().union(*among)
    for column, stem in enumerate(stems):
        alike = {other: value for other in vocabulary if (value := words.likeness(stem, other))}
        if alike:
            for row, held in enumerate(among):
                table[row, column] = max((alike[word] for word in alike.keys() & held), default=0.0)
    return table


def _rarity(matches: Matrix) -> Matrix:
    """The weight of each question word, all together 1: rare among these sentences is telling."""
    total, columns = matches.shape
    if not columns:
        return np.zeros(0)
    having = (matches > 0).sum(axis=0)
    weight: Matrix = np.log(1.0 + (total - having + 0.5) / (having + 0.5))
    normalised: Matrix = weight / weight.sum()
    return normalised


def _near_words(wanted: Asked, ordered: Sequence[StoredSentence], word_vectors: Mapping[str, Vector]) -> Matrix:
    table = np.zeros((len(ordered), len(wanted.words)))
    for column, word in enumerate(wanted.words):
        if word in word_vectors:
            plain = _cosines(word_vectors[word], ordered, [sentence.vector for sentence in ordered])
            headed = _cosines(word_vectors[word], ordered, [sentence.heading_vector for sentence in ordered])
            table[:, column] = np.clip((np.maximum(plain, headed) - _SOFT_FROM) / _SOFT_SPAN, 0.0, 0.9)
    return table


def _same_chunk(left: StoredSentence, right: StoredSentence) -> bool:
    return left.chunk == right.chunk and left.document == right.document


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
            if not _same_chunk(ordered[first], ordered[last]):
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
