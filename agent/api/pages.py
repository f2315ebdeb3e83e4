"""The web pages: the kiosk at ``/``, the operator's page at ``/operator`` and their files below ``/static``.

All files lie in agent/api/web and are read once, so a request touches no disk and a path can reach nothing else. They
are answered with an ETag and revalidated each time: a page is never older than the daemon behind it. The content
security policy lets a page load and call nothing but this device, run no inline script and write no markup from text
(trusted types); visitors' questions and the documents' words therefore stay data in the page as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from agent.errors import NotFound

_WEB = Path(__file__).resolve().parent / "web"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _File:
    """One file as it goes over the wire."""

    body: bytes
    media_type: str
    etag: str


def router() -> APIRouter:
    """The pages' routes. Reads all files now, so a broken installation shows at start."""
    files = _read(_WEB)
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def kiosk(request: Request) -> Response:
        return _reply(files["index.html"], request)

    @routes.api_route("/operator", methods=["GET", "HEAD"])
    async def operator(request: Request) -> Response:
        return _reply(files["operator.html"], request)

    @routes.api_route("/static/{path:path}", methods=["GET", "HEAD"])
    async def static(path: str, request: Request) -> Response:
        file = files.get(path)
        if file is None:
            raise NotFound(f"no file {path!r} below /static")
        return _reply(file, request)

    return routes


def _read(folder: Path) -> dict[str, _File]:
    """Every file of a known type below ``folder`` by its path there."""
    files = {}
    for path in sorted(folder.rglob("*")):
        media_type = _TYPES.get(path.suffix)
        if media_type is None or not path.is_file():
            continue
        body = path.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        files[path.relative_to(folder).as_posix()] = _File(body, media_type, etag)
    return files


def _reply(file: _File, request: Request) -> Response:
    headers = {**_HEADERS, "etag": file.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)
