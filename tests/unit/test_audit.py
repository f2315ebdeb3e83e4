"""The audit log on a real file: what is kept, what verification notices, what forgetting leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import apsw
import pytest

from agent.errors import NotFound, StorageFailed
from agent.escalation import audit
from agent.escalation.audit import AuditLog


async def filled(path: Path, sends: int = 6) -> None:
    async with AuditLog(path) as log:
        for number in range(1, sends + 1):
            sent = json.dumps({"question": f"where is hall {number}?"}).encode()
            session = "anna" if number % 2 else "ben"
            assert await log.record(sent, key=f"k{number}", session=session, path="https", endpoint="cloud") == number


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def tamper(path: Path, *statements: str) -> None:
    db = apsw.Connection(str(path))
    for statement in statements:
        db.execute(statement)
    db.close()


async def test_what_left_is_there_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    payload = bytes(range(256)) * 3
    async with AuditLog(path) as log:
        await log.record(payload, key="k", session=None, path="mqtt", endpoint="broker")
    entry, sent = audit.show(path, 1)
    assert sent == payload
    assert (entry.path, entry.endpoint, entry.key, entry.size, entry.kind) == ("mqtt", "broker", "k", 768, "sent")
    assert path.stat().st_mode & 0o077 == 0


async def test_an_untouched_chain_verifies_across_restarts_and_beside_a_daemon(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    await filled(path)
    async with AuditLog(path) as log:
        await log.record(b"one more", key="k9", session="cleo", path="https", endpoint="cloud")
        verdict = await asyncio.to_thread(audit.verify, path)
        assert (verdict.entries, verdict.payloads, verdict.deleted, verdict.faults) == (7, 7, 0, ())
        assert verdict.head == await log.head()


TAMPERING = {
    "a changed field": (["UPDATE entry SET endpoint = 'elsewhere' WHERE seq = 3"], 3, "was changed"),
    "a changed time": (["UPDATE entry SET at = at + 1 WHERE seq = 2"], 2, "was changed"),
    "a field of another type": (["UPDATE entry SET detail = x'00' WHERE seq = 2"], 2, "was changed"),
    "a changed payload": (["UPDATE payload SET data = x'6869' WHERE seq = 4"], 4, "another payload"),
    "a changed salt": (["UPDATE payload SET salt = zeroblob(32) WHERE seq = 4"], 4, "another payload"),
    "a removed entry": (["DELETE FROM entry WHERE seq = 3"], 3, "is missing"),
    "a removed first entry": (["DELETE FROM entry WHERE seq = 1"], 1, "is missing"),
    "a removed end": (
        ["DELETE FROM entry WHERE seq >= 5", "DELETE FROM payload WHERE seq >= 5"], 5, "missing at the end",
    ),
    "a removed payload": (["DELETE FROM payload WHERE seq = 2"], 2, "lost its payload"),
    "exchanged entries": (
        ["UPDATE entry SET seq = 99 WHERE seq = 2", "UPDATE entry SET seq = 2 WHERE seq = 3",
         "UPDATE entry SET seq = 3 WHERE seq = 99"], 2, "was changed",
    ),
    "exchanged payloads": (
        ["UPDATE payload SET seq = 99 WHERE seq = 2", "UPDATE payload SET seq = 2 WHERE seq = 3",
         "UPDATE payload SET seq = 3 WHERE seq = 99"], 2, "another payload",
    ),
    "an invented payload": (["INSERT INTO payload VALUES (50, 's', 'k', x'00', x'00')"], 50, "no entry"),
    "an entry moved behind the end": (["UPDATE entry SET seq = 7 WHERE seq = 6"], 6, "is missing"),
    "a shortened head": (["UPDATE head SET seq = 4, hash = (SELECT hash FROM entry WHERE seq = 4)"], 6, "said to end"),
    "a removed head": (["DELETE FROM head"], 6, "said to end"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERING)
async def test_tampering_is_noticed_and_named(tmp_path: Path, name: str) -> None:
    statements, seq, problem = TAMPERING[name]
    path = tmp_path / "audit.db"
    await filled(path)
    tamper(path, *statements)
    faults = audit.verify(path).faults
    assert any(fault.seq == seq and problem in fault.problem for fault in faults), faults


async def test_a_chain_that_was_made_anew_is_noticed_by_a_noted_head(tmp_path: Path) -> None:
    await filled(tmp_path / "true.db")
    noted = audit.verify(tmp_path / "true.db").head
    await filled(tmp_path / "false.db", sends=8)
    assert audit.verify(tmp_path / "false.db").faults == ()
    assert [fault.seq for fault in audit.verify(tmp_path / "false.db", noted=noted).faults] == [6]
    async with AuditLog(tmp_path / "true.db") as log:
        await log.record(b"later", key="k", session=None, path="https", endpoint="cloud")
    assert audit.verify(tmp_path / "true.db", noted=noted).faults == ()


async def test_forgetting_leaves_no_byte_and_the_chain_verifies(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    async with AuditLog(path) as log:
        for number in range(8):
            secret = f"THE-WORDS-OF-ANNA-{number} ".encode() * 50
            await log.record(secret, key=f"a{number}", session="session-of-anna", path="https", endpoint="cloud")
            await log.record(b"THE-WORDS-OF-BEN", key=f"b{number}", session="ben", path="https", endpoint="cloud")
        assert await log.forget("session-of-anna") == 8
        assert await log.forget("session-of-anna") == 0
        verdict = await asyncio.to_thread(audit.verify, path)
        assert (verdict.entries, verdict.payloads, verdict.deleted, verdict.faults) == (17, 8, 8, ())
    on_disk = await asyncio.to_thread(everything_in, tmp_path)
    assert b"THE-WORDS-OF-BEN" in on_disk
    assert b"THE-WORDS-OF-ANNA" not in on_disk
    assert b"session-of-anna" not in on_disk
    assert audit.show(path, 1)[1] is None


async def test_what_is_sent_again_after_forgetting_is_recorded_without_its_payload(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    async with AuditLog(path) as log:
        await log.record(b"first try", key="k", session="anna", path="https", endpoint="cloud")
        await log.record(b"second try", key="k", session=None, path="mqtt", endpoint="broker")
        assert await asyncio.to_thread(audit.forget, path, "anna") == 2
        again = await log.record(b"third try", key="k", session="anna", path="https", endpoint="cloud")
    assert audit.show(path, again)[1] is None
    assert audit.verify(path).faults == ()


async def test_the_oldest_payloads_go_when_there_are_too_many_and_the_chain_says_so(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    async with AuditLog(path, keep_bytes=5_000) as log:
        for number in range(24):
            await log.record(b"x" * 1000, key=f"k{number}", session=None, path="https", endpoint="cloud")
    verdict = audit.verify(path)
    assert verdict.faults == ()
    assert 3 <= verdict.payloads <= 5
    assert verdict.payloads + verdict.deleted == 24
    newest = [entry.seq for entry in audit.entries(path) if entry.kind == "sent"][-1]
    assert audit.show(path, newest)[1] == b"x" * 1000


async def test_two_writers_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    async with AuditLog(path) as one, AuditLog(path) as two:
        await asyncio.gather(
            *(
                log.record(b"words", key=f"{name}{number}", session=name, path="https", endpoint="cloud")
                for number in range(8)
                for name, log in (("one", one), ("two", two))
            )
        )
    verdict = audit.verify(path)
    assert (verdict.entries, verdict.faults) == (16, ())


async def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"audit\.db"):
        audit.verify(tmp_path / "audit.db")
    (tmp_path / "audit.db").write_bytes(b"no database at all " * 500)
    with pytest.raises(StorageFailed, match=r"audit\.db"):
        audit.verify(tmp_path / "audit.db")
    await filled(tmp_path / "good.db")
    with pytest.raises(NotFound, match="77"):
        audit.show(tmp_path / "good.db", 77)
