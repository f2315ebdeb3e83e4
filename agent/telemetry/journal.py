"""The journal: one row an answer, so that an event id can be looked up and judged later.

Rows hold what was decided and why, never what was asked or said: a kiosk keeps nothing of a visitor. One thread owns
the database; the async methods hand over to it. Only the newest rows are kept.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import apsw

from agent.errors import NotFound, StorageFailed, StorageFull

KEEP = 50_000
Rating = Literal["right", "wrong"]
_T = TypeVar("_T")

_MIGRATIONS = (
    """
    CREATE TABLE event (
        id TEXT PRIMARY KEY, at REAL NOT NULL, decision TEXT NOT NULL, reason TEXT NOT NULL, route TEXT NOT NULL,
        answer_kind TEXT, confidence REAL NOT NULL, language TEXT NOT NULL, intent TEXT, timings TEXT NOT NULL,
        rating TEXT, rated_at REAL
    );
    CREATE INDEX event_at ON event (at);
    """,
)


@dataclass(frozen=True, slots=True)
class Event:
    """What is remembered of an answer; ``at`` in Unix seconds, timings in milliseconds."""

    id: str
    decision: str
    reason: str
    route: str
    confidence: float
    language: str
    answer_kind: str | None = None
    intent: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    rating: Rating | None = None
    at: float = field(default_factory=time.time)


class Journal:
    """Async context manager over one SQLite file; every method raises StorageFull or StorageFailed."""

    def __init__(self, path: Path, *, keep: int = KEEP) -> None:
        self._path = path
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._db: apsw.Connection | None = None

    async def __aenter__(self) -> Journal:
        await self._run(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run(self._close)
        self._thread.shutdown()

    async def record(self, event: Event) -> None:
        """On disk when it returns; a power cut (not a crash) may lose the last few, which costs no answer."""
        await self._run(lambda: self._insert(event))

    async def get(self, id: str) -> Event:
        """Raises NotFound."""
        return await self._run(lambda: self._select(id))

    async def rate(self, id: str, rating: Rating) -> None:
        """Remember a visitor's judgement; the last one counts. Raises NotFound."""
        await self._run(lambda: self._rate(id, rating))

    async def decisions(self, since: float) -> dict[tuple[str, str], int]:
        """How many answers there were a (decision, reason) since ``since`` (Unix seconds)."""
        return await self._run(lambda: self._count(since))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _translated(work, self._path))

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = apsw.Connection(str(self._path))
        db.set_busy_timeout(5000)
        # fetchall: apsw runs the statements after one that gives a row only as the rows are read
        db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL").fetchall()
        version = int(next(db.execute("PRAGMA user_version"))[0])
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            with db:
                db.execute(script)
                db.execute(f"PRAGMA user_version = {number}")
        self._db = db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    @property
    def _open_db(self) -> apsw.Connection:
        if self._db is None:
            raise StorageFailed(f"the journal {self._path} is not open")
        return self._db

    def _insert(self, event: Event) -> None:
        self._open_db.execute(
            "INSERT INTO event (id, at, decision, reason, route, answer_kind, confidence, language, intent, timings)"
            " VALUES (?,?,?,?,?,?,?,?,?,?)",
            (event.id, event.at, event.decision, event.reason, event.route, event.answer_kind, event.confidence,
             event.language, event.intent, json.dumps(dict(event.timings_ms))),
        )  # fmt: skip
        self._open_db.execute("DELETE FROM event WHERE rowid <= (SELECT max(rowid) FROM event) - ?", (self._keep,))

    def _select(self, id: str) -> Event:
        row = next(
            self._open_db.execute(
                "SELECT id, decision, reason, route, confidence, language, answer_kind, intent, timings, rating, at"
                " FROM event WHERE id = ?",
                (id,),
            ),
            None,
        )
        if row is None:
            raise NotFound(f"no event {id!r}", remedy="Event ids are in the `outpost` object of every answer.")
        values = list(row)
        values[8] = json.loads(values[8])
        return Event(*values)

    def _rate(self, id: str, rating: Rating) -> None:
        db = self._open_db
        db.execute("UPDATE event SET rating = ?, rated_at = ? WHERE id = ?", (rating, time.time(), id))
        if db.changes() == 0:
            raise NotFound(f"no event {id!r}", remedy="Event ids are in the `outpost` object of every answer.")

    def _count(self, since: float) -> dict[tuple[str, str], int]:
        rows = self._open_db.execute(
            "SELECT decision, reason, count(*) FROM event WHERE at >= ? GROUP BY decision, reason", (since,)
        )
        return {(decision, reason): count for decision, reason, count in rows}


def _translated(work: Callable[[], _T], path: Path) -> Callable[[], _T]:
    def run() -> _T:
        try:
            return work()
        except apsw.FullError as error:
            raise StorageFull(f"no space left for the journal {path}", remedy="Free some disk space.") from error
        except apsw.Error as error:
            raise StorageFailed(
                f"the journal {path} failed: {error}", remedy="Move it away to start a new one."
            ) from error

    return run
