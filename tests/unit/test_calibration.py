"""Calibration as statistics: the tests, the score, the promise under simulation. Everything is seeded."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.confidence import calibration, measures
from agent.confidence.calibration import Prior, Sample, Tuned

PRIOR = Prior(0.0, {"evidence": 1.0})


def binomial_cdf(wrong: int, served: int, risk: float) -> float:
    """By exact integers and fractions of floats: slow, and not the code under test."""
    return math.fsum(math.comb(served, k) * risk**k * (1 - risk) ** (served - k) for k in range(wrong + 1))


@given(st.integers(1, 300), st.floats(0.005, 0.4), st.data())
def test_p_values_are_binomial_tails(served: int, epsilon: float, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, served))
    assert calibration.p_value(wrong, served, epsilon) == pytest.approx(binomial_cdf(wrong, served, epsilon), rel=1e-9)


@pytest.mark.parametrize(
    ("wrong", "served", "delta", "published"),
    # one-sided 95 % and 97.5 % Clopper-Pearson limits from printed tables
    [(0, 59, 0.05, 0.0495), (0, 100, 0.05, 0.0295), (5, 100, 0.05, 0.1022), (1, 10, 0.025, 0.4450)],
)
def test_upper_bounds_are_clopper_pearsons(wrong: int, served: int, delta: float, published: float) -> None:
    assert calibration.upper_bound(wrong, served, delta) == pytest.approx(published, abs=2e-4)


def test_the_bounds_hold_at_the_ends() -> None:
    assert calibration.upper_bound(0, 0, 0.05) == 1.0
    assert calibration.upper_bound(7, 7, 0.05) == 1.0
    assert calibration.p_value(0, 0, 0.05) == 1.0
    assert calibration.p_value(0, 100_000, 0.05) < 1e-300


@given(st.floats(0.01, 0.4), st.floats(0.01, 0.2))
def test_the_fewest_samples_certify_and_one_less_does_not(epsilon: float, delta: float) -> None:
    count = calibration.fewest(epsilon, delta)
    assert calibration.p_value(0, count, epsilon) <= delta + 1e-12
    assert count == 1 or calibration.p_value(0, count - 1, epsilon) > delta


# ---------------------------------------------------------------- the halves


def test_whole_groups_fall_on_one_side_and_the_halves_are_alike() -> None:
    samples = [Sample({"evidence": 0.0}, True, f"page {number % 24}") for number in range(720)]
    tune, held = calibration.split(samples)
    assert {s.group for s in tune}.isdisjoint({s.group for s in held})
    assert abs(len(tune) - len(held)) <= 30
    again, _ = calibration.split(list(reversed(samples)))
    assert {s.group for s in again} == {s.group for s in tune}


def test_few_groups_are_parted_by_sample() -> None:
    samples = [Sample({"evidence": float(number)}, True, f"page {number % 3}") for number in range(100)]
    tune, held = calibration.split(samples)
    assert len(tune) == len(held) == 50
    assert {s.features["evidence"] for s in tune}.isdisjoint({s.features["evidence"] for s in held})


def test_the_halves_do_not_look_at_labels() -> None:
    groups = [f"page {number % 24}" for number in range(720)]
    right = [Sample({}, True, group) for group in groups]
    wrong = [Sample({}, False, group) for group in groups]
    assert [s.group for s in calibration.split(right)[0]] == [s.group for s in calibration.split(wrong)[0]]


# ---------------------------------------------------------------- the score


def drawn(random: np.random.Generator, size: int, slope: float = 2.0) -> list[Sample]:
    """Answers whose chance to be right is a logistic of their evidence."""
    evidence = random.normal(1.0, 1.5, size)
    right = random.random(size) < 1 / (1 + np.exp(-slope * evidence))
    return [
        Sample({"evidence": float(x)}, bool(y), str(number))
        for number, (x, y) in enumerate(zip(evidence, right, strict=True))
    ]


def test_the_score_is_calibrated_and_keeps_the_order() -> None:
    random = np.random.default_rng(5)
    tuned = calibration.fit(drawn(random, 2000), PRIOR)
    assert tuned is not None
    fresh = drawn(random, 20_000)
    confidence = np.array([tuned.score(sample.features) for sample in fresh])
    right = np.array([sample.right for sample in fresh])
    assert measures.calibration_error(confidence, right) < 0.03
    order = np.argsort([sample.features["evidence"] for sample in fresh])
    assert (np.diff(confidence[order]) >= 0).all()
    assert confidence.min() > 0
    assert confidence.max() < 1


def test_a_missing_feature_is_no_confidence_at_all() -> None:
    random = np.random.default_rng(6)
    samples = [Sample({**s.features, "other": 1.0}, s.right, s.group) for s in drawn(random, 500)]
    tuned = calibration.fit(samples, PRIOR)
    assert tuned is not None
    assert tuned.score({"evidence": 5.0}) > 0.9
    assert tuned.score({}) == 0.0
    assert tuned.score({"evidence": math.nan}) == 0.0


def test_too_few_right_or_wrong_answers_fit_nothing() -> None:
    random = np.random.default_rng(7)
    samples = drawn(random, 400)
    assert calibration.fit([s for s in samples if s.right], PRIOR) is None
    assert calibration.fit([s for s in samples if not s.right], PRIOR) is None
    assert calibration.fit([], PRIOR) is None


def test_the_prior_rules_where_data_say_nothing() -> None:
    random = np.random.default_rng(8)
    samples = [Sample({**s.features, "rare": 0.0}, s.right, s.group) for s in drawn(random, 600)]
    tuned = calibration.fit(samples, Prior(0.0, {"evidence": 1.0, "rare": -4.0}))
    assert tuned is not None
    assert tuned.score.weights["rare"] == pytest.approx(-4.0)
    assert tuned.score.weights["evidence"] == pytest.approx(2.0, abs=0.5)


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=60))
def test_isotonic_curves_rise_and_never_reach_certainty(pairs: list[tuple[float, bool]]) -> None:
    totals = np.array([total for total, _ in pairs])
    labels = np.array([float(label) for _, label in pairs])
    knots = calibration.isotonic(totals, labels)
    assert all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(knots))
    assert knots[0][1] > 0
    assert knots[-1][1] < 1


# ---------------------------------------------------------------- the walk


def test_a_walk_stops_at_its_first_failure_and_certifies_the_step_before() -> None:
    confidence = np.linspace(1, 0, 1000)
    right = np.ones(1000, bool)
    right[500:] = False
    tuned = Tuned(calibration.fit(drawn(np.random.default_rng(9), 400), PRIOR).score, confidence, right)  # type: ignore[union-attr]
    walk = calibration.walk(tuned, confidence, right, 0.05, 0.05)
    assert walk.reason == "certified"
    assert [step.p <= 0.05 for step in walk.steps] == [True] * (len(walk.steps) - 1) + [False]
    assert walk.last.threshold == walk.threshold == walk.steps[-2].threshold
    assert walk.failed_at == walk.steps[-1].threshold
    assert all(a.threshold > b.threshold for a, b in pairwise(walk.steps))
    assert walk.last.served >= calibration.fewest(0.05, 0.05)


def test_what_tune_cannot_hope_for_is_not_tested() -> None:
    random = np.random.default_rng(10)
    hopeless = [Sample(s.features, bool(random.random() < 0.7), s.group) for s in drawn(random, 500)]
    tuned = calibration.fit(hopeless, PRIOR)
    assert tuned is not None
    assert calibration.certify(tuned, drawn(random, 500), 0.05, 0.05).reason == "no_prospect"
    few = calibration.fit(drawn(random, 60), PRIOR)
    assert few is None or calibration.certify(few, drawn(random, 40), 0.05, 0.05).reason == "no_prospect"


def test_the_first_test_may_fail() -> None:
    random = np.random.default_rng(11)
    tuned = calibration.fit(drawn(random, 800), PRIOR)
    assert tuned is not None
    worse = [Sample(s.features, bool(random.random() < 0.8), s.group) for s in drawn(random, 800)]
    walk = calibration.certify(tuned, worse, 0.05, 0.05)
    assert (walk.reason, walk.threshold, len(walk.steps)) == ("not_certified", None, 1)


@pytest.mark.parametrize(("epsilon", "half"), [(0.05, 400), (0.10, 200)])
def test_promises_are_broken_no_more_often_than_delta(epsilon: float, half: int) -> None:
    """300 calibrations; the true risk is computed from the law that the answers were drawn from."""
    random = np.random.default_rng(12)
    grid = random.normal(1.0, 1.5, 40_000)
    chance = 1 / (1 + np.exp(-2.0 * grid))
    broken = served = 0
    for _ in range(300):
        tuned = calibration.fit(drawn(random, half), PRIOR)
        if tuned is None:
            continue
        walk = calibration.certify(tuned, drawn(random, half), epsilon, 0.05)
        if walk.threshold is None:
            continue
        totals = tuned.score.bias + tuned.score.weights["evidence"] * grid
        reached = np.interp(totals, *zip(*tuned.score.knots, strict=True)) >= walk.threshold
        served += 1
        broken += (1 - chance[reached]).mean() > epsilon
    assert served > 150
    assert 1 - calibration.upper_bound(300 - broken, 300, 0.05) <= 0.05, f"{broken} of 300 broken"


def test_a_second_route_keeps_its_promise_on_what_the_first_leaves() -> None:
    """Both routes find the same questions hard, so what the first leaves is worse than the whole."""
    random = np.random.default_rng(13)
    broken = certified = 0
    truth_first, truth_second, chance = paired(random, 20_000)
    for _ in range(150):
        first, second, _ = paired(random, 600)
        held_first, held_second, _ = paired(random, 600)
        tuned, other = calibration.fit(first, PRIOR), calibration.fit(second, PRIOR)
        assert tuned is not None
        assert other is not None
        below = calibration.certify(tuned, held_first, 0.1, 0.05).failed_at
        left = tuned.confidence < below
        rest = Tuned(other.score, other.confidence[left], other.right[left])
        held = [s for s, f in zip(held_second, held_first, strict=True) if tuned.score(f.features) < below]
        walk = calibration.certify(rest, held, 0.1, 0.05)
        if walk.threshold is not None:
            certified += 1
            reached = (confidences(tuned, truth_first) < below) & (confidences(other, truth_second) >= walk.threshold)
            broken += (1 - chance[reached]).mean() > 0.1
    assert certified >= 75
    assert 1 - calibration.upper_bound(150 - broken, 150, 0.05) <= 0.05, f"{broken} of 150 broken"


def confidences(tuned: Tuned, samples: list[Sample]) -> np.ndarray:
    totals = tuned.score.bias + tuned.score.weights["evidence"] * np.array([s.features["evidence"] for s in samples])
    return np.interp(totals, *zip(*tuned.score.knots, strict=True))


def paired(random: np.random.Generator, size: int) -> tuple[list[Sample], list[Sample], np.ndarray]:
    """The same questions at two routes, and the second's chances to be right."""
    hard, own = random.normal(0.5, 1.5, size), random.normal(1.0, 1.5, size)
    chances = 1 / (1 + np.exp(-2.5 * hard)), 1 / (1 + np.exp(-2.5 * (own + 0.5 * hard)))
    first, second = (
        [
            Sample({"evidence": float(x)}, bool(random.random() < p), str(number))
            for number, (x, p) in enumerate(zip(evidence, chance, strict=True))
        ]
        for evidence, chance in zip((hard, own + 0.5 * hard), chances, strict=True)
    )
    return first, second, chances[1]
