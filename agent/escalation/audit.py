"""The audit log: every request that left the device, exactly as it was sent.

Two tables. ``entry`` is a hash chain that is never changed: each entry holds a salted digest of what was sent and the
hash of the entry before it; ``head`` says where the chain ends, so that a cut end shows. ``payload`` holds the bytes
with their salt and session, so that a person's data can be deleted: with the salt gone the digest says nothing about
the words, and the chain still verifies. That payloads were deleted is an entry of the chain itself; one that is missing
without such an entry is a fault.

Whoever may write the file can also write a whole new chain, or cut its end off. Note the head somewhere else (`outpost
audit verify` and `outpost status` print it) and give it to a later verification: then the entries up to it are the same
ones, and all there.

`AuditLog` is the daemon's, on a thread of its own. The functions at the end read and change the same file without a
daemon, or beside one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import apsw

from agent.database import BUSY_MS, Database, opened, transaction, translated
from agent.errors import NotFound, StorageFailed

FILE: Final = "audit.db"
KEEP_BYTES: Final = 256 << 20
"""So much of the payloads is kept; beyond it the oldest are deleted, which the chain says."""
_START: Final = "0" * 64
_SHARE_DELETED: Final = 0.1
_MOST_FAULTS: Final = 1000
_MODE: Final = 0o600
_NAME: Final = "audit log"
_REMEDY: Final = "Keep the file and look at what happened to the disk."

_MIGRATIONS: Final = (
    """
    CREATE TABLE entry (
        seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL,
        endpoint TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, detail TEXT NOT NULL,
        previous TEXT NOT NULL, hash TEXT NOT NULL
    );
    CREATE TABLE payload (
        seq INTEGER PRIMARY KEY, session TEXT, key TEXT NOT NULL, salt BLOB NOT NULL, data BLOB NOT NULL
    );
    CREATE INDEX payload_session ON payload (session);
    CREATE INDEX payload_key ON payload (key);
    CREATE TABLE forgotten (key TEXT PRIMARY KEY);
    CREATE TABLE head (only INTEGER PRIMARY KEY CHECK (only = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
    """,
)
_COLUMNS: Final = "seq, at, kind, key, path, endpoint, size, digest, detail, previous, hash"
_SESSION: Final = "(SELECT session FROM payload WHERE payload.seq = entry.seq)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain. ``kind``: ``sent``, or ``deleted`` for payloads taken out since (``detail`` names their
    numbers). ``at`` in Unix seconds, ``size`` of the payload in bytes; digest and hashes in hex. ``session`` is no part
    of the chain: it is kept, and deleted, with the payload."""

    seq: int
    at: float
    kind: Literal["sent", "deleted"]
    key: str
    path: str
    endpoint: str
    size: int
    digest: str
    detail: str
    previous: str
    hash: str
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one entry; ``seq`` is its number, or the number of the one that is not there."""

    seq: int
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """``payloads`` of the ``entries`` are still there, and ``deleted`` are not and the chain says why. ``head`` is
    ``number:hash`` of the last entry."""

    entries: int
    payloads: int
    deleted: int
    head: str
    faults: tuple[Fault, ...]


class AuditLog(Database):
    """``path`` (state folder / FILE), readable by its owner only. Methods raise as those of `Database`."""

    def __init__(self, path: Path, *, keep_bytes: int = KEEP_BYTES) -> None:
        super().__init__(path, _MIGRATIONS, _NAME, _REMEDY, secure_delete=True, mode=_MODE)
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0
        self.length = 0
        """Entries of the chain as this object saw it last, for metrics."""

    def _ready(self, db: apsw.Connection) -> None:
        self._kept_bytes = _kept_bytes(db)
        self.length = _head(db)[0]

    async def record(self, payload: bytes, *, key: str, session: str | None, path: str, endpoint: str) -> int:
        """Keep what is about to leave; its number in the chain. Call it before every send, with the very bytes that are
        sent, and send nothing where it raises. Durable when it returns.

        ``key`` is the CloudRequest's. ``session`` None: that of an earlier send of the same key, if there was one.
        """
        return await self.run(lambda db: self._append(db, payload, key, session, path, endpoint))

    async def forget(self, session: str) -> int:
        """Delete what was sent for a session, from the disk too; how many payloads there were. What is sent later under
        their keys is recorded without its payload."""
        return await self.submit(lambda db: _forget(db, session))

    async def head(self) -> str:
        """``number:hash`` of the last entry, to be noted elsewhere."""
        self.length, hash = await self.submit(_head)
        return f"{self.length}:{hash}"

    def _append(
        self, db: apsw.Connection, payload: bytes, key: str, session: str | None, path: str, endpoint: str
    ) -> int:
        salt = secrets.token_bytes(32)
        is_forgotten = next(db.execute("SELECT 1 FROM forgotten WHERE key = ?", (key,)), None) is not None
        if session is None and not is_forgotten:
            known = "SELECT session FROM payload WHERE key = ? AND session IS NOT NULL LIMIT 1"
            session = next(db.execute(known, (key,)), (None,))[0]
        seq = _link(db, "sent", key, path, endpoint, len(payload), _digest(salt, payload))
        if is_forgotten:
            _link(db, "deleted", detail=_numbers([seq]))
        else:
            row = (seq, session, key, salt, payload)
            db.execute("INSERT INTO payload (seq, session, key, salt, data) VALUES (?,?,?,?,?)", row)
            self._kept_bytes += len(payload)
            self._make_room(db)
        self.length = _head(db)[0]
        return seq

    def _make_room(self, db: apsw.Connection) -> None:
        """Delete the oldest payloads, a tenth at once, when there is more than is kept."""
        if self._kept_bytes <= self._keep_bytes:
            return
        gone, used, target = [], _kept_bytes(db), self._keep_bytes * (1 - _SHARE_DELETED)
        for seq, size in db.execute("SELECT seq, length(data) FROM payload ORDER BY seq"):
            if used <= target:
                break
            gone.append(int(seq))
            used -= int(size)
        _drop(db, gone)
        self._kept_bytes = used


# ---------------------------------------------------------------- without the daemon


def verify(path: Path, *, noted: str = "") -> Verdict:
    """Check every entry and every payload; ``noted`` is a head that was noted earlier, ``number:hash`` or the hash
    alone. Blocking; reads only.

    Raises NotFound where there is no log, StorageFailed where the file is no database any more.
    """
    with _reading(path) as db:
        return _Check(db, noted).verdict()


def entries(path: Path, *, limit: int = 50) -> list[Entry]:
    """The newest entries, oldest first. Raises as `verify`."""
    with _reading(path) as db:
        rows = db.execute(f"SELECT {_COLUMNS}, {_SESSION} FROM entry ORDER BY seq DESC LIMIT ?", (limit,))
        return [Entry(*row) for row in rows][::-1]


def show(path: Path, seq: int) -> tuple[Entry, bytes | None]:
    """An entry and what was sent, None where that was deleted. Raises as `verify`; NotFound for no such entry."""
    with _reading(path) as db:
        row = next(db.execute(f"SELECT {_COLUMNS}, {_SESSION} FROM entry WHERE seq = ?", (seq,)), None)
        if row is None:
            raise NotFound(f"no entry {seq} in the audit log", remedy="`outpost audit list` names them.")
        data = next(db.execute("SELECT data FROM payload WHERE seq = ?", (seq,)), None)
        return Entry(*row), None if data is None else bytes(data[0])


def forget(path: Path, session: str) -> int:
    """As `AuditLog.forget`, beside a daemon or without one. Blocking. Raises as `verify`, StorageFull."""
    _must_exist(path)
    with (
        translated(path, _NAME, _REMEDY),
        closing(opened(path, _MIGRATIONS, secure_delete=True, mode=_MODE)) as db,
    ):
        return _forget(db, session)


# ---------------------------------------------------------------- the chain


def _digest(salt: bytes, payload: bytes) -> str:
    return hashlib.sha256(salt + payload).hexdigest()


def _hash(fields: tuple[object, ...]) -> str:
    """Over all columns but the hash itself, as JSON: no two entries share a text."""
    return hashlib.sha256(json.dumps(fields, ensure_ascii=True, allow_nan=False).encode()).hexdigest()


def _kept_bytes(db: apsw.Connection) -> int:
    return int(next(db.execute("SELECT coalesce(sum(length(data)), 0) FROM payload"))[0])


def _head(db: apsw.Connection) -> tuple[int, str]:
    seq, hash = next(db.execute("SELECT seq, hash FROM head"), (0, _START))
    return int(seq), str(hash)


def _link(
    db: apsw.Connection,
    kind: str,
    key: str = "",
    path: str = "",
    endpoint: str = "",
    size: int = 0,
    digest: str = "",
    detail: str = "",
) -> int:
    """Append an entry within the caller's transaction; its number."""
    last, previous = _head(db)
    fields = (last + 1, time.time(), kind, key, path, endpoint, size, digest, detail, previous)
    hash = _hash(fields)
    db.execute(f"INSERT INTO entry ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*fields, hash))
    db.execute("INSERT OR REPLACE INTO head (only, seq, hash) VALUES (1, ?, ?)", (last + 1, hash))
    return last + 1


def _forget(db: apsw.Connection, session: str) -> int:
    with transaction(db):
        rows = list(db.execute("SELECT seq, key FROM payload WHERE session = ? ORDER BY seq", (session,)))
        db.executemany("INSERT OR IGNORE INTO forgotten (key) VALUES (?)", {(key,) for _, key in rows})
        _drop(db, [int(seq) for seq, _ in rows])
    busy, *_ = next(db.execute("PRAGMA wal_checkpoint(TRUNCATE)"))  # the words are in SQLite's log, too
    if busy:
        raise StorageFailed(
            f"{len(rows)} payloads are deleted, but another reader keeps the old pages", remedy="Forget once more."
        )
    return len(rows)


def _drop(db: apsw.Connection, numbers: list[int]) -> None:
    if numbers:
        db.executemany("DELETE FROM payload WHERE seq = ?", [(number,) for number in numbers])
        _link(db, "deleted", detail=_numbers(numbers))


def _numbers(numbers: Iterable[int]) -> str:
    return json.dumps(list(numbers), separators=(",", ":"))


class _Check:
    """One walk along the chain."""

    def __init__(self, db: apsw.Connection, noted: str) -> None:
        self._db = db
        self._noted = noted
        self._faults: list[Fault] = []
        self._sent: dict[int, tuple[str, object]] = {}
        self._deleted: set[int] = set()
        self._hashes: dict[int, str] = {}

    def verdict(self) -> Verdict:
        last, previous = 0, _START
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM entry ORDER BY seq"):
            self._follow(row, last, previous)
            last, previous = row[0], str(row[10])
        self._end(last, previous)
        kept = self._payloads()
        return Verdict(
            entries=len(self._hashes),
            payloads=kept,
            deleted=len(self._deleted & self._sent.keys()),
            head=f"{last}:{previous}",
            faults=tuple(sorted(self._faults, key=lambda fault: fault.seq)),
        )

    def _follow(self, row: tuple[Any, ...], last: int, previous: str) -> None:
        """One entry, with the number and the hash of the one before it."""
        seq = row[0]
        for missing in range(last + 1, min(seq, last + 1 + _MOST_FAULTS)):
            self._fault(missing, "is missing")
        try:
            right = _hash(row[:10]) == row[10]
        except (TypeError, ValueError):  # a value of a type that was never written
            right = False
        if not right:
            self._fault(seq, "was changed: its hash does not match what it says")
        elif row[9] != previous and seq == last + 1:
            self._fault(seq, "does not follow the entry before it: one of them was exchanged or moved")
        self._hashes[seq] = str(row[10])
        if row[2] == "sent":
            self._sent[seq] = (str(row[7]), row[6])
        elif row[2] == "deleted":
            self._deleted |= _parsed(row[8])

    def _end(self, last: int, hash: str) -> None:
        head, head_hash = _head(self._db)
        for missing in range(last + 1, min(head, last + _MOST_FAULTS) + 1):
            self._fault(missing, "is missing at the end")
        if head < last or (head == last and head_hash != hash):
            self._fault(last, "is not where the chain was said to end")
        if self._noted and ":" not in self._noted:
            if self._noted not in {_START, *self._hashes.values()}:
                self._fault(last, f"is the last, and none is the one that was noted ({self._noted})")
        elif self._noted:
            number, _, noted_hash = self._noted.partition(":")
            if not number.isdecimal() or (int(number) and self._hashes.get(int(number)) != noted_hash):
                at = int(number) if number.isdecimal() else 0
                self._fault(at, f"is not the one that was noted ({self._noted})")

    def _payloads(self) -> int:
        seen = set()
        for seq, salt, data in self._db.execute("SELECT seq, salt, data FROM payload ORDER BY seq"):
            seen.add(seq)
            digest, size = self._sent.get(seq, ("", -1))
            if seq not in self._sent:
                self._fault(seq, "has a payload and is no entry of something sent")
            elif seq in self._deleted:
                self._fault(seq, "has a payload although the chain says that it was deleted")
            elif not (isinstance(salt, bytes) and isinstance(data, bytes)) or _digest(salt, data) != digest:
                self._fault(seq, "has another payload than was sent")
            elif len(data) != size:
                self._fault(seq, "says another size than was sent")
        for seq in self._sent.keys() - seen - self._deleted:
            self._fault(seq, "has lost its payload, and no entry says that it was deleted")
        return len(seen)

    def _fault(self, seq: int, problem: str) -> None:
        self._faults.append(Fault(seq, problem))


def _parsed(detail: object) -> set[int]:
    try:
        found = json.loads(detail) if isinstance(detail, str) else []
    except ValueError:
        return set()
    return {number for number in found if isinstance(number, int)} if isinstance(found, list) else set()


# ---------------------------------------------------------------- the file


@contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection]:
    """One state of the file, whatever a daemon writes meanwhile."""
    _must_exist(path)
    with (
        translated(path, _NAME, _REMEDY),
        closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db,
    ):
        db.set_busy_timeout(BUSY_MS)
        with transaction(db, "DEFERRED"):
            yield db


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise NotFound(f"no audit log at {path}", remedy="Name the state folder with --state; nothing has left yet?")
