"""Calibration: from labelled evidence to a score and the threshold that keeps the operator's promise. numpy only.

    tune, held = split(samples)                 disjoint, whole groups (pages) on one side
    tuned = fit(tune, prior)                    logistic regression, then centred isotonic regression
    walk = certify(tuned, held, epsilon, delta) Learn-then-Test on data that nothing above has seen

**The test.** For a threshold t the null hypothesis says: among the answers with a confidence of at least t more than
the share epsilon is wrong. Given how many of the held samples reach t, the wrong ones among them are binomial, so
P(Binomial(n_t, epsilon) <= wrong_t) is a valid p-value (inverted, it is the Clopper-Pearson upper bound). Thresholds,
their order and the first of them are fixed on `tune`; they are tested from conservative to permissive, each at the
full level delta, until the first is not rejected: fixed-sequence testing, which keeps the chance of any false rejection
below delta (Angelopoulos, Bates, Candes, Jordan, Lei: Learn then Test, 2021; Bauer 1991). The walk starts where tune
promises the strongest evidence, at no fewer samples than could certify without a single error:
ln(delta) / ln(1 - epsilon).

**Several routes.** A route that is asked after another one is certified on the questions which that one leaves. The
walk of the first stops at a threshold ``failed_at``; samples below it were never looked at, so given how many they are
they are still a plain sample of their kind, and the second route's promise is for questions below ``failed_at``
(certificate.Gate).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agent.confidence.certificate import Score, term
from agent.confidence.outcome import Step, Walk

Floats = NDArray[np.float64]

FOLDS: Final = 5
STEPS: Final = 50
"""Thresholds of a walk: each lets another fiftieth of tune through. More steps are more chances to stop too early."""
RIDGE: Final = 100.0
"""Pull of the logistic weights towards their prior, in samples at the steepest place of the curve. On natural-dev, from
a prior of zeros, the AUROC by folds was .804, .812, .823, .832, .836, .837 at 3, 10, 30, 100, 200, 400."""
_ROUNDS: Final = 50
_FEWEST: Final = 10
"""Right and wrong answers that tune must hold, each, before anything is fitted."""
_FEWEST_GROUPS: Final = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled question at one route: the features of its answer (empty where the route had none to give) and
    whether it was right. Samples of a ``group`` belong together (the questions of a page); ``other`` holds the features
    of the answer that the route before this one had."""

    features: Mapping[str, float]
    right: bool
    group: str
    other: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Prior:
    """Terms of a score (certificate.Score) with the weights to start from."""

    bias: float
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A score, and tune's samples under it: ``confidence`` of each by folds that had not seen it (0 without features),
    ``right`` as labelled."""

    score: Score
    confidence: Floats
    right: NDArray[np.bool_]


# ---------------------------------------------------------------- two halves


def split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Tune and held, about half of the samples each and whole groups on one side; the same on every run, whatever the
    order and the labels. With fewer than eight groups their samples are parted one by one: then the groups are the
    device's own documents, and what is promised is about them."""
    order = assign([sample.group for sample in samples])
    return (
        [sample for sample, tune in zip(samples, order, strict=True) if tune],
        [sample for sample, tune in zip(samples, order, strict=True) if not tune],
    )


def assign(groups: Sequence[str]) -> list[bool]:
    """Which of the samples with these groups are for tuning; see `split`."""
    names = sorted(set(groups), key=_shuffled)
    if len(names) < _FEWEST_GROUPS:
        places = sorted(range(len(groups)), key=lambda place: _shuffled(f"{groups[place]} {place}"))
        chosen = set(places[::2])
        return [place in chosen for place in range(len(groups))]
    sizes = dict.fromkeys(names, 0)
    for group in groups:
        sizes[group] += 1
    tuning: set[str] = set()
    filled = [0, 0]
    for name in names:  # to the smaller side
        side = int(filled[1] < filled[0])
        filled[side] += sizes[name]
        if side == 0:
            tuning.add(name)
    return [group in tuning for group in groups]


