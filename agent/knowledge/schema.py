"""The knowledge database: its tables as numbered migrations, and what its connections need beside them.

Two tables are made while running, because their form depends on data: ``keywords_<collection>`` (FTS5, one for each
collection, so that BM25 counts words within it) and ``bits`` (vec0, as wide as the embedding).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import apsw

from agent import database
from agent.errors import Cancelled, StorageFailed

CACHE_KIB = 8192


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """A connection with sqlite-vec; the writer's also brings the file up to the newest schema.

    Raises StorageFull, StorageFailed (cannot be opened, is no database, was made by a newer version).
    """
    with translated(path):
        if not read_only:
            return database.opened(path, MIGRATIONS, prepare=_prepare)
        with ExitStack() as undo:
            connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            undo.callback(connection.close, True)
            connection.set_busy_timeout(database.BUSY_MS)
            _prepare(connection)
            connection.execute("PRAGMA query_only = ON")
            undo.pop_all()
        return connection


def rows(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    found: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
    return found


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, ``from`` them."""
    with database.translated(path, "knowledge index", "Move the file away and ingest the documents again."):
        try:
            yield
        except apsw.InterruptError as error:
            raise Cancelled("the search was cancelled") from error


def _prepare(connection: apsw.Connection) -> None:
    connection.enable_load_extension(True)
    connection.load_extension(_vec0())
    connection.enable_load_extension(False)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA foreign_keys = ON")


def _vec0() -> str:
    """sqlite-vec's library; importing the package instead would import numpy and sqlite3 with it."""
    package = importlib.util.find_spec("sqlite_vec")
    if package is None or package.origin is None:
        raise StorageFailed("sqlite-vec is not installed", remedy="Run: pip install sqlite-vec")
    return str(Path(package.origin).with_name("vec0"))


_DOCUMENTS_AND_KEYWORDS = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE collections (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL REFERENCES collections (id),
    name TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    hash BLOB NOT NULL,
    stored_at REAL NOT NULL,
    UNIQUE (collection, name)
);

CREATE TABLE metadata (
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('text', 'number', 'flag')),
    value NOT NULL,
    PRIMARY KEY (document, key)
) WITHOUT ROWID;
CREATE INDEX metadata_by_value ON metadata (key, type, value);

CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    heading TEXT NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (document, position)
);

CREATE TABLE sentences (
    chunk INTEGER NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    lead TEXT NOT NULL,
    text TEXT NOT NULL,
    search TEXT NOT NULL,
    PRIMARY KEY (chunk, position)
) WITHOUT ROWID;
"""

# kind: 0 paragraph, 1 pair of sentences, 2 sentence, 3 sentence with its heading (agent/knowledge/vectors.py). The key
# keeps what a scan reads together: all paragraphs of a collection, then all its pairs.
_VECTORS = """
ALTER TABLE documents ADD COLUMN embedded INTEGER NOT NULL DEFAULT 0;
CREATE INDEX documents_not_embedded ON documents (collection) WHERE embedded = 0;

CREATE TABLE vectors (
    collection INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    position INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (collection, kind, chunk, position)
) WITHOUT ROWID;
"""

MIGRATIONS = (_DOCUMENTS_AND_KEYWORDS, _VECTORS)
