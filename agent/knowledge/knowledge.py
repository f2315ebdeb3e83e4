"""The knowledge index as the daemon uses it: asyncio on top of `Store`, embedding, and the work of catching up.

    async with Knowledge(path, embedder, model) as knowledge:
        await knowledge.add("default", document)
        retrieval = await knowledge.retrieve("When do you open?", "default")

One thread writes; a few readers search beside it, each with its own connection. A search that nobody waits for any more
is interrupted. Where the embedding model cannot be had, documents are stored and searched by keywords, `problem` says
why, and `keep_embedded` catches up as soon as it can.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from agent.errors import (
    BadModel,
    DeadlineExceeded,
    InputTooLarge,
    InvalidDocument,
    OutpostError,
    StorageFailed,
    Unavailable,
    UnknownModel,
)
from agent.knowledge import filters, vectors
from agent.knowledge.chunks import Chunk, StoredSentence
from agent.knowledge.markdown import chunks_of
from agent.knowledge.store import (
    CollectionStats,
    Found,
    Store,
    Stored,
    StoredDocument,
    check_collection,
    check_document,
)
from agent.messages import Document, Passage

if TYPE_CHECKING:
    from agent.knowledge.vectors import ChunkVectors, Floats

T = TypeVar("T")

MAX_CHARACTERS = 5_000_000
"""Longest text of one document."""
_NO_MODEL = "no embedding model is installed"
_BATCH = 32
"""Texts in one request to the embedding model: small, so that one request never nears its deadline."""
_INTERRUPT_S = 0.02


class Embedder(Protocol):
    """Turns texts into unit vectors, one row a text; raises Unavailable or BadModel where it cannot."""

    async def embed(self, texts: Sequence[str], *, deadline_s: float) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a document; ``embedded`` is False where it can be found by keywords only."""

    id: str
    outcome: Stored
    chunks: int
    embedded: bool


