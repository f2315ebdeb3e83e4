"""scripts/demo, as a person runs it, and what it says when something is missing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulators.broker import mosquitto
from tests.simulators.daemon import ROOT, TINY, clean_environment, install_tiny, running_daemon

VENV = ROOT / ".venv"


def demo(*arguments: str, env: dict[str, str] | None = None, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(root / "scripts" / "demo"), *arguments]
    return subprocess.run(
        command, env=env or clean_environment(), capture_output=True, text=True, timeout=360, check=False
    )


needs_venv = pytest.mark.skipif(
    not (VENV / ".outpost-convert").exists() and not (VENV / ".outpost-dev").exists(),
    reason="scripts/test has not set up .venv in this checkout",
)


def answers_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer in answers:
        assert answer["answer"]
        assert {"question", "decision", "confidence", "sources", "timings_ms", "reason"} <= set(answer)
    return answers


def ended() -> bool:
    """Whether nothing that a demo started still runs."""
    state = (VENV / "demo").resolve()
    running = [*state.glob("*.pid")]
    return not running and not [log for log in state.glob("*.log") if is_held(log)]


def is_held(file: Path) -> bool:
    """Whether a process has the file open, where the system tells."""
    for link in Path("/proc").glob("[0-9]*/fd/[12]"):
        with contextlib.suppress(OSError):
            if link.resolve() == file.resolve():
                return True
    return False


@needs_venv
@pytest.mark.timeout(400)
def test_it_answers_every_question_asks_the_cloud_and_ends() -> None:
    mosquitto()
    done = demo("--once", "--json")
    answers = answers_of(done)
    ten, beyond = answers[:10], answers[10:]
    decisions = [answer["decision"] for answer in ten]
    assert decisions.count("local") >= 3
    assert "action" in decisions
    assert "handoff" in decisions
    assert not any(answer["cloud"] for answer in ten), "nothing leaves without consent"

    known, by_https, by_mqtt = beyond
    promised = re.findall(r"^\w+: at most .* certainty; serves .* \((\w+-\w+)\)$", done.stderr, re.MULTILINE)
    assert promised, "the shipped certificates are of other models than those that ship"
    assert known["decision"] in ("local", "action")
    assert known["certificate"] in promised
    for answer, path, said in ((by_https, "https", "France"), (by_mqtt, "mqtt", "boat club")):
        told = answer["later"] if answer["decision"] == "deferred" else answer["answer"]
        assert said in told, answer
        if answer["decision"] != "deferred":  # too late for the visitor on a busy machine
            assert answer["decision"] == "escalated"
            assert answer["cloud"]["path"] == path
    assert "Norwood" in by_mqtt["question"]
    left = re.search(r"^The last question left the device as: (.*)$", done.stderr, re.MULTILINE)
    assert left is not None
    assert "rowing boats" in left[1]
    assert "Norwood" not in left[1]
    assert "no faults" in done.stderr
    assert ended()


@needs_venv
@pytest.mark.timeout(400)
def test_the_cloud_is_the_one_that_is_named_and_no_mosquitto_is_one_line(tmp_path: Path, tiny_gguf: Path) -> None:
    install_tiny(tmp_path / "cloud", tiny_gguf)
    bare = {"OUTPOST_MODELS__EMBEDDING": "", "OUTPOST_MODELS__RANKER": "", "OUTPOST_MODELS__TEXT": ""}
    with running_daemon(tmp_path / "cloud", settings=bare) as cloud:
        named = {"OPENAI_BASE_URL": f"{cloud.url}/v1", "OPENAI_MODEL": TINY, "OPENAI_API_KEY": "unused"}
        env = clean_environment() | named | {"MOSQUITTO": str(tmp_path / "none")}
        done = demo("--once", "--json", "--cloud", env=env)
    answers = answers_of(done)
    assert len(answers) == 12
    assert (answers[-1]["decision"], answers[-1]["cloud"]["model"]) == ("escalated", TINY)
    assert named["OPENAI_BASE_URL"] in done.stderr
    skipped = [line for line in done.stderr.splitlines() if "Skipped" in line]
    assert len(skipped) == 1
    assert "apt-get install mosquitto" in skipped[0]
    assert ended()


@needs_venv
def test_a_cloud_that_nobody_names_is_one_clear_line() -> None:
    done = demo("--cloud")
    assert done.returncode == 1
    assert last_line(done).startswith("scripts/demo: --cloud asks the server that OPENAI_BASE_URL names")


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
    for name in ("demo", "environment.sh", "demo.py", "demo_processes.py"):
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
