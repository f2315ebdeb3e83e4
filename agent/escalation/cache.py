"""Answers that the cloud gave before: the same question in the same place need not leave the device again.

An entry is scoped by collection and language, and by the passage that the device found best: where a document has
changed since, the cloud saw something else. It ends with ``escalation.cache_hours``, or when a visitor says that it was
wrong. Two questions are the same if they have the same words; with a **certified similarity** (`outpost calibrate
cache`, agent/sameness.py) also if the cosine of their embeddings reaches it. Without a certificate likeness counts for
nothing: "open on Sunday?" and "open on Monday?" are very alike.

Only questions that stand for themselves are kept: none with personal data, none after earlier turns.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw

from agent.errors import OutpostError
from agent.escalation.store import Store
from agent.messages import CloudReply, Inquiry, Quote

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Embed = Callable[[Sequence[str]], Awaitable[NDArray[float32] | None]]

KEEP = 2000
"""Entries; the oldest go first."""
_log = logging.getLogger("outpost.escalation")
_EMBED_S = 5.0
_SPACE = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike questions are: ``embed`` gives a row each, pseudonymised (None without a model), ``model`` names the
    bytes that do it, ``threshold`` is the certified cosine for that model, None where nothing is certified."""

    embed: Embed
    model: Callable[[], str]
    threshold: Callable[[], float | None]


class Cache:
    """See the module. Methods raise StorageFull and StorageFailed."""

    def __init__(
        self, store: Store, *, keep_s: float, likeness: Likeness | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._keep_s = keep_s
        self._likeness = likeness
        self._clock = clock

    async def find(self, inquiry: Inquiry, key: str) -> CloudReply | None:
        """The kept answer to the same question, as a reply to ``key`` that cost nothing."""
        found = await self._find(inquiry)
        return None if found is None else await self._served(*found, inquiry.event_id, key)

    async def holds(self, inquiry: Inquiry) -> bool:
        """Whether `find` would find something."""
        return await self._find(inquiry) is not None

    async def _find(self, inquiry: Inquiry) -> tuple[int, float | None] | None:
        """The entry, and its similarity where the words are others."""
        if self._keep_s <= 0 or inquiry.history:
            return None
        scope = (inquiry.collection, inquiry.language, _basis(inquiry), self._clock())
        asked = words(inquiry.text)

        def same(db: apsw.Connection) -> int | None:
            query = "SELECT id FROM cached WHERE collection = ? AND language = ? AND basis = ? AND expires_at > ?"
            row: Any = next(db.execute(f"{query} AND words = ? ORDER BY id DESC", (*scope, asked)), None)
            return None if row is None else int(row[0])

        found = await self._store.submit(same)
        return await self._alike(inquiry.text, scope) if found is None else (found, None)

    async def keep(self, inquiry: Inquiry, reply: CloudReply) -> None:
        """Remember an answer; the caller vouches that the question holds nothing personal. One of a session only while
        the outbox has its question: what was deleted meanwhile does not come back by its answer."""
        if self._keep_s <= 0 or inquiry.history:
            return
        model, vector = await self._embedded(inquiry.text)
        now = self._clock()

        def insert(db: apsw.Connection) -> None:
            known = "SELECT 1 FROM inquiry WHERE event_id = ?"
            if inquiry.session is not None and next(db.execute(known, (inquiry.event_id,)), None) is None:
                return
            scope = (inquiry.collection, inquiry.language, _basis(inquiry), words(inquiry.text))
            db.execute("DELETE FROM cached WHERE expires_at <= ?", (now,))
            where = "collection = ? AND language = ? AND basis = ? AND words = ?"
            db.execute(f"DELETE FROM cached WHERE {where}", scope)
            db.execute(
                "INSERT INTO cached (event_id, collection, language, basis, words, model, vector, answer, path,"
                " endpoint, answered_by, expires_at, session) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (inquiry.event_id, *scope, model, vector, reply.text, reply.path, reply.endpoint, reply.model,
                 now + self._keep_s, inquiry.session),
            )  # fmt: skip
            db.execute("DELETE FROM cached WHERE id <= (SELECT max(id) FROM cached) - ?", (KEEP,))
            db.execute("DELETE FROM cached_hit WHERE cached NOT IN (SELECT id FROM cached)")

        await self._store.run(insert)

    async def distrust(self, event_id: str) -> bool:
        """Forget the entry that this event made or was answered from; whether there was one."""
        hit = "SELECT cached FROM cached_hit WHERE event_id = ?"
        return bool(
            await self._store.execute(f"DELETE FROM cached WHERE event_id = ? OR id IN ({hit})", event_id, event_id)
        )

    async def _served(self, id: int, similarity: float | None, event_id: str, key: str) -> CloudReply:
        def read(db: apsw.Connection) -> CloudReply:
            query = "SELECT answer, path, endpoint, answered_by FROM cached WHERE id = ?"
            text, path, endpoint, model = next(db.execute(query, (id,)))
            db.execute("INSERT OR REPLACE INTO cached_hit (event_id, cached) VALUES (?,?)", (event_id, id))
            return CloudReply(key, text, path, endpoint, model, cached=True, similarity=similarity)

        return await self._store.run(read)

    # ------------------------------------------------------------ likeness

    async def _embedded(self, text: str) -> tuple[str, bytes | None]:
        if self._likeness is None:
            return "", None
        try:
            async with asyncio.timeout(_EMBED_S):
                vectors = await self._likeness.embed([text])
        except (OutpostError, TimeoutError) as error:  # the same words are still found
            _log.info("no embedding for the cache: %s", error)
            vectors = None
        if vectors is None:
            return "", None
        return self._likeness.model(), vectors[0].astype("<f4").tobytes()

    async def _alike(self, text: str, scope: tuple[str, str, str, float]) -> tuple[int, float] | None:
        """The likest entry above the certified similarity."""
        threshold = None if self._likeness is None else self._likeness.threshold()
        if threshold is None:
            return None
        model, vector = await self._embedded(text)
        if vector is None:
            return None

        def search(db: apsw.Connection) -> tuple[int, float] | None:
            import numpy as np

            rows: list[Any] = db.execute(
                "SELECT id, vector FROM cached WHERE collection = ? AND language = ? AND basis = ? AND expires_at > ?"
                " AND model = ? AND vector IS NOT NULL",
                (*scope, model),
            ).fetchall()
            if not rows:
                return None
            asked = np.frombuffer(vector, "<f4")
            kept = np.stack([np.frombuffer(row[1], "<f4") for row in rows])
            cosines = kept @ asked / (np.linalg.norm(kept, axis=1) * np.linalg.norm(asked) + 1e-12)
            best = int(cosines.argmax())
            return (int(rows[best][0]), round(float(cosines[best]), 4)) if cosines[best] >= threshold else None

        return await self._store.submit(search)


def words(text: str) -> str:
    """A question without case, punctuation and spacing.

    >>> words("  When do you OPEN?") == words("when do you open")
    True
    """
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _basis(inquiry: Inquiry) -> str:
    return scope_of(inquiry.passages)


def scope_of(passages: Sequence[Quote]) -> str:
    """What the device found best, as a digest: only questions with the same one can be the same."""
    best = passages[0].text if passages else ""
    return hashlib.sha256(best.encode()).hexdigest()[:32]
