"""Where an answer comes from: a pure function from evidence and policy to a Decision with a stable reason code.

Reason codes: ``confident`` (served locally), ``person_requested`` (an intent that asks for staff), ``low_confidence``,
``no_evidence`` (nothing was found), ``no_certificate`` (the policy wants one for every local answer and the route has
none), ``language_unsupported``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.config import Policy
from agent.messages import Decision, Evidence


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that the decision depends on besides the evidence. ``certified_routes`` are the routes with a valid
    certificate; without calibration there are none."""

    policy: Policy
    min_confidence: float
    language_supported: bool = True
    person_requested: bool = False
    certified_routes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """The decision and the candidate that it serves (None where nothing local is served)."""

    decision: Decision
    served: Evidence | None = None


def decide(candidates: Sequence[Evidence], circumstances: Circumstances) -> Route:
    """Choose among candidate answers, the most confident first; on a tie the earlier candidate.

    >>> decide([], Circumstances("best-effort", 0.5)).decision
    Decision(kind='handoff', reason='no_evidence')
    """
    if circumstances.person_requested:
        return _handoff("person_requested")
    if not circumstances.language_supported:
        return _handoff("language_unsupported")
    if not candidates:
        return _handoff("no_evidence")
    if circumstances.policy == "certified":
        candidates = [c for c in candidates if c.route in circumstances.certified_routes]
        if not candidates:
            return _handoff("no_certificate")
    best = max(candidates, key=lambda candidate: candidate.confidence)
    if best.confidence < circumstances.min_confidence:
        return _handoff("low_confidence")
    kind = Decision("action", "confident") if best.route == "intent" else Decision("local", "confident")
    return Route(kind, best)


def _handoff(reason: str) -> Route:
    return Route(Decision("handoff", reason))
