"""The documents of this device: storing, parsing, searching and quoting, over the knowledge index and its workers (L2).

Files are parsed in the worker ``documents``; JSON lines are records already. `retrieve` is what the assistant asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from agent.engines.clients import DocumentClient, EmbeddingClient, RankingClient
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import LoadSpec
from agent.errors import NotFound
from agent.knowledge.ingest import documents_of_jsonl
from agent.knowledge.knowledge import Knowledge
from agent.knowledge.retrieval import Retriever
from agent.knowledge.store import CollectionStats, Found, StoredDocument
from agent.messages import Document, InstalledModel, Note, Retrieval

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

PARSER = "documents"
_PARSER_BYTES = 150 << 20
_EMBED_S = 300.0


@dataclass(frozen=True, slots=True)
class AddReport:
    """What became of documents: ids that were stored, ids whose content was here already, passages in all."""

    stored: tuple[str, ...]
    unchanged: tuple[str, ...]
    chunks: int


class Library:
    """See the module; an async context manager. ``embedding`` None: keyword search only; ``ranker`` None: quotes are
    chosen without a ranking model."""

    def __init__(
        self, path: Path, pool: Pool, embedding: InstalledModel | None, ranker: InstalledModel | None = None
    ) -> None:
        self._pool = pool
        self._embedder = EmbeddingClient(pool, embedding.name) if embedding is not None else None
        self._model = _identity(embedding)
        self._knowledge = Knowledge(path, self._embedder, self._model)
        self._ranker = RankingClient(pool, ranker.name) if ranker is not None else None
        self._retriever = Retriever(self._knowledge, self._embedder, self._ranker)
        self._parser = DocumentClient(pool, PARSER)
        load = LoadSpec(model=PARSER, engine="agent.knowledge.ingest:DocumentEngine", entry="", files={})
        pool.register(ModelSpec(load=load, kind="documents", expected_bytes=_PARSER_BYTES))

    async def __aenter__(self) -> Library:
        await self._knowledge.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._knowledge.__aexit__(kind, error, trace)

    # ------------------------------------------------------------ documents

    async def add(self, collection: str, documents: Sequence[Document]) -> AddReport:
        """Store documents one after the other, each durable on its own. Raises at the first that cannot be stored;
        those before it stay."""
        stored: list[str] = []
        unchanged: list[str] = []
        chunks = 0
        for document in documents:
            added = await self._knowledge.add(collection, document)
            (unchanged if added.outcome == "unchanged" else stored).append(added.id)
            chunks += added.chunks
        return AddReport(tuple(stored), tuple(unchanged), chunks)

    async def add_file(self, collection: str, name: str, data: bytes) -> AddReport:
        """Store a file under its name; a .jsonl file holds many documents with ids of their own."""
        if name.lower().endswith(".jsonl"):
            return await self.add(collection, await asyncio.to_thread(documents_of_jsonl, name, data))
        title, text = await self._parser.extract(name, data)
        return await self.add(collection, [Document(name, title, text)])

    def use_ranker(self, ranker: InstalledModel | None) -> None:
        """Take the ranking model as it is installed now."""
        self._ranker = RankingClient(self._pool, ranker.name) if ranker is not None else None
        self._retriever = Retriever(self._knowledge, self._embedder, self._ranker)

    async def use_embedding(self, embedding: InstalledModel | None) -> None:
        """Take the embedding model as it is installed now; documents are embedded again where it is another one."""
        if (model := _identity(embedding)) == self._model:
            return
        self._embedder = EmbeddingClient(self._pool, embedding.name) if embedding is not None else None
        self._model = model
        await self._knowledge.use_embedder(self._embedder, model)
        self._retriever = Retriever(self._knowledge, self._embedder, self._ranker)

    async def delete(self, collection: str, document: str) -> None:
        """Raises NotFound."""
        if not await self._knowledge.delete(collection, document):
            raise NotFound(f"no document {document!r} in the collection {collection!r}", param="document")

    async def delete_collection(self, collection: str) -> None:
        """Raises NotFound."""
        if not await self._knowledge.delete_collection(collection):
            raise NotFound(f"no collection {collection!r}", param="collection")

    async def delete_collections(self, named: re.Pattern[str]) -> None:
        """Remove those whose whole name matches, all of them even if the caller goes away."""
        await self._knowledge.delete_collections(named)

    async def collections(self) -> tuple[CollectionStats, ...]:
        return await self._knowledge.collections()

    async def documents(self, collection: str, *, after: str = "", limit: int = 100) -> tuple[StoredDocument, ...]:
        """A page of a collection's documents by id. Raises NotFound."""
        return await self._knowledge.documents(collection, after=after, limit=limit)

    # ------------------------------------------------------------ search

    async def search(self, collection: str, query: str, k: int, filter: object) -> Found:
        return await self._knowledge.search(collection, query, k, filter)

    async def retrieve(self, question: str, collection: str) -> Retrieval:
        """Passages and quotes for a question; a collection that is not there holds nothing, and is named."""
        try:
            return await self._retriever.retrieve(question, collection)
        except NotFound:
            return Retrieval((), (), self.mode, (f"there is no collection {collection!r}",))

    # ------------------------------------------------------------ embeddings

    async def embed(self, texts: Sequence[str]) -> NDArray[float32] | None:
        """One row a text; None without an embedding model."""
        if self._embedder is None:
            return None
        return await self._embedder.embed(texts, deadline_s=_EMBED_S)

    def embedding_id(self) -> str:
        """Identifies the embedding model's bytes; empty without one."""
        return self._model

    @property
    def mode(self) -> Literal["hybrid", "keyword"]:
        return "keyword" if self._knowledge.problem else "hybrid"

    def notes(self) -> Sequence[str]:
        """Why search goes by keywords only, where it does."""
        if not self._knowledge.problem:
            return []
        text = f"keyword search only: {self._knowledge.problem}"
        return [Note(text, "keyword") if self._embedder is None else text]

    async def keep_embedded(self) -> None:
        """Embed what was stored without an embedding model; runs until it is cancelled."""
        await self._knowledge.keep_embedded()


def _identity(model: InstalledModel | None) -> str:
    if model is None:
        return ""
    return hashlib.sha256("".join(sorted(f"{file.path}:{file.sha256}" for file in model.files)).encode()).hexdigest()
