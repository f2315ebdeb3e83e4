"""Calibration for the operator: labelled data in, progress and outcomes out; and which certificates hold (L3).

`POST /admin/calibrate/...` answers with server-sent events: ``{"progress": {...}}`` any number of times, then
``{"calibrated": {"outcomes": [...], "notes": {...}, "report": "<!doctype html>..."}}``; what is certified is in force
then. A client that goes away ends the calibration, and nothing changes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from agent.api.services import EventStream, Services, services
from agent.api.wire import CalibrateAnswers, CalibrateCache, CalibrateIntents, JsonObject, sse
from agent.calibrating import Calibrated, Progress, digest
from agent.confidence.certificate import ROUTES
from agent.confidence.labelled import LabelledPair, LabelledQuestion, LabelledText
from agent.confidence.outcome import Outcome, to_json
from agent.errors import InvalidRequest
from agent.messages import Document
from agent.sameness import MISS, Told

router = APIRouter(prefix="/admin")
Daemon = Annotated[Services, Depends(services)]


@router.get("/certificates")
async def certificates(daemon: Daemon) -> JsonObject:
    """Every route's promise and the certificate that keeps it, or the reason why there is none."""
    return {"routes": [standing(route, daemon) for route in ROUTES]}


@router.post("/calibrate/intents")
async def calibrate_intents(body: CalibrateIntents, daemon: Daemon) -> Response:
    rows = [LabelledText(row.text, row.intent, row.group, row.tune) for row in body.rows]
    return EventStream(_events(daemon.calibrating.intents(rows), body.evidence), daemon)


@router.post("/calibrate/answers")
async def calibrate_answers(body: CalibrateAnswers, daemon: Daemon) -> Response:
    rows = [
        LabelledQuestion(row.question, tuple(row.answers), tuple(row.documents), row.evidence, row.group, row.tune)
        for row in body.rows
    ]
    documents = [Document(d.id, d.title, d.text, d.metadata) for d in body.documents]
    work = daemon.calibrating.answers(rows, documents, body.collection or "")
    return EventStream(_events(work, body.evidence), daemon)


@router.post("/calibrate/cache")
async def calibrate_cache(body: CalibrateCache, daemon: Daemon) -> Response:
    """On labelled pairs of questions; without any, on the device's own, as far as it has kept examples."""
    collection = body.collection or daemon.config.assistant.collection
    if body.rows:
        rows = [LabelledPair(row.a, row.b, row.same, row.group) for row in body.rows]
        data = {"sha256": digest([[row.a, row.b, row.same] for row in rows])}
        work = daemon.calibrating.pairs(daemon.sameness.labelled(rows, collection), data)
    else:
        told = await _told(daemon, collection)
        if not told:
            raise InvalidRequest(
                f"the device has kept no examples of {collection!r} with the cloud's answers",
                remedy="Set risk.keep_examples, and let it audit and escalate.",
            )
        data = {"sha256": digest([[one.question, one.answer] for one in told]), "source": "events", "miss": str(MISS)}
        work = daemon.calibrating.pairs(daemon.sameness.derived(told, collection), data, miss=MISS)
    return EventStream(_events(work, body.evidence), daemon)


async def _told(daemon: Services, collection: str) -> list[Told]:
    found: list[Told] = []
    after = 0
    while rows := await daemon.labels.examples(after):
        after = rows[-1][0]
        for row in (json.loads(body) for _, body in rows):
            if row["collection"] == collection and row.get("cloud"):
                found.append(Told(row["question"], row["cloud"], row["language"]))
    return found


async def _events(work: AsyncGenerator[Progress | Calibrated, None], evidence: bool) -> AsyncGenerator[bytes, None]:
    async with aclosing(work) as events:
        async for event in events:
            if isinstance(event, Progress):
                yield sse({"progress": asdict(event)})
            else:
                yield sse({"calibrated": await asyncio.to_thread(_calibrated, event, evidence)})


def _calibrated(found: Calibrated, evidence: bool) -> JsonObject:
    told: JsonObject = {
        "outcomes": [to_json(outcome) for outcome in found.outcomes],
        "notes": dict(found.notes),
        "report": _page(found.outcomes),
    }
    return told | {"evidence": [asdict(one) for one in found.evidence]} if evidence else told


def _page(outcomes: Sequence[Outcome]) -> str:
    from agent.confidence import report

    return report.page(outcomes, time.strftime("%d %B %Y", time.localtime()))


def standing(route: str, daemon: Services) -> JsonObject:
    """A route's promise and certificate; also what /admin/status shows."""
    name = next(known for known in ROUTES if known == route)
    found = daemon.certificates.current(name)
    promise = daemon.config.risk.promise(route)
    certificate = found.certificate
    return {
        "route": route,
        "epsilon": promise.epsilon,
        "delta": promise.delta,
        "certificate": certificate.id if certificate else None,
        "reason": found.reason,
        "detail": found.detail,
        "coverage": certificate.coverage if certificate else None,
        "risk": certificate.risk if certificate else None,
        "risk_upper": certificate.risk_upper if certificate else None,
        "certified_epsilon": certificate.epsilon if certificate else None,
        "n": certificate.n if certificate else None,
        "issued_at": certificate.issued_at if certificate else None,
    }