def _shuffled(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


# ---------------------------------------------------------------- the score


def fit(tune: Sequence[Sample], prior: Prior) -> Tuned | None:
    """None where tune holds fewer than ten right or ten wrong answers: nothing can be learnt from that."""
    right = np.array([sample.right for sample in tune], bool)
    given = np.array([bool(sample.features) for sample in tune], bool)
    if min(int((right & given).sum()), int((~right & given).sum())) < _FEWEST:
        return None
    answered = [sample for sample in tune if sample.features]
    needed = tuple(sorted(set.intersection(*(set(sample.features) for sample in answered))))
    names = list(prior.weights)
    rows = np.array([[term(name, sample.features) for name in names] for sample in answered], np.float64)
    labels = right[given].astype(np.float64)
    folds = _folds([sample.group for sample in answered])
    totals = np.empty(len(answered))
    for fold in np.unique(folds):
        bias, weights = _logistic(rows[folds != fold], labels[folds != fold], names, prior)
        totals[folds == fold] = rows[folds == fold] @ weights + bias
    bias, weights = _logistic(rows, labels, names, prior)
    known = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    used = tuple(name for name in needed if name in {one.rpartition(":")[2] for one in names})
    score = Score(float(bias), known, used, isotonic(totals, labels))
    confidence = np.zeros(len(tune))
    knots = np.array(score.knots)
    confidence[given] = np.interp(totals, knots[:, 0], knots[:, 1])  # as Score.at, all at once
    return Tuned(score, confidence, right & given)


def _folds(groups: Sequence[str]) -> NDArray[np.int64]:
    names = sorted(set(groups), key=_shuffled)
    if len(names) < _FEWEST_GROUPS:
        return np.arange(len(groups)) % FOLDS
    place = {name: number % FOLDS for number, name in enumerate(names)}
    return np.array([place[group] for group in groups])


def _logistic(rows: Floats, labels: Floats, names: Sequence[str], prior: Prior) -> tuple[float, Floats]:
    """Bias and weights by Newton's method on standardised features; the weights are pulled towards the prior's, the
    bias is free."""
    middle, spread = rows.mean(axis=0), rows.std(axis=0)
    constant = spread < 1e-9
    spread = np.where(constant, 1.0, spread)
    scaled = np.column_stack([np.where(constant, 0.0, (rows - middle) / spread), np.ones(len(rows))])
    wanted = np.array([prior.weights[name] for name in names])
    start = np.append(wanted * spread, prior.bias + float(wanted @ middle))
    pull = np.append(np.full(len(names), RIDGE / 4), 1e-3)
    weights = start.copy()
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(scaled @ weights, -30, 30)))
        gradient = scaled.T @ (p - labels) + pull * (weights - start)
        curvature = (scaled * np.maximum(p * (1 - p), 1e-6)[:, None]).T @ scaled + np.diag(pull)
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    found = weights[:-1] / spread
    return float(weights[-1] - found @ middle), found


def isotonic(totals: Floats, labels: Floats) -> tuple[tuple[float, float], ...]:
    """Knots of a rising curve from totals to the share of right answers: centred isotonic regression (Oron and
    Flournoy 2017), which interpolates between the centres of the pooled blocks and so keeps the order within a block.

    One wrong answer above all and one right below all are added (rule of succession), so that no confidence is 0 or 1.
    """
    xs, inverse = np.unique(np.concatenate([totals, [totals.min(), totals.max()]]), return_inverse=True)
    sizes = np.bincount(inverse).astype(np.float64)
    sums = np.bincount(inverse, np.concatenate([labels, [1.0, 0.0]]))
    blocks: list[list[float]] = []  # of a block: sum of totals, sum of labels, size
    for x, y, size in zip(xs, sums, sizes, strict=True):
        blocks.append([x * size, y, size])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    knots = [(x / size, y / size) for x, y, size in blocks]
    return tuple(_ended(knots, float(xs[0]), float(xs[-1])))


def _ended(knots: list[tuple[float, float]], first: float, last: float) -> list[tuple[float, float]]:
    """The curve carried on a little into the first and the last half block, so that there too the order is kept."""
    (low_x, low), (high_x, high) = knots[0], knots[-1]
    below = [(first, low / 2)] if first < low_x - 1e-9 else []
    above = [(last, (1 + high) / 2)] if last > high_x + 1e-9 else []
    return [(float(x), float(y)) for x, y in [*below, *knots, *above]]


