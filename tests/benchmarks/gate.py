"""How often the SLM is not asked because nothing that it said could be served, and what that saves.

    python tests/benchmarks/gate.py --embedding FOLDER [--data tests/data/natural] [--policy best-effort] [--most 120]

Asks natural questions of a whole daemon by /v1/explain, every page in a collection of its own. That no decision is
another one for it is tests/unit/test_routing.py's matter; here it is counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from tests.benchmarks.natural import _items
from tests.benchmarks.natural_daemon import knowing
from tests.simulators.daemon import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT / "tests" / "data" / "natural")
    parser.add_argument("--policy", default="best-effort")
    parser.add_argument("--most", type=int, default=120)
    given = parser.parse_args()
    items = _items(given.data, "questions*.jsonl")
    items = items[:: max(1, len(items) // given.most)]
    asked = {True: 0, False: 0}
    skipped = {True: 0, False: 0}
    generating: list[float] = []
    settings = {"OUTPOST_ASSISTANT__POLICY": given.policy}
    with (
        knowing(items, given.data, given.embedding, settings) as daemon,
        daemon.client(operator=True, timeout=300) as client,
    ):
        for item in items:
            question = {"question": item.question, "collection": Path(item.page).stem}
            found = client.post("/v1/explain", json=question).raise_for_status().json()
            answerable = bool(item.answers)
            asked[answerable] += 1
            skipped[answerable] += found["not_generated"] is not None
            generating += [found["timings_ms"]["generate"]] if "generate" in found["timings_ms"] else []
    report = {
        "policy": given.policy,
        "answerable": f"{skipped[True]} of {asked[True]} not generated",
        "unanswerable": f"{skipped[False]} of {asked[False]} not generated",
        "generation_ms": round(statistics.median(generating), 1) if generating else None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
