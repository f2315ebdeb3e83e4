"""One SQLite file for all that must survive on the way to the cloud and back, owned by one thread.

``synchronous=FULL``: what a method stored is on the disk when it returns, through kill -9 and a power cut. The tables
belong to the modules that use them (outbox.py, handoff.py, cache.py); migrations are append-only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import apsw

from agent.errors import StorageFailed, StorageFull

_T = TypeVar("_T")

_MIGRATIONS = (
    """
    CREATE TABLE inquiry (
        event_id TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, session TEXT, language TEXT NOT NULL,
        collection TEXT NOT NULL, personal INTEGER NOT NULL, question TEXT NOT NULL, passages TEXT NOT NULL,
        asked_at REAL NOT NULL, changed_at REAL NOT NULL, expires_at REAL NOT NULL,
        priority INTEGER NOT NULL DEFAULT 0, request TEXT, restore BLOB, attempts INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL DEFAULT 0, bytes INTEGER NOT NULL,
        answer TEXT, answer_kind TEXT, answered_by TEXT, learned INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX inquiry_due ON inquiry (priority, next_try) WHERE state = 'waiting';
    CREATE INDEX inquiry_expiry ON inquiry (state, expires_at);
    CREATE INDEX inquiry_bytes ON inquiry (bytes);
    CREATE INDEX inquiry_session ON inquiry (session) WHERE session IS NOT NULL;
    CREATE TABLE notice (
        event_id TEXT NOT NULL, topic TEXT NOT NULL, channel TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL DEFAULT 0, PRIMARY KEY (event_id, topic, channel)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE cached (
        id INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, collection TEXT NOT NULL, language TEXT NOT NULL,
        basis TEXT NOT NULL, words TEXT NOT NULL, model TEXT NOT NULL, vector BLOB, answer TEXT NOT NULL,
        path TEXT NOT NULL, endpoint TEXT NOT NULL, answered_by TEXT NOT NULL, expires_at REAL NOT NULL
    );
    CREATE INDEX cached_scope ON cached (collection, language, basis, words);
    CREATE TABLE cached_hit (event_id TEXT PRIMARY KEY, cached INTEGER NOT NULL) WITHOUT ROWID;
    """,
    "CREATE INDEX inquiry_asked ON inquiry (asked_at) WHERE state = 'waiting'",
    "DROP INDEX inquiry_bytes; CREATE INDEX inquiry_size ON inquiry (state, bytes)",
)


class Store:
    """Async context manager over the file. ``run`` raises StorageFull or StorageFailed for SQLite's errors, and what
    the work itself raises."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="escalation")
        self._db: apsw.Connection | None = None

    async def __aenter__(self) -> Store:
        await self._submit(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._submit(self._close)
        self._thread.shutdown()

    async def run(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """``work`` in one transaction on the database's thread; all of it is on disk when this returns, or nothing.

        A caller that is cancelled leaves the work to finish.
        """

        def transaction() -> _T:
            if self._db is None:
                raise StorageFailed(f"the outbox {self._path} is not open")
            return _in_transaction(self._db, work)

        return await self._submit(transaction)

    async def execute(self, statement: str, *values: object) -> int:
        """One statement as a transaction of its own; how many rows it changed."""

        def work(db: apsw.Connection) -> int:
            db.execute(statement, values)
            return db.changes()

        return await self.run(work)

    async def compact(self) -> None:
        """Write the file anew, so that nothing of what was deleted lingers in its free space or in the log."""

        def work() -> None:
            if self._db is not None:
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        await self._submit(work)

    async def _submit(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._translated, work)

    def _translated(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except apsw.FullError as error:
            raise StorageFull(f"no space left for the outbox {self._path}", remedy="Free some disk space.") from error
        except apsw.Error as error:
            raise StorageFailed(
                f"the outbox {self._path} failed: {error}", remedy="Move it away to start a new one."
            ) from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = apsw.Connection(str(self._path))
        db.set_busy_timeout(5000)
        db.execute("PRAGMA journal_mode = WAL").fetchall()  # alone: apsw stops a script at the first row that it gives
        db.execute("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON").fetchall()
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


def _in_transaction(db: apsw.Connection, work: Callable[[apsw.Connection], _T]) -> _T:
    """Not apsw's own ``with db``: that fails to roll back, and hides why, where SQLite did so itself (a full disk)."""
    db.execute("BEGIN")
    try:
        done = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return done
