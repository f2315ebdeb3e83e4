"""How often the comparison of two answers errs, and its weights.

python tests/benchmarks/agreement.py          # the stated weights on the pairs that nothing was fitted on
python tests/benchmarks/agreement.py fit      # weights from tests/data/agreement/tune.jsonl, with cross-validation
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agent.confidence.agreement import WEIGHTS, agreement, features  # noqa: E402
from agent.confidence.calibration import upper_bound  # noqa: E402

DATA = ROOT / "tests" / "data" / "agreement"
RIDGE, RIDGE_BIAS = 0.3, 0.1
FOLDS = 10


@dataclass(frozen=True)
class Pair:
    kind: str
    alike: bool
    question: str
    device: str
    cloud: str


def pairs(name: str) -> list[Pair]:
    return [Pair(**json.loads(line)) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logistic regression with a ridge, by Newton's method."""
    weights, ridge = np.zeros(x.shape[1]), np.full(x.shape[1], RIDGE)
    ridge[0] = RIDGE_BIAS
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        hessian = (x.T * (p * (1 - p))) @ x + np.diag(ridge)
        weights -= np.linalg.solve(hessian, x.T @ (p - y) + ridge * weights)
    return weights


def fit() -> None:
    known = [pair for pair in pairs("tune") if agreement(pair.device, pair.cloud) > 0]
    found = [features(pair.device, pair.cloud) for pair in known]
    x = np.array([[row.get(name, 0.0) for name in WEIGHTS] for row in found])
    y = np.array([pair.alike for pair in known], float)
    print({name: round(float(weight), 2) for name, weight in zip(WEIGHTS, fitted(x, y), strict=True)})
    fold = np.arange(len(known)) // 2 % FOLDS  # both answers of a question are in one fold
    said = np.concatenate([x[fold == k] @ fitted(x[fold != k], y[fold != k]) > 0 for k in range(FOLDS)])
    truth = np.concatenate([y[fold == k] > 0 for k in range(FOLDS)])
    print(f"cross-validated: {(truth & ~said).sum()} false alarms of {truth.sum()}, {(said & ~truth).sum()} misses of "
          f"{(~truth).sum()}")  # fmt: skip


def measure() -> None:
    held = pairs("measure")
    wrong = [pair for pair in held if (agreement(pair.device, pair.cloud) >= 0.5) != pair.alike]
    for name, alike in (("false alarms", True), ("misses", False)):
        n, errors = sum(pair.alike is alike for pair in held), sum(pair.alike is alike for pair in wrong)
        print(f"{name}: {errors} of {n} = {errors / n:.3f}, at most {upper_bound(errors, n, 0.05):.3f} with 95 %")
    total, errors_of = Counter(pair.kind for pair in held), Counter(pair.kind for pair in wrong)
    print("errors by kind: " + ", ".join(f"{kind} {errors_of[kind]}/{n}" for kind, n in total.items()))


if __name__ == "__main__":
    fit() if sys.argv[1:] == ["fit"] else measure()
