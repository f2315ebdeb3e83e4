"""kill -9 of the daemon at random moments, under load, with a line that comes and goes: what was acknowledged is
answered, once. A small share of tests/benchmarks/kill_escalation.py."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from tests.benchmarks.kill_escalation import Seen, kill_one, settle
from tests.simulators.daemon import running_cloud
from tests.simulators.line import Line


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_and_nothing_answered_twice(tmp_path: Path, tiny_gguf: Path) -> None:
    seen, numbers, moments = Seen(), itertools.count(1), random.Random(8)
    with running_cloud(tmp_path / "cloud", tiny_gguf) as far, Line(f"{far.url}/v1") as line:
        for _ in range(2):
            kill_one(tmp_path / "device", line, seen, numbers, moments)
        settle(tmp_path / "device", line, seen)
    assert seen.acknowledged, "the device answered nobody before it was killed"
    assert seen.unanswered == set()
    assert seen.twice == set()
