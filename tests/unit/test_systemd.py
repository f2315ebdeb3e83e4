"""The systemd unit: no warning from systemd itself, and an exposure of at most 2.5."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "outpost.service"


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not on this machine")
    return found


def test_the_unit_is_valid_without_a_word_on_stderr(analyze: str) -> None:
    """`verify` exits 0 on unknown keys and only warns, so silence is what counts."""
    run = subprocess.run([analyze, "verify", str(UNIT)], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")


def test_an_unknown_key_would_be_noticed(analyze: str, tmp_path: Path) -> None:
    wrong = tmp_path / "outpost.service"
    wrong.write_text(UNIT.read_text(encoding="utf-8").replace("WatchdogSec=", "WatchdogSecs="), encoding="utf-8")
    run = subprocess.run([analyze, "verify", str(wrong)], capture_output=True, text=True, check=False, timeout=60)
    assert "WatchdogSecs" in run.stderr


def test_exposure_is_at_most_2_5(analyze: str) -> None:
    command = [analyze, "security", "--offline=true", "--no-pager", str(UNIT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", run.stdout)
    assert found is not None, run.stdout + run.stderr
    assert float(found[1]) <= 2.5


def test_it_is_a_notify_service_with_watchdog_and_state() -> None:
    text = UNIT.read_text(encoding="utf-8")
    for line in ("Type=notify", "WatchdogSec=60", "StateDirectory=outpost", "Restart=always"):
        assert line in text.splitlines()
