"""Every command of the README is run, as it stands there; its claims about flags and files are compared."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulators.daemon import DEMO, ROOT, RunningDaemon, clean_environment, running_daemon

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]
COMMANDS = [line for block in BLOCKS for line in re.sub(r"\\\n\s*", "", block).splitlines()]
RUN_ELSEWHERE = {
    "scripts/demo": "tests/integration/test_demo.py runs it",
    "scripts/test": "this is it",
    ". .venv/bin/activate": "the fixture puts the same folder on PATH",
    "export OUTPOST_STATE=.venv/demo": "the fixture sets it to the daemon's state folder",
}
NEEDS_NETWORK = {"outpost models pull qwen3-0.6b"}


def without_comment(command: str) -> str:
    return re.sub(r"\s+#.*", "", command)


RUNNABLE = [without_comment(c) for c in COMMANDS if without_comment(c) not in RUN_ELSEWHERE]


@pytest.fixture(scope="module")
def on_8080(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """The daemon as the demo leaves it, except for port and state folder, which are replaced where a command names
    the demo's."""
    state = tmp_path_factory.mktemp("readme")
    with running_daemon(state) as running:
        running.cli("knowledge", "add", str(DEMO / "documents"))
        running.cli("intents", "train", str(DEMO / "intents.toml"))
        yield running


def run(command: str, daemon: RunningDaemon) -> subprocess.CompletedProcess[str]:
    env = clean_environment() | {
        "OUTPOST_URL": daemon.url,
        "OUTPOST_STATE": str(daemon.state),
        "PATH": f"{Path(sys.executable).parent}:{clean_environment()['PATH']}",
    }
    command = command.replace("http://127.0.0.1:8080", daemon.url).replace(".venv/demo", str(daemon.state))
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_first_screen_has_the_two_commands_and_a_curl() -> None:
    first_screen = "\n".join(README.splitlines()[:40])
    for part in ("scripts/demo", "scripts/test", "curl ", '"decision"'):
        assert part in first_screen


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in RUNNABLE
        if command not in NEEDS_NETWORK
        and not any(part in command for part in ("outpost serve", "outpost calibrate", "pip install"))
    ],
)
def test_a_command_works_as_it_stands(on_8080: RunningDaemon, command: str) -> None:
    done = run(command, on_8080)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if command.startswith("curl"):
        assert "2.0 metres" in done.stdout


def test_calibrating_certifies_or_says_why_not(on_8080: RunningDaemon) -> None:
    """Whether the shipped examples earn a certificate depends on the models that this machine has."""
    (command,) = [c for c in RUNNABLE if "outpost calibrate" in c]
    done = run(command, on_8080)
    assert "Traceback" not in done.stderr
    expected = "intent: certified" if done.returncode == 0 else "intent: no certificate ("
    assert done.stdout.startswith(expected), done.stderr
    report = (on_8080.state / "intents.html").read_text(encoding="utf-8")
    assert "Calibration" in report
    assert "share wrong" in report


@pytest.mark.parametrize("command", sorted(NEEDS_NETWORK))
def test_a_pull_succeeds_or_says_what_is_missing(on_8080: RunningDaemon, command: str) -> None:
    """A machine without the model hub gets one clear line; the transfer itself is tested in test_models_pull.py."""
    done = run(command, on_8080)
    if done.returncode != 0:
        assert done.stderr.startswith("outpost: ")
        assert "Qwen3-0.6B" in done.stderr
        assert "Traceback" not in done.stderr


def test_serving_another_model_is_configured_as_it_says(tmp_path: Path) -> None:
    """The command with `serve` runs a daemon; here it runs with a state folder and a port of its own."""
    (command,) = [c for c in RUNNABLE if "outpost serve" in c]
    setting, *rest = shlex.split(command)
    assert rest[:2] == ["outpost", "serve"]
    assert set(rest[2::2]) == {"--port", "--state"}
    name, value = setting.split("=")
    with running_daemon(tmp_path, settings={name: value, "OUTPOST_MODELS__EMBEDDING": ""}) as daemon:
        assert any(value in note for note in daemon.status()["notes"]), "a model that is not installed is named"


def test_the_build_flags_are_those_of_the_scripts() -> None:
    (command,) = [c for c in RUNNABLE if "pip install" in c]
    flags = re.search(r'CMAKE_ARGS="([^"]+)"', command)
    assert flags is not None
    assert flags[1] in (ROOT / "scripts" / "environment.sh").read_text(encoding="utf-8")


def test_every_linked_file_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