# ---------------------------------------------------------------- the walk


def fewest(epsilon: float, delta: float) -> int:
    """Samples without a single error that certify epsilon at delta: 59 for .05 at .05.

    >>> fewest(0.05, 0.05), fewest(0.1, 0.05)
    (59, 29)
    """
    return math.ceil(math.log(delta) / math.log(1 - epsilon))


def p_value(wrong: int, served: int, epsilon: float) -> float:
    """P(Binomial(served, epsilon) <= wrong): how surprising so few errors are if the risk is over epsilon.

    >>> round(p_value(0, 59, 0.05), 4), p_value(5, 5, 0.05)
    (0.0485, 1.0)
    """
    if wrong >= served:
        return 1.0
    k = np.arange(wrong)
    ratios = np.log((served - k) / (k + 1)) + math.log(epsilon) - math.log1p(-epsilon)
    logs = np.concatenate([[0.0], np.cumsum(ratios)]) + served * math.log1p(-epsilon)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


def upper_bound(wrong: int, served: int, delta: float) -> float:
    """The Clopper-Pearson upper bound of a risk, at confidence 1 - delta.

    >>> round(upper_bound(0, 59, 0.05), 4)
    0.0495
    """
    if served == 0 or wrong >= served:
        return 1.0
    low, high = wrong / served, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle <= 0 or p_value(wrong, served, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def certify(tuned: Tuned, held: Sequence[Sample], epsilon: float, delta: float) -> Walk:
    """Walk the thresholds over `held`, which nothing before has seen; see the module."""
    confidence = np.array([tuned.score(sample.features) if sample.features else 0.0 for sample in held], np.float64)
    return walk(tuned, confidence, np.array([sample.right for sample in held], bool), epsilon, delta)


def walk(tuned: Tuned, confidence: Floats, right: NDArray[np.bool_], epsilon: float, delta: float) -> Walk:
    """As `certify`, from the held samples' confidences."""
    thresholds = _thresholds(tuned, len(confidence), epsilon, delta)
    steps: list[Step] = []
    passed: float | None = None
    for threshold in thresholds:
        reached = confidence >= threshold
        served, wrong = int(reached.sum()), int((reached & ~right).sum())
        steps.append(Step(threshold, served, wrong, p_value(wrong, served, epsilon)))
        if steps[-1].p > delta:
            break
        passed = threshold
    if not steps:
        return Walk("no_prospect", len(confidence), ())
    reason = "not_certified" if passed is None else "certified"
    return Walk(reason, len(confidence), tuple(steps), passed, steps[-1].threshold)


def _thresholds(tuned: Tuned, held: int, epsilon: float, delta: float) -> list[float]:
    """The thresholds to test, in order, from tune alone; none where tune shows no hope."""
    order = np.argsort(-tuned.confidence, kind="stable")
    confidence, wrong = tuned.confidence[order], ~tuned.right[order]
    total = len(confidence)
    candidates: list[float] = []
    for step in range(1, STEPS + 1):
        value = float(confidence[max(0, round(step * total / STEPS) - 1)])
        if value > 0 and (not candidates or value < candidates[-1]):
            candidates.append(value)
    hopes = []
    for value in candidates:
        served = int((confidence >= value).sum())
        expected = served * held / total
        risk = (int(wrong[:served].sum()) + 0.5) / (served + 1)
        enough = expected >= fewest(epsilon, delta) and risk < epsilon
        hopes.append(expected * _divergence(risk, epsilon) if enough else 0.0)
    if not hopes or max(hopes) <= 0:
        return []
    return candidates[hopes.index(max(hopes)) :]


def _divergence(risk: float, epsilon: float) -> float:
    """Kullback-Leibler divergence: the rate at which the p-value falls with the number of samples."""
    return risk * math.log(risk / epsilon) + (1 - risk) * math.log((1 - risk) / (1 - epsilon))
