"""The decision, every branch of it."""

from __future__ import annotations

import pytest

from agent.confidence.routing import Circumstances, decide
from agent.messages import Evidence

QUOTE = Evidence("quote", {}, 0.8)
WEAK = Evidence("quote", {}, 0.3)
GENERATED = Evidence("generated", {}, 0.9)
INTENT = Evidence("intent", {}, 0.95)


def circumstances(policy: str = "best-effort", **changes: object) -> Circumstances:
    return Circumstances(policy, 0.5, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("candidates", "given", "kind", "reason", "served"),
    [
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
    ],
)  # fmt: skip
def test_every_branch(
    candidates: list[Evidence], given: Circumstances, kind: str, reason: str, served: Evidence | None
) -> None:
    route = decide(candidates, given)
    assert (route.decision.kind, route.decision.reason) == (kind, reason)
    assert route.served is served


def test_a_tie_goes_to_the_earlier_candidate() -> None:
    twin = Evidence("generated", {}, QUOTE.confidence)
    assert decide([QUOTE, twin], circumstances()).served is QUOTE


def test_exactly_the_least_confidence_is_enough() -> None:
    assert decide([Evidence("quote", {}, 0.5)], circumstances()).decision.kind == "local"
