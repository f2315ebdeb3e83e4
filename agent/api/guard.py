"""Who may call what: Host and Origin checks, bearer tokens and roles, and the body limit, as one ASGI layer.

Two roles. The user's token is obligatory beyond loopback and optional on it; the operator's token is obligatory for
/admin and for writing knowledge and intents, also on loopback, because a kiosk's touch screen is on loopback too. It is
accepted everywhere; ``request.state.operator`` says whether a call brought it. Host is checked against DNS rebinding,
Origin against other sites' pages.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.api.wire import JsonObject
from agent.errors import Forbidden, InputTooLarge, InvalidRequest, OutpostError, Unauthorized

_OPEN = frozenset({"/", "/operator", "/healthz", "/readyz", "/favicon.ico"})
_OPEN_PREFIX = "/static/"
_SEARCH = re.compile(r"/v1/knowledge/[^/]+/search")
_SMALL_BODY = 8 << 20
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Access:
    """``user_token`` None: no token needed for a user's calls (loopback only)."""

    operator_token: str
    user_token: str | None
    hosts: frozenset[str]
    max_body_bytes: int


def allowed_hosts(host: str, extra: Iterable[str]) -> frozenset[str]:
    """The Host names that requests may carry, without ports."""
    return frozenset({*_LOOPBACK_NAMES, host.strip("[]").lower(), *(name.lower() for name in extra)})


def needs_operator(method: str, path: str) -> bool:
    """Whether a call changes what the device says, or shows its inside.

    >>> [needs_operator("POST", f"/v1/knowledge/default/{verb}") for verb in ("documents", "search")]
    [True, False]
    """
    if path.startswith("/admin"):
        return True
    if path.startswith(("/v1/knowledge", "/admin/calibrate")):
        return method not in ("GET", "HEAD") and not (method == "POST" and _SEARCH.fullmatch(path))
    return path == "/v1/intents/train"


def error_body(error: OutpostError) -> JsonObject:
    """An error in OpenAI's shape."""
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        429: "rate_limit_error",
    }
    status = error.http_status
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}


def error_headers(error: OutpostError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.http_status == 401:
        headers["www-authenticate"] = 'Bearer realm="outpost"'
    return headers


class Guard:
    """ASGI middleware in front of everything."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            scope.setdefault("state", {})["operator"] = self._check(scope["method"], scope["path"], headers)
            limited = _Limited(receive, self._body_limit(scope["path"]))
            limited.check_declared(headers.get(b"content-length"))
        except OutpostError as error:
            await _refuse(error, send)
            return
        await self._app(scope, limited, send)

    def _body_limit(self, path: str) -> int:
        """Only documents are large; everything else is read into memory before the queue has had a say."""
        if path.startswith("/v1/knowledge"):
            return self._access.max_body_bytes
        return min(self._access.max_body_bytes, _SMALL_BODY)

    def _check(self, method: str, path: str, headers: dict[bytes, str]) -> bool:
        """Whether the operator calls. Raises Forbidden, Unauthorized."""
        host = _name(headers.get(b"host", ""))
        if host not in self._access.hosts:
            raise Forbidden(
                f"the Host {host!r} is not this device's", remedy="Add it to server.allowed_hosts if it should be."
            )
        origin = headers.get(b"origin")
        if origin is not None and _netloc(origin) != headers.get(b"host", "").lower():
            raise Forbidden(f"pages of {origin!r} may not call this device")
        if path in _OPEN or path.startswith(_OPEN_PREFIX):
            return False
        token = _bearer(headers.get(b"authorization", ""))
        if self._is(token, self._access.operator_token):
            return True
        if needs_operator(method, path):
            raise Unauthorized(
                f"{method} {path} needs the operator's token",
                remedy="Send it as 'Authorization: Bearer ...'; it is in the file operator-token of the state folder.",
            )
        if self._access.user_token is not None and not self._is(token, self._access.user_token):
            raise Unauthorized(f"{method} {path} needs a token", remedy="Send it as 'Authorization: Bearer ...'.")
        return False

    @staticmethod
    def _is(given: str, expected: str) -> bool:
        return hmac.compare_digest(given.encode(), expected.encode())


class _Limited:
    """A receive channel that refuses to carry more than ``limit`` bytes of body."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._seen = 0

    def check_declared(self, length: str | None) -> None:
        if length is None:
            return
        if not length.isdecimal():
            raise InvalidRequest(f"Content-Length {length!r} is not a number")
        if int(length) > self._limit:
            self._refuse(int(length))

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self._limit:
                self._refuse(self._seen)
        return message

    def _refuse(self, size: int) -> None:
        raise InputTooLarge(
            f"the request body has at least {size} bytes; the limit is {self._limit}",
            remedy="Send it in smaller parts, or raise server.max_body_mb.",
        )


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _netloc(origin: str) -> str | None:
    """Name and port of an Origin header; None for one that is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _refuse(error: OutpostError, send: Send) -> None:
    body = json.dumps(error_body(error)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error_headers(error)}
    await send(
        {
            "type": "http.response.start",
            "status": error.http_status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
