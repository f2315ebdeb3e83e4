"""Sampling against independent arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agent.engines.sampling import Sampler, check, distribution, greedy, penalise, score
from agent.errors import BadModel, InvalidRequest
from agent.messages import Sampling

LOGITS = np.random.default_rng(3).normal(0, 2, 500).astype(np.float32)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(v - top) for v in values]
    return [w / math.fsum(weights) for w in weights]


def test_log_probabilities_are_those_of_a_softmax() -> None:
    expected = [math.log(p) for p in softmax(LOGITS.tolist())]
    scored = score(LOGITS, 7, 20)
    assert scored.logprob == pytest.approx(expected[7], abs=1e-5)
    order = sorted(range(500), key=lambda i: -expected[i])[:20]
    assert [i for i, _ in scored.top] == order
    assert [v for _, v in scored.top] == pytest.approx([expected[i] for i in order], abs=1e-5)
    everything = score(LOGITS, 7, 500)
    assert math.fsum(math.exp(v) for _, v in everything.top) == pytest.approx(1, abs=1e-5)


def test_temperature_scales_before_anything_is_cut() -> None:
    ids, shares = distribution(LOGITS, Sampling(temperature=0.5))
    assert ids.tolist() == list(range(500))
    assert shares.tolist() == pytest.approx(softmax((LOGITS / 0.5).tolist()), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_top_k_keeps_the_k_best(temperature: float) -> None:
    ids, shares = distribution(LOGITS, Sampling(temperature=temperature, top_k=5))
    assert ids.tolist() == sorted(np.argsort(-LOGITS)[:5].tolist())
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, temperature: float) -> None:
    all_shares = sorted(softmax((LOGITS / temperature).tolist()), reverse=True)
    total, count = 0.0, 0
    while total < top_p - 1e-7:
        total += all_shares[count]
        count += 1
    ids, _ = distribution(LOGITS, Sampling(temperature=temperature, top_p=top_p))
    assert abs(len(ids) - count) <= 1  # float32 against float64 at the border
    assert ids.tolist() == sorted(np.argsort(-LOGITS, kind="stable")[: len(ids)].tolist())


def test_min_p_is_relative_to_the_best_token() -> None:
    shares = np.array(softmax(LOGITS.tolist()))
    ids, _ = distribution(LOGITS, Sampling(temperature=1, min_p=0.1))
    assert sorted(ids.tolist()) == np.flatnonzero(shares >= 0.1 * shares.max()).tolist()


def test_a_tiny_temperature_is_greedy() -> None:
    sampler = Sampler(Sampling(temperature=1e-6, seed=1))
    assert {sampler.choose(LOGITS) for _ in range(20)} == {int(LOGITS.argmax())}


def test_a_seed_repeats_its_choices_and_another_does_not() -> None:
    def draw(seed: int) -> list[int | None]:
        sampler = Sampler(Sampling(temperature=2, seed=seed))
        return [sampler.choose(LOGITS) for _ in range(30)]

    assert draw(5) == draw(5)
    assert draw(-5) == draw(-5)
    assert draw(5) != draw(6)


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    sampler = Sampler(Sampling(temperature=1, seed=0))
    counts = np.bincount([sampler.choose(logits) or 0 for _ in range(4000)], minlength=3) / 4000
    assert counts.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_a_constraint_renormalises_what_it_allows() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    sampler = Sampler(Sampling(temperature=1, seed=0))
    picks = [sampler.choose(logits, allowed=lambda ids: ids != 0) for _ in range(4000)]
    assert picks.count(0) == 0
    assert picks.count(1) / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_constraint_reaches_the_least_likely_token() -> None:
    worst = int(LOGITS.argmin())
    for sampling in (Sampling(), Sampling(temperature=1, top_k=3, seed=1), Sampling(temperature=1, top_p=0.1, seed=1)):
        assert Sampler(sampling).choose(LOGITS, allowed=lambda ids: ids == worst) == worst
        assert Sampler(sampling).choose(LOGITS, allowed=lambda ids: ids < 0) is None


def test_the_penalty_pushes_seen_tokens_down_and_leaves_the_row_alone() -> None:
    row = np.array([2.0, -2.0, 1.0], np.float32)
    changed = penalise(row, np.array([0, 1, 0], np.int32), 2.0)
    assert changed.tolist() == [1.0, -4.0, 1.0]
    assert row.tolist() == [2.0, -2.0, 1.0]
    sampler = Sampler(Sampling(repetition_penalty=3.0))
    assert sampler.choose(row, np.array([0], np.int32)) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_that_are_not_numbers_are_an_error(value: float) -> None:
    row = LOGITS.copy()
    row[3] = value
    for attempt in (
        lambda: greedy(row),
        lambda: score(row, 0, 3),
        lambda: Sampler(Sampling(temperature=1)).choose(row),
    ):
        with pytest.raises(BadModel):
            attempt()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_p": 1.1},
        {"min_p": -1.0},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"max_tokens": 0},
        {"logprobs": 21},
    ],
)
def test_values_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))) as caught:
        check(Sampling(**wrong))  # type: ignore[arg-type]
    assert caught.value.param == next(iter(wrong))
