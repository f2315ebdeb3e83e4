"""What calibration concludes from evidence: gaps in it, routes in their order, samples of other venues."""

from __future__ import annotations

import numpy as np
import pytest

from agent.calibrating import Evidence, Given, conclude_answers, conclude_intents, refuse_gaps
from agent.config import Risk
from agent.errors import Unavailable

LOADED = {"score": "a", "embedding": "b", "ranker": "c", "text": "d"}
WHOLE = {"similarity": 0.5, "ranker.judged": 1.0, "generated": 1.0}


def quotes(*features: dict[str, float]) -> list[Evidence]:
    return [Evidence(str(number), "page", {"quote": Given(each)}) for number, each in enumerate(features)]


def test_whole_evidence_passes_and_so_does_a_rare_gap() -> None:
    refuse_gaps(quotes(*[WHOLE] * 100, {"similarity": 0.5}), {"no generated answer: deadline_exceeded": 1}, LOADED)


@pytest.mark.parametrize(
    ("gone", "named"), [("similarity", "embedding"), ("ranker.judged", "ranker"), ("generated", "text")]
)
def test_a_part_that_took_no_part_is_named(gone: str, named: str) -> None:
    without = {name: value for name, value in WHOLE.items() if name != gone}
    with pytest.raises(Unavailable, match=f"2 of 100 .*{named} model"):
        refuse_gaps(quotes(*[WHOLE] * 98, without, without), {}, LOADED)
    refuse_gaps(quotes(*[without] * 100), {}, {**LOADED, named: "none"})


def test_what_was_noted_too_often_is_refused() -> None:
    with pytest.raises(Unavailable, match="worker_crashed"):
        refuse_gaps(quotes(*[WHOLE] * 100), {"language and intents unavailable: worker_crashed": 2}, LOADED)


def answered(random: np.random.Generator, size: int, *, taken: float = 0.0) -> list[Evidence]:
    """Questions on 24 pages: quotes that are right where they look it, generated answers by their own looks."""
    found = []
    for number in range(size):
        looks, says = random.normal(0.5, 1.5, 2)
        quote = Given({**WHOLE, "score": float(looks), "embedded": 1.0}, bool(random.random() < _chance(3 * looks)))
        generated = Given({"span": float(says)}, bool(random.random() < _chance(3 * says + 1)))
        routes = {"quote": quote, "generated": generated}
        found.append(Evidence(f"question {number}", f"page {number % 24}", routes, bool(random.random() < taken)))  # type: ignore[arg-type]
    return found


def _chance(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_generated_answers_are_certified_below_the_quotes_last_threshold() -> None:
    depends_on = {"quote": LOADED, "generated": LOADED}
    found = conclude_answers(answered(np.random.default_rng(2), 3000), Risk(epsilon=0.1), depends_on, {"sha256": "e"})  # type: ignore[arg-type]
    quote, generated = found
    assert (quote.route, quote.reason, generated.route, generated.reason) == (
        "quote", "certified", "generated", "certified",
    )  # fmt: skip
    assert quote.certificate is not None
    assert generated.certificate is not None
    assert generated.certificate.gate is not None
    assert generated.certificate.gate.below < quote.certificate.threshold
    assert generated.certificate.n < quote.certificate.n, "only what the quotes left"
    assert quote.certificate.groups == 12
    for looks in np.linspace(-3, 4, 40):
        others = {"quote": {**WHOLE, "score": float(looks), "embedded": 1.0}}
        both = quote.certificate.serves(others["quote"]) and generated.certificate.serves({"span": 9.0}, others)
        assert not both, "no question is served by both"


def test_questions_that_an_intent_takes_do_not_count() -> None:
    depends_on = {"quote": LOADED, "generated": LOADED}
    evidence = answered(np.random.default_rng(3), 1200, taken=0.5)
    (quote, _) = conclude_answers(evidence, Risk(epsilon=0.1), depends_on, {"sha256": "e"})  # type: ignore[arg-type]
    assert quote.walk is not None
    assert quote.walk.n == pytest.approx(300, abs=40)


def test_too_little_coverage_is_no_certificate() -> None:
    depends_on = {"quote": LOADED, "generated": LOADED}
    risk = Risk(epsilon=0.1, coverage_floor=0.9)
    outcomes = conclude_answers(answered(np.random.default_rng(2), 3000), risk, depends_on, {"sha256": "e"})  # type: ignore[arg-type]
    assert [outcome.reason for outcome in outcomes] == ["coverage_below_floor"] * 2
    assert not any(outcome.certificate for outcome in outcomes)
    assert all(outcome.curves is not None for outcome in outcomes)


def test_a_certificate_says_what_it_was_made_of() -> None:
    random = np.random.default_rng(4)
    evidence = [
        Evidence(
            f"text {number}", f"text {number}", {"intent": Given(_intent(x), bool(random.random() < _chance(2 * x)))}
        )
        for number, x in enumerate(random.normal(2, 1.5, 1500))
    ]
    (outcome,) = conclude_intents(evidence, Risk(), {"intents": "f"}, {"sha256": "e", "name": "utterances"})
    certificate = outcome.certificate
    assert certificate is not None
    assert (certificate.route, certificate.epsilon, certificate.delta) == ("intent", 0.05, 0.05)
    assert certificate.n + certificate.tuned_on == 1500
    assert certificate.risk_upper <= 0.05
    assert certificate.risk == certificate.wrong / certificate.served
    assert certificate.depends_on == {"intents": "f"}
    assert certificate.data == {"sha256": "e", "name": "utterances"}
    assert certificate.coverage <= certificate.bound
    assert list(certificate.scores) == sorted(certificate.scores)
    assert len(certificate.scores) == 11


def _intent(x: float) -> dict[str, float]:
    return {"in_scope": _chance(x), "probability": 0.9, "margin": 2.0}
