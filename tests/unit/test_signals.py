"""From evidence to features to a provisional confidence."""

import json
import math
from pathlib import Path

import pytest

from agent.confidence import provisional, signals
from agent.messages import Alternative, IntentResult, Quote, Retrieval, TokenLogprob


def quote(text="Adults pay 9.00.", score=0.8, **known):
    return Quote("doc", "Title", "Title > Prices", text, score, **known)


def tokens(*logprobs, runner_up=-4.0):
    return [
        TokenLogprob(f"t{n}", value, b"", (Alternative(f"t{n}", value), Alternative("other", runner_up)))
        for n, value in enumerate(logprobs)
    ]


CLEAR = {"following": 0.8, "headed": 0.8, "raw": 0.9, "covered": 1.0, "soft_covered": 1.0, "weakest": 1.0}
GOOD = quote(similarity=0.8, gap=0.3, keyword=1.0, agreement=True, kind_match=True, signals=CLEAR)
BAD = quote(score=0.15, similarity=0.2, gap=-0.1, keyword=0.1, kind_match=False,
            signals={"following": 0.2, "exists_uncovered": 0.9})  # fmt: skip


def test_quote_features():
    features = signals.quote("how much for adults", Retrieval((), (GOOD, BAD), "hybrid"))
    assert features["lead"] == pytest.approx(0.65)
    assert features["kind_match"] == 1.0
    assert features["similarity"] == 0.8
    assert features["ranker.following"] == 0.8
    assert signals.quote("x", Retrieval((), (BAD,), "hybrid"))["kind_match"] == -1.0
    assert "similarity" not in signals.quote("x", Retrieval((), (quote(),), "keyword"))


def test_a_clear_quote_is_confident_and_a_poor_one_is_not():
    sure = provisional.confidence("quote", signals.quote("how much for adults", Retrieval((), (GOOD, BAD), "hybrid")))
    unsure = provisional.confidence("quote", signals.quote("is there a ghost", Retrieval((), (BAD, GOOD), "hybrid")))
    assert sure > 0.7
    assert unsure < 0.3


def test_what_a_ranking_model_says_moves_the_quote():
    def sure(**judged):
        best = quote(similarity=0.6, keyword=0.6, agreement=True, signals={"following": 0.6, **judged})
        return provisional.confidence("quote", signals.quote("how much for adults", Retrieval((), (best,), "hybrid")))

    assert sure(judged=4.0) > sure(judged=-2.0) + 0.1
    assert sure() not in (sure(judged=0.0), sure(judged=0.3))


def test_agreement_of_the_answerers_moves_the_quote():
    features = signals.quote("how much for adults", Retrieval((), (GOOD, BAD), "hybrid"))
    within = features | signals.agreement(GOOD.text, "9.00", refused=False)
    refused = features | signals.agreement(GOOD.text, "I don't know.", refused=True)
    assert within["generated_within"] == 1.0
    assert signals.agreement(GOOD.text, "pay 12.00", refused=False)["generated_overlap"] == 0.5
    assert provisional.confidence("quote", within) > provisional.confidence("quote", refused)


def test_generated_features():
    retrieval = Retrieval((), (BAD, GOOD), "hybrid")
    features = signals.generated("how much", "9.00", tokens(-0.1, -0.5, -0.2), retrieval, refused=False)
    assert features["span"] == 1.0
    assert features["span_rank"] == 0.0
    assert features["numbers"] == 1.0
    assert features["first_margin"] == pytest.approx(3.9)
    assert features["min_logprob"] == -0.5
    assert features["median_logprob"] == -0.2
    assert features["retrieval_similarity"] == 0.2
    made_up = signals.generated("how much", "12.00", tokens(-2.0), retrieval, refused=False)
    assert (made_up["span"], made_up["numbers"], made_up["span_rank"]) == (0.0, 0.0, 1.0)
    assert provisional.confidence("generated", features) > provisional.confidence("generated", made_up)


def test_generated_without_tokens_or_quotes():
    features = signals.generated("q", "", [], Retrieval((), (), "keyword"), refused=True)
    assert features["refused"] == 1.0
    assert all(math.isfinite(value) for value in features.values())
    endless = signals.generated(
        "q", "a", [TokenLogprob("a", float("-inf"), b"")], Retrieval((), (), "hybrid"), refused=False
    )
    assert all(math.isfinite(value) for value in endless.values())


def test_intent_confidence_grows_with_probability_and_scope():
    def sure(probability, in_scope):
        return provisional.confidence("intent", signals.intent(IntentResult("map", probability, in_scope, 2.0)))

    assert sure(0.99, 0.95) > 0.8
    assert sure(0.99, 0.05) < 0.5
    assert sure(0.3, 0.3) < 0.4
    assert 0 <= sure(0.0, 0.0) < sure(1.0, 1.0) <= 1


def test_the_committed_models_use_documented_features_only():
    path = Path(provisional.__file__).with_name("provisional.json")
    names = set(json.loads(path.read_text(encoding="utf-8"))["models"])
    judged = {"quote_judged", "quote_judged_with_generated"}
    assert names == {"quote", "quote_with_generated", "quote_keyword", "generated"} | judged
    documented = signals.__doc__ or ""
    for model in provisional.models().values():
        assert model.fitted_on
        for feature in model.weights:
            assert feature.startswith("ranker.") or feature in documented
