"""Health, status, metrics, and what only the operator may do: look inside, load and unload models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response

from agent.api import audits, promise
from agent.api.services import Services, services
from agent.api.wire import JsonObject, ModelRequest
from agent.engines.pool import ModelStatus
from agent.escalation.escalator import EscalationStatus
from agent.messages import Note

router = APIRouter()
Daemon = Annotated[Services, Depends(services)]
_HOUR_S = 3600


@router.get("/healthz")
async def healthz() -> JsonObject:
    """The event loop answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(daemon: Daemon) -> Response:
    """Whether questions can be answered: 200, or 503 while starting and stopping."""
    ready = daemon.ready()
    return JSONResponse({"ready": ready, "notes": list(daemon.notes())}, status_code=200 if ready else 503)


@router.get("/metrics")
async def metrics(daemon: Daemon) -> Response:
    return Response(daemon.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/status")
async def status(daemon: Daemon) -> JsonObject:
    """What everybody may know: enough for the kiosk page."""
    config = daemon.config
    return {
        "version": daemon.version,
        "ready": daemon.ready(),
        "device": {"name": config.device.name, "site": config.device.site},
        "policy": config.assistant.policy,
        "may_leave": daemon.reach.escalator.allowed() not in ("escalation_disabled", "no_path"),
        "languages": list(config.assistant.languages),
        "session_idle_s": config.assistant.session_idle_s,
        "retrieval": daemon.library.mode,
        "models": [{"name": model.model, "state": model.state} for model in daemon.pool.status().models],
        "notes": list(daemon.notes()),
    }


@router.get("/admin/status")
async def operator_status(daemon: Daemon) -> JsonObject:
    """Everything the operator page and `outpost status` show."""
    pool = daemon.pool.status()
    reference = {model.name for model in daemon.models() if model.reference}
    decisions = await daemon.journal.decisions(time.time() - _HOUR_S)
    notes = daemon.notes()
    return {
        "version": daemon.version,
        "uptime_s": round(time.time() - daemon.started_at, 1),
        "ready": daemon.ready(),
        "device": {"name": daemon.config.device.name, "site": daemon.config.device.site},
        "policy": daemon.config.assistant.policy,
        "retrieval": daemon.library.mode,
        "queue": {"active": daemon.admission.active, "limit": daemon.admission.limit},
        "memory": {
            "budget_bytes": pool.budget_bytes,
            "used_bytes": pool.used_bytes,
            "control_bytes": await daemon.memory_bytes(),
        },
        "models": [_model(model, reference) for model in pool.models],
        "knowledge": [
            {"collection": c.name, "documents": c.documents, "chunks": c.chunks, "embedded": c.embedded}
            for c in await daemon.library.collections()
        ],
        "decisions": [
            {"decision": decision, "reason": reason, "count": count}
            for (decision, reason), count in sorted(decisions.items(), key=lambda item: -item[1])
        ],
        "promise": promise.promise(daemon),
        "serving": await promise.serving(daemon),
        "budget": promise.budget(daemon),
        "escalation": _escalation(await daemon.reach.escalator.status()),
        "audit": await _audit(daemon),
        "live_risk": await audits.to_json(daemon.audits),
        "latency_ms": _latency(daemon.recent_ms),
        "notes": list(notes),
        "note_codes": [{"code": n.code, **n.values} if isinstance(n, Note) else None for n in notes],
    }


@router.post("/admin/models/load", status_code=204)
async def load(body: ModelRequest, daemon: Daemon) -> None:
    await daemon.pool.load(body.model)


@router.post("/admin/models/unload", status_code=204)
async def unload(body: ModelRequest, daemon: Daemon) -> None:
    await daemon.pool.unload(body.model)


@router.post("/admin/models/clear-quarantine", status_code=204)
async def clear_quarantine(body: ModelRequest, daemon: Daemon) -> None:
    daemon.pool.clear_quarantine(body.model)


@router.post("/admin/models/rescan")
async def rescan(daemon: Daemon) -> JsonObject:
    """Take note of models that were installed or removed while the daemon runs."""
    return {"models": [model.name for model in await daemon.rescan()]}


def _model(model: ModelStatus, reference: set[str]) -> JsonObject:
    return {
        "name": model.model,
        "kind": model.kind,
        "state": model.state,
        "pid": model.pid,
        "pss_bytes": model.pss_bytes,
        "expected_bytes": model.expected_bytes,
        "active": model.requests,
        "waiting": model.waiting,
        "loads": model.loads,
        "crashes": model.crashes,
        "load_seconds": model.load_seconds,
        "last_error": model.last_error,
        "facts": dict(model.facts),
        "notes": list(model.notes),
        "pinned": model.pinned,
        "reference": model.model in reference,
    }


async def _audit(daemon: Services) -> JsonObject:
    """Where the chain of what left ends: whoever notes it elsewhere notices a chain that was cut or made anew."""
    head = await daemon.reach.audit.head()
    return {"entries": int(head.partition(":")[0]), "head": head}


def _escalation(status: EscalationStatus) -> JsonObject:
    spent = status.spent
    return {
        "reason": status.reason,
        "online": status.online,
        "trouble": status.trouble,
        "outbox": asdict(status.outbox),
        "spent": {"requests": spent.requests, "tokens": spent.tokens, "money": round(spent.money, 6)},
    }


def _latency(recent_ms: Sequence[float]) -> JsonObject:
    ordered = sorted(recent_ms)
    if not ordered:
        return {"p50": None, "p95": None, "count": 0}
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p95": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], 1),
        "count": len(ordered),
    }
