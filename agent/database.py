"""The one way to an SQLite file: how it is opened and migrated, its errors in our words, and the thread that owns it.

A file's owner derives from `Database` and is itself schema and queries. Who needs connections of its own
(agent/knowledge has one writer and several readers) uses `opened`, `transaction` and `translated` alone.

Files are in WAL mode: with ``synchronous`` FULL what was committed survives kill -9 and a power cut, with NORMAL a
power cut may take the last commits. Migrations are append-only: a released one is never edited, a change is a new
script at the end. ``user_version`` counts the ones that a file has seen; each runs in one transaction with its count.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import apsw

from agent.errors import OutpostError, StorageFailed, StorageFull

BUSY_MS: Final = 5000
"""So long a connection waits for another one's lock."""
MOVE_AWAY: Final = "Move it away to start a new one."
_LOW_SPACE: Final = 1024 * 1024
_T = TypeVar("_T")


# ---------------------------------------------------------------- a connection


def opened(
    path: Path,
    migrations: Sequence[str],
    *,
    synchronous: Literal["NORMAL", "FULL"] = "FULL",
    secure_delete: bool = False,
    mode: int | None = None,
    prepare: Callable[[apsw.Connection], None] | None = None,
) -> apsw.Connection:
    """A connection that may write, to a file with the newest schema; makes the file where it is missing.

    ``secure_delete``: what is deleted is overwritten. ``mode``: the permissions of a new file, and of those that SQLite
    puts beside it. ``prepare`` runs before the migrations (extensions that they need). Raises StorageFailed for a file
    of a newer version, else SQLite's errors and OSError: see `translated`.
    """
    if mode is not None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, mode))
    with ExitStack() as undo:
        db = apsw.Connection(str(path))
        undo.callback(db.close, True)
        db.set_busy_timeout(BUSY_MS)
        if prepare is not None:
            prepare(db)
        _use_log(db)
        db.execute(f"PRAGMA synchronous = {synchronous}").fetchall()
        if secure_delete:
            db.execute("PRAGMA secure_delete = ON").fetchall()
        migrate(db, path, migrations)
        undo.pop_all()
    return db


def _use_log(db: apsw.Connection) -> None:
    """WAL mode. SQLite does not wait for another connection that changes the mode of a new file at the same moment."""
    ends = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except apsw.BusyError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.01)


def migrate(db: apsw.Connection, path: Path, migrations: Sequence[str], to: int | None = None) -> None:
    """Run the migrations that the file has not seen, up to number ``to`` (default: all)."""
    while (seen := _version(db)) < len(migrations[:to]):
        with transaction(db):
            if _version(db) == seen:  # else another process was quicker
                db.execute(migrations[seen])
                db.execute(f"PRAGMA user_version = {seen + 1}")
    if seen > len(migrations):
        raise StorageFailed(
            f"{path} has schema {seen}; this version of Outpost knows {len(migrations)}",
            remedy="Use the newer Outpost that wrote it, or move the file away to start a new one.",
        )


def _version(db: apsw.Connection) -> int:
    return int(db.execute("PRAGMA user_version").get)


@contextmanager
def transaction(db: apsw.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
    """Committed at the end of the block, rolled back when it raises. IMMEDIATE takes the write lock at once, DEFERRED
    is for reading: one state of the file for several statements.

    Not apsw's own ``with db``: on a full disk SQLite rolls back by itself; a second time is an error, and hides why.
    """
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


# ---------------------------------------------------------------- errors


@contextmanager
def translated(path: Path, name: str, remedy: str = MOVE_AWAY) -> Iterator[None]:
    """SQLite's errors, and the system's about the file, as StorageFull or StorageFailed ``from`` them.

    ``name`` says what the file is ("journal"), ``remedy`` what to do where it is damaged.
    """
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise _meaning(error, path, f"the {name} {path}", remedy) from error


def _meaning(error: apsw.Error | OSError, path: Path, file: str, remedy: str) -> OutpostError:
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return StorageFailed(f"{file} is damaged: {error}", remedy=remedy)
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StorageFailed(f"{file} is in use by another process", remedy="Stop the other one, then try again.")
    if isinstance(error, apsw.FullError) or _lacks_space(error, path):
        return StorageFull(f"no space left for {file}", remedy="Free some disk space, then try again.")
    return StorageFailed(f"{file} failed: {error}", remedy="Check the disk, and that the folder is there and writable.")


def _lacks_space(error: apsw.Error | OSError, path: Path) -> bool:
    """An I/O error on a full disk does not always say so (the shared-memory file of WAL mode gives a plain one)."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, (apsw.IOError, apsw.CantOpenError)):
        with suppress(OSError):
            space = os.statvfs(path.parent)
            return space.f_bavail * space.f_frsize < _LOW_SPACE
    return False


# ---------------------------------------------------------------- a thread


class Database:
    """Async context manager over one SQLite file, used on a thread of its own; a base class for the file's owner.

    Every method raises StorageFull or StorageFailed for SQLite's errors, and what the work itself raises. A caller that
    is cancelled leaves its work to finish. Parameters as of `opened` and `translated`; the folder is made, too.
    """

    close_s: float = 10.0
    """What still runs so long after leaving the context is interrupted; the file is given up after twice as long."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[str],
        name: str,
        remedy: str = MOVE_AWAY,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "FULL",
        secure_delete: bool = False,
        mode: int | None = None,
    ) -> None:
        self._path = path
        self._name = name
        self._remedy = remedy
        self._opened: Callable[[], apsw.Connection] = lambda: opened(
            path, migrations, synchronous=synchronous, secure_delete=secure_delete, mode=mode
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._db: apsw.Connection | None = None

    async def __aenter__(self) -> Self:
        await self._call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises StorageFailed where the disk does not let go of the file."""
        closing = self._call(self._close)
        db = self._db
        for _ in range(2):
            if (await asyncio.wait({closing}, timeout=self.close_s))[0]:
                self._thread.shutdown()
                return closing.result()
            if db is not None:
                with suppress(apsw.ConnectionClosedError):
                    db.interrupt()
        self._thread.shutdown(wait=False)
        raise StorageFailed(f"the {self._name} {self._path} cannot be closed", remedy="Look at the disk.")

    def _ready(self, db: apsw.Connection) -> None:
        """What an owner does first, in one transaction; the file is not open where this raises."""

    async def run(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """``work`` in one transaction; all of it is on disk when this returns, or nothing."""

        def within(db: apsw.Connection) -> _T:
            with transaction(db):
                return work(db)

        return await self.submit(within)

    async def submit(self, work: Callable[[apsw.Connection], _T]) -> _T:
        """``work`` in no transaction: for a single query, which needs no write lock."""

        def on_thread() -> _T:
            if self._db is None:
                raise StorageFailed(f"the {self._name} {self._path} is not open")
            return work(self._db)

        return await self._call(on_thread)

    async def execute(self, statement: str, *values: object) -> int:
        """One statement as a transaction of its own; how many rows it changed."""

        def work(db: apsw.Connection) -> int:
            db.execute(statement, values)
            return db.changes()

        return await self.run(work)

    async def compact(self) -> None:
        """Write the file anew, so that nothing of what was deleted lingers in its free space or in the log."""

        def work(db: apsw.Connection) -> None:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

        await self.submit(work)

    def _call(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        def checked() -> _T:
            with translated(self._path, self._name, self._remedy):
                return work()

        return asyncio.get_running_loop().run_in_executor(self._thread, checked)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            db = self._opened()
            undo.callback(db.close, True)
            with transaction(db):
                self._ready(db)
            undo.pop_all()
        self._db = db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
