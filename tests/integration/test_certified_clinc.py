"""A seeded share of tests/benchmarks/certify_clinc.py: certificates keep their promise on real intents, and picking a
threshold where the data show epsilon does not. The evidence is committed; figures/certificates.md tells its making."""

from __future__ import annotations

import numpy as np
import pytest

from agent.confidence import calibration, measures
from tests.benchmarks.certify_clinc import EVIDENCE, PRIOR, Population, Row, lower_bound, simulate, weighted_auroc

RUNS = 60
SEED = 20261
EPSILONS = (0.05, 0.02)


@pytest.fixture(scope="module")
def population() -> Population:
    return Population.load(EVIDENCE)


@pytest.fixture(scope="module")
def rows(population: Population) -> dict[tuple[str, float], Row]:
    return simulate(population, EPSILONS, RUNS, SEED)


def test_the_population_is_clinc150_with_out_of_scope_weighted(population: Population) -> None:
    assert (int(population.inside.sum()), int((~population.inside).sum())) == (18_000, 200)
    assert population.weight[~population.inside].sum() == pytest.approx(0.18)
    assert population.weight.sum() == pytest.approx(1.0)
    assert not population.right[~population.inside].any()


def test_out_of_scope_is_told_apart(population: Population) -> None:
    tuned = calibration.fit([population.sample(row) for row in range(0, len(population.right), 9)], PRIOR)
    assert tuned is not None
    confidence = np.array([tuned.score(population.sample(row).features) for row in range(len(population.right))])
    assert weighted_auroc(population, confidence)[0] >= 0.98


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_promises_are_kept(rows: dict[tuple[str, float], Row], epsilon: float) -> None:
    violations = rows["certified", epsilon].violations(epsilon)
    assert lower_bound(violations, RUNS) <= 0.05, f"{violations} of {RUNS} runs broke the promise"


@pytest.mark.parametrize(("epsilon", "least"), [(0.05, 0.92), (0.02, 0.80)])
def test_much_of_what_could_be_served_is_served(
    population: Population, rows: dict[tuple[str, float], Row], epsilon: float, least: float
) -> None:
    bound = measures.bound(population.error, epsilon)
    assert rows["certified", epsilon].coverage.mean() / bound >= least


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_naive_threshold_breaks_the_promise(rows: dict[tuple[str, float], Row], epsilon: float) -> None:
    """Should this fail, the simulation has lost its power to see a broken promise."""
    assert rows["naive threshold", epsilon].violations(epsilon) >= 0.25 * RUNS


def test_the_simulations_shortcut_is_the_score(population: Population) -> None:
    tuned = calibration.fit([population.sample(row) for row in range(0, len(population.right), 9)], PRIOR)
    assert tuned is not None
    some = population.terms()[::500]
    totals = some @ np.array(list(tuned.score.weights.values())) + tuned.score.bias
    quick = np.interp(totals, *zip(*tuned.score.knots, strict=True))
    exact = [tuned.score(population.sample(row).features) for row in range(0, len(population.right), 500)]
    assert quick == pytest.approx(exact)
