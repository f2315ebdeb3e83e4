"""Where a question's answer comes from, put together from the parts that know (L2).

`Decider` asks the configuration for the policy, the certificates for what they cover now and the escalator for consent,
budget and line, and lets agent/confidence/routing.py decide, which is pure. `asked` brings an inquiry to the cloud and
tells what came of it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from agent.confidence import routing
from agent.confidence.certificate import ANSWERING as ROUTES
from agent.confidence.certificate import Standing
from agent.confidence.routing import Circumstances, Route
from agent.config import Assistant as AssistantConfig
from agent.config import Overrides, Policy, RouteName
from agent.errors import CloudRefused, OutpostError
from agent.messages import (
    CLOUD_CUT,
    CloudDelta,
    CloudReply,
    Decision,
    Deferred,
    Evidence,
    Inquiry,
    Outgoing,
    Piece,
    Privacy,
)


class Certificates(Protocol):
    """What is promised of the routes."""

    def current(self, route: RouteName) -> Standing:
        """The certificate that holds for what is loaded at this moment, or why there is none."""
        ...


class Escalator(Protocol):
    """The way to the cloud."""

    def allowed(self) -> str | None:
        """None where the cloud may be asked; else ``escalation_disabled``, ``budget_exhausted`` or ``no_path``."""
        ...

    def online(self) -> bool:
        """Whether a request has a chance now."""
        ...

    def ask(self, inquiry: Inquiry) -> AsyncGenerator[CloudDelta | CloudReply | Deferred, None]:
        """Pieces, then exactly one CloudReply or Deferred. Raises PrivacyFailed, CloudRefused, BudgetExhausted,
        StorageFull."""
        ...

    async def preview(self, inquiry: Inquiry) -> Outgoing | None:
        """What would be sent; None where a kept answer is given again. Raises PrivacyFailed, StorageFull,
        StorageFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision depends on besides the evidence and the device; ``ends`` is when the asker stops waiting
    (``time.perf_counter``)."""

    collection: str
    intent: str | None
    language_supported: bool
    person_requested: bool
    privacy: Privacy
    ends: float

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends - time.perf_counter())


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with all that it was made from. ``candidates`` are the evidence as it was weighed, in the order given;
    ``certificate`` covers what is served; ``overrides`` name the policies that hold in place of the device's."""

    route: Route
    candidates: tuple[Evidence, ...]
    certificate: str | None
    circumstances: Circumstances
    standings: Mapping[str, Standing]
    overrides: Mapping[str, Policy]


class Decider:
    """See the module. Without certificates no route has one; without an escalator nothing leaves."""

    def __init__(
        self,
        config: AssistantConfig,
        overrides: Overrides,
        certificates: Certificates | None = None,
        escalator: Escalator | None = None,
    ) -> None:
        self._config = config
        self._overrides = overrides
        self._certificates = certificates
        self._escalator = escalator

    def decide(self, candidates: Sequence[Evidence], facts: Facts) -> Verdict:
        standings = self.standings()
        circumstances = self._circumstances(facts, standings)
        weighed = routing.weigh(candidates, standings, certified=circumstances.rules.certified)
        route = routing.decide(weighed, circumstances)
        covered = route.served is not None and routing.covering(route.served, weighed, standings)
        return Verdict(route, weighed, covered or None, circumstances, standings, self._holding(facts))

    def without_cloud(self, verdict: Verdict, reason: str) -> Verdict:
        """The verdict as it is when the cloud turns out not to be there for this question."""
        circumstances = replace(verdict.circumstances, escalation=reason)
        route = routing.decide(verdict.candidates, circumstances)
        covered = route.served is not None and routing.covering(route.served, verdict.candidates, verdict.standings)
        return replace(verdict, route=route, certificate=covered or None, circumstances=circumstances)

    def doomed(self, quote: Evidence, facts: Facts) -> str | None:
        """Why the SLM need not be asked (see routing.doomed)."""
        standings = self.standings()
        circumstances = self._circumstances(facts, standings)
        (weighed,) = routing.weigh([quote], standings, certified=circumstances.rules.certified)
        return routing.doomed(weighed, circumstances, standings)

    def standings(self) -> dict[str, Standing]:
        """Every route's certificate, or why it has none."""
        if self._certificates is None:
            return {route: Standing(None, routing.NO_CERTIFICATE) for route in ROUTES}
        return {route: _standing(self._certificates, route) for route in ROUTES}

    def _circumstances(self, facts: Facts, standings: Mapping[str, Standing]) -> Circumstances:
        escalator = self._escalator
        return Circumstances(
            policy=self._config.policy,
            min_confidence=self._config.min_confidence,
            language_supported=facts.language_supported,
            person_requested=facts.person_requested,
            certified_routes=frozenset(route for route, found in standings.items() if found.certificate is not None),
            thresholds={route: c.threshold for route, found in standings.items() if (c := found.certificate)},
            lacking={route: found.reason for route, found in standings.items() if found.certificate is None},
            overrides=tuple(self._holding(facts).values()),
            privacy=facts.privacy,
            escalation="escalation_disabled" if escalator is None else escalator.allowed(),
            online=escalator is not None and escalator.online(),
            time_left_s=facts.left_s,
        )

    def _holding(self, facts: Facts) -> dict[str, Policy]:
        """The overrides that concern a question, by where they stand in the configuration."""
        found: dict[str, Policy] = {}
        if facts.intent is not None and (override := self._overrides.intents.get(facts.intent)):
            found[f"overrides.intents.{facts.intent}"] = override.policy
        if override := self._overrides.collections.get(facts.collection):
            found[f"overrides.collections.{facts.collection}"] = override.policy
        return found


def _standing(certificates: Certificates, route: RouteName) -> Standing:
    try:
        return certificates.current(route)
    except OutpostError as error:  # what it depends on cannot be read, so nobody knows that it holds
        return Standing(None, "certificate_unreadable", str(error))


# ---------------------------------------------------------------- the cloud


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of asking the cloud: its ``reply``, or a decision that takes the place of one and a note why.
    ``unasked``: nobody has the question."""

    decision: Decision
    reply: CloudReply | None = None
    note: str | None = None
    unasked: bool = False


async def asked(escalator: Escalator, inquiry: Inquiry, route: Route) -> AsyncGenerator[Piece | Outcome, None]:
    """The cloud's words as they come, then one Outcome.

    With a reply the reason is why the device did not answer, also where the question was to be deferred (a reply that
    was kept needs no line); a reply that is not whole has a reason of its own, and a note says the other. Whatever goes
    wrong hands the question over to a person, with the error's code as reason.
    """
    ended: CloudReply | Deferred | None = None
    try:
        async with aclosing(escalator.ask(inquiry)) as events:
            async for event in events:
                if isinstance(event, CloudDelta):
                    yield Piece(event.text)
                else:
                    ended = event
    except OutpostError as error:
        unasked = not isinstance(error, CloudRefused)  # that one is in a person's queue
        yield Outcome(Decision("handoff", error.code), note=f"no answer of the cloud: {error.message}", unasked=unasked)
        return
    if isinstance(ended, CloudReply):
        cause = route.cause or route.decision.reason
        if ended.cut:
            note = f"the cloud's answer is cut off: it had no more tokens (escalation.max_tokens); asked for: {cause}"
            yield Outcome(Decision("escalated", CLOUD_CUT), ended, note)
        else:
            yield Outcome(Decision("escalated", cause), ended)
        return
    assert ended is not None, "an escalator ends with a reply or a deferral"
    reason = route.decision.reason if route.decision.kind == "deferred" else ended.reason
    yield Outcome(Decision("deferred", reason))
