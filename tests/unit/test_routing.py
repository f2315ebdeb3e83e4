"""The decision, every branch of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import get_args

import pytest

from agent.confidence import provisional, signals
from agent.confidence.certificate import Certificate, Gate, Score, Standing
from agent.confidence.routing import POLICIES, Circumstances, Rules, covering, decide, doomed, rules, weigh
from agent.config import Policy, RouteName
from agent.messages import Evidence

QUOTE = Evidence("quote", {}, 0.8)
WEAK = Evidence("quote", {}, 0.3)
GENERATED = Evidence("generated", {}, 0.9)
INTENT = Evidence("intent", {}, 0.95)


def circumstances(policy: str = "best-effort", **changes: object) -> Circumstances:
    return Circumstances(policy, 0.5, **changes)  # type: ignore[arg-type]


def reachable(policy: str = "best-effort", **changes: object) -> Circumstances:
    return circumstances(policy, **({"escalation": None} | changes))


def covered(policy: str = "certified", **thresholds: float) -> Circumstances:
    return circumstances(policy, certified_routes=frozenset(thresholds), thresholds=thresholds)


def lacking(policy: str = "certified", **reasons: str) -> Circumstances:
    return circumstances(policy, lacking={name: f"certificate_{reason}" for name, reason in reasons.items()})


@pytest.mark.parametrize(
    ("candidates", "given", "kind", "reason", "served"),
    [
        # nothing may leave: the device's own answers, or a person
        ([QUOTE], circumstances(), "local", "confident", QUOTE),
        ([QUOTE, GENERATED], circumstances(), "local", "confident", GENERATED),
        ([GENERATED, QUOTE], circumstances(), "local", "confident", GENERATED),
        ([INTENT], circumstances(), "action", "confident", INTENT),
        ([WEAK], circumstances(), "handoff", "low_confidence", None),
        ([], circumstances(), "handoff", "no_evidence", None),
        ([QUOTE], circumstances(language_supported=False), "handoff", "language_unsupported", None),
        ([INTENT], circumstances(person_requested=True), "handoff", "person_requested", None),
        ([QUOTE], circumstances(person_requested=True, language_supported=False), "handoff", "person_requested", None),
        ([QUOTE, GENERATED], circumstances("certified"), "handoff", "no_certificate", None),
        ([INTENT], circumstances("certified"), "handoff", "no_certificate", None),
        ([], circumstances("certified"), "handoff", "no_evidence", None),
        (
            [QUOTE, GENERATED],
            circumstances("certified", certified_routes=frozenset({"quote"})),
            "local", "confident", QUOTE,
        ),
        ([WEAK], circumstances("certified", certified_routes=frozenset({"quote"})), "handoff", "low_confidence", None),
        ([QUOTE], circumstances("local-only"), "local", "confident", QUOTE),
        # certificates: each route's own threshold, the first that is covered, why there is none
        ([QUOTE], covered(quote=0.8), "local", "confident", QUOTE),
        ([QUOTE], covered(quote=0.81), "handoff", "low_confidence", None),
        ([QUOTE, GENERATED], covered(quote=0.5, generated=0.5), "local", "confident", QUOTE),
        ([QUOTE, GENERATED], covered(quote=0.85, generated=0.5), "local", "confident", GENERATED),
        ([QUOTE, GENERATED], covered("best-effort", quote=0.5), "local", "confident", QUOTE),
        ([QUOTE, GENERATED], covered("best-effort", quote=0.85, generated=0.95), "local", "confident", GENERATED),
        ([QUOTE], covered("best-effort", quote=0.95), "local", "confident", QUOTE),
        ([QUOTE], lacking(quote="void"), "handoff", "certificate_void", None),
        ([QUOTE, GENERATED], lacking(generated="revoked"), "handoff", "certificate_revoked", None),
        ([QUOTE], lacking("best-effort", quote="void"), "local", "confident", QUOTE),
        # the cloud may be asked
        ([QUOTE], reachable(), "local", "confident", QUOTE),
        ([WEAK], reachable(), "escalated", "low_confidence", None),
        ([], reachable(), "escalated", "no_evidence", None),
        ([], reachable(language_supported=False), "escalated", "language_unsupported", None),
        ([QUOTE], reachable("certified"), "escalated", "no_certificate", None),
        ([QUOTE], reachable("certified", lacking={"quote": "certificate_void"}), "escalated", "certificate_void", None),
        ([WEAK], reachable("certified", certified_routes=frozenset({"quote"})), "escalated", "low_confidence", None),
        ([INTENT], reachable(person_requested=True), "handoff", "person_requested", None),
        # barriers
        ([WEAK], reachable("local-only"), "handoff", "low_confidence", None),
        ([WEAK], reachable(overrides=("local-only",)), "handoff", "low_confidence", None),
        ([WEAK], reachable(escalation="escalation_disabled"), "handoff", "low_confidence", None),
        ([WEAK], reachable(escalation="budget_exhausted"), "handoff", "budget_exhausted", None),
        ([WEAK], reachable(escalation="no_path"), "handoff", "no_path", None),
        ([WEAK], reachable(privacy="private"), "handoff", "private", None),
        ([WEAK], reachable(privacy="private", escalation="budget_exhausted"), "handoff", "private", None),
        ([WEAK], reachable(escalation="budget_exhausted", online=False), "handoff", "budget_exhausted", None),
        ([QUOTE], reachable(privacy="private"), "local", "confident", QUOTE),
        # delays
        ([WEAK], reachable(online=False), "deferred", "offline", None),
        ([WEAK], reachable(time_left_s=0.99), "deferred", "deadline", None),
        ([WEAK], reachable(time_left_s=1.0), "escalated", "low_confidence", None),
        ([WEAK], reachable(online=False, time_left_s=0.0), "deferred", "offline", None),
        # the cloud first: what the device knows serves where the cloud cannot be asked now
        ([QUOTE], reachable("cloud-first"), "escalated", "cloud_first", None),
        ([], reachable("cloud-first"), "escalated", "no_evidence", None),
        ([WEAK], reachable("cloud-first"), "escalated", "low_confidence", None),
        ([INTENT], reachable("cloud-first"), "action", "confident", INTENT),
        ([QUOTE], reachable("cloud-first", online=False), "local", "confident", QUOTE),
        ([QUOTE], reachable("cloud-first", privacy="private"), "local", "confident", QUOTE),
        ([QUOTE], reachable("cloud-first", escalation="budget_exhausted"), "local", "confident", QUOTE),
        ([WEAK], reachable("cloud-first", online=False), "deferred", "offline", None),
        ([QUOTE], circumstances("cloud-first"), "local", "confident", QUOTE),
        # overrides
        ([QUOTE], reachable(overrides=("certified",)), "escalated", "no_certificate", None),
        ([QUOTE], reachable("certified", overrides=("best-effort",)), "local", "confident", QUOTE),
        ([QUOTE], reachable(overrides=("cloud-first",)), "escalated", "cloud_first", None),
        ([QUOTE], reachable(overrides=("cloud-first", "best-effort")), "local", "confident", QUOTE),
        ([QUOTE], reachable(overrides=("local-only", "certified")), "handoff", "no_certificate", None),
    ],
)  # fmt: skip
def test_every_branch(
    candidates: list[Evidence], given: Circumstances, kind: str, reason: str, served: Evidence | None
) -> None:
    route = decide(candidates, given)
    assert (route.decision.kind, route.decision.reason) == (kind, reason)
    assert route.served is served


@pytest.mark.parametrize(
    ("given", "cause", "barrier"),
    [
        (circumstances(), "low_confidence", "escalation_disabled"),
        (reachable("local-only"), "low_confidence", "local_only"),
        (reachable(escalation="no_path"), "low_confidence", "no_path"),
        (reachable(online=False), "low_confidence", None),
        (reachable(), "low_confidence", None),
    ],
)
def test_cause_and_barrier_are_told_apart(given: Circumstances, cause: str, barrier: str | None) -> None:
    route = decide([WEAK], given)
    assert (route.cause, route.barrier) == (cause, barrier)


def test_a_tie_goes_to_the_earlier_candidate() -> None:
    twin = Evidence("generated", {}, QUOTE.confidence)
    assert decide([QUOTE, twin], circumstances()).served is QUOTE


def test_exactly_the_least_confidence_is_enough() -> None:
    assert decide([Evidence("quote", {}, 0.5)], circumstances()).decision.kind == "local"


def test_local_only_fails_closed_whatever_else_is_true() -> None:
    """Every combination of the other inputs: nothing is asked of a cloud now or later."""
    tried = 0
    for candidates, overrides, escalation, online, supported, person, privacy in product(
        ([], [WEAK], [QUOTE], [QUOTE, GENERATED], [INTENT]),
        ((), *((policy,) for policy in POLICIES), ("cloud-first", "best-effort")),
        (None, "budget_exhausted", "escalation_disabled"), (True, False), (True, False), (True, False),
        ("shareable", "private"),
    ):  # fmt: skip
        given = circumstances(
            "local-only", overrides=overrides, escalation=escalation, online=online, language_supported=supported,
            person_requested=person, privacy=privacy,
        )  # fmt: skip
        assert decide(candidates, given).decision.kind in ("local", "action", "handoff")
        tried += 1
    assert tried == 5 * 6 * 3 * 16


def test_of_two_overrides_the_stricter_holds_in_each_respect() -> None:
    """Never looser than either, in whatever order; and every policy is its own rules."""
    for first, second in product(get_args(Policy), repeat=2):
        one, other, both = POLICIES[first], POLICIES[second], rules("best-effort", (first, second))
        assert both == rules("best-effort", (second, first))
        assert both.leaves == (one.leaves and other.leaves)
        assert both.certified == (one.certified or other.certified)
        assert both.cloud_first == (one.cloud_first and other.cloud_first)
    for policy in get_args(Policy):
        assert rules(policy) == POLICIES[policy]
        assert not rules("local-only", (policy,)).leaves
    assert rules("local-only", ("certified",)) == Rules(leaves=False, certified=True, cloud_first=False)


# ---------------------------------------------------------------- certificates


def score(weights: Mapping[str, float], *needed: str, bias: float = 0.0) -> Score:
    """From -5..5 to 0..1 in a straight line."""
    return Score(bias, weights, needed, ((-5.0, 0.0), (5.0, 1.0)))


def certificate(route: RouteName, made: Score, threshold: float = 0.8, gate: Gate | None = None) -> Certificate:
    return Certificate(
        route=route, epsilon=0.05, delta=0.05, threshold=threshold, n=400, served=200, wrong=2, coverage=0.5, risk=0.01,
        risk_upper=0.03, bound=0.9, tuned_on=400, groups=10, score=made, depends_on={"model": "x"}, data={},
        issued_at=0.0, gate=gate,
    )  # fmt: skip


QUOTES = score({"similarity": 10.0}, "similarity", bias=-5.0)
IN_FORCE = Standing(certificate("quote", QUOTES))
GATED = Standing(certificate("generated", score({"span": 10.0}, bias=-5.0), gate=Gate("quote", 0.6, QUOTES)))
VOID = Standing(None, "certificate_void", "made with another model")


def test_a_valid_certificates_confidence_replaces_the_provisional_one_and_no_other_does() -> None:
    quote, generated = Evidence("quote", {"similarity": 0.9}, 0.1), Evidence("generated", {"span": 1.0}, 0.2)
    weighed = weigh([quote, generated], {"quote": IN_FORCE, "generated": VOID}, certified=True)
    assert [each.confidence for each in weighed] == [pytest.approx(0.9), 0.2]
    assert weigh([quote], {}, certified=True) == (quote,)


def test_evidence_that_a_certificate_was_not_fitted_on_has_none_and_keeps_its_provisional_one_without() -> None:
    keyword = Evidence("quote", {"keyword": 1.0}, 0.7)
    assert weigh([keyword], {"quote": IN_FORCE}, certified=True)[0].confidence == 0.0
    assert weigh([keyword], {"quote": IN_FORCE}, certified=False)[0].confidence == 0.7
    assert covering(keyword, [keyword], {"quote": IN_FORCE}) is None


def test_a_gated_certificate_covers_only_what_the_other_route_leaves() -> None:
    standings = {"quote": IN_FORCE, "generated": GATED}
    generated = Evidence("generated", {"span": 1.0}, 0.5)
    left, taken = Evidence("quote", {"similarity": 0.5}, 0.5), Evidence("quote", {"similarity": 0.7}, 0.5)
    assert GATED.certificate is not None
    assert covering(generated, [left, generated], standings) == GATED.certificate.id
    assert covering(generated, [taken, generated], standings) is None
    assert [c.confidence for c in weigh([taken, generated], standings, certified=True)] == [pytest.approx(0.7), 0.0]
    assert weigh([taken, generated], standings, certified=False)[1].confidence == generated.confidence == 0.5


# ---------------------------------------------------------------- before generating


def embedded(similarity: float, score: float) -> Evidence:
    features = {
        "score": score, "lead": 0.0, "keyword": 0.0, "heading_match": 0.0, "agreement": 0.0, "kind_match": 0.0,
        "embedded": 1.0, "question_words": 0.5, "similarity": similarity, "gap": 0.0,
    }  # fmt: skip
    return Evidence("quote", features, provisional.confidence("quote", features))


HOPELESS, HOPEFUL, GOOD = embedded(0.1, 0.0), embedded(0.6, 1.2), embedded(0.9, 3.0)


@pytest.mark.parametrize(
    ("quote", "given", "standings", "why"),
    [
        (HOPELESS, circumstances(), {}, "low_confidence"),
        (HOPEFUL, circumstances(), {}, None),
        (GOOD, circumstances(), {}, None),
        (GOOD, reachable("cloud-first"), {}, "cloud_first"),
        (GOOD, reachable("cloud-first", online=False), {}, None),
        (GOOD, circumstances("cloud-first"), {}, None),
        (GOOD, circumstances("certified"), {}, "no_certificate"),
        (GOOD, circumstances("certified", lacking={"quote": "certificate_void"}), {"quote": VOID}, "certificate_void"),
        (embedded(0.9, 0.0), covered(quote=0.8), {"quote": IN_FORCE}, None),
        (embedded(0.7, 0.0), covered(quote=0.8), {"quote": IN_FORCE}, "low_confidence"),
        (embedded(0.7, 0.0), covered(quote=0.8, generated=0.8), {"quote": IN_FORCE, "generated": GATED}, None),
    ],
)  # fmt: skip
def test_a_generation_that_could_not_be_served_is_skipped(
    quote: Evidence, given: Circumstances, standings: dict[str, Standing], why: str | None
) -> None:
    (weighed,) = weigh([quote], standings, certified=given.rules.certified)
    assert doomed(weighed, given, standings) == why


def test_what_is_skipped_could_not_have_been_served() -> None:
    """Whatever the SLM had said: a grid over its features, refusal or not, never turns a doomed question local."""
    given, skipped = circumstances(), 0
    for similarity, rank in product((0.0, 0.2, 0.4, 0.6), (-0.5, 0.0, 0.5, 1.5)):
        quote = embedded(similarity, rank)
        if doomed(quote, given, {}) is None:
            continue
        skipped += 1
        for margin, logprob, span, within, refused in product((0.0, 10.0), (-20.0, 0.0), (0.0, 1.0), (0, 1), (0, 1)):
            agreed = {
                **quote.features, "generated": 1.0, "generated_refused": float(refused),
                "generated_within": float(within), "generated_overlap": float(within),
            }  # fmt: skip
            own = {
                **signals.retrieved(quote.features), "first_margin": margin, "min_logprob": logprob,
                "median_logprob": logprob, "span": span, "span_rank": 1 - span, "numbers": 1.0, "tokens": 0.1,
            }  # fmt: skip
            candidates = [Evidence("quote", agreed, provisional.confidence("quote", agreed))]
            if not refused:
                candidates.append(Evidence("generated", own, provisional.confidence("generated", own)))
            assert decide(candidates, given).decision.kind == "handoff"
    assert 4 <= skipped < 16, "the gate closes on the weak ones, and only on them"
