"""Documents, search, intents, sessions and feedback: our own endpoints beside OpenAI's (events: agent/api/events.py).

Writing needs the operator's role (agent/api/guard.py).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from agent.api.services import Services, attended, services
from agent.api.wire import (
    ClassifyRequest,
    DocumentsRequest,
    FeedbackRequest,
    JsonObject,
    SearchRequest,
    TrainRequest,
)
from agent.errors import InvalidRequest
from agent.messages import Document

router = APIRouter(prefix="/v1")
Daemon = Annotated[Services, Depends(services)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Collection = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


@router.get("/knowledge")
async def collections(daemon: Daemon) -> JsonObject:
    listing = await daemon.library.collections()
    return {
        "collections": [
            {"collection": c.name, "documents": c.documents, "chunks": c.chunks, "embedded": c.embedded}
            for c in listing
        ]
    }


@router.get("/knowledge/{collection}/documents")
async def documents(collection: Collection, daemon: Daemon, after: str = "", limit: Limit = 100) -> JsonObject:
    """A page by id: those after ``after``."""
    listing = await daemon.library.documents(collection, after=after, limit=limit)
    return {"documents": [{"id": d.id, "title": d.title, "chunks": d.chunks} for d in listing]}


@router.post("/knowledge/{collection}/documents")
async def add_documents(collection: Collection, body: DocumentsRequest, request: Request, daemon: Daemon) -> Response:
    """Each document is durable on its own; the reply names what was stored and what was unchanged."""
    given = [Document(d.id, d.title, d.text, d.metadata) for d in body.documents]
    report = await attended(request, daemon.library.add(collection, given), daemon)
    return JSONResponse({"stored": list(report.stored), "unchanged": list(report.unchanged), "chunks": report.chunks})


@router.post("/knowledge/{collection}/files")
async def add_file(collection: Collection, file: UploadFile, request: Request, daemon: Daemon) -> Response:
    """A .md, .txt, .html, .pdf, .docx or .jsonl file (multipart field ``file``), parsed in a worker."""
    if not file.filename:
        raise InvalidRequest(
            "the upload has no file name", remedy="Name it: the ending tells the format.", param="file"
        )
    data = await file.read()
    report = await attended(request, daemon.library.add_file(collection, file.filename, data), daemon)
    return JSONResponse({"stored": list(report.stored), "unchanged": list(report.unchanged), "chunks": report.chunks})


@router.delete("/knowledge/{collection}/documents/{document:path}", status_code=204)
async def delete_document(collection: Collection, document: str, daemon: Daemon) -> None:
    await daemon.library.delete(collection, document)


@router.delete("/knowledge/{collection}", status_code=204)
async def delete_collection(collection: Collection, daemon: Daemon) -> None:
    await daemon.library.delete_collection(collection)


@router.post("/knowledge/{collection}/search")
async def search(collection: Collection, body: SearchRequest, request: Request, daemon: Daemon) -> Response:
    found = await attended(request, daemon.library.search(collection, body.query, body.k, body.filter), daemon)
    results = [
        {
            "document": p.document,
            "chunk": p.chunk,
            "title": p.title,
            "heading": p.heading,
            "text": p.text,
            "score": p.score,
            "similarity": p.similarity,
        }
        for p in found.passages
    ]
    return JSONResponse({"results": results, "outpost": {"retrieval": found.mode}})


@router.post("/intents/classify")
async def classify(body: ClassifyRequest, request: Request, daemon: Daemon) -> Response:
    results = await attended(request, daemon.understanding.classify_all(body.texts), daemon)
    return JSONResponse(
        {
            "results": [
                {
                    "intent": r.intent,
                    "probability": r.probability,
                    "in_scope_score": r.in_scope_score,
                    "slots": dict(r.slots),
                }
                for r in results
            ]
        }
    )


@router.post("/intents/train")
async def train(body: TrainRequest, request: Request, daemon: Daemon) -> Response:
    """Train on an intent pack (TOML text) and use it from the next question on."""
    report = await attended(request, daemon.train_intents(body.pack), daemon)
    return JSONResponse({"intents": report.intents, "examples": report.examples, "seconds": report.seconds})


@router.delete("/sessions/{session:path}", status_code=204)
async def end_session(session: str, daemon: Daemon) -> None:
    """Forget a conversation; one that is not there is forgotten already."""
    await daemon.assistant.end_session(session)


@router.post("/feedback", status_code=204)
async def feedback(body: FeedbackRequest, daemon: Daemon) -> None:
    await daemon.journal.rate(body.event_id, body.rating)
    await daemon.audits.judged(body.event_id, body.rating)
    if body.rating == "wrong":
        await daemon.reach.escalator.distrust(body.event_id)
    daemon.metrics.feedback.labels(body.rating).inc()
