"""What leaves the device with a question, and nothing else: this is the only place that builds a CloudRequest.

    system prompt | at most ``escalation.history`` earlier turns | at most ``escalation.passages`` passages and question

Everything but our own system prompt goes through `Pseudonyms`. Session, collection, event id, sources, scores and the
device's name stay at home. Any failure raises PrivacyFailed, and as a request exists only as a result of `build`,
nothing has left then.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from agent.config import Escalation
from agent.escalation.personal import Finder, Pseudonyms, Restoration
from agent.messages import ChatMessage, CloudRequest, Inquiry

SYSTEM: Final = (
    "You answer a visitor's question for an unattended information desk. Answer in the language of the question, "
    "briefly and to the point. If you do not know, say so."
)


def finder(config: Escalation) -> Finder:
    """What a device recognises as personal; build one and keep it."""
    return Finder(config.names, config.places, config.phone_region)


def build(
    inquiry: Inquiry, config: Escalation, finder: Finder, *, expires_at: float
) -> tuple[CloudRequest, Restoration]:
    """The request for an inquiry, and what restores its reply (keep it beside the request, it never leaves).

    ``expires_at`` in Unix seconds. The same event has the same key whenever it is built. CPU-bound, a few
    milliseconds. Raises PrivacyFailed: then nothing may leave, hand the question to a person.
    """
    pseudonyms = Pseudonyms(finder, [inquiry.text])
    messages = (ChatMessage("system", SYSTEM), ChatMessage("user", pseudonyms.replace(inquiry.text)))
    request = CloudRequest(
        key=key_of(inquiry.event_id),
        event_id=inquiry.event_id,
        messages=messages,
        max_tokens=config.max_tokens,
        expires_at=expires_at,
        language=inquiry.language,
    )
    return request, pseudonyms.restoration


def key_of(event_id: str) -> str:
    """The idempotency key of an event: 32 hex digits that do not tell the event id, with which answers can be read."""
    return hashlib.sha256(b"outpost escalation\0" + event_id.encode()).hexdigest()[:32]


def body(request: CloudRequest, model: str, *, stream: bool) -> bytes:
    """The JSON body of an OpenAI chat completion, for paths that have no form of their own."""
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    data: dict[str, object] = {"model": model, "messages": messages, "max_tokens": request.max_tokens}
    if stream:
        data |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
