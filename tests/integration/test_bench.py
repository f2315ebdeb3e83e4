"""`outpost bench` with a tiny random model: everything is measured, and what cannot be is said in one line.

Speed itself is not tested: the machine may be busy.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from agent.updates.shelf import Manifest, ManifestFile
from tests.simulators.daemon import ROOT, clean_environment


def bench(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", "bench", "--state", str(state), *arguments]
    return subprocess.run(
        command, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )


def install(state: Path, name: str, data: bytes, kind: str = "slm") -> None:
    folder = state / "models" / name
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(data)
    file = ManifestFile(path="model.gguf", sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    Manifest.model_validate({"name": name, "kind": kind, "entry": file.path, "files": (file,)}).write(folder)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    state = tmp_path_factory.mktemp("bench")
    install(state, "tiny", tiny_gguf.read_bytes())
    install(state, "broken", tiny_gguf.read_bytes()[:4096])
    install(state, "another-kind", b"weights", kind="embedding")
    return state


def test_every_figure_is_measured(state: Path) -> None:
    done = bench(
        state, "--model", "tiny", "--threads", "1", "--rounds", "2", "--tokens", "8", "--prefix", "100", "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["model"], report["threads"], report["rounds"]) == ("tiny", 1, 2)
    names = [figure["name"] for figure in report["figures"]]
    assert names == [
        "ready after start",
        "control process, idle",
        "decode, one client",
        "4 clients together",
        "8 clients together",
        "first token, warm prefix",
        "request outside the engine",
    ]
    for figure in report["figures"]:
        assert all(math.isfinite(value) and value > 0 for value in (figure["value"], figure["ratio"])), figure
        assert len(figure["rounds"]) >= 1
        assert isinstance(figure["met"], bool)
    assert not list((state / "models").glob("*/bench*"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nothing-like-it", "nothing-like-it"),
        ("broken", "model.gguf cannot be loaded"),
        ("another-kind", "'another-kind' is a model for embedding"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(state: Path, model: str, said: str) -> None:
    done = bench(state, "--model", model, "--threads", "1", "--rounds", "1", "--json")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
