"""The live risk's confidence sequence against known risks: false revocations, and how soon a broken promise shows.

    python -m tests.benchmarks.live_risk [--runs 500] [--labels 3000]

False revocations: answers are called wrong exactly as often as the stated errors allow at a true risk of epsilon, the
worst case that the bound is made for; delta is how many runs may be revoked at any time at all. Delay: the labels until
revocation, errors independent and as measured (not as stated, which is an upper bound), from the start and after a
thousand labels at a risk of .02.
"""

from __future__ import annotations

import argparse
import random

from agent.confidence import agreement
from agent.confidence.calibration import upper_bound
from agent.confidence.live import Judge, Sequence
from agent.config import Promise

PROMISE = Promise(epsilon=0.05, delta=0.05)
STATED = agreement.FALSE_ALARM, agreement.MISS
MEASURED = 0.09, 0.067
"""Point estimates of what `STATED` bounds (figures/agreement.md)."""
JUDGES = {
    "perfect": (Judge(0.0), Judge(0.0)),
    "cloud errs in 2 %": (Judge(0.02, *STATED), Judge(0.02, *MEASURED)),
    "cloud errs in 10 %": (Judge(0.1, *STATED), Judge(0.1, *MEASURED)),
    "cloud errs in 10 %, comparison as stated": (Judge(0.1, *STATED), Judge(0.1, *STATED)),
}
"""What the sequence is told, and how the simulated judge errs when the delay is measured."""
BEFORE, BEFORE_RISK = 1000, 0.02


def called_wrong(judge: Judge, risk: float) -> float:
    """How often answers are called wrong where all errors are independent."""
    right = judge.other + (1 - judge.other) * judge.false_alarm
    return risk * (judge.other + (1 - judge.other) * (1 - judge.miss)) + (1 - risk) * right


def revoked_after(judge: Judge, share: float, labels: int, seed: int, before: float | None = None) -> int | None:
    """Labels until revocation; None where it does not come."""
    chance = random.Random(seed)
    sequence = Sequence(PROMISE, {"cloud": judge})
    for _ in range(BEFORE if before is not None else 0):
        sequence.add("cloud", chance.random() < (before or 0.0))
    for number in range(labels):
        sequence.add("cloud", chance.random() < share)
        if sequence.broken:
            return number + 1
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--labels", type=int, default=3000)
    given = parser.parse_args()
    print(f"epsilon {PROMISE.epsilon:g}, delta {PROMISE.delta:g}\n")
    print(f"| judge | runs of {given.labels} labels at risk = epsilon | revoked | rate | its 95 % lower bound |")
    print("|---|---|---|---|---|")
    for name, (judge, _) in JUDGES.items():
        share = judge.most(PROMISE.epsilon)
        revoked = sum(revoked_after(judge, share, given.labels, seed) is not None for seed in range(given.runs))
        least = 1.0 - upper_bound(given.runs - revoked, given.runs, 0.05)
        print(f"| {name} | {given.runs} | {revoked} | {revoked / given.runs:.3f} | {least:.3f} |", flush=True)
    print("\n| judge | true risk | from the start: median, 90 % | after 1000 good labels: median, 90 % |")
    print("|---|---|---|---|")
    runs = max(20, given.runs // 10)
    for name, (judge, real) in JUDGES.items():
        for multiple in (2, 4, 8):
            share = called_wrong(real, multiple * PROMISE.epsilon)
            cells = []
            for before in (None, called_wrong(real, BEFORE_RISK)):
                delays = sorted(
                    revoked_after(judge, share, given.labels, seed, before) or given.labels + 1 for seed in range(runs)
                )
                middle, late = delays[runs // 2], delays[int(runs * 0.9)]
                cells.append(", ".join(str(d) if d <= given.labels else f"> {given.labels}" for d in (middle, late)))
            print(f"| {name} | {multiple} epsilon | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
