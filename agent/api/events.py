"""What became of a question: `/v1/events/{id}`, at once, by long poll or as server-sent events; and what waits for a
person, for the operator.

An event is looked up in the journal (what was decided) and in the outbox (who answered since). Whoever has the id may
read it: it is as random as a password. ``?wait=30`` holds the reply until the question's state is another one, at most
so many seconds; a page that asks in a loop sees an answer as it comes, before and after a restart of the device.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from agent.api.services import Services, attended, services, unless_gone
from agent.api.wire import HandoffAnswer, JsonObject, sse
from agent.errors import Conflict, InvalidRequest, NotFound
from agent.escalation.cases import Case, State
from agent.messages import CLOUD_CUT, Document

router = APIRouter()
Daemon = Annotated[Services, Depends(services)]
LONGEST_WAIT_S = 60.0
_KEEP_ALIVE_S = 15.0
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="seconds to wait for a change")]
Seen = Annotated[State | None, Query(description="the state that the caller knows; another one is told at once")]


@router.get("/v1/events/{id}")
async def event(id: str, request: Request, daemon: Daemon, wait: Wait = 0.0, seen: Seen = None) -> Response:
    """What was decided, and the answer that came later. With ``Accept: text/event-stream`` one event for every state,
    ending with the last."""
    first = await _told(id, daemon)
    if "text/event-stream" in request.headers.get("accept", ""):
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_stream(id, daemon), media_type="text/event-stream", headers=headers)
    if wait > 0 and first["state"] not in (None, "answered", "expired") and not daemon.admission.closed:
        await unless_gone(request.receive, daemon.reach.outbox.watch(id, wait, seen))
        first = await _told(id, daemon)
    return JSONResponse(first, headers={"cache-control": "no-store"})


async def _stream(id: str, daemon: Services) -> AsyncGenerator[bytes, None]:
    told = None
    while True:
        try:
            now = await _told(id, daemon)
        except NotFound:  # deleted meanwhile
            return
        if now["state"] != told:
            yield sse(now)
        else:
            yield b": still waiting\n\n"
        told = now["state"]
        if told in (None, "answered", "expired") or daemon.admission.closed:
            return
        with suppress(NotFound):
            await daemon.reach.outbox.watch(id, _KEEP_ALIVE_S, seen=told)


async def _told(id: str, daemon: Services) -> JsonObject:
    """Raises NotFound where neither journal nor outbox knows the id."""
    try:
        case = await daemon.reach.outbox.get(id)
    except NotFound:
        return {**await _decided(id, daemon), "state": None, "answer": None}
    try:
        decided = await _decided(id, daemon)
    except NotFound:  # the journal keeps fewer events than the outbox
        decided = {"id": id, "at": case.asked_at, "decision": "deferred", "reason": case.reason}
    return {**decided, "state": case.state, "answer": _answer(case), "outcome": case.reason}


async def _decided(id: str, daemon: Services) -> JsonObject:
    found = await daemon.journal.get(id)
    return {
        "id": found.id,
        "at": found.at,
        "decision": found.decision,
        "reason": found.reason,
        "route": found.route,
        "answer_kind": found.answer_kind,
        "confidence": found.confidence,
        "language": found.language,
        "intent": found.intent,
        "timings_ms": dict(found.timings_ms),
        "rating": found.rating,
    }


def _answer(case: Case) -> JsonObject | None:
    if case.answer is None:
        return None
    return {
        "text": case.answer,
        "answer_kind": case.answer_kind,
        "cut": case.reason == CLOUD_CUT,
        "by": case.answered_by,
        "language": case.language,
        "at": case.changed_at,
    }


# ---------------------------------------------------------------- for the operator


@router.get("/admin/handoffs")
async def handoffs(daemon: Daemon) -> JsonObject:
    """What waits for a person, oldest first; then what was answered in the last day, newest first."""
    now = time.time()
    return {"handoffs": [_handoff(case, now) for case in await daemon.reach.outbox.queue()]}


@router.post("/admin/handoffs/{id}/answer")
async def answer(id: str, body: HandoffAnswer, request: Request, daemon: Daemon) -> Response:
    """A person's answer, which the asker gets under the event's id; ``learn`` also adds it to the knowledge base."""
    if not body.text.strip():
        raise InvalidRequest("the answer is empty", param="text")
    if not await daemon.reach.outbox.settle(id, body.text.strip(), "person", body.by):
        case = await daemon.reach.outbox.get(id)
        raise Conflict(f"the question {id!r} is {case.state} already", remedy="Its asker was told so.")
    if body.learn:
        await attended(request, _learn(id, daemon), daemon)
    return JSONResponse(_handoff(await daemon.reach.outbox.get(id), time.time()))


@router.post("/admin/handoffs/{id}/learn")
async def learn(id: str, request: Request, daemon: Daemon) -> Response:
    """Add an answered question to the knowledge base, so that the device answers it by itself."""
    document = await attended(request, _learn(id, daemon), daemon)
    return JSONResponse({"document": document})


@router.post("/admin/handoffs/{id}/dismiss", status_code=204)
async def dismiss(id: str, daemon: Daemon) -> None:
    """Nobody will answer this; the asker is told so."""
    await daemon.reach.outbox.dismiss(id)


@router.delete("/admin/sessions/{session:path}/events")
async def forget(session: str, daemon: Daemon) -> JsonObject:
    """Delete what a session asked and was answered, here and in the audit log's payloads; the session ends."""
    await daemon.assistant.end_session(session)
    return {
        "questions": await daemon.reach.outbox.forget(session),
        "payloads": await daemon.reach.audit.forget(session),
        "labels": await daemon.audits.forget(session),
    }


async def _learn(id: str, daemon: Services) -> str:
    case = await daemon.reach.outbox.get(id)
    if case.answer is None:
        raise Conflict(f"the question {id!r} is {case.state}: there is no answer to learn")
    name = f"answers/{id}.md"
    document = Document(name, case.question, f"# {case.question}\n\n{case.answer}\n", {"event": id})
    await daemon.library.add(case.collection, [document])
    await daemon.reach.outbox.learned(id)
    return name


def _handoff(case: Case, now: float) -> JsonObject:
    return {
        "event_id": case.event_id,
        "session": case.session,
        "state": case.state,
        "reason": case.reason,
        "question": case.question,
        "passages": list(case.passages),
        "personal": case.personal,
        "language": case.language,
        "collection": case.collection,
        "asked_at": case.asked_at,
        "waiting_s": round(max(0.0, now - case.asked_at), 1),
        "expires_at": case.expires_at,
        "answer": _answer(case),
        "learned": case.learned,
    }
