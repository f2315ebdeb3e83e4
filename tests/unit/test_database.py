"""The one way to SQLite on real files: what is kept and what is said when the disk, another process or a kill is in the
way; and that every owner of a file goes this way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from agent.config import Escalation
from agent.database import Database, opened, transaction, translated
from agent.errors import StorageFailed, StorageFull
from agent.escalation import audit, budget, store
from agent.escalation.audit import AuditLog
from agent.escalation.budget import Budget
from agent.escalation.store import Store
from agent.messages import Usage
from agent.telemetry import journal, labels
from agent.telemetry.journal import Journal
from agent.telemetry.labels import Labels
from tests.simulators.disk import small_disk

NOTES = ("CREATE TABLE note (text TEXT NOT NULL)", "ALTER TABLE note ADD COLUMN at REAL NOT NULL DEFAULT 7.0")
ROOT = Path(__file__).resolve().parents[2]


def notes(path: Path) -> Database:
    return Database(path, NOTES, "notebook", "Buy a new one.")


def add(db: apsw.Connection, text: str) -> None:
    db.execute("INSERT INTO note (text) VALUES (?)", (text,))


def texts(db: apsw.Connection) -> list[str]:
    return [str(text) for (text,) in db.execute("SELECT text FROM note ORDER BY rowid")]


def texts_in(path: Path) -> list[str]:
    with closing(apsw.Connection(str(path))) as db:
        assert db.execute("PRAGMA integrity_check").get == "ok"
        return texts(db)


def allow_pages(db: apsw.Connection, more: int) -> None:
    """SQLite's own limit gives the error of a full disk."""
    db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').get + more}").fetchall()


# ---------------------------------------------------------------- transactions


async def test_a_transaction_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "for" / "it" / "notes.db"

    def half(db: apsw.Connection) -> None:
        add(db, "half")
        raise ZeroDivisionError

    async with notes(path) as open_notes:
        await open_notes.run(lambda db: add(db, "whole"))
        with pytest.raises(ZeroDivisionError):
            await open_notes.run(half)
        assert await open_notes.execute("UPDATE note SET at = ? WHERE text = ?", 1.0, "whole") == 1
        assert await open_notes.execute("UPDATE note SET at = ? WHERE text = ?", 1.0, "half") == 0
    assert texts_in(path) == ["whole"]


async def test_a_full_disk_is_said_and_the_file_goes_on(tmp_path: Path) -> None:
    async with notes(tmp_path / "notes.db") as open_notes:
        await open_notes.run(lambda db: allow_pages(db, 2))

        def too_much(db: apsw.Connection) -> None:
            for _ in range(100):
                add(db, "x" * 2000)

        with pytest.raises(StorageFull, match=r"the notebook .*notes\.db.*Free some") as full:
            await open_notes.run(too_much)
        assert isinstance(full.value.__cause__, apsw.FullError)
        assert await open_notes.submit(texts) == []
        await open_notes.run(lambda db: add(db, "small"))
        assert await open_notes.submit(texts) == ["small"]


WRITES_UNTIL_REFUSED = """
import asyncio, resource, sys
from pathlib import Path
from agent.errors import StorageFailed
from tests.unit.test_database import add, notes, texts

async def main():
    async with notes(Path(sys.argv[1])) as open_notes:
        await open_notes.run(lambda db: add(db, "before"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
        try:
            await open_notes.run(lambda db: [add(db, "x" * 3000) for _ in range(50)])
        except StorageFailed as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await open_notes.run(lambda db: add(db, "after"))

asyncio.run(main())
"""


