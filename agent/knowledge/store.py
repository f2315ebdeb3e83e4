"""The knowledge index on disk: documents, chunks, sentences and vectors in one SQLite file, and hybrid search in them.

`Store` is synchronous and owns one connection: one writer, any number of readers, each used by one thread at a time
(agent/knowledge/knowledge.py arranges that). A document is replaced in one transaction: search sees the old one or the
new one, and what `put` acknowledged is on disk.

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

from agent.database import transaction
from agent.errors import BadModel, InputTooLarge, InvalidDocument, InvalidRequest, NotFound
from agent.knowledge import bits, filters, schema
from agent.knowledge.chunks import Chunk, Sentence, StoredSentence
from agent.knowledge.filters import Filter
from agent.knowledge.search import EXACT_VECTORS, Scope, hybrid
from agent.knowledge.search import Found as Found
from agent.knowledge.vectors import ChunkVectors, Kind, to_unit
from agent.messages import Document, Passage

if TYPE_CHECKING:
    from agent.knowledge.vectors import Floats

Stored = Literal["added", "replaced", "unchanged", "embedded"]

MAX_K = 100
MAX_CHUNKS = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_MAX_ID = 512


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

    def delete_collections(self, named: re.Pattern[str]) -> None:
        """Remove those whose whole name matches."""
        for (name,) in self._rows("SELECT name FROM collections"):
            if named.fullmatch(name):
                self.delete_collection(name)

    # ------------------------------------------------------------ looking

    def collections(self) -> tuple[CollectionStats, ...]:
        with self._reading():
            rows = self._rows(  # of these only indexes are read, not the documents with their texts
                "SELECT name, documents, chunks, documents - bare FROM (SELECT c.name,"
                " (SELECT count(*) FROM documents d WHERE d.collection = c.id) AS documents,"
                " (SELECT count(*) FROM documents d JOIN chunks k ON k.document = d.id"
                " WHERE d.collection = c.id) AS chunks,"
                " (SELECT count(*) FROM documents d WHERE d.collection = c.id AND d.embedded = 0) AS bare"
                " FROM collections c) ORDER BY name"
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
            if vector is not None and not self._is_embedded(within):
                vector = None
            return hybrid(self._db, Scope.of(within, where), query, vector, k, self._exact_vectors)

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
        bits.add(self._db, "collection = ? AND chunk BETWEEN ? AND ?", (within, min(chunks), max(chunks)))

    def _remove(self, within: int, document: int) -> None:
        chunks, dim = self._rows("SELECT id FROM chunks WHERE document = ?", document), self._dimension()
        self._db.executemany(f"DELETE FROM keywords_{within:d} WHERE rowid = ?", chunks)
        for (chunk,) in chunks:
            if dim is not None:
                bits.remove(self._db, within, chunk)
            self._db.executemany(
                "DELETE FROM vectors WHERE collection = ? AND kind = ? AND chunk = ?",
                [(within, int(kind), chunk) for kind in Kind],
            )
        self._db.execute("DELETE FROM documents WHERE id = ?", (document,))
        self._removals += 1
        if dim is not None and self._removals % bits.TIDY_EVERY == 0:
            bits.tidy(self._db, dim)

    def _require_dimension(self, widths: set[int]) -> None:
        dim = self._dimension()
        if dim is None:
            dim = max(widths)
            if dim % 8:
                raise BadModel(f"the embedding has {dim} numbers; the index takes multiples of 8")
            self._set_meta("dimension", str(dim))
            bits.make(self._db, dim)
        if widths != {dim}:
            raise BadModel(f"the embedding has {sorted(widths)} numbers; the index has {dim}")

    def _is_embedded(self, within: int) -> bool:
        if self._dimension() is None:
            return False
        return self._row("SELECT 1 FROM documents WHERE collection = ? AND embedded = 0 LIMIT 1", within) is None

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
        return schema.rows(self._db, sql, values)

    def _row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(sql, values).fetchone()
        return row

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with schema.translated(self.path), transaction(self._db):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One snapshot for several statements."""
        with schema.translated(self.path), transaction(self._db, "DEFERRED"):
            yield


def content_hash(document: Document, chunks: Sequence[Chunk]) -> bytes:
    """Equal where storing again would change nothing: content, metadata and how it was cut into chunks."""
    form = [document.title, document.text, sorted(document.metadata.items()), [_form(chunk) for chunk in chunks]]
    return hashlib.sha256(json.dumps(form, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()


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
    if len(chunks) > MAX_CHUNKS or any(len(chunk.sentences) > bits.MAX_POSITIONS for chunk in chunks):
        raise InputTooLarge(
            f"the document {document.id!r} makes {len(chunks)} chunks; at most {MAX_CHUNKS} are stored in one",
            remedy="Split it into several documents.",
        )
