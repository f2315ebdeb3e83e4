"""Roles and hosts: who may call what (pure parts; the HTTP behaviour is in tests/integration)."""

from __future__ import annotations

import pytest

from agent.api.guard import allowed_hosts, error_body, error_headers, needs_operator
from agent.errors import InvalidRequest, Overloaded, Unauthorized, WorkerCrashed, from_code


@pytest.mark.parametrize(
    ("method", "path", "operator"),
    [
        ("GET", "/admin/status", True),
        ("POST", "/admin/models/load", True),
        ("POST", "/v1/knowledge/a/documents", True),
        ("POST", "/v1/knowledge/a/files", True),
        ("DELETE", "/v1/knowledge/a", True),
        ("DELETE", "/v1/knowledge/a/documents/search", True),
        ("GET", "/v1/knowledge", False),
        ("POST", "/v1/knowledge/a/search", False),
        ("POST", "/v1/intents/classify", False),
        ("POST", "/v1/intents/train", True),
        ("POST", "/v1/chat/completions", False),
        ("DELETE", "/v1/sessions/x", False),
    ],
)
def test_what_needs_the_operator(method: str, path: str, operator: bool) -> None:
    assert needs_operator(method, path) is operator


def test_hosts_are_compared_without_case() -> None:
    assert {"localhost", "127.0.0.1", "::1", "kiosk.local", "10.0.0.5"} <= allowed_hosts("10.0.0.5", ["Kiosk.Local"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (Overloaded("x"), "rate_limit_error"),
        (WorkerCrashed("x"), "server_error"),
    ],
)
def test_errors_have_openais_shape(error: InvalidRequest, kind: str) -> None:
    assert error_body(error)["error"]["type"] == kind
    assert error_body(error)["error"]["code"] == error.code


def test_retry_after_is_whole_seconds() -> None:
    assert error_headers(Overloaded("x", retry_after_s=0.2)) == {"retry-after": "1"}


def test_an_error_crosses_a_border_by_its_code() -> None:
    error = from_code("worker_crashed", "it died", "Try again.")
    assert isinstance(error, WorkerCrashed)
    assert str(error) == "it died. Try again."
    assert type(from_code("made_up", "x")).__name__ == "OutpostError"
