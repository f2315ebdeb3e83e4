"""Does certification keep its promise on real intents? Simulations on CLINC150 with a known true risk.

    OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.certify_clinc --embedding FOLDER [--cache FILE] [--runs 500]
    python -m tests.benchmarks.certify_clinc --evidence tests/data/clinc_evidence.npz        (minutes less)

Evidence: every one of the 18,000 sentences in scope and 200 out of scope (train, val and both out-of-scope sets) is
classified by a pack that was trained without it (--folds). The population is these sentences with out of scope
weighted to 18 %; its risk at any threshold is known exactly. A run draws tune and calibrate from it, with replacement,
each half of what CLINC150's validation split would offer at that weight; fits, certifies, and compares the true risk of
what would be served with epsilon. Three other ways to choose the threshold get the same two draws together:

naive        the most permissive threshold whose error on the draw is at most epsilon
conformal    split conformal on the wrong answers: at most epsilon of them are served (Vovk); what it controls is not
             the error among the served
risk control conformal risk control (Angelopoulos et al. 2022) of "wrong and served" over all questions, in expectation
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.confidence import calibration, measures
from agent.confidence.certificate import term
from agent.confidence.signals import intent as intent_features
from agent.knowledge.intent_model import train_model
from agent.knowledge.intents import parse_pack, training_texts
from tests.benchmarks.intents import ROOT, Clinc, Vectors, pack_text

OUTSIDE = 0.18
NAMES = ("probability", "in_scope", "margin")
PRIOR = calibration.Prior(0.0, {"logit:in_scope": 1.0, "logit:probability": 1.0, "margin": 0.0})
EVIDENCE = ROOT / "tests" / "data" / "clinc_evidence.npz"
HALF = round(3000 / (1 - OUTSIDE) / 2)
Array = np.ndarray


@dataclass(frozen=True)
class Population:
    """Features by NAMES, whether the intent was right, whether the text is in scope, and each text's weight."""

    features: Array
    right: Array
    inside: Array
    weight: Array

    @classmethod
    def of(cls, features: Array, right: Array, inside: Array) -> Population:
        weight = np.where(inside, (1 - OUTSIDE) / inside.sum(), OUTSIDE / (~inside).sum())
        return cls(features.astype(np.float64), right.astype(bool), inside.astype(bool), weight)

    @classmethod
    def load(cls, path: Path) -> Population:
        with np.load(path, allow_pickle=False) as kept:
            return cls.of(kept["features"], kept["right"], kept["inside"])

    @property
    def error(self) -> float:
        return float(self.weight[~self.right].sum())

    def terms(self) -> Array:
        """The score's terms, one row a text."""
        rows = [dict(zip(NAMES, map(float, row), strict=True)) for row in self.features]
        return np.array([[term(name, row) for name in PRIOR.weights] for row in rows])

    def sample(self, row: int) -> calibration.Sample:
        features = dict(zip(NAMES, map(float, self.features[row]), strict=True))
        return calibration.Sample(features, bool(self.right[row]), str(row))

    def served(self, confidence: Array, threshold: float | None) -> tuple[float, float]:
        """True coverage and risk of serving from a threshold on."""
        reached = np.zeros(len(confidence), bool) if threshold is None else confidence >= threshold
        coverage = float(self.weight[reached].sum())
        return coverage, float(self.weight[reached & ~self.right].sum()) / coverage if coverage else 0.0


def out_of_fold(data: Clinc, vectors: Vectors | None, folds: int) -> Population:
    """Every sentence classified by a pack that has not seen it."""
    labelled = [*data.train, *data.val]
    outside = [*data.oos_train, *data.oos_val]
    features, right, inside = [], [], []
    for fold in range(folds):
        learnt = dict(item for number, item in enumerate(labelled) if number % folds != fold)
        text = pack_text(
            list(learnt.items()),  # a few sentences stand in two intents, which a pack may not
            [item for number, item in enumerate(outside) if number % folds != fold],
        )
        model = train_model(
            text, vectors.of(training_texts(parse_pack(text))) if vectors else None, "minilm" if vectors else "none"
        )
        held = [*labelled[fold::folds], *((item, None) for item in outside[fold::folds])]
        texts = [item for item, _ in held]
        results = model.classify(texts, vectors.of(texts) if vectors else None)
        for (_, label), result in zip(held, results, strict=True):
            found = intent_features(result)
            features.append([found[name] for name in NAMES])
            right.append(result.intent == label)
            inside.append(label is not None)
        print(f"fold {fold + 1} of {folds} done", flush=True)
    return Population.of(np.array(features), np.array(right), np.array(inside))


# ---------------------------------------------------------------- ways to choose a threshold


def naive(confidence: Array, right: Array, epsilon: float) -> float | None:
    ordered = np.sort(confidence)[::-1]
    risks = measures.risk_by_coverage(confidence, right)
    kept = np.flatnonzero(risks <= epsilon)
    return float(ordered[kept[-1]]) if len(kept) else None


def conformal(confidence: Array, right: Array, epsilon: float) -> float | None:
    wrong = np.sort(confidence[~right])
    place = int(np.ceil((1 - epsilon) * (len(wrong) + 1))) - 1
    return float(np.nextafter(wrong[place], 2)) if place < len(wrong) else None


def risk_control(confidence: Array, right: Array, epsilon: float) -> float | None:
    total = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    losses = (np.cumsum(~right[order]) + 1) / (total + 1)
    kept = np.flatnonzero(losses <= epsilon)
    return float(confidence[order][kept[-1]]) if len(kept) else None


