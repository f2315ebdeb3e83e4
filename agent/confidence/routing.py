"""Where an answer comes from: pure functions from evidence and circumstances to a Decision with a stable reason code.

    standings -> weigh (calibrated confidence) -> doomed? (is generating worth it) -> decide -> Route

Reason codes. Served locally: ``confident``. To a person whatever the cloud could do: ``person_requested``.
Why the device does not answer by itself, which is the reason of an escalation, and of a hand-off where nothing may
leave at all: ``low_confidence``, ``no_evidence`` (nothing was found), ``language_unsupported``, ``cloud_first`` (the
policy), and where the policy wants a certificate why there is none: ``no_certificate``, ``certificate_void``,
``certificate_revoked``, ``certificate_weaker``, ``certificate_unreadable``, ``coverage_below_floor``.
Why the cloud is not asked then (hand-off): ``private``, ``budget_exhausted``, ``no_path``; by consent or policy
(`Route.barrier` only, the reason stays): ``local_only``, ``escalation_disabled``. Why it answers later (deferred):
``offline``, ``deadline``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.confidence import provisional, signals
from agent.confidence.certificate import Certificate, Standing
from agent.config import Policy
from agent.messages import Decision, DecisionKind, Evidence, Privacy

LEAST_WAIT_S = 1.0
"""Less time than this is not enough for any cloud: the question is deferred at once."""
NO_CERTIFICATE = "no_certificate"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy means. ``leaves``: questions may go to the cloud; ``certified``: only what a certificate covers is
    served locally; ``cloud_first``: the cloud is asked even where the device could answer."""

    leaves: bool
    certified: bool
    cloud_first: bool


POLICIES: Mapping[Policy, Rules] = {
    "local-only": Rules(leaves=False, certified=False, cloud_first=False),
    "certified": Rules(leaves=True, certified=True, cloud_first=False),
    "best-effort": Rules(leaves=True, certified=False, cloud_first=False),
    "cloud-first": Rules(leaves=True, certified=False, cloud_first=True),
}


