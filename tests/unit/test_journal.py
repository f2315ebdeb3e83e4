"""The journal on a real file: what is kept, what is not, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import NotFound, StorageFailed
from agent.telemetry.journal import Event, Journal


def event(id: str, **changes: object) -> Event:
    return Event(**{"id": id, "decision": "local", "reason": "confident", "route": "quote", "confidence": 0.9,
                    "language": "en", "timings_ms": {"total": 12.5}} | changes)  # type: ignore[arg-type] # fmt: skip


async def test_an_event_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal(path) as journal:
        await journal.record(event("a", at=5.0))
        await journal.rate("a", "wrong")
        await journal.rate("a", "right")
    async with Journal(path) as journal:
        found = await journal.get("a")
        assert (found.rating, found.timings_ms, found.at) == ("right", {"total": 12.5}, 5.0)


async def test_unknown_events_are_named(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        with pytest.raises(NotFound, match="evt-x"):
            await journal.get("evt-x")
        with pytest.raises(NotFound, match="evt-x"):
            await journal.rate("evt-x", "right")


async def test_decisions_are_counted_since_a_moment(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db") as journal:
        await journal.record(event("old", at=1.0))
        for number in range(3):
            await journal.record(event(f"n{number}", at=100.0 + number))
        await journal.record(event("h", at=100.0, decision="handoff", reason="no_evidence"))
        assert await journal.decisions(50.0) == {("local", "confident"): 3, ("handoff", "no_evidence"): 1}


async def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    async with Journal(tmp_path / "journal.db", keep=10) as journal:
        for number in range(25):
            await journal.record(event(f"e{number}"))
        assert sum((await journal.decisions(0.0)).values()) == 10
        assert (await journal.get("e24")).id == "e24"


async def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(StorageFailed, match=r"journal\.db"):
        async with Journal(path):
            pass