def test_a_write_that_the_system_refuses_is_rolled_back_and_the_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    command = [sys.executable, "-c", WRITES_UNTIL_REFUSED, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert f"the notebook {path} failed: " in ran.stdout
    assert "Check the disk" in ran.stdout
    assert texts_in(path) == ["before", "after"]


def test_an_error_of_a_full_file_system_is_called_by_its_name(tmp_path: Path) -> None:
    """Where the shared memory beside the database finds no room, SQLite speaks of an I/O error."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        opened(disk / "notes.db", NOTES).close()
        with (disk / "ballast").open("wb", buffering=0) as ballast:
            assert ballast.write(bytes(1 << 20)) < 1 << 20, "there is no room for more"
        with pytest.raises(StorageFull, match="the notebook") as full, translated(disk / "notes.db", "notebook"):
            opened(disk / "notes.db", NOTES).close()
        assert isinstance(full.value.__cause__, apsw.IOError)


COMMITS_UNTIL_KILLED = """
import sys
from pathlib import Path
from agent.database import opened, transaction
from tests.unit.test_database import NOTES, add

db = opened(Path(sys.argv[1]), NOTES)
for number in range(3):
    with transaction(db):
        add(db, f"kept {number}")
with transaction(db):
    add(db, "lost " * 200_000)
    db.cache_flush()
    print("within", flush=True)
    sys.stdin.read()
"""


def test_a_kill_within_a_transaction_leaves_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    command = [sys.executable, "-c", COMMITS_UNTIL_KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "within\n"
        process.kill()
        assert process.wait(20) == -signal.SIGKILL
    assert b"lost lost" in Path(f"{path}-wal").read_bytes(), "it was on the disk already, uncommitted"
    with closing(opened(path, NOTES)) as db, transaction(db):
        assert texts(db) == ["kept 0", "kept 1", "kept 2"]
        add(db, "goes on")
    assert texts_in(path)[-1] == "goes on"


async def test_another_process_that_writes_is_waited_for_then_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with notes(path) as open_notes:
        await open_notes.run(lambda db: db.set_busy_timeout(50))
        with closing(apsw.Connection(str(path))) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageFailed, match=r"the notebook .*in use by another process"):
                await open_notes.run(lambda db: add(db, "early"))
            assert await open_notes.submit(texts) == [], "reading needs no lock"
            other.execute("COMMIT")
        await open_notes.run(lambda db: add(db, "late"))
        assert await open_notes.submit(texts) == ["late"]


async def test_a_transaction_that_reads_first_can_still_write_beside_another_writer(tmp_path: Path) -> None:
    """It takes the lock before it reads: a lock that is taken at the first write comes too late for what was read."""
    path = tmp_path / "notes.db"
    async with notes(path) as one, notes(path) as two:

        def count(db: apsw.Connection) -> None:
            add(db, str(len(texts(db))))

        await asyncio.gather(*(one_of.run(count) for _ in range(20) for one_of in (one, two)))
    assert texts_in(path) == [str(number) for number in range(40)]


# ---------------------------------------------------------------- opening


def test_an_old_file_is_brought_up_and_a_newer_one_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with closing(opened(path, NOTES[:1])) as db:
        add(db, "old")
    with closing(opened(path, NOTES)) as db:
        assert db.execute("SELECT text, at FROM note").fetchall() == [("old", 7.0)]
        assert db.execute("PRAGMA user_version").get == 2
    before = path.read_bytes()
    with pytest.raises(StorageFailed, match=r"notes\.db has schema 2; .* knows 1.*newer"):
        opened(path, NOTES[:1])
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_the_file_at_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with pytest.raises(apsw.SQLError, match="no such table"):
        opened(path, (NOTES[0], "CREATE TABLE half (x); INSERT INTO nowhere VALUES (1)"))
    with closing(apsw.Connection(str(path))) as db:
        assert db.execute("PRAGMA user_version").get == 1
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("note",)]


def test_many_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def make(path: Path) -> None:
        start.wait(20)
        opened(path, NOTES).close()

    with ThreadPoolExecutor(4) as threads:
        for turn in range(10):
            path = tmp_path / f"{turn}.db"
            assert list(threads.map(make, [path] * 4)) == [None] * 4
            assert texts_in(path) == []


async def test_a_file_for_its_owner_only_has_its_log_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with Database(path, NOTES, "notebook", mode=0o600) as open_notes:
        await open_notes.run(lambda db: add(db, "mine"))
        modes = await asyncio.to_thread(lambda: {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()})
    assert modes == {"notes.db": 0o600, "notes.db-wal": 0o600, "notes.db-shm": 0o600}


async def test_what_was_erased_and_compacted_is_not_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    async with Database(path, NOTES, "notebook", secure_delete=True) as open_notes:
        await open_notes.execute(
            "INSERT INTO note (text) SELECT value || ' THE SECRET' FROM json_each(?)", str(list(range(100)))
        )
        await open_notes.execute("DELETE FROM note")
        await open_notes.compact()
        on_disk = await asyncio.to_thread(lambda: b"".join(file.read_bytes() for file in tmp_path.iterdir()))
    assert b"CREATE TABLE note" in on_disk
    assert b"THE SECRET" not in on_disk


@pytest.mark.parametrize("what", ["a folder that is a file", "a folder in its place"])
async def test_what_the_system_refuses_is_said_of_the_file(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state" / "notes.db"
    if what == "a folder that is a file":
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
    with pytest.raises(StorageFailed, match=r"the notebook .*notes\.db failed: .*writable"):
        async with notes(path):
            pass


# ---------------------------------------------------------------- the thread


async def test_a_caller_that_goes_away_leaves_its_work_to_finish(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(db: apsw.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(20)
        add(db, "done")

    async with notes(tmp_path / "notes.db") as open_notes:
        caller = asyncio.create_task(open_notes.run(slow))
        await asyncio.wait_for(begun.wait(), 20)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go_on.set()
    assert texts_in(tmp_path / "notes.db") == ["done"]


async def test_a_query_without_end_does_not_keep_the_file_open(tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    open_notes = notes(tmp_path / "notes.db")
    open_notes.close_s = 0.2
    async with open_notes:
        query = asyncio.create_task(open_notes.submit(lambda db: db.execute(endless).fetchall()))
        await asyncio.sleep(0)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    with pytest.raises(StorageFailed, match="interrupted"):
        await query
    with pytest.raises(RuntimeError, match="after shutdown"):
        await open_notes.submit(texts)


async def test_a_file_that_cannot_be_closed_is_given_up_in_time(tmp_path: Path) -> None:
    let_go = threading.Event()
    open_notes = notes(tmp_path / "notes.db")
    open_notes.close_s = 0.1
    await open_notes.__aenter__()
    stuck = asyncio.create_task(open_notes.submit(lambda db: let_go.wait(60)))
    await asyncio.sleep(0)
    try:
        with pytest.raises(StorageFailed, match=r"the notebook .* cannot be closed"):
            await open_notes.__aexit__(None, None, None)
    finally:
        let_go.set()
    assert await stuck


# ---------------------------------------------------------------- every owner


OWNERS: dict[str, tuple[Callable[[Path], Database], tuple[str, ...], str]] = {
    "journal": (Journal, journal._MIGRATIONS, "NORMAL"),
    "labels": (Labels, labels._MIGRATIONS, "FULL"),
    "outbox": (Store, store._MIGRATIONS, "FULL"),
    "budget": (lambda path: Budget(path, Escalation()), budget._MIGRATIONS, "FULL"),
    "audit log": (AuditLog, audit._MIGRATIONS, "FULL"),
}
ERASES = {"labels", "outbox", "audit log"}


@pytest.mark.parametrize("name", OWNERS)
async def test_an_owner_keeps_its_promises(tmp_path: Path, name: str) -> None:
    make, migrations, synchronous = OWNERS[name]
    path = tmp_path / "file.db"

    def settings(db: apsw.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "secure_delete", "user_version")
        return {name: db.execute(f"PRAGMA {name}").get for name in names}

    async with make(path) as owner:
        found = await owner.submit(settings)
    assert found["journal_mode"] == "wal"
    assert found["synchronous"] == {"NORMAL": 1, "FULL": 2}[synchronous]
    assert found["user_version"] == len(migrations)
    if name in ERASES:
        assert found["secure_delete"] == 1


@pytest.mark.parametrize(
    ("name", "first"), [(name, first) for name, owner in OWNERS.items() for first in range(1, len(owner[1]) + 1)]
)
async def test_an_owner_opens_the_files_of_all_its_versions(tmp_path: Path, name: str, first: int) -> None:
    make, migrations, _ = OWNERS[name]
    with closing(opened(tmp_path / "old.db", migrations[:first])):
        pass

    def schema(db: apsw.Connection) -> list[tuple[object, ...]]:
        return db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()

    async with make(tmp_path / "old.db") as old, make(tmp_path / "new.db") as new:
        assert await old.submit(schema) == await new.submit(schema)


@pytest.mark.parametrize("name", OWNERS)
async def test_an_owner_says_what_is_wrong_with_its_file(tmp_path: Path, name: str) -> None:
    make, migrations, _ = OWNERS[name]
    damaged, newer, full = tmp_path / "damaged.db", tmp_path / "newer.db", tmp_path / "full.db"
    damaged.write_bytes(b"no database, by any means" * 400)
    with pytest.raises(StorageFailed, match=rf"the {name} .*damaged\.db is damaged: "):
        async with make(damaged):
            pass
    with closing(opened(newer, (*migrations, "CREATE TABLE of_tomorrow (x)"))):
        pass
    with pytest.raises(StorageFailed, match=rf"newer\.db has schema {len(migrations) + 1}; .*newer Outpost"):
        async with make(newer):
            pass
    async with make(full) as owner:
        await owner.run(lambda db: allow_pages(db, 0))
        with pytest.raises(StorageFull, match=rf"no space left for the {name} .*full\.db"):
            await owner.run(lambda db: db.execute("CREATE TABLE large AS SELECT zeroblob(100000) AS x"))


async def test_a_reservation_that_finds_the_disk_full_counts_nothing(tmp_path: Path) -> None:
    async with Budget(tmp_path / "budget.db", Escalation(daily_requests=100_000, daily_tokens=10**9)) as limited:
        await limited.run(lambda db: allow_pages(db, 0))
        reserved = [await limited.reserve(10)]
        with pytest.raises(StorageFull, match="the budget"):
            reserved += [await limited.reserve(10) for _ in range(10_000)]
        counted = limited.spent().requests
        assert counted >= len(reserved)
        await limited.settle(reserved[0], Usage(1, 1))
        assert limited.spent().tokens == (counted - 1) * 10 + 2
    async with Budget(tmp_path / "budget.db", Escalation()) as again:
        assert again.spent().requests == counted
