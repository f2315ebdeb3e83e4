"""`/v1/explain`: how a question would be answered now, and why, without anything leaving the device (L3).

The device's own part is really done: intents, search, the SLM, confidence. What would come after the decision is not:
nothing is sent, stored, remembered in a session or counted.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from agent.api.chat import outpost_object
from agent.api.services import Services, attended, services
from agent.api.wire import ExplainRequest, JsonObject
from agent.assistant import Explanation
from agent.messages import Question

router = APIRouter(prefix="/v1")
Daemon = Annotated[Services, Depends(services)]


@router.post("/explain")
async def explain(body: ExplainRequest, request: Request, daemon: Daemon) -> JsonObject:
    """The decision with all that it was made from; ``leaves`` says whether the question would be sent to a cloud, now
    or later, and ``request``, for the operator only, what of it."""
    question = Question(
        text=body.question,
        session=body.session,
        collection=body.collection,
        privacy="private" if body.private else "shareable",
        deadline_s=body.deadline_s,
    )
    found = await attended(request, daemon.assistant.explain(question), daemon)
    daemon.count_tokens(found.answer.usage)
    return _told(found, operator=request.state.operator)


def _told(found: Explanation, *, operator: bool) -> JsonObject:
    verdict, answer = found.verdict, found.answer
    circumstances, route = verdict.circumstances, verdict.route
    about = outpost_object(answer)
    del about["event_id"], about["cloud"]  # of an answer that nobody was given
    return {
        **about,
        "answer": answer.text or None,
        "leaves": found.outgoing is not None,
        "request": asdict(found.outgoing) if operator and found.outgoing is not None else None,
        "cause": route.cause,
        "barrier": route.barrier,
        "policy": {"device": circumstances.policy, "overrides": dict(verdict.overrides), **asdict(circumstances.rules)},
        "candidates": [
            {
                "route": candidate.route,
                "text": text,
                "confidence": round(candidate.confidence, 4),
                "least_confidence": _least(candidate.route, found),
                "certificate": _certificate(candidate.route, found),
                "why_uncertified": circumstances.lacking.get(candidate.route),
                "served": candidate is route.served,
                "features": {name: round(value, 4) for name, value in candidate.features.items()},
            }
            for candidate, text in zip(verdict.candidates, found.texts, strict=True)
        ],
        "not_generated": found.skipped,
        "cloud": {"barrier": circumstances.barrier, "online": circumstances.online, "delay": circumstances.delay},
    }


def _least(route: str, found: Explanation) -> float | None:
    """What a candidate of this route must reach; None where nothing would be enough."""
    circumstances = found.verdict.circumstances
    if circumstances.rules.certified:
        return circumstances.thresholds.get(route)
    return circumstances.min_confidence


def _certificate(route: str, found: Explanation) -> str | None:
    standing = found.verdict.standings.get(route)
    return standing.certificate.id if standing is not None and standing.certificate is not None else None
