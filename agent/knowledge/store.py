"""The knowledge index on disk: documents, chunks, sentences and vectors in one SQLite file, and hybrid search in them.

`Store` is synchronous and owns one connection: one writer, any number of readers, each used by one thread at a time
(agent/knowledge/knowledge.py arranges that). A document is replaced in one transaction: search sees the old one or the
new one, and what `put` acknowledged is on disk.

Search asks three retrievers: the paragraphs' vectors, the vectors of neighbouring sentence pairs (a paragraph counts
with its best pair) and BM25; reciprocal rank fusion makes one list. Candidates come from an exact scan of the int8
vectors, from EXACT_VECTORS on from sqlite-vec's bit index; they are then scored again with their int8 vectors, and so
is what another retriever found, so that the ranks that are fused are exact among the candidates.

Vectors belong to one embedding model (`use_model`); another model makes them worthless, so they are dropped and search
goes by keywords until the documents are embedded again. Where one document of a collection has no vectors, the whole
collection is searched by keywords: fusing would bury that document.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.errors import BadModel, InputTooLarge, InvalidDocument, InvalidRequest, NotFound
from agent.knowledge import filters, schema
from agent.knowledge.chunks import Chunk, Sentence, StoredSentence
from agent.knowledge.filters import Filter
from agent.knowledge.vectors import ChunkVectors, Kind, query_codes, to_unit, unit_of
from agent.messages import Document, Passage

if TYPE_CHECKING:
    from agent.knowledge.vectors import Codes, Floats

Mode = Literal["hybrid", "keyword"]
Stored = Literal["added", "replaced", "unchanged", "embedded"]

FUSION = 20
"""k of reciprocal rank fusion."""
DEPTH = 50
"""How many of each retriever's results take part in the fusion."""
EXACT_VECTORS = 20_000
"""Up to so many vectors of a kind in a collection all are compared; above, the bit index picks candidates."""
CANDIDATES = 1000
"""How many vectors of each kind the bit index picks: signs alone order the nearest ones badly."""
MAX_K = 100
MAX_CHUNKS = 10_000
MAX_QUERY_WORDS = 64
TIDY_EVERY = 256
"""Removed documents between two looks at how full the bit index is."""
_A_CHUNK = {Kind.PARAGRAPH: 1, Kind.PAIR: 4}
"""Vectors that a chunk has of a kind, about."""
_SHARDS = 8
_SPARE_SLOTS = 64 * 1024
_POSITION_BITS = 12
_KEY = f"(chunk << {_POSITION_BITS + 1}) | (kind << {_POSITION_BITS}) | position"
"""A vector's row id in the bit index."""
_SEARCHED = f"kind IN ({Kind.PARAGRAPH:d}, {Kind.PAIR:d})"
_FILL_BITS = (
    "INSERT INTO bits (rowid, collection, kind, shard, code)"
    f" SELECT {_KEY}, collection, kind, (chunk + position) % {_SHARDS}, vec_quantize_binary(vec_int8(vector))"
    " FROM vectors"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MAX_ID = 512

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
class StoredDocument:
    """A document in a listing; ``embedded`` is False while it can be found by keywords only."""

    id: str
    title: str
    chunks: int
    embedded: bool
    stored_at: float
    metadata: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class CollectionStats:
    name: str
    documents: int
    chunks: int
    embedded: int


@dataclass(frozen=True, slots=True)
class Stale:
    """A document without vectors of the present model; ``hash`` guards against a newer version in the meantime."""

    collection: str
    id: str
    hash: bytes
    chunks: tuple[Chunk, ...]


class Store:
    """See the module. Every method raises StorageFull or StorageFailed when the file cannot be written or read."""

    def __init__(self, path: Path, *, read_only: bool = False, exact_vectors: int = EXACT_VECTORS) -> None:
        """Open the file; a writer makes it where it is missing and runs the migrations."""
        self.path = path
        self._exact_vectors = exact_vectors
        self._removals = 0
        self._db = schema.connect(path, read_only=read_only)

    def close(self) -> None:
        self._db.close()

    def interrupt(self) -> None:
        """End what another thread runs on this store; it raises Cancelled there."""
        self._db.interrupt()

    # ------------------------------------------------------------ the embedding model

    def use_model(self, model: str) -> bool:
        """Say which embedding model the coming vectors are from (its hash). Where those in the file are from another
        one they are dropped; returns whether that happened."""
        with self._writing():
            before = self._meta("model")
            if before == model:
                return False
            self._db.execute("DELETE FROM vectors")
            self._db.execute("DROP TABLE IF EXISTS bits")
            self._db.execute("UPDATE documents SET embedded = 0 WHERE embedded = 1")
            self._db.execute("DELETE FROM meta WHERE key = 'dimension'")
            self._set_meta("model", model)
        return before is not None

    def stale(self, limit: int = 1) -> tuple[Stale, ...]:
        """Some of the documents that wait to be embedded."""
        with self._reading():
            rows = self._rows(
                "SELECT d.id, c.name, d.name, d.hash FROM documents d JOIN collections c ON c.id = d.collection"
                " WHERE d.embedded = 0 LIMIT ?",
                limit,
            )
            return tuple(Stale(collection, name, hash, self._chunks_of(id)) for id, collection, name, hash in rows)

    def put_vectors(self, stale: Stale, vectors: Sequence[ChunkVectors]) -> bool:
        """Add the vectors of a stale document; returns False where it has changed or gone since."""
        with self._writing():
            row = self._row(
                "SELECT d.id, d.collection FROM documents d JOIN collections c ON c.id = d.collection"
                " WHERE c.name = ? AND d.name = ? AND d.hash = ? AND d.embedded = 0",
                stale.collection,
                stale.id,
                stale.hash,
            )
            if row is None:
                return False
            document, collection = row
            chunks = [
                id for (id,) in self._rows("SELECT id FROM chunks WHERE document = ? ORDER BY position", document)
            ]
            self._insert_vectors(collection, chunks, vectors)
            self._db.execute("UPDATE documents SET embedded = 1 WHERE id = ?", (document,))
        return True

    # ------------------------------------------------------------ writing documents

    def needs(
        self, collection: str, document: Document, chunks: Sequence[Chunk]
    ) -> Literal["all", "vectors", "nothing"]:
        """What `put` would have to do for this version of a document."""
        with self._reading():
            row = self._row(
                "SELECT d.hash, d.embedded FROM documents d JOIN collections c ON c.id = d.collection"
                " WHERE c.name = ? AND d.name = ?",
                collection,
                document.id,
            )
        if row is None or row[0] != content_hash(document, chunks):
            return "all"
        return "nothing" if row[1] else "vectors"

    def put(
        self, collection: str, document: Document, chunks: Sequence[Chunk], vectors: Sequence[ChunkVectors] | None
    ) -> Stored:
        """Store a document in place of its older version, in one transaction; ``vectors`` None where nothing embeds.

        The same content again is left alone, and gets its vectors where it had none. Raises InvalidRequest (name, id,
        metadata), InputTooLarge, BadModel (vectors of a wrong shape).
        """
        check_collection(collection)
        check_document(document, chunks)
        if vectors is not None and len(vectors) != len(chunks):
            raise BadModel(f"{len(vectors)} vectors for {len(chunks)} chunks")
        hash = content_hash(document, chunks)
        with self._writing():
            within = self._make_collection(collection)
            old = self._row(
                "SELECT id, hash, embedded FROM documents WHERE collection = ? AND name = ?", within, document.id
            )
            if old and old[1] == hash and (old[2] or vectors is None):
                return "unchanged"
            if old:
                self._remove(within, old[0])
            self._insert(within, document, hash, chunks, vectors)
        if old and old[1] == hash:
            return "embedded"
        return "replaced" if old else "added"

    def delete(self, collection: str, id: str) -> bool:
        """Remove a document and everything made from it; returns whether it was there."""
        with self._writing():
            row = self._row(
                "SELECT d.id, d.collection FROM documents d JOIN collections c ON c.id = d.collection"
                " WHERE c.name = ? AND d.name = ?",
                collection,
                id,
            )
            if row is None:
                return False
            self._remove(row[1], row[0])
        return True

    def delete_collection(self, collection: str) -> bool:
        """Remove a collection with all its documents; returns whether it was there."""
        with self._writing():
            row = self._row("SELECT id FROM collections WHERE name = ?", collection)
            if row is None:
                return False
            (within,) = row
            if self._dimension() is not None:
                self._db.execute("DELETE FROM bits WHERE collection = ?", (within,))
            self._db.execute("DELETE FROM vectors WHERE collection = ?", (within,))
            self._db.execute(f"DROP TABLE keywords_{within:d}")
            self._db.execute("DELETE FROM documents WHERE collection = ?", (within,))
            self._db.execute("DELETE FROM collections WHERE id = ?", (within,))
        return True

    # ------------------------------------------------------------ looking

    def collections(self) -> tuple[CollectionStats, ...]:
        with self._reading():
            rows = self._rows(
                "SELECT c.name, count(d.id), coalesce(sum((SELECT count(*) FROM chunks k WHERE k.document = d.id)), 0),"
                " coalesce(sum(d.embedded), 0)"
                " FROM collections c LEFT JOIN documents d ON d.collection = c.id GROUP BY c.id ORDER BY c.name"
            )
        return tuple(CollectionStats(*row) for row in rows)

    def documents(self, collection: str, *, after: str = "", limit: int = 100) -> tuple[StoredDocument, ...]:
        """A page of a collection's documents by id, those after ``after``. Raises NotFound."""
        with self._reading():
            within = self._collection(collection)
            rows = self._rows(
                "SELECT d.id, d.name, d.title, (SELECT count(*) FROM chunks k WHERE k.document = d.id), d.embedded,"
                " d.stored_at FROM documents d WHERE d.collection = ? AND d.name > ? ORDER BY d.name LIMIT ?",
                within,
                after,
                limit,
            )
            return tuple(
                StoredDocument(name, title, chunks, bool(embedded), stored_at, self._metadata(id))
                for id, name, title, chunks, embedded, stored_at in rows
            )

    def document(self, collection: str, id: str) -> Document:
        """A document as it was stored. Raises NotFound."""
        with self._reading():
            row = self._row(
                "SELECT id, title, text FROM documents WHERE collection = ? AND name = ?",
                self._collection(collection),
                id,
            )
            if row is None:
                raise NotFound(f"there is no document {id!r} in the collection {collection!r}", param="document")
            return Document(id, row[1], row[2], self._metadata(row[0]))

    def search(
        self, collection: str, query: str, vector: Floats | None = None, k: int = 5, where: Filter = ()
    ) -> Found:
        """The best ``k`` passages for a query and, where there is one, its embedding.

        Any text may be a query; one without words finds nothing by keywords. Raises NotFound, InvalidRequest, BadModel
        (the embedding is not finite or of another dimension than the index), Cancelled (`interrupt`).
        """
        if not 1 <= k <= MAX_K:
            raise InvalidRequest(f"k is {k}", remedy=f"It must be from 1 to {MAX_K}.", param="k")
        with self._reading():
            within = self._collection(collection)
            codes = self._query_codes(within, vector)
            scope = _Scope.of(within, where)
            by_keyword = self._by_keyword(scope, query)
            if vector is None or codes is None:
                ranks = _Ranks(by_keyword, [], [], {})
                return Found(self._passages(ranks, k, "keyword"), "keyword")
            unit = unit_of(vector)
            paragraphs = self._similarities(
                scope, Kind.PARAGRAPH, unit, by_keyword, self._near(scope, Kind.PARAGRAPH, codes)
            )
            pairs = self._similarities(scope, Kind.PAIR, unit, by_keyword, self._near(scope, Kind.PAIR, codes))
            # What one of the two found gets its place by the other as well.
            paragraphs |= self._similarities(scope, Kind.PARAGRAPH, unit, set(_best(pairs)) - paragraphs.keys())
            pairs |= self._similarities(scope, Kind.PAIR, unit, set(_best(paragraphs)) - pairs.keys())
            ranks = _Ranks(by_keyword, _best(paragraphs), _best(pairs), paragraphs)
            return Found(self._passages(ranks, k, "hybrid"), "hybrid")

    def sentences(self, collection: str, passages: Iterable[Passage]) -> tuple[StoredSentence, ...]:
        """The sentences of found passages, in that order, with their vectors where they have some. Raises NotFound."""
        found: list[StoredSentence] = []
        with self._reading():
            within = self._collection(collection)
            dim = self._dimension()
            for passage in passages:
                row = self._row(
                    "SELECT k.id FROM chunks k JOIN documents d ON d.id = k.document"
                    " WHERE d.collection = ? AND d.name = ? AND k.position = ?",
                    within,
                    passage.document,
                    passage.chunk,
                )
                if row is None:  # deleted or replaced since the search
                    continue
                of_kind = {kind: self._vectors_of(within, kind, row[0], dim) for kind in Kind}
                sentences = self._sentences(row[0])
                found += [
                    StoredSentence(
                        passage.document,
                        passage.title,
                        passage.heading,
                        passage.chunk,
                        position,
                        sentence,
                        of_kind[Kind.SENTENCE].get(position),
                        of_kind[Kind.HEADED].get(position),
                        of_kind[Kind.PAIR].get(position) if position + 1 < len(sentences) else None,
                    )
                    for position, sentence in enumerate(sentences)
                ]
        return tuple(found)

    # ------------------------------------------------------------ the three retrievers

    def _by_keyword(self, scope: _Scope, query: str) -> list[int]:
        expression = keyword_query(query)
        if not expression:
            return []
        table = f"keywords_{scope.collection:d}"
        rows = self._rows(
            f"SELECT rowid FROM {table} WHERE {table} MATCH ?{scope.sql('rowid')} ORDER BY rank LIMIT {DEPTH}",
            expression,
            *scope.values,
        )
        return [chunk for (chunk,) in rows]

    def _near(self, scope: _Scope, kind: Kind, query: Codes) -> list[int]:
        """Chunks that may hold the nearest vectors of a kind."""
        if self._is_small(scope, kind):
            rows = self._rows(
                "SELECT chunk FROM vectors WHERE collection = ? AND kind = ?"
                f"{scope.sql('chunk')} ORDER BY vec_distance_cosine(vec_int8(vector), vec_int8(?)) LIMIT {4 * DEPTH}",
                scope.collection,
                int(kind),
                *scope.values,
                query.tobytes(),
            )
            return [chunk for (chunk,) in rows]
        return [key >> (_POSITION_BITS + 1) for key in self._near_by_bits(scope, kind, query)]

    def _near_by_bits(self, scope: _Scope, kind: Kind, query: Codes) -> list[int]:
        """Keys of about CANDIDATES vectors whose signs differ least.

        vec0 takes time in proportion to k times the rows that pass, so one shard tells first how far the wanted share
        lies, and the search over all shards passes only what is nearer.
        """
        near = "SELECT rowid, distance FROM bits WHERE code MATCH vec_quantize_binary(vec_int8(?)) AND k = ?"
        near += f" AND collection = {scope.collection:d} AND kind = {kind:d}"
        values: list[Any] = []
        if scope.where:
            near += f" AND rowid IN (SELECT {_KEY} FROM vectors WHERE collection = {scope.collection:d}"
            near += f" AND kind = {kind:d}{scope.sql('chunk')})"
            values = list(scope.values)
        code, share = query.tobytes(), CANDIDATES // _SHARDS
        sample = self._rows(f"{near} AND shard = 0", code, share, *values)
        farthest = sample[-1][1] if len(sample) == share else len(query)
        rows = self._rows(f"{near} AND distance <= ?", code, 2 * CANDIDATES, *values, farthest)
        return [key for key, _ in rows]

    def _is_small(self, scope: _Scope, kind: Kind) -> bool:
        """Whether few enough vectors are in scope to compare them all. The span of the chunks' ids stands for their
        number: counting would read every row, and a wrong guess costs a little time or recall, nothing else."""
        at = f"FROM vectors WHERE collection = {scope.collection:d} AND kind = {kind:d}"
        first, last = self._row(f"SELECT (SELECT min(chunk) {at}), (SELECT max(chunk) {at})") or (None, None)
        if first is None or (last - first + 1) * _A_CHUNK[kind] <= self._exact_vectors:
            return True
        if not scope.where:
            return False
        count = self._db.execute(f"SELECT count(*) {at}{scope.sql('chunk')}", scope.values).get
        return int(count) <= self._exact_vectors

    def _similarities(self, scope: _Scope, kind: Kind, query: Floats, *candidates: Iterable[int]) -> dict[int, float]:
        """Cosine of the query with each candidate chunk (its best vector of this kind)."""
        wanted = sorted({chunk for chunks in candidates for chunk in chunks})
        rows = self._rows(
            "SELECT chunk, vector FROM vectors WHERE collection = ? AND kind = ?"
            " AND chunk IN (SELECT value FROM json_each(?))",
            scope.collection,
            int(kind),
            json.dumps(wanted),
        )
        best: dict[int, float] = {}
        if rows:
            cosines = to_unit([vector for _, vector in rows], len(query)) @ query
            for (chunk, _), cosine in zip(rows, cosines.tolist(), strict=True):
                best[chunk] = max(cosine, best.get(chunk, -1.0))
        return best

    def _passages(self, ranks: _Ranks, k: int, mode: Mode) -> tuple[Passage, ...]:
        passages = []
        for chunk, score in ranks.fused(3 if mode == "hybrid" else 1)[:k]:
            document, title, position, heading, text = self._row(
                "SELECT d.name, d.title, k.position, k.heading, k.text FROM chunks k"
                " JOIN documents d ON d.id = k.document WHERE k.id = ?",
                chunk,
            ) or ("", "", 0, "", "")
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

    def _query_codes(self, within: int, vector: Floats | None) -> Codes | None:
        """The query's int8 vector; None where the collection can only be searched by keywords."""
        if vector is None:
            return None
        codes = query_codes(vector)
        dim = self._dimension()
        if dim is None or self._row("SELECT 1 FROM documents WHERE collection = ? AND embedded = 0 LIMIT 1", within):
            return None
        if codes.shape != (dim,):
            raise BadModel(f"the question's embedding has {codes.size} numbers; the index has {dim}")
        return codes

    # ------------------------------------------------------------ rows in and out

    def _insert(
        self,
        within: int,
        document: Document,
        hash: bytes,
        chunks: Sequence[Chunk],
        vectors: Sequence[ChunkVectors] | None,
    ) -> None:
        self._db.execute(
            "INSERT INTO documents (collection, name, title, text, hash, stored_at, embedded)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (within, document.id, document.title, document.text, hash, time.time(), int(vectors is not None)),
        )
        row = self._db.last_insert_rowid()
        self._db.executemany(
            "INSERT INTO metadata VALUES (?, ?, ?, ?)",
            [(row, key, filters.type_of(value), value) for key, value in document.metadata.items()],
        )
        ids = []
        for position, chunk in enumerate(chunks):
            self._db.execute(
                "INSERT INTO chunks (document, position, heading, text) VALUES (?, ?, ?, ?)",
                (row, position, chunk.heading, chunk.text),
            )
            id = self._db.last_insert_rowid()
            ids.append(id)
            self._db.executemany(
                "INSERT INTO sentences VALUES (?, ?, ?, ?, ?, ?)",
                [(id, n, s.kind, s.lead, s.text, s.search) for n, s in enumerate(chunk.sentences)],
            )
            self._db.execute(
                f"INSERT INTO keywords_{within:d} (rowid, heading, body) VALUES (?, ?, ?)",
                (id, chunk.heading, chunk.search),
            )
        if vectors is not None:
            self._insert_vectors(within, ids, vectors)

    def _insert_vectors(self, within: int, chunks: Sequence[int], vectors: Sequence[ChunkVectors]) -> None:
        if not vectors:
            return
        self._require_dimension({matrix.shape[-1] for v in vectors for _, _, matrix in v.rows()})
        rows = [
            (c, kind, position, row) for c, v in zip(chunks, vectors, strict=True) for kind, position, row in v.rows()
        ]
        self._db.executemany(
            "INSERT INTO vectors VALUES (?, ?, ?, ?, ?)",
            ((within, int(kind), chunk, position, row.tobytes()) for chunk, kind, position, row in rows),
        )
        self._db.execute(
            f"{_FILL_BITS} WHERE collection = ? AND {_SEARCHED} AND chunk BETWEEN ? AND ?",
            (within, min(chunks), max(chunks)),
        )

    def _remove(self, within: int, document: int) -> None:
        chunks = self._rows("SELECT id FROM chunks WHERE document = ?", document)
        self._db.executemany(f"DELETE FROM keywords_{within:d} WHERE rowid = ?", chunks)
        for (chunk,) in chunks:
            if self._dimension() is not None:
                of_chunk = f"collection = ? AND {_SEARCHED} AND chunk = ?"
                keys = self._rows(f"SELECT {_KEY} FROM vectors WHERE {of_chunk}", within, chunk)
                self._db.executemany("DELETE FROM bits WHERE rowid = ?", keys)
            self._db.executemany(
                "DELETE FROM vectors WHERE collection = ? AND kind = ? AND chunk = ?",
                [(within, int(kind), chunk) for kind in Kind],
            )
        self._db.execute("DELETE FROM documents WHERE id = ?", (document,))
        self._tidy()

    def _require_dimension(self, widths: set[int]) -> None:
        dim = self._dimension()
        if dim is None:
            dim = max(widths)
            if dim % 8:
                raise BadModel(f"the embedding has {dim} numbers; the index takes multiples of 8")
            self._set_meta("dimension", str(dim))
            self._make_bits(dim)
        if widths != {dim}:
            raise BadModel(f"the embedding has {sorted(widths)} numbers; the index has {dim}")

    def _make_bits(self, dim: int) -> None:
        self._db.execute(
            "CREATE VIRTUAL TABLE bits USING vec0 (collection INTEGER PARTITION KEY, kind INTEGER PARTITION KEY,"
            f" shard INTEGER PARTITION KEY, code bit[{dim:d}])"
        )

    def _make_collection(self, name: str) -> int:
        row = self._row("SELECT id FROM collections WHERE name = ?", name)
        if row is None:
            self._db.execute("INSERT INTO collections (name) VALUES (?)", (name,))
            within = self._db.last_insert_rowid()
            self._db.execute(
                f"CREATE VIRTUAL TABLE keywords_{within:d} USING fts5 (heading, body, content='', contentless_delete=1,"
                " tokenize='porter unicode61 remove_diacritics 2')"
            )
            return within
        return int(row[0])

    def _collection(self, name: str) -> int:
        row = self._row("SELECT id FROM collections WHERE name = ?", name)
        if row is None:
            raise NotFound(f"there is no collection {name!r}", remedy="Add a document to it first.", param="collection")
        return int(row[0])

    def _chunks_of(self, document: int) -> tuple[Chunk, ...]:
        rows = self._rows("SELECT id, heading, text FROM chunks WHERE document = ? ORDER BY position", document)
        return tuple(Chunk(heading, text, self._sentences(id)) for id, heading, text in rows)

    def _sentences(self, chunk: int) -> tuple[Sentence, ...]:
        rows = self._rows("SELECT text, search, kind, lead FROM sentences WHERE chunk = ? ORDER BY position", chunk)
        return tuple(Sentence(*row) for row in rows)

    def _vectors_of(self, within: int, kind: Kind, chunk: int, dim: int | None) -> dict[int, Floats]:
        rows = self._rows(
            "SELECT position, vector FROM vectors WHERE collection = ? AND kind = ? AND chunk = ?",
            within,
            int(kind),
            chunk,
        )
        if not rows or dim is None:
            return {}
        return dict(zip([position for position, _ in rows], to_unit([v for _, v in rows], dim), strict=True))

    def _metadata(self, document: int) -> dict[str, str | int | float | bool]:
        rows = self._rows("SELECT key, type, value FROM metadata WHERE document = ?", document)
        return {key: bool(value) if type == "flag" else value for key, type, value in rows}

    def _dimension(self) -> int | None:
        value = self._meta("dimension")
        return None if value is None else int(value)

    def _meta(self, key: str) -> str | None:
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else str(row[0])

    def _set_meta(self, key: str, value: str) -> None:
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
        return row

    def _tidy(self) -> None:
        """Make the bit index anew once most of it is holes: vec0 gives back a block of 1024 only when all of it is
        deleted, and a search reads every block."""
        self._removals += 1
        dim = self._dimension()
        if dim is None or self._removals % TIDY_EVERY:
            return
        slots = 1024 * int(self._db.execute("SELECT count(*) FROM bits_chunks").get)
        used = int(self._db.execute("SELECT count(*) FROM bits_rowids").get)
        if slots > 3 * used + _SPARE_SLOTS:
            self._db.execute("DROP TABLE bits")
            self._make_bits(dim)
            self._db.execute(f"{_FILL_BITS} WHERE {_SEARCHED}")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with schema.translated(self.path), schema.immediate(self._db):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One snapshot for several statements."""
        with schema.translated(self.path), self._db:
            yield


@dataclass(frozen=True, slots=True)
class _Scope:
    """The part of the index that a search may see."""

    collection: int
    where: str
    values: tuple[Any, ...]

    @classmethod
    def of(cls, collection: int, where: Filter) -> _Scope:
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


def content_hash(document: Document, chunks: Sequence[Chunk]) -> bytes:
    """Equal where storing again would change nothing: content, metadata and how it was cut into chunks."""
    form = [document.title, document.text, sorted(document.metadata.items()), [_form(chunk) for chunk in chunks]]
    return hashlib.sha256(json.dumps(form, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()


def keyword_query(text: str) -> str:
    """Any text as an FTS5 query for its words; empty where there are none. Quoted words are never FTS syntax."""
    words = list(dict.fromkeys(re.findall(r"[^\W_]+", text.lower())))
    telling = [word for word in words if word not in STOP_WORDS] or words
    return " OR ".join(f'"{word}"' for word in telling[:MAX_QUERY_WORDS])


def check_collection(name: str) -> None:
    """Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot name a collection",
            remedy="Use up to 63 lower-case letters, digits, - and _, starting with a letter or digit.",
            param="collection",
        )


