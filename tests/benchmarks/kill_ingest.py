"""kill -9 of an ingesting process at many random moments: every acknowledged document must be there, none torn.

    python tests/benchmarks/kill_ingest.py [--rounds 200] [--seed 1]

The checks are those of tests/integration/test_knowledge.py, which does the same five times.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.test_knowledge import check_after_kill, kill_while_ingesting


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    stored = rounds = acknowledged = 0
    with tempfile.TemporaryDirectory() as folder:
        for rounds in range(1, given.rounds + 1):
            path = Path(folder) / f"{rounds // 20}.db"
            if rounds % 20 == 0:
                stored = 0
            last = kill_while_ingesting(path, moments.uniform(0.0, 0.6), stored)
            stored = check_after_kill(path, last)
            acknowledged += last is not None
    print(f"{rounds} kills, {acknowledged} after at least one acknowledged document: nothing lost, nothing torn")


if __name__ == "__main__":
    main()
