"""OpenAI's chat completions as a client speaks them (pure): a request's body, a reply's stream, what a refusal says.

Servers differ in two fields: newer ones want ``max_completion_tokens``, older ones know only ``max_tokens``, and some
refuse ``stream_options``. `Dialect` begins with what most understand, and `Dialect.after` learns from a refusal.

Nothing that a server sends is trusted: JSON of any shape and depth, broken UTF-8, lone surrogates, usage that is no
number. What cannot be read raises `Unreadable`; a limit on bytes is the caller's to keep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from agent.messages import ChatMessage, CloudRequest, Usage

MAX_USAGE = 10_000_000
BYTES_A_TOKEN = 3
"""For estimates where a server tells no usage; low, so that a budget is rather used up early than overspent."""
_UNWANTED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ERROR_CHARS = 200


class Unreadable(Exception):
    """What came is no chat completion; the message says what it is instead."""


class ServerError(Exception):
    """An error object within a stream: the server began to answer and then could not go on."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server wants its requests."""

    limit_field: str = "max_tokens"
    asks_usage: bool = True

    def after(self, refusal: str) -> Dialect | None:
        """Another try for a server that refused with this text, None where the fields were not what it minded."""
        if self.limit_field == "max_tokens" and "max_completion_tokens" in refusal:
            return replace(self, limit_field="max_completion_tokens")
        if self.asks_usage and "stream_options" in refusal:
            return replace(self, asks_usage=False)
        return None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One event of a reply, or a whole one; ``done`` is OpenAI's closing mark."""

    text: str = ""
    finish_reason: str | None = None
    model: str | None = None
    usage: Usage | None = None
    done: bool = False


def body(request: CloudRequest, model: str, dialect: Dialect) -> bytes:
    """The request's JSON, exactly as it leaves."""
    fields: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        dialect.limit_field: request.max_tokens,
        "stream": True,
    }
    if dialect.asks_usage:
        fields["stream_options"] = {"include_usage": True}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _message(message: ChatMessage) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


class Events:
    """Server-sent events out of bytes as they come. Only a line feed ends a line: `str.splitlines` would tear an answer
    apart at characters such as U+2028."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[str]:
        """The ``data`` of every event that is complete now. Raises Unreadable for what is no UTF-8."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                try:
                    yield data.decode()
                except UnicodeDecodeError as error:
                    raise Unreadable(f"an event that is no UTF-8: {data[:60]!r}") from error


def chunk(data: str) -> Chunk:
    """One event's data. Raises Unreadable, ServerError."""
    if data.strip() == "[DONE]":
        return Chunk(done=True)
    found = _object(data)
    if error := found.get("error"):
        raise ServerError(_sentence(error) or "an error that it does not explain")
    choice = _first(found.get("choices"))
    delta = choice.get("delta")
    return _chunk(found, choice, delta if isinstance(delta, dict) else {})


def whole(data: bytes) -> Chunk:
    """A reply in one piece, from a server that does not stream. Raises Unreadable, ServerError."""
    found = _object(data.decode("utf-8", "replace"))
    if error := found.get("error"):
        raise ServerError(_sentence(error) or "an error that it does not explain")
    choice = _first(found.get("choices"))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Unreadable(f"JSON without a message: {data[:60]!r}")
    return replace(_chunk(found, choice, message), done=True)


def refusal(data: bytes) -> str:
    """What a server's error body says, in at most 200 printable characters; "" for nothing that can be read."""
    try:
        found = _object(data.decode("utf-8", "replace"))
    except Unreadable:
        return ""
    return _sentence(found.get("error", found))


def estimated_usage(request: CloudRequest, answer: str) -> Usage:
    """For servers that tell none."""
    asked = sum(len(message.content.encode()) for message in request.messages)
    return Usage(-(-asked // BYTES_A_TOKEN), -(-len(answer.encode()) // BYTES_A_TOKEN))


def _object(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {data[:60]!r}") from error
    if not isinstance(found, dict):
        raise Unreadable(f"JSON that is no object: {data[:60]!r}")
    return found


def _first(choices: object) -> dict[str, Any]:
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return {}


def _chunk(found: dict[str, Any], choice: dict[str, Any], message: dict[str, Any]) -> Chunk:
    content, finish, model = message.get("content"), choice.get("finish_reason"), found.get("model")
    return Chunk(
        text=_clean(content) if isinstance(content, str) else "",
        finish_reason=finish if isinstance(finish, str) else None,
        model=_clean(model)[:200] if isinstance(model, str) and model else None,
        usage=_usage(found.get("usage")),
    )


def _usage(found: object) -> Usage | None:
    if not isinstance(found, dict):
        return None
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = [found.get("prompt_tokens"), found.get("completion_tokens"), cached or 0]
    if not _are_counts(counts):
        return None
    prompt, completion, kept = counts
    return Usage(prompt, completion, kept)


def _are_counts(values: Sequence[object]) -> TypeGuard[Sequence[int]]:
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_USAGE for value in values)


def _sentence(error: object) -> str:
    """The readable part of an error object; its code is joined, for that is what a refusal is recognised by."""
    if isinstance(error, dict):
        message, code = error.get("message") or error.get("detail"), error.get("code")
        said = message if isinstance(message, str) else json.dumps(message or error)
        if isinstance(code, str) and code not in said:
            said = f"{said} ({code})"
    else:
        said = error if isinstance(error, str) else json.dumps(error)
    plain = " ".join(_clean(said).split())
    return plain if len(plain) <= _ERROR_CHARS else plain[: _ERROR_CHARS - 1] + "…"


def _clean(text: str) -> str:
    """Without control characters, and with lone surrogates replaced: nothing later can choke on it."""
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _UNWANTED.sub("", paired)