def rules(policy: Policy, overrides: Sequence[Policy] = ()) -> Rules:
    """What holds for a question: the overrides' policies in place of the device's own, of several the stricter in each
    respect. A device that is ``local-only`` stays so whatever an override says.

    >>> rules("best-effort", ["certified", "local-only"])
    Rules(leaves=False, certified=True, cloud_first=False)
    """
    holding = [POLICIES[name] for name in overrides or (policy,)]
    return Rules(
        leaves=POLICIES[policy].leaves and all(each.leaves for each in holding),
        certified=any(each.certified for each in holding),
        cloud_first=all(each.cloud_first for each in holding),
    )


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that the decision depends on besides the evidence. ``certified_routes`` are the routes with a valid
    certificate, ``thresholds`` the confidence that each asks for, ``lacking`` says why another route has none.
    ``escalation`` is None where the cloud may be asked, else the code that forbids it; ``online`` whether there is a
    line; ``time_left_s`` how long the asker still waits."""

    policy: Policy
    min_confidence: float
    language_supported: bool = True
    person_requested: bool = False
    certified_routes: frozenset[str] = frozenset()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[Policy, ...] = ()
    privacy: Privacy = "shareable"
    escalation: str | None = "escalation_disabled"
    online: bool = True
    time_left_s: float = float("inf")

    @property
    def rules(self) -> Rules:
        return rules(self.policy, self.overrides)

    @property
    def confined(self) -> bool:
        """Whether the words of the question stay on the device whatever becomes of it, also where a person is told that
        it was asked."""
        return not self.rules.leaves or self.privacy == "private"

    @property
    def barrier(self) -> str | None:
        """Why the question may not go to the cloud at all."""
        if not self.rules.leaves:
            return "local_only"
        return "private" if self.privacy == "private" else self.escalation

    @property
    def delay(self) -> str | None:
        """Why the cloud cannot answer while the asker waits."""
        if not self.online:
            return "offline"
        return "deadline" if self.time_left_s < LEAST_WAIT_S else None


@dataclass(frozen=True, slots=True)
class Route:
    """The decision and the candidate that it serves (None where nothing local is served). ``cause``: why not;
    ``barrier``: why the cloud is not asked in its place."""

    decision: Decision
    served: Evidence | None = None
    cause: str | None = None
    barrier: str | None = None


# ---------------------------------------------------------------- the decision


def decide(candidates: Sequence[Evidence], circumstances: Circumstances) -> Route:
    """Choose among candidate answers: the first that its route's certificate covers (to prefer the surer of two would
    pick from what each certificate promised as a whole); without one, where the policy allows that, the most confident,
    on a tie the earlier.

    >>> decide([], Circumstances("best-effort", 0.5)).decision
    Decision(kind='handoff', reason='no_evidence')
    """
    if circumstances.person_requested:
        return Route(Decision("handoff", "person_requested"), cause="person_requested")
    served, cause = _local(candidates, circumstances)
    if served is None:
        return _elsewhere(cause, circumstances)
    # What an intent does or says is the operator's own: no cloud can do it better.
    if circumstances.rules.cloud_first and served.route != "intent":
        instead = _elsewhere("cloud_first", circumstances)
        if instead.decision.kind == "escalated":
            return instead
    kind: DecisionKind = "action" if served.route == "intent" else "local"
    return Route(Decision(kind, "confident"), served)


def _local(candidates: Sequence[Evidence], circumstances: Circumstances) -> tuple[Evidence | None, str]:
    """The candidate that may be served, else why there is none."""
    if not circumstances.language_supported:
        return None, "language_unsupported"
    if not candidates:
        return None, "no_evidence"
    certified = [c for c in candidates if c.route in circumstances.certified_routes]
    if circumstances.rules.certified and not certified:
        return None, _lacking(candidates, circumstances)
    served = next((c for c in certified if c.confidence >= _threshold(c.route, circumstances)), None)
    if served is None and not circumstances.rules.certified:
        best = max(candidates, key=lambda candidate: candidate.confidence)
        served = best if best.confidence >= circumstances.min_confidence else None
    return served, "low_confidence"


def _threshold(route: str, circumstances: Circumstances) -> float:
    return circumstances.thresholds.get(route, circumstances.min_confidence)


def _lacking(candidates: Sequence[Evidence], circumstances: Circumstances) -> str:
    """Why there is no certificate: of several reasons one that says more than that none was made."""
    reasons = [circumstances.lacking.get(c.route, NO_CERTIFICATE) for c in candidates]
    return next((reason for reason in reasons if reason != NO_CERTIFICATE), NO_CERTIFICATE)


def _elsewhere(cause: str, circumstances: Circumstances) -> Route:
    barrier, delay = circumstances.barrier, circumstances.delay
    if barrier in ("local_only", "escalation_disabled"):
        return Route(Decision("handoff", cause), cause=cause, barrier=barrier)
    if barrier is not None:
        return Route(Decision("handoff", barrier), cause=cause, barrier=barrier)
    if delay is not None:
        return Route(Decision("deferred", delay), cause=cause)
    return Route(Decision("escalated", cause), cause=cause)


# ---------------------------------------------------------------- calibrated confidence


def weigh(
    candidates: Sequence[Evidence], standings: Mapping[str, Standing], *, certified: bool
) -> tuple[Evidence, ...]:
    """The candidates with the confidence that each route's valid certificate gives them; the others as they are.

    ``certified``: only what the certificate covers counts, so that evidence of a kind that it was not fitted on has
    none. Else what the certificate does not cover keeps its provisional confidence, which is the more careful one.
    """
    weighed = []
    for candidate in candidates:
        certificate = _certificate(candidate, standings)
        if certificate is not None:
            confidence = _weighed(candidate, candidates, certificate, certified)
            candidate = replace(candidate, confidence=confidence)
        weighed.append(candidate)
    return tuple(weighed)


def _weighed(candidate: Evidence, candidates: Sequence[Evidence], certificate: Certificate, certified: bool) -> float:
    if certified:
        return certificate.confidence(candidate.features, _others(candidate, candidates))
    covered = certificate.serves(candidate.features, _others(candidate, candidates))
    return certificate.score(candidate.features) if covered else candidate.confidence


def covering(served: Evidence, candidates: Sequence[Evidence], standings: Mapping[str, Standing]) -> str | None:
    """The id of the certificate whose promise covers this answer."""
    certificate = _certificate(served, standings)
    if certificate is None or not certificate.serves(served.features, _others(served, candidates)):
        return None
    return certificate.id


def _certificate(candidate: Evidence, standings: Mapping[str, Standing]) -> Certificate | None:
    standing = standings.get(candidate.route)
    return standing.certificate if standing is not None else None


def _others(candidate: Evidence, candidates: Sequence[Evidence]) -> dict[str, Mapping[str, float]]:
    return {other.route: other.features for other in candidates if other is not candidate}


# ---------------------------------------------------------------- before generating


def doomed(quote: Evidence, circumstances: Circumstances, standings: Mapping[str, Standing]) -> str | None:
    """Why nothing that the SLM could say would be served, so that it need not be asked; None where it may help.

    ``quote`` is the best quote's evidence, weighed. What the SLM could say is taken at its best: every feature of it
    that is not known yet at the end of its range that the score likes. So no decision is another one without it.
    """
    if circumstances.rules.cloud_first and circumstances.barrier is None and circumstances.delay is None:
        return "cloud_first"
    if _local([quote], circumstances)[0] is not None:
        return None
    supported = _best("quote", quote.features, signals.AGREEMENT_RANGES, standings, circumstances)
    generated = _best(
        "generated", signals.retrieved(quote.features), signals.GENERATED_RANGES, standings, circumstances
    )
    served, cause = _local([supported, generated], circumstances)
    return cause if served is None else None


def _best(
    route: Literal["quote", "generated"],
    known: Mapping[str, float],
    unknown: Mapping[str, signals.Range],
    standings: Mapping[str, Standing],
    circumstances: Circumstances,
) -> Evidence:
    """The strongest evidence that a route can still have."""
    standing = standings.get(route)
    certificate = standing.certificate if standing is not None else None
    start = {**known, **{name: high for name, (_, high) in unknown.items()}}
    score = certificate.score if certificate is not None else provisional.model(route, start)
    weights = score.weights
    best = {
        name: high if weights.get(name, 0.0) + weights.get(f"logit:{name}", 0.0) >= 0 else low
        for name, (low, high) in unknown.items()
    }
    features = {**known, **best}
    return Evidence(route, features, score(features))
