"""One SQLite file for all that must survive on the way to the cloud and back: its tables.

They belong to the modules that use them (outbox.py, handoff.py, cache.py). What one of those stored is on the disk when
it returns, through kill -9 and a power cut.
"""

from __future__ import annotations

from pathlib import Path

from agent.database import Database

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
    "ALTER TABLE cached ADD COLUMN session TEXT",
)


class Store(Database):
    """Async context manager over the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _MIGRATIONS, "outbox", secure_delete=True)
