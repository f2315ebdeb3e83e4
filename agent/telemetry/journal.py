"""The journal: one row an answer, so that an event id can be looked up and judged later.

Rows hold what was decided and why, never what was asked or said: a kiosk keeps nothing of a visitor. Only the newest
rows are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import apsw

from agent.database import Database
from agent.errors import NotFound

KEEP = 50_000
Rating = Literal["right", "wrong"]

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


class Journal(Database):
    """One SQLite file; its methods raise as those of `Database`."""

    def __init__(self, path: Path, *, keep: int = KEEP) -> None:
        super().__init__(path, _MIGRATIONS, "journal", synchronous="NORMAL")
        self._keep = keep

    async def record(self, event: Event) -> None:
        """On disk when it returns; a power cut (not a crash) may lose the last few, which costs no answer."""

        def insert(db: apsw.Connection) -> None:
            db.execute(
                "INSERT INTO event (id, at, decision, reason, route, answer_kind, confidence, language, intent,"
                " timings) VALUES (?,?,?,?,?,?,?,?,?,?)",
                (event.id, event.at, event.decision, event.reason, event.route, event.answer_kind, event.confidence,
                 event.language, event.intent, json.dumps(dict(event.timings_ms))),
            )  # fmt: skip
            db.execute("DELETE FROM event WHERE rowid <= (SELECT max(rowid) FROM event) - ?", (self._keep,))

        await self.run(insert)

    async def get(self, id: str) -> Event:
        """Raises NotFound."""
        query = (
            "SELECT id, decision, reason, route, confidence, language, answer_kind, intent, timings, rating, at"
            " FROM event WHERE id = ?"
        )
        row = await self.submit(lambda db: db.execute(query, (id,)).fetchone())
        if row is None:
            raise _unknown(id)
        values = list(row)
        values[8] = json.loads(values[8])
        return Event(*values)

    async def rate(self, id: str, rating: Rating) -> None:
        """Remember a visitor's judgement; the last one counts. Raises NotFound."""
        if not await self.execute("UPDATE event SET rating = ?, rated_at = ? WHERE id = ?", rating, time.time(), id):
            raise _unknown(id)

    async def decisions(self, since: float) -> dict[tuple[str, str], int]:
        """How many answers there were a (decision, reason) since ``since`` (Unix seconds)."""
        query = "SELECT decision, reason, count(*) FROM event WHERE at >= ? GROUP BY decision, reason"
        return await self.submit(
            lambda db: {(decision, reason): count for decision, reason, count in db.execute(query, (since,))}
        )


def _unknown(id: str) -> NotFound:
    return NotFound(f"no event {id!r}", remedy="Event ids are in the `outpost` object of every answer.")
