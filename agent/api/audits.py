"""Whether the promise is kept: live risk, audits, drift, labelled examples, trusting a certificate again (L3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response, StreamingResponse

from agent.api.services import Services, services
from agent.api.wire import JsonObject
from agent.audits import Audits, RouteStatus

router = APIRouter(prefix="/admin")
Daemon = Annotated[Services, Depends(services)]


@router.get("/audits")
async def audits(daemon: Daemon) -> JsonObject:
    """Every route's live risk between its bounds, with what it stands on, and why no audits are made where none are."""
    return await to_json(daemon.audits)


@router.post("/certificates/{id}/reinstate", status_code=204)
async def reinstate(id: str, daemon: Daemon) -> None:
    """Trust a revoked certificate again; its live evidence begins anew. A new calibration needs no such thing."""
    await daemon.audits.reinstate(id)


@router.get("/examples")
async def examples(daemon: Daemon) -> Response:
    """Judged questions, oldest first, one JSON object a line (docs/live-risk.md has the fields)."""
    return StreamingResponse(_lines(daemon), media_type="application/x-ndjson", headers={"cache-control": "no-store"})


async def _lines(daemon: Services) -> AsyncGenerator[str, None]:
    after = 0
    while rows := await daemon.labels.examples(after):
        after = rows[-1][0]
        yield "".join(f"{body}\n" for _, body in rows)


async def to_json(audits: Audits) -> JsonObject:
    """Also what /admin/status shows as ``live_risk``."""
    found = await audits.status()
    return {
        "routes": [_route(route) for route in found.routes],
        "audits": {
            "barrier": found.barrier,
            "waiting": found.waiting,
            "today": found.today,
            "per_day": found.per_day,
        },
        "examples": found.examples,
    }


def _route(found: RouteStatus) -> JsonObject:
    return {
        "route": found.route,
        "certificate": found.certificate,
        "epsilon": found.epsilon,
        "delta": found.delta,
        **asdict(found.risk),
        "revoked": found.revoked,
        "drift": asdict(found.drift) if found.drift is not None else None,
    }