def _form(chunk: Chunk) -> list[Any]:
    return [chunk.heading, chunk.text, [[s.kind, s.lead, s.text, s.search] for s in chunk.sentences]]


def check_document(document: Document, chunks: Sequence[Chunk]) -> None:
    """What `Store.put` asks of a document. Raises InvalidRequest, InvalidDocument, InputTooLarge."""
    texts = [document.id, document.title, document.text, *document.metadata]
    texts += [value for value in document.metadata.values() if isinstance(value, str)]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidDocument(
            f"the document {document.id!r} holds half a surrogate pair", remedy="Send valid Unicode text."
        ) from error
    if not 1 <= len(document.id) <= _MAX_ID or "\0" in document.id:
        raise InvalidRequest(
            f"{document.id[:80]!r} cannot be a document's id", remedy=f"Use 1 to {_MAX_ID} characters.", param="id"
        )
    for key, value in document.metadata.items():
        try:
            filters.type_of(value)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"the metadata value {key!r} = {value!r} cannot be stored", param="metadata"
            ) from error
    if len(chunks) > MAX_CHUNKS or any(len(chunk.sentences) >> _POSITION_BITS for chunk in chunks):
        raise InputTooLarge(
            f"the document {document.id!r} makes {len(chunks)} chunks; at most {MAX_CHUNKS} are stored in one",
            remedy="Split it into several documents.",
        )


def _best(similarities: Mapping[int, float]) -> list[int]:
    return sorted(similarities, key=lambda chunk: (-similarities[chunk], chunk))[:DEPTH]