OTHERS: dict[str, Callable[[Array, Array, float], float | None]] = {
    "naive threshold": naive,
    "split conformal on wrong answers": conformal,
    "conformal risk control": risk_control,
}


# ---------------------------------------------------------------- simulations


@dataclass(frozen=True)
class Row:
    """What a way gave in all runs: true coverage and risk."""

    coverage: Array
    risk: Array

    def violations(self, epsilon: float) -> int:
        return int((self.risk > epsilon).sum())


def simulate(
    population: Population, epsilons: Sequence[float], runs: int, seed: int, half: int = HALF, delta: float = 0.05
) -> dict[tuple[str, float], Row]:
    """Rows by way and epsilon; the certified way is called ``certified``."""
    random = np.random.default_rng(seed)
    terms, names = population.terms(), list(PRIOR.weights)
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for _ in range(runs):
        tune, held = (random.choice(len(terms), half, p=population.weight) for _ in range(2))
        tuned = calibration.fit([population.sample(row) for row in tune], PRIOR)
        assert tuned is not None
        score = tuned.score
        totals = terms @ np.array([score.weights[name] for name in names]) + score.bias
        confidence = np.interp(totals, *zip(*score.knots, strict=True))
        both = np.concatenate([tune, held])
        for epsilon in epsilons:
            walk = calibration.walk(tuned, confidence[held], population.right[held], epsilon, delta)
            found.setdefault(("certified", epsilon), []).append(population.served(confidence, walk.threshold))
            for name, choose in OTHERS.items():
                threshold = choose(confidence[both], population.right[both], epsilon)
                found.setdefault((name, epsilon), []).append(population.served(confidence, threshold))
    return {key: Row(np.array([c for c, _ in rows]), np.array([r for _, r in rows])) for key, rows in found.items()}


def lower_bound(violations: int, runs: int, level: float = 0.05) -> float:
    """The one-sided 95 % Clopper-Pearson lower bound of the violation rate."""
    return 1 - calibration.upper_bound(runs - violations, runs, level)


def weighted_auroc(population: Population, confidence: Array) -> tuple[float, float]:
    """In scope against out of scope, and right against wrong (weighted to the population)."""
    scope = measures.auroc(confidence, population.inside)
    order = np.argsort(confidence, kind="stable")
    weight, right = population.weight[order], population.right[order]
    wrong_below = np.cumsum(weight * ~right)
    area = float((weight * right * wrong_below).sum() / (weight[right].sum() * weight[~right].sum()))
    return scope, area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, help="folder made by quantize.embedding")
    parser.add_argument("--cache", type=Path, help="file that keeps the vectors between runs")
    parser.add_argument("--evidence", type=Path, help="use this evidence instead of making it")
    parser.add_argument("--write", action="store_true", help=f"keep the evidence as {EVIDENCE.relative_to(ROOT)}")
    parser.add_argument(
        "--folds", type=int, default=5, help="parts of CLINC150, each classified by packs of the others"
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--half", type=int, default=HALF, help="samples of tune, and of calibrate")
    given = parser.parse_args()
    if given.evidence:
        population = Population.load(given.evidence)
    else:
        data = Clinc.read(Path(os.environ.get("OUTPOST_SHARED_DATA") or ROOT.parent / "shared" / "data"))
        vectors = Vectors(given.embedding, given.cache) if given.embedding else None
        population = out_of_fold(data, vectors, given.folds)
        if vectors:
            vectors.keep()
    if given.write:
        parts = {"features": population.features.astype(np.float32), "right": population.right}
        np.savez_compressed(EVIDENCE, **parts, inside=population.inside)
    report(population, given.runs, given.seed, given.half)


def report(population: Population, runs: int, seed: int, half: int) -> None:
    plain = population.features[:, 0] * population.features[:, 1]
    in_scope = measures.auroc(population.features[:, 1], population.inside)
    error = population.error
    accuracy = float(population.right[population.inside].mean())
    print(f"{len(population.right)} sentences, accuracy in scope {accuracy:.4f}, error with out of scope {error:.4f}")
    scope, area = weighted_auroc(population, plain)
    print(f"AUROC out of scope: in-scope score {in_scope:.4f}, probability * in-scope {scope:.4f}")
    print(f"AUROC right against wrong, probability * in-scope: {area:.4f}")
    started = time.process_time()
    epsilons = (0.10, 0.05, 0.02)
    rows = simulate(population, epsilons, runs, seed, half)
    print(f"{runs} runs of {half} + {half} samples, {time.process_time() - started:.0f} CPU s\n")
    print("| epsilon | bound | way | coverage | over bound | mean risk | violations | lower bound | no threshold |")
    print("|---|---|---|---|---|---|---|---|---|")
    for epsilon in epsilons:
        bound = measures.bound(error, epsilon)
        for name in ("certified", *OTHERS):
            row = rows[name, epsilon]
            count = row.violations(epsilon)
            print(
                f"| {epsilon:g} | {bound:.3f} | {name} | {row.coverage.mean():.3f} | {row.coverage.mean() / bound:.3f} "
                f"| {row.risk.mean():.4f} | {count} ({count / runs:.1%}) | {lower_bound(count, runs):.3f} "
                f"| {int((row.coverage == 0).sum())} |"
            )
    figures = {f"{name} {epsilon:g}": rows[name, epsilon].violations(epsilon) for name, epsilon in rows}
    print("\n" + json.dumps({"runs": runs, "seed": seed, "violations": figures}))


if __name__ == "__main__":
    main()
