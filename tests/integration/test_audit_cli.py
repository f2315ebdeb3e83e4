"""`outpost audit` as an operator types it, without a daemon and beside one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from agent.escalation import audit
from agent.escalation.audit import AuditLog
from tests.simulators.daemon import ROOT, clean_environment, running_daemon

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    async with AuditLog(tmp_path / "audit.db") as log:
        for number, session in enumerate(("anna", "ben", "anna"), start=1):
            sent = f'{{"question": "question {number} of {session}"}}'.encode()
            await log.record(sent, key=f"key{number}", session=session, path="https", endpoint="cloud")
    return tmp_path


def outpost(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = clean_environment() | {"OUTPOST_STATE": str(state), "OUTPOST_URL": NOBODY, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "agent", "audit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False, timeout=100)


def test_verify_list_show_and_forget(state: Path) -> None:
    verified = outpost(state, "verify", "--json")
    assert verified.returncode == 0, verified.stderr
    found = json.loads(verified.stdout)
    assert (found["ok"], found["entries"], found["payloads"]) == (True, 3, 3)

    listed = [json.loads(line) for line in outpost(state, "list", "--json").stdout.splitlines()]
    assert [(entry["seq"], entry["endpoint"]) for entry in listed] == [(1, "cloud"), (2, "cloud"), (3, "cloud")]
    assert [entry["session"] for entry in listed] == ["anna", "ben", "anna"]
    assert outpost(state, "show", "2").stdout == '{"question": "question 2 of ben"}'
    assert json.loads(outpost(state, "show", "2", "--json").stdout)["session"] == "ben"

    forgotten = outpost(state, "forget", "anna", "--json")
    assert forgotten.returncode == 0, forgotten.stderr
    assert json.loads(forgotten.stdout)["payloads"] == 2
    assert "deleted" in outpost(state, "show", "1").stdout
    assert "anna" not in outpost(state, "list", "--json").stdout
    assert outpost(state, "show", "2").stdout == '{"question": "question 2 of ben"}'

    again = outpost(state, "verify", "--head", found["head"])
    assert again.returncode == 0, again.stdout
    assert "4 entries, 1 payloads kept, 2 deleted; no faults" in again.stdout


def test_a_chain_that_was_cut_is_noticed_by_a_noted_head(state: Path) -> None:
    noted = json.loads(outpost(state, "verify", "--json").stdout)["head"]
    digest = noted.partition(":")[2]
    assert outpost(state, "verify", "--head", digest).returncode == 0
    db = apsw.Connection(str(state / "audit.db"))
    for table in ("entry", "payload"):
        db.execute(f"DELETE FROM {table} WHERE seq = 3")
    db.execute("UPDATE head SET (seq, hash) = (SELECT seq, hash FROM entry WHERE seq = 2)")
    db.close()
    assert outpost(state, "verify").returncode == 0, "the file alone does not tell"
    for head in (noted, digest):
        cut = outpost(state, "verify", "--head", head)
        assert cut.returncode == 1
        assert "noted" in cut.stdout + cut.stderr


def test_a_fault_is_named_and_the_exit_code_is_1(state: Path) -> None:
    db = apsw.Connection(str(state / "audit.db"))
    db.execute("UPDATE entry SET at = at - 3600 WHERE seq = 2")
    db.close()
    verified = outpost(state, "verify")
    assert verified.returncode == 1
    assert "entry 2 was changed" in verified.stdout


def test_no_log_is_one_line(tmp_path: Path) -> None:
    verified = outpost(tmp_path, "verify")
    assert verified.returncode == 1
    assert "no audit log" in verified.stderr
    assert "Traceback" not in verified.stderr


async def test_forgetting_beside_a_running_daemon(tmp_path: Path) -> None:
    with running_daemon(tmp_path / "state") as daemon:
        async with AuditLog(daemon.state / "audit.db") as log:  # a second writer beside the daemon's own
            await log.record(b"words of anna", key="k", session="anna", path="https", endpoint="cloud")
        forgotten = await asyncio.to_thread(daemon.cli, "audit", "forget", "anna", "--json")
        assert json.loads(forgotten.stdout) == {
            "session": "anna", "questions": 0, "payloads": 1, "labels": 0, "ok": True,
        }  # fmt: skip
    assert audit.verify(tmp_path / "state" / "audit.db").faults == ()
