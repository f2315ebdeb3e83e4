"""How well confidences order and predict right answers: figures beside every certificate. numpy only.

    ece          expected calibration error, 15 bins of equal width
    auroc        how often a right answer has the higher confidence than a wrong one; ties count half
    aurc         mean risk over all coverages, the most confident answers first (Geifman, El-Yaniv 2017)
    e_aurc       its excess over the best order that these answers could have
    error        share of wrong answers where all are served: mu
    bound        (1 - mu) / (1 - epsilon): no order serves more with a risk of epsilon
    design_effect  how much more the risk varies than by independent samples, because questions of a group are alike

Answers of equal confidence share their wrongness evenly, so no figure depends on the order of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.confidence.outcome import Curves

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BINS = 15


def curves(confidence: Floats, right: Bools, groups: Sequence[str], epsilon: float, threshold: float | None) -> Curves:
    """Everything that is reported of held samples; the design effect is that of the served ones."""
    figures = measures(confidence, right)
    certified = None
    if threshold is not None and (reached := confidence >= threshold).any():
        certified = (float(reached.mean()), float((~right[reached]).mean()))
        inside = [group for group, served in zip(groups, reached, strict=True) if served]
        figures["design_effect"] = design_effect(~right[reached], inside)
    return Curves(
        measures=figures,
        bound=bound(figures["error"], epsilon),
        reliability=tuple((mean, share, size) for _, mean, share, size in reliability(confidence, right)),
        risk_coverage=_points(risk_by_coverage(confidence, right)),
        ideal=_points(risk_by_coverage(right.astype(np.float64), right)),
        certified=certified,
    )


def _points(risks: Floats) -> tuple[tuple[float, float], ...]:
    """At most some two hundred points of a curve."""
    total = len(risks)
    places = np.unique(np.linspace(0, total - 1, min(total, 200)).astype(int))
    return tuple(((int(place) + 1) / total, float(risks[place])) for place in places)


def measures(confidence: Floats, right: Bools) -> dict[str, float]:
    """ece, auroc, aurc, e_aurc and error by name."""
    risks = risk_by_coverage(confidence, right)
    ideal = risk_by_coverage(right.astype(np.float64), right)
    return {
        "ece": calibration_error(confidence, right),
        "auroc": auroc(confidence, right),
        "aurc": float(risks.mean()),
        "e_aurc": float(risks.mean() - ideal.mean()),
        "error": float((~right).mean()),
    }


def bound(error: float, epsilon: float) -> float:
    """The largest coverage with a risk of epsilon: every right answer served, and as many wrong ones as it allows."""
    return min(1.0, (1.0 - error) / (1.0 - epsilon))


def auroc(confidence: Floats, right: Bools) -> float:
    """0.5 where all answers are right, or all wrong."""
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order]
    first = np.searchsorted(ordered, ordered, side="left")
    last = np.searchsorted(ordered, ordered, side="right")
    ranks = np.empty(len(confidence))
    ranks[order] = (first + last + 1) / 2
    positive = int(right.sum())
    negative = len(right) - positive
    if positive == 0 or negative == 0:
        return 0.5
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def risk_by_coverage(confidence: Floats, right: Bools) -> Floats:
    """The risk of serving the 1, 2, ... n most confident answers."""
    order = np.argsort(-confidence, kind="stable")
    values, inverse = np.unique(confidence[order], return_inverse=True)
    wrong = (~right[order]).astype(np.float64)
    shares = np.bincount(inverse, wrong, len(values)) / np.bincount(inverse, minlength=len(values))
    return np.asarray(np.cumsum(shares[inverse]) / np.arange(1, len(wrong) + 1))


def calibration_error(confidence: Floats, right: Bools) -> float:
    return sum(size * abs(share - mean) for _, mean, share, size in reliability(confidence, right))


def reliability(confidence: Floats, right: Bools) -> list[tuple[int, float, float, float]]:
    """For every bin that holds answers: its number, mean confidence, share of right answers, share of all answers."""
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(which):
        inside = which == number
        rows.append((int(number), float(confidence[inside].mean()), float(right[inside].mean()), float(inside.mean())))
    return rows


def design_effect(wrong: Bools, groups: Sequence[str]) -> float:
    """The variance of the share of ``wrong`` between groups over that of independent samples (Kish); at least 1."""
    share = float(wrong.mean()) if len(wrong) else 0.0
    names, inverse = np.unique(np.array(groups), return_inverse=True)
    if len(names) < 2 or share in (0.0, 1.0):
        return 1.0
    residuals = np.bincount(inverse, wrong - share, len(names))
    clustered = len(names) / (len(names) - 1) * float((residuals**2).sum()) / len(wrong) ** 2
    return max(1.0, clustered / (share * (1 - share) / len(wrong)))
