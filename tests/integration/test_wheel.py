"""A built wheel, installed outside the checkout, runs the daemon: nothing depends on the source tree."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.simulators.daemon import ROOT, clean_environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's content; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=100, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("outpost_agent-*.whl")
    target = folder / "site"
    install = [*pip, "install", "--no-deps", "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return target


def outpost(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = clean_environment() | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "agent", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_package_is_the_wheels_and_brings_its_data(installed: Path, tmp_path: Path) -> None:
    script = "import agent, agent.paths as p; print(agent.__file__); print(p.shipped('models', 'catalog'))"
    env = clean_environment() | {"PYTHONPATH": str(installed)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    package, catalog = run.stdout.split()
    assert Path(package).is_relative_to(installed)
    assert Path(catalog).is_relative_to(installed)
    assert sorted(Path(catalog).glob("*.toml"))


def test_models_are_listed_with_the_reference_model(installed: Path, tmp_path: Path) -> None:
    done = outpost(installed, tmp_path, "models", "list", "--json", "--state", str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["outpost-reference-slm"]["state"] == "reference"
    assert rows["qwen3-0.6b"]["state"] == "offered"


def test_the_daemon_runs_from_it_and_its_workers_too(installed: Path, tmp_path: Path) -> None:
    env = clean_environment() | {"PYTHONPATH": str(installed), "OUTPOST_MODELS__EMBEDDING": ""}
    command = [sys.executable, "-m", "agent", "serve", "--state", str(tmp_path / "state"), "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = next(found[1] for line in process.stderr if (found := re.search(r"listens on (http\S+)", line)))
            body = {
                "model": "outpost-reference-slm",
                "messages": [
                    {"role": "user", "content": "## Hours\nIt opens at 9:40.\n\nQuestion: When does it open?"}
                ],
                "temperature": 0,
                "max_tokens": 12,
            }
            reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
            assert reply.status_code == 200, reply.text
            assert httpx.get(f"{url}/", timeout=10, trust_env=False).status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
        assert process.wait(30) == 0
