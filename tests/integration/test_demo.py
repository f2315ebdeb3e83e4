"""scripts/demo, as a person runs it, and what it says when something is missing."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulators.daemon import ROOT, clean_environment

VENV = ROOT / ".venv"


def demo(*arguments: str, env: dict[str, str] | None = None, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(root / "scripts" / "demo"), *arguments]
    return subprocess.run(
        command, env=env or clean_environment(), capture_output=True, text=True, timeout=110, check=False
    )


@pytest.mark.skipif(not (VENV / ".outpost-convert").exists() and not (VENV / ".outpost-dev").exists(),
                    reason="scripts/test has not set up .venv in this checkout")  # fmt: skip
def test_it_answers_every_question_and_ends() -> None:
    done = demo("--once", "--json")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 10
    for answer in answers:
        assert answer["answer"]
        assert {"question", "decision", "confidence", "sources", "timings_ms", "reason"} <= set(answer)
    decisions = [answer["decision"] for answer in answers]
    assert decisions.count("local") >= 3
    assert "action" in decisions
    assert "handoff" in decisions


def bare_machine(tmp_path: Path, *tools: str) -> dict[str, str]:
    """An environment whose PATH holds these tools and nothing else, in a copy of the scripts without a .venv."""
    bin = tmp_path / "bin"
    bin.mkdir()
    if "python3" in tools:  # not a version manager's shim, which needs its own tools
        (bin / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    for tool in (*tools, "bash", "uname", "cksum", "cut", "df", "awk", "cat", "basename", "dirname", "ls", "mkdir"):
        if (found := shutil.which(tool)) and not (bin / tool).exists():
            (bin / tool).symlink_to(found)
    root = tmp_path / "checkout"
    (root / "scripts").mkdir(parents=True)
    for name in ("demo", "environment.sh", "demo.py"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts" / name)
    shutil.copy(ROOT / "pyproject.toml", root)
    return {"PATH": str(bin), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_no_python_is_one_clear_line(tmp_path: Path) -> None:
    env = bare_machine(tmp_path)
    done = demo(env=env, root=tmp_path / "checkout")
    assert done.returncode == 1
    assert "no Python 3.11" in last_line(done)
    assert "apt-get install python3" in last_line(done)


def test_no_disk_is_one_clear_line(tmp_path: Path) -> None:
    env = bare_machine(tmp_path, "python3")
    fake = tmp_path / "bin" / "df"
    fake.unlink()
    fake.write_text("#!/bin/sh\necho header\necho /dev/x 1000 990 10 99% /\n", encoding="ascii")
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    done = demo(env=env, root=tmp_path / "checkout")
    assert done.returncode == 1
    assert "10 MB are free" in last_line(done)
    assert "3000 are needed" in last_line(done)


def test_no_network_is_one_clear_line(tmp_path: Path) -> None:
    env = bare_machine(tmp_path, "python3", "g++", "cc", "tail", "grep", "sleep", "rm", "mv", "sed")
    env |= {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }
    done = demo(env=env, root=tmp_path / "checkout")
    assert done.returncode == 1
    assert "the package index cannot be reached" in last_line(done)
    assert "run " in last_line(done)


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_no_compiler_is_one_clear_line(tmp_path: Path) -> None:
    env = bare_machine(tmp_path, "python3")
    done = demo(env=env, root=tmp_path / "checkout")
    assert done.returncode == 1
    assert "no C++ compiler" in last_line(done)
    assert "apt-get install g++" in last_line(done)
