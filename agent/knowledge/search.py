"""Hybrid search: the paragraphs of a collection that answer a query best.

Search asks three retrievers: the paragraphs' vectors, the vectors of neighbouring sentence pairs (a paragraph counts
with its best pair) and BM25; reciprocal rank fusion makes one list. Candidates come from an exact scan of the int8
vectors, from EXACT_VECTORS on from sqlite-vec's bit index; they are then scored again with their int8 vectors, and so
is what another retriever found, so that the ranks that are fused are exact among the candidates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import apsw

from agent.errors import BadModel
from agent.knowledge import bits, filters
from agent.knowledge.filters import Filter
from agent.knowledge.schema import rows
from agent.knowledge.vectors import Kind, query_codes, to_unit, unit_of
from agent.messages import Passage

if TYPE_CHECKING:
    from agent.knowledge.vectors import Codes, Floats

Mode = Literal["hybrid", "keyword"]

FUSION = 20
"""k of reciprocal rank fusion."""
DEPTH = 50
"""How many of each retriever's results take part in the fusion."""
EXACT_VECTORS = 20_000
"""Up to so many vectors of a kind in a collection all are compared; above, the bit index picks candidates."""
MAX_QUERY_WORDS = 64
_A_CHUNK = {Kind.PARAGRAPH: 1, Kind.PAIR: 4}
"""Vectors that a chunk has of a kind, about."""

STOP_WORDS = frozenset(
    "a about an and any are as at be been but by can could did do does for from had has have he her his how i if in "
    "into is it its me my of on or our she should so than that the their them then there these they this to was we "
    "were what when where which who whom whose why will with would you your".split()
)
"""Words that every paragraph holds: BM25 would read most of the index to find that they decide nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """Passages, best first, and what was searched."""

    passages: tuple[Passage, ...]
    mode: Mode


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of the index that a search may see."""

    collection: int
    where: str
    values: tuple[Any, ...]

    @classmethod
    def of(cls, collection: int, where: Filter) -> Scope:
        text, values = filters.sql(where)
        return cls(collection, text, tuple(values))

    def sql(self, column: str) -> str:
        """``AND`` with a condition on the chunk ids in ``column``; binds ``values``."""
        if not self.where:
            return ""
        return (
            f" AND {column} IN (SELECT k.id FROM chunks k JOIN documents d ON d.id = k.document"
            f" WHERE d.collection = {self.collection:d}{self.where})"
        )


@dataclass(frozen=True, slots=True)
class _Ranks:
    """What each retriever found, best first, and the paragraphs' cosines."""

    keyword: list[int]
    vector: list[int]
    pair: list[int]
    similarity: dict[int, float]

    def fused(self, retrievers: int) -> list[tuple[int, float]]:
        """Chunks by reciprocal rank fusion, best first; 1.0 is the first place everywhere."""
        scores: dict[int, float] = {}
        for found in (self.keyword, self.vector, self.pair):
            for rank, chunk in enumerate(found):
                scores[chunk] = scores.get(chunk, 0.0) + FUSION / (FUSION + rank) / retrievers
        order = sorted(scores, key=lambda chunk: (-scores[chunk], -self.similarity.get(chunk, 0.0), chunk))
        return [(chunk, scores[chunk]) for chunk in order]

    @staticmethod
    def place(found: list[int], chunk: int) -> int | None:
        return found.index(chunk) if chunk in found else None


def keyword_query(text: str) -> str:
    """Any text as an FTS5 query for its words; empty where there are none. Quoted words are never FTS syntax."""
    words = list(dict.fromkeys(re.findall(r"[^\W_]+", text.lower())))
    telling = [word for word in words if word not in STOP_WORDS] or words
    return " OR ".join(f'"{word}"' for word in telling[:MAX_QUERY_WORDS])


def hybrid(
    db: apsw.Connection, scope: Scope, query: str, vector: Floats | None, k: int, exact_vectors: int = EXACT_VECTORS
) -> Found:
    """The best ``k`` passages in ``scope``; by keywords alone where ``vector`` is None. Raises BadModel."""
    by_keyword = _by_keyword(db, scope, query)
    if vector is None:
        ranks = _Ranks(by_keyword, [], [], {})
        return Found(_passages(db, ranks, k, "keyword"), "keyword")
    codes, unit = query_codes(vector), unit_of(vector)
    _check_dimension(db, codes)
    paragraphs = _near(db, scope, Kind.PARAGRAPH, codes, unit, exact_vectors)
    pairs = _near(db, scope, Kind.PAIR, codes, unit, exact_vectors)
    # What one retriever found gets its place by the others as well.
    paragraphs |= _similarities(db, scope, Kind.PARAGRAPH, unit, {*by_keyword, *_best(pairs)} - paragraphs.keys())
    pairs |= _similarities(db, scope, Kind.PAIR, unit, {*by_keyword, *_best(paragraphs)} - pairs.keys())
    ranks = _Ranks(by_keyword, _best(paragraphs), _best(pairs), paragraphs)
    return Found(_passages(db, ranks, k, "hybrid"), "hybrid")


