"""kill -9 of the daemon at many random moments under load: acknowledged escalations lost, answers given twice.

    python tests/benchmarks/kill_escalation.py [--rounds 300] [--seed 1]

The checks are those of tests/integration/test_escalation_kills.py, which does the same twice.
"""

from __future__ import annotations

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration import test_escalation_kills as kills
from tests.integration.test_escalation_kills import Seen, cloud, kill_one, settle
from tests.simulators import daemon
from tests.simulators.line import Line

EVERY = 10
"""Kills between two reckonings."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    moments, numbers = random.Random(given.seed), itertools.count(1)
    daemon.START_S = kills.SETTLE_S = 600.0  # a busy machine is no fault
    acknowledged = lost = twice = deferred = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = Path(__file__).with_name("make_random_model.py")
        subprocess.run(
            [sys.executable, str(maker), str(folder / "tiny.gguf"), "--tiny"], check=True, capture_output=True
        )
        with cloud(folder / "cloud", folder / "tiny.gguf") as far, Line(f"{far.url}/v1") as line:
            done = 0
            while done < given.rounds:
                seen, count = Seen(), min(EVERY, given.rounds - done)
                for _ in range(count):
                    kill_one(folder / "device", line, seen, numbers, moments)
                settle(folder / "device", line, seen)
                done += count
                acknowledged += len(seen.acknowledged)
                deferred += seen.decisions["deferred"]
                lost += len(seen.unanswered)
                twice += len(seen.twice)
                print(
                    f"{done} kills in {time.monotonic() - started:.0f} s: {acknowledged} escalations acknowledged"
                    f" ({deferred} of them deferred), {seen.cut} askers cut off lately, {lost} lost, {twice} answered"
                    " twice",
                    flush=True,
                )
    sys.exit(1 if lost or twice else 0)


if __name__ == "__main__":
    main()