class Knowledge:
    """See the module. Raises what `Store` raises, and DeadlineExceeded."""

    def __init__(
        self,
        path: Path,
        embedder: Embedder | None,
        model: str = "",
        *,
        readers: int = 2,
        search_s: float = 10.0,
        write_s: float = 60.0,
        embed_s: float = 60.0,
        retry_s: float = 60.0,
    ) -> None:
        """``model`` identifies the embedding model (its hash): another one than the index was made with means that
        every document has to be embedded again. The times are deadlines, and the pause after a failed embedding."""
        self._path = path
        self._embedder = embedder
        self._model = model
        self._search_s = search_s
        self._write_s = write_s
        self._embed_s = embed_s
        self._retry_s = retry_s
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="knowledge-writer")
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="knowledge-reader")
        self._writer: Store
        self._readers: asyncio.LifoQueue[Store] = asyncio.LifoQueue()
        self._reader_count = readers
        self._missing = asyncio.Event()
        self.problem: str | None = None if embedder else _NO_MODEL
        """Why search goes by keywords only; None while embeddings work."""

    async def __aenter__(self) -> Knowledge:
        loop = asyncio.get_running_loop()
        with ExitStack() as undo:
            undo.callback(self._writer_thread.shutdown, wait=False)
            undo.callback(self._threads.shutdown, wait=False)
            self._writer = await loop.run_in_executor(self._writer_thread, self._open)
            for _ in range(self._reader_count):
                reader = partial(Store, self._path, read_only=True)
                self._readers.put_nowait(await loop.run_in_executor(self._threads, reader))
            undo.pop_all()
        self._missing.set()
        return self

    async def __aexit__(self, *raised: object) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._reader_count):
            reader = await self._readers.get()
            await loop.run_in_executor(self._threads, reader.close)
        await loop.run_in_executor(self._writer_thread, self._writer.close)
        self._writer_thread.shutdown(wait=False)
        self._threads.shutdown(wait=False)

    def _open(self) -> Store:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(
                f"cannot make the folder {self._path.parent}: {error}", remedy="Check the state folder."
            ) from error
        store = Store(self._path)
        if self._embedder is not None:
            store.use_model(self._model)
        return store

    # ------------------------------------------------------------ documents

    async def add(self, collection: str, document: Document) -> Added:
        """Store a document in place of its older version; done when it is on disk.

        Unchanged content costs no embedding and no write. Raises InvalidRequest, InvalidDocument (no text in it),
        InputTooLarge.
        """
        check_collection(collection)
        if len(document.text) > MAX_CHARACTERS:
            raise InputTooLarge(
                f"the document {document.id!r} has {len(document.text)} characters; the limit is {MAX_CHARACTERS}",
                remedy="Split it into several documents.",
            )
        chunks = await self._in_thread(lambda: chunks_of(document.title, document.text))
        if not chunks or not any(map(str.isalnum, document.text)):
            raise InvalidDocument(f"the document {document.id!r} holds no text", remedy="Give it some text.")
        check_document(document, chunks)
        needs = await self._read(lambda store: store.needs(collection, document, chunks))
        if needs == "nothing":
            return Added(document.id, "unchanged", len(chunks), True)
        embedded = await self._embed_chunks(chunks)
        outcome = await self._write(lambda store: store.put(collection, document, chunks, embedded))
        if embedded is None:
            self._missing.set()
        return Added(document.id, outcome, len(chunks), embedded is not None)

    async def delete(self, collection: str, id: str) -> bool:
        """Whether the document was there."""
        return await self._write(lambda store: store.delete(collection, id))

    async def delete_collection(self, collection: str) -> bool:
        """Whether the collection was there."""
        return await self._write(lambda store: store.delete_collection(collection))

    async def delete_collections(self, named: re.Pattern[str]) -> None:
        """Remove those whose whole name matches, all of them even if the caller goes away."""
        await self._write(lambda store: store.delete_collections(named))

    async def collections(self) -> tuple[CollectionStats, ...]:
        return await self._read(lambda store: store.collections())

    async def documents(self, collection: str, *, after: str = "", limit: int = 100) -> tuple[StoredDocument, ...]:
        """A page of a collection by id. Raises NotFound."""
        return await self._read(lambda store: store.documents(collection, after=after, limit=limit))

    async def document(self, collection: str, id: str) -> Document:
        """Raises NotFound."""
        return await self._read(lambda store: store.document(collection, id))

    # ------------------------------------------------------------ search

    async def search(self, collection: str, query: str, k: int = 5, filter: object = None) -> Found:
        """The best passages; ``filter`` as a caller wrote it (agent/knowledge/filters.py). Raises NotFound,
        InvalidRequest."""
        where = filters.parse(filter)
        vector = await self._embed_query(query)
        return await self._read(lambda store: store.search(collection, query, vector, k, where))

    async def sentences(self, collection: str, passages: Sequence[Passage]) -> tuple[StoredSentence, ...]:
        """The sentences of found passages with their vectors."""
        return await self._read(lambda store: store.sentences(collection, passages))

    # ------------------------------------------------------------ embedding

    async def keep_embedded(self) -> None:
        """Embed whatever has no vectors, now and whenever there is something again; runs until it is cancelled."""
        while True:
            await self._missing.wait()
            self._missing.clear()
            if not await self._embed_missing_or_note():
                try:
                    async with asyncio.timeout(self._retry_s):
                        await self._missing.wait()
                except TimeoutError:
                    self._missing.set()

    async def _embed_missing_or_note(self) -> bool:
        """As `embed_missing`; a full disk or a slow one is noted and tried again later, it must not end the daemon."""
        try:
            return await self.embed_missing()
        except OutpostError as error:
            self.problem = str(error)
            return False

    async def use_embedder(self, embedder: Embedder | None, model: str) -> None:
        """Take another embedding model (its hash) from now on: vectors of another one are dropped, and made again by
        `keep_embedded`."""
        if model == self._model and (embedder is None) == (self._embedder is None):
            return
        self._embedder, self._model = embedder, model
        if embedder is not None:
            await self._write(lambda store: store.use_model(model))
        self.problem = None if embedder else _NO_MODEL
        self._missing.set()

    async def embed_missing(self) -> bool:
        """Embed every document that has no vectors; False where the embedding model failed before all were done."""
        while self._embedder is not None:
            waiting = await self._read(lambda store: store.stale())
            if not waiting:
                return True
            stale = waiting[0]
            embedded = await self._embed_chunks(stale.chunks)
            if embedded is None:
                return False
            await self._write(partial(Store.put_vectors, stale=stale, vectors=embedded))
        return True

    async def _embed_chunks(self, chunks: Sequence[Chunk]) -> list[ChunkVectors] | None:
        made = []
        for chunk in chunks:
            rows = await self._embed(vectors.texts_of(chunk))
            if rows is None:
                return None
            made.append(vectors.of_chunk(chunk, rows))
        return made

    async def _embed_query(self, query: str) -> Floats | None:
        rows = await self._embed([query])
        return None if rows is None else rows[0]

    async def _embed(self, texts: Sequence[str]) -> Floats | None:
        """None, and `problem` says why, where the model cannot be had: keywords have to do then."""
        if self._embedder is None:
            return None
        try:
            parts = [
                await self._embedder.embed(texts[at : at + _BATCH], deadline_s=self._embed_s)
                for at in range(0, len(texts), _BATCH)
            ]
        except (Unavailable, BadModel, UnknownModel) as error:
            self.problem = str(error)
            return None
        self.problem = None
        import numpy  # is there by now, the rows brought it

        return numpy.concatenate(parts)

    # ------------------------------------------------------------ the bridge to threads

    async def _write(self, work: Callable[[Store], T]) -> T:
        """Run on the one writer, after what was asked before; it runs to its end even if the caller goes away."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._write_s):
                return await loop.run_in_executor(self._writer_thread, lambda: work(self._writer))
        except TimeoutError as error:
            raise DeadlineExceeded(f"writing the knowledge index took more than {self._write_s:g} s") from error

    async def _read(self, work: Callable[[Store], T]) -> T:
        """Run on a reader of its own; interrupted when the caller goes away or the deadline passes."""
        try:
            async with asyncio.timeout(self._search_s):
                reader = await self._readers.get()
                running = asyncio.ensure_future(
                    asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(reader))
                )
                running.add_done_callback(lambda done: self._give_back(reader, done))
                try:
                    return await asyncio.shield(running)
                except asyncio.CancelledError:
                    while not running.done():  # an interrupt before the statement has begun does nothing
                        reader.interrupt()
                        await asyncio.wait({running}, timeout=_INTERRUPT_S)
                    raise
        except TimeoutError as error:
            raise DeadlineExceeded(f"searching the knowledge index took more than {self._search_s:g} s") from error

    def _give_back(self, reader: Store, done: asyncio.Future[T]) -> None:
        self._readers.put_nowait(reader)
        if not done.cancelled():
            done.exception()  # an interrupted search has nobody left who would look

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
