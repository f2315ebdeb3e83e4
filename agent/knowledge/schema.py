"""The knowledge database: how it is opened, its tables as numbered migrations, and its errors in our words.

Migrations are append-only: a released one is never edited, a change is a new function at the end. ``user_version``
counts the ones that a file has seen; each runs in one transaction with its count.

Two tables are made while running, because their form depends on data: ``keywords_<collection>`` (FTS5, one for each
collection, so that BM25 counts words within it) and ``bits`` (vec0, as wide as the embedding).

A commit waits until the disk has it (synchronous = FULL in WAL mode), so what was acknowledged survives kill -9 and a
power cut.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from agent.errors import Cancelled, OutpostError, StorageFailed, StorageFull

BUSY_MS = 5000
CACHE_KIB = 8192
_LOW_SPACE = 1024 * 1024


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """A connection with sqlite-vec; the writer's also brings the file up to the newest schema.

    Raises StorageFull, StorageFailed (cannot be opened, is no database, was made by a newer version).
    """
    with translated(path):
        flags = apsw.SQLITE_OPEN_READWRITE | (0 if read_only else apsw.SQLITE_OPEN_CREATE)
        connection = apsw.Connection(str(path), flags=flags)
        try:
            connection.set_busy_timeout(BUSY_MS)
            connection.enable_load_extension(True)
            connection.load_extension(_vec0())
            connection.enable_load_extension(False)
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA foreign_keys = ON")
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            else:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                migrate(connection, path)
        except BaseException:
            connection.close(True)
            raise
    return connection


def migrate(connection: apsw.Connection, path: Path, to: int | None = None) -> None:
    """Run the migrations that the file has not seen, up to number ``to`` (default: all)."""
    seen = int(connection.execute("PRAGMA user_version").get)
    if seen > len(MIGRATIONS):
        raise StorageFailed(
            f"{path} has schema {seen}; this version of Outpost knows {len(MIGRATIONS)}",
            remedy="Use the newer Outpost that wrote it, or move the file away and ingest again.",
        )
    for number, migration in enumerate(MIGRATIONS[seen:to], start=seen + 1):
        with immediate(connection):
            connection.execute(migration)
            connection.execute(f"PRAGMA user_version = {number}")


def rows(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    found: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
    return found


@contextmanager
def immediate(connection: apsw.Connection) -> Iterator[None]:
    """A write transaction that takes its lock at once; rolled back when the block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, ``from`` them."""
    try:
        yield
    except apsw.FullError as error:
        raise _full(path) from error
    except apsw.InterruptError as error:
        raise Cancelled("the search was cancelled") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StorageFailed(
            f"the knowledge index {path} is damaged: {error}",
            remedy="Move the file away and ingest the documents again.",
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StorageFailed(
            f"the knowledge index {path} is in use by another process", remedy="Stop the other one, then try again."
        ) from error
    except apsw.Error as error:
        raise _failed(path, error) from error


def _vec0() -> str:
    """sqlite-vec's library; importing the package instead would import numpy and sqlite3 with it."""
    package = importlib.util.find_spec("sqlite_vec")
    if package is None or package.origin is None:
        raise StorageFailed("sqlite-vec is not installed", remedy="Run: pip install sqlite-vec")
    return str(Path(package.origin).with_name("vec0"))


def _failed(path: Path, error: apsw.Error) -> OutpostError:
    """An I/O error on a full disk does not always say so (the shared-memory file of WAL mode gives a plain one)."""
    if isinstance(error, (apsw.IOError, apsw.CantOpenError)):
        try:
            space = os.statvfs(path.parent)
            if space.f_bavail * space.f_frsize < _LOW_SPACE:
                return _full(path)
        except OSError:
            pass
    return StorageFailed(
        f"the knowledge index {path} failed: {error}", remedy="Check that the folder exists and can be written."
    )


def _full(path: Path) -> StorageFull:
    return StorageFull(f"no space left for the knowledge index {path}", remedy="Free some disk space, then try again.")


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
