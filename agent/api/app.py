"""The HTTP application: routers, error shapes and the guard in front of them (L3).

`create_app` builds it from the daemon's `Services`; nothing here starts or stops anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.api import admin, audits, calibration, events, explain, knowledge, openai, pages, wire
from agent.api.guard import Access, Guard, error_body, error_headers
from agent.api.services import Services
from agent.errors import InvalidRequest, NotFound, OutpostError

_SHOWN_PROBLEMS = 5


def create_app(services: Services, access: Access) -> ASGIApp:
    """The application with its guard in front."""
    app = FastAPI(
        title="Outpost", version=services.version, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.state.services = services
    app.add_exception_handler(OutpostError, _outpost_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    for module in (openai, explain, knowledge, admin, calibration, audits, events):
        app.include_router(module.router)
    app.include_router(pages.router())
    return _Counted(Guard(app, access), services)


class _Counted:
    """Counts requests by route template and status; an unknown path is one label, whatever it is."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._requests = services.metrics.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                self._requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)


async def _outpost_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OutpostError)
    return JSONResponse(error_body(error), status_code=error.http_status, headers=error_headers(error))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OutpostError):  # raised while the body was read
        return await _outpost_error(request, error.__cause__)
    if error.status_code == 400 and error.__cause__ is not None:
        return await _outpost_error(request, _unreadable(error.__cause__))
    if error.status_code == 404:
        return await _outpost_error(request, NotFound(f"no endpoint {request.method} {request.url.path}"))
    reply = error_body(InvalidRequest(str(error.detail)))
    return JSONResponse(reply, status_code=error.status_code, headers=error.headers)


def _unreadable(cause: BaseException) -> InvalidRequest:
    """A body that could not even be read as JSON or as a form."""
    if isinstance(cause, UnicodeDecodeError):
        return InvalidRequest(f"the body is not UTF-8 at byte {cause.start}", remedy="Send JSON as UTF-8 text.")
    if isinstance(cause, RecursionError):
        return InvalidRequest("the body is nested too deeply", remedy="Send a flatter one.")
    return InvalidRequest(f"the body cannot be read: {cause}")


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    told = "; ".join(_explain(problem) for problem in problems[:_SHOWN_PROBLEMS])
    if len(problems) > _SHOWN_PROBLEMS:
        told += f"; and {len(problems) - _SHOWN_PROBLEMS} more"
    where = ".".join(str(part) for part in problems[0]["loc"][1:])
    return await _outpost_error(request, InvalidRequest(told, param=where or None))


async def _internal_error(request: Request, error: Exception) -> JSONResponse:
    """The documented last boundary: a defect of ours answers in the API's shape, and uvicorn logs its trace."""
    return JSONResponse(error_body(OutpostError("an internal error", remedy="The log says more.")), status_code=500)


def _explain(problem: dict[str, Any]) -> str:
    """One validation problem: where, what was sent, what is wrong."""
    where = ".".join(str(part) for part in problem["loc"][1:]) or "body"
    if problem["type"] == "json_invalid":
        return f"the body is not valid JSON: {problem['ctx'].get('error', '')} at character {problem['loc'][-1]}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] == "extra_forbidden":
        return f"unknown field {where!r}{_nearest(str(problem['loc'][-1]))}"
    return f"{where} = {_shortened(problem['input'])}: {problem['msg']}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(name: str) -> str:
    matches = difflib.get_close_matches(name, _known_fields(), n=1, cutoff=0.7)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _known_fields() -> Sequence[str]:
    types = [value for value in vars(wire).values() if isinstance(value, type) and issubclass(value, BaseModel)]
    return sorted({field.alias or name for kind in types for name, field in kind.model_fields.items()})
