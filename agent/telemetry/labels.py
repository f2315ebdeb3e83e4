"""What is known about the rightness of answers: audits that wait, live counts, drift, examples for a calibration.

One SQLite file. A question stands here only while its audit waits; when the cloud has been asked, its row goes and in
the same transaction its label comes in, so that no crash counts an answer twice or loses count of a broken promise.
What stays of a label are counts and the event's id. Examples hold questions and answers, and are kept only where the
operator allows it. ``synchronous=FULL`` and ``secure_delete``: what was stored is on the disk, what was erased is gone.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import apsw

from agent.database import Database

JUDGED = 20_000
"""Events whose label is remembered as counted, and served answers that a visitor may still judge."""
_SEQUENCES = 50

_MIGRATIONS = (
    """
    CREATE TABLE audit (
        event_id TEXT PRIMARY KEY, at REAL NOT NULL, place REAL NOT NULL, session TEXT, next_try REAL NOT NULL,
        route TEXT NOT NULL, certificate TEXT, inquiry TEXT NOT NULL, answer TEXT NOT NULL,
        confidence REAL NOT NULL, features TEXT NOT NULL
    );
    CREATE TABLE judged (event_id TEXT PRIMARY KEY);
    CREATE TABLE served (event_id TEXT PRIMARY KEY, route TEXT NOT NULL, certificate TEXT);
    CREATE TABLE sequence (key TEXT PRIMARY KEY, state TEXT NOT NULL, changed_at REAL NOT NULL);
    CREATE TABLE window (key TEXT PRIMARY KEY, scores BLOB NOT NULL, changed_at REAL NOT NULL);
    CREATE TABLE day (day TEXT PRIMARY KEY, audits INTEGER NOT NULL);
    CREATE TABLE seed (value TEXT NOT NULL);
    CREATE TABLE example (
        number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, session TEXT, body TEXT NOT NULL
    );
    CREATE INDEX audit_place ON audit (place);
    """,
    """
    CREATE TABLE expected (
        number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, session TEXT, body TEXT NOT NULL
    );
    """,
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A served answer that is to be audited; ``inquiry`` as JSON; ``place`` in 0..1 orders the audits; ``at`` and
    ``next_try`` in Unix seconds."""

    event_id: str
    at: float
    place: float
    session: str | None
    next_try: float
    route: str
    certificate: str | None
    inquiry: str
    answer: str
    confidence: float
    features: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled question, as it is exported: one JSON object a line.

    ``right``: whether the device's ``answer`` was judged right by ``source``. ``answers`` are acceptable answers as far
    as they are known: the device's own where it is right, else the cloud's, none where the cloud knew none either.
    ``share``: how likely such an answer was to be taken (1 for escalated questions, risk.audit_share for audited ones).
    ``at`` in Unix seconds; ``cloud`` is what the cloud said.
    """

    question: str
    answers: tuple[str, ...]
    collection: str
    language: str
    route: str
    answer: str
    right: bool
    source: Literal["audit", "escalation"]
    confidence: float
    features: Mapping[str, float]
    share: float
    at: float
    cloud: str = ""


class Labels(Database):
    """One SQLite file; its methods raise as those of `Database`, and what they changed is on the disk when they return.
    ``keep``: most examples; 0 keeps none, and erases those of before at the start."""

    def __init__(self, path: Path, *, keep: int = 0, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path, _MIGRATIONS, "labels", secure_delete=True)
        self._keep = keep
        self._clock = clock
        self.seed = ""
        """Drawn once for this file: which answers are audited depends on it and on their event ids only."""

    def _ready(self, db: apsw.Connection) -> None:
        drawn = secrets.token_hex(16)
        db.execute("INSERT INTO seed SELECT ? WHERE NOT EXISTS (SELECT 1 FROM seed)", (drawn,))
        self.seed = str(next(db.execute("SELECT value FROM seed"))[0])
        for table in ("example", "expected"):
            db.execute(f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?", (self._keep,))

    # ------------------------------------------------------------ audits that wait

    async def put(self, waiting: Waiting, most: int) -> None:
        """Store an answer for its audit. Of more than ``most`` those with the highest places go, so that what is left
        is an even draw of all, whenever they came."""
        values = {**asdict(waiting), "features": json.dumps(dict(waiting.features))}
        columns = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)

        def work(db: apsw.Connection) -> None:
            db.execute(f"INSERT OR IGNORE INTO audit ({columns}) VALUES ({marks})", values)
            db.execute("DELETE FROM audit WHERE rowid NOT IN (SELECT rowid FROM audit ORDER BY place LIMIT ?)", (most,))

        await self.run(work)

    async def due(self) -> Waiting | None:
        """The next to audit."""

        def work(db: apsw.Connection) -> Waiting | None:
            names = [field.name for field in fields(Waiting)]
            query = f"SELECT {', '.join(names)} FROM audit WHERE next_try <= ? ORDER BY place LIMIT 1"
            row = next(db.execute(query, (self._clock(),)), None)
            if row is None:
                return None
            values: dict[str, Any] = dict(zip(names, row, strict=True))
            return Waiting(**values | {"features": json.loads(values["features"])})

        return await self.submit(work)

    async def waiting(self) -> int:
        return await self.submit(lambda db: int(next(db.execute("SELECT count(*) FROM audit"))[0]))

    async def postpone(self, event_id: str, until: float) -> None:
        await self.execute("UPDATE audit SET next_try = ? WHERE event_id = ?", until, event_id)

    async def drop(self, event_id: str) -> None:
        """Erase an audit without a label."""
        await self.execute("DELETE FROM audit WHERE event_id = ?", event_id)

    async def drop_before(self, at: float) -> None:
        """Erase audits of answers before ``at`` (Unix seconds)."""
        await self.execute("DELETE FROM audit WHERE at < ?", at)

    async def spend(self, day: str, most: int) -> bool:
        """Take one of the day's audits; False where there is none left."""

        def work(db: apsw.Connection) -> bool:
            db.execute("DELETE FROM day WHERE day <> ?", (day,))
            db.execute("INSERT OR IGNORE INTO day VALUES (?, 0)", (day,))
            db.execute("UPDATE day SET audits = audits + 1 WHERE day = ? AND audits < ?", (day, most))
            return db.changes() > 0

        return await self.run(work)

    async def spent(self, day: str) -> int:
        def work(db: apsw.Connection) -> int:
            row = next(db.execute("SELECT audits FROM day WHERE day = ?", (day,)), (0,))
            return int(row[0])

        return await self.submit(work)

    # ------------------------------------------------------------ labels

    async def settle(
        self,
        event_id: str,
        key: str,
        state: Mapping[str, Any],
        *,
        example: Example | None = None,
        session: str | None = None,
    ) -> None:
        """Count an event's label: its audit goes, the sequence ``key`` is in ``state`` from now on, and the example is
        kept where the operator allows it."""

        def work(db: apsw.Connection) -> None:
            if example is not None:
                self._insert_example(db, event_id, session, example)
            db.execute("DELETE FROM audit WHERE event_id = ?", (event_id,))
            db.execute("DELETE FROM served WHERE event_id = ?", (event_id,))
            db.execute("INSERT OR IGNORE INTO judged VALUES (?)", (event_id,))
            db.execute("DELETE FROM judged WHERE rowid <= (SELECT max(rowid) FROM judged) - ?", (JUDGED,))
            db.execute("INSERT OR REPLACE INTO sequence VALUES (?, ?, ?)", (key, json.dumps(state), self._clock()))
            newest = "SELECT key FROM sequence ORDER BY changed_at DESC LIMIT ?"
            db.execute(f"DELETE FROM sequence WHERE key NOT IN ({newest})", (_SEQUENCES,))

        await self.run(work)

    async def sequences(self) -> dict[str, dict[str, Any]]:
        """The states of all sequences by key."""

        def work(db: apsw.Connection) -> dict[str, dict[str, Any]]:
            return {key: json.loads(state) for key, state in db.execute("SELECT key, state FROM sequence")}

        return await self.submit(work)

    async def restart(self, key: str) -> None:
        """Forget a sequence."""
        await self.execute("DELETE FROM sequence WHERE key = ?", key)

    async def remember_served(self, event_id: str, route: str, certificate: str | None) -> None:
        """So that a visitor's judgement finds its sequence."""

        def work(db: apsw.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO served VALUES (?, ?, ?)", (event_id, route, certificate))
            db.execute("DELETE FROM served WHERE rowid <= (SELECT max(rowid) FROM served) - ?", (JUDGED,))

        await self.run(work)

    async def to_judge(self, event_id: str) -> tuple[str, str | None] | None:
        """Route and certificate of a served answer that has no label, and waits for no other."""

        def work(db: apsw.Connection) -> tuple[str, str | None] | None:
            row = next(
                db.execute(
                    "SELECT route, certificate FROM served WHERE event_id = ?1"
                    " AND NOT EXISTS (SELECT 1 FROM audit WHERE event_id = ?1)"
                    " AND NOT EXISTS (SELECT 1 FROM judged WHERE event_id = ?1)",
                    (event_id,),
                ),
                None,
            )
            return (str(row[0]), row[1]) if row else None

        return await self.submit(work)

    # ------------------------------------------------------------ drift

    async def windows(self) -> dict[str, bytes]:
        return await self.submit(
            lambda db: {key: bytes(data) for key, data in db.execute("SELECT key, scores FROM window")}
        )

    async def keep_window(self, key: str, scores: bytes) -> None:
        def work(db: apsw.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO window VALUES (?, ?, ?)", (key, scores, self._clock()))
            newest = "SELECT key FROM window ORDER BY changed_at DESC LIMIT ?"
            db.execute(f"DELETE FROM window WHERE key NOT IN ({newest})", (_SEQUENCES,))

        await self.run(work)

    # ------------------------------------------------------------ examples

    async def add_example(self, event_id: str, session: str | None, example: Example) -> None:
        """Keep an event's example where the operator allows it; the oldest beyond the limit go."""

        if self._keep:
            await self.run(lambda db: self._insert_example(db, event_id, session, example))

    def _insert_example(self, db: apsw.Connection, event_id: str, session: str | None, example: Example) -> None:
        body = json.dumps(asdict(example), ensure_ascii=False)
        if self._keep:
            db.execute(
                "INSERT OR REPLACE INTO example (event_id, session, body) VALUES (?, ?, ?)", (event_id, session, body)
            )
            db.execute("DELETE FROM example WHERE number <= (SELECT max(number) FROM example) - ?", (self._keep,))

    async def expect(self, event_id: str, session: str | None, example: Example) -> None:
        """Keep what is known of an event whose answer comes later, until `expected` is told."""

        def work(db: apsw.Connection) -> None:
            body = json.dumps(asdict(example), ensure_ascii=False)
            db.execute(
                "INSERT OR REPLACE INTO expected (event_id, session, body) VALUES (?, ?, ?)", (event_id, session, body)
            )
            db.execute("DELETE FROM expected WHERE number <= (SELECT max(number) FROM expected) - ?", (self._keep,))

        if self._keep:
            await self.run(work)

    async def expected(self) -> dict[str, tuple[str | None, Example]]:
        """What `expect` keeps: session and example by event, oldest first."""

        def work(db: apsw.Connection) -> dict[str, tuple[str | None, Example]]:
            rows = db.execute("SELECT event_id, session, body FROM expected ORDER BY number")
            return {str(id): (session, _example(str(body))) for id, session, body in rows}

        return await self.submit(work)

    async def unexpect(self, event_id: str, session: str | None = None, example: Example | None = None) -> None:
        """The answer is there, or never comes: forget what was expected, and keep the example where it is one now."""

        def work(db: apsw.Connection) -> None:
            db.execute("DELETE FROM expected WHERE event_id = ?", (event_id,))
            if db.changes() and example is not None:  # else the session was forgotten meanwhile
                self._insert_example(db, event_id, session, example)

        await self.run(work)

    async def examples(self, after: int = 0, limit: int = 500) -> list[tuple[int, str]]:
        """Some examples as JSON lines with their numbers, oldest first, those after number ``after``."""

        def work(db: apsw.Connection) -> list[tuple[int, str]]:
            rows = db.execute(
                "SELECT number, body FROM example WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
            )
            return [(int(number), str(body)) for number, body in rows]

        return await self.submit(work)

    async def count_examples(self) -> int:
        return await self.submit(lambda db: int(next(db.execute("SELECT count(*) FROM example"))[0]))

    async def forget(self, session: str) -> int:
        """Erase all that a session asked; how many audits and examples that were."""

        def work(db: apsw.Connection) -> int:
            erased = 0
            for table in ("audit", "example", "expected"):
                db.execute(f"DELETE FROM {table} WHERE session = ?", (session,))
                erased += db.changes()
            return erased

        return await self.run(work)


def _example(body: str) -> Example:
    found = json.loads(body)
    return Example(**found | {"answers": tuple(found["answers"])})
