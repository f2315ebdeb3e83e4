"""What a question and a sentence have in common, as numbers (pure): agent/knowledge/quotes.py ranks sentences by them.

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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agent.knowledge import asked, words
from agent.knowledge.chunks import StoredSentence

Vector = NDArray[np.float32]
Matrix = NDArray[np.float64]

FEATURES = (
    "plain headed neighbour following keyword context heading foreign soft lead precision "
    "kind yesno day month moment opens_list"
).split()
_LEAD_WORDS = 4
_SOFT_FROM, _SOFT_SPAN = 0.15, 0.4
"""A word's cosine with a sentence counts from the first and is full at the sum of both."""
_MOST_FOREIGN = 10


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
        if same_chunk(ordered[at - 1], ordered[at]):
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
        if same_chunk(ordered[at - 1], ordered[at]):
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


def same_chunk(left: StoredSentence, right: StoredSentence) -> bool:
    return left.chunk == right.chunk and left.document == right.document