def _by_keyword(db: apsw.Connection, scope: Scope, query: str) -> list[int]:
    expression = keyword_query(query)
    if not expression:
        return []
    table = f"keywords_{scope.collection:d}"
    found = rows(
        db,
        f"SELECT rowid FROM {table} WHERE {table} MATCH ?{scope.sql('rowid')} ORDER BY rank LIMIT {DEPTH}",
        (expression, *scope.values),
    )
    return [chunk for (chunk,) in found]


def _near(
    db: apsw.Connection, scope: Scope, kind: Kind, codes: Codes, query: Floats, exact_vectors: int
) -> dict[int, float]:
    """Cosine of the query with the chunks that have the nearest vectors of a kind."""
    if _is_small(db, scope, kind, exact_vectors):
        found = rows(
            db,
            f"SELECT chunk, vector FROM vectors WHERE collection = {scope.collection:d} AND kind = {kind:d}"
            f"{scope.sql('chunk')} ORDER BY vec_distance_cosine(vec_int8(vector), vec_int8(?)) LIMIT {4 * DEPTH}",
            (*scope.values, codes.tobytes()),
        )
    else:
        keys = bits.nearest(db, scope.collection, kind, codes.tobytes(), scope.sql("chunk"), scope.values)
        found = bits.vectors(db, scope.collection, kind, keys)
    return _cosines(found, query)


def _is_small(db: apsw.Connection, scope: Scope, kind: Kind, exact_vectors: int) -> bool:
    """Whether few enough vectors are in scope to compare them all. The span of the chunks' ids stands for their number:
    counting would read every row, and a wrong guess costs a little time or recall, nothing else."""
    at = f"FROM vectors WHERE collection = {scope.collection:d} AND kind = {kind:d}"
    ((first, last),) = rows(db, f"SELECT (SELECT min(chunk) {at}), (SELECT max(chunk) {at})")
    if first is None or (last - first + 1) * _A_CHUNK[kind] <= exact_vectors:
        return True
    if not scope.where:
        return False
    count = db.execute(f"SELECT count(*) {at}{scope.sql('chunk')}", scope.values).get
    return int(count) <= exact_vectors


def _similarities(
    db: apsw.Connection, scope: Scope, kind: Kind, query: Floats, chunks: Iterable[int]
) -> dict[int, float]:
    """Cosine of the query with each of these chunks (its best vector of a kind)."""
    found = rows(
        db,
        "SELECT chunk, vector FROM vectors WHERE collection = ? AND kind = ?"
        " AND chunk IN (SELECT value FROM json_each(?))",
        (scope.collection, int(kind), json.dumps(sorted(chunks))),
    )
    return _cosines(found, query)


def _cosines(found: Sequence[tuple[Any, ...]], query: Floats) -> dict[int, float]:
    """The best cosine of each chunk among rows of chunk and vector."""
    best: dict[int, float] = {}
    if found:
        cosines = to_unit([vector for _, vector in found], len(query)) @ query
        for (chunk, _), cosine in zip(found, cosines.tolist(), strict=True):
            best[chunk] = max(cosine, best.get(chunk, -1.0))
    return best


def _passages(db: apsw.Connection, ranks: _Ranks, k: int, mode: Mode) -> tuple[Passage, ...]:
    passages = []
    for chunk, score in ranks.fused(3 if mode == "hybrid" else 1)[:k]:
        ((document, title, position, heading, text),) = rows(
            db,
            "SELECT d.name, d.title, k.position, k.heading, k.text FROM chunks k"
            " JOIN documents d ON d.id = k.document WHERE k.id = ?",
            (chunk,),
        )
        passages.append(
            Passage(
                document,
                position,
                title,
                heading,
                text,
                score,
                similarity=ranks.similarity.get(chunk),
                rank_vector=ranks.place(ranks.vector, chunk),
                rank_pair=ranks.place(ranks.pair, chunk),
                rank_keyword=ranks.place(ranks.keyword, chunk),
            )
        )
    return tuple(passages)


def _check_dimension(db: apsw.Connection, query: Codes) -> None:
    dim = int(db.execute("SELECT value FROM meta WHERE key = 'dimension'").get)
    if query.shape != (dim,):
        raise BadModel(f"the question's embedding has {query.size} numbers; the index has {dim}")


def _best(similarities: Mapping[int, float]) -> list[int]:
    return sorted(similarities, key=lambda chunk: (-similarities[chunk], chunk))[:DEPTH]
