"""The assistant behind /v1/chat/completions as model ``outpost``: a question in, a decided answer out.

Tokens are held until the route is decided; a client that sets ``outpost.provisional`` sees the SLM's words before,
apart from the content, so nothing that was shown as the answer is ever taken back. The ``outpost`` object of the reply
says what was decided and why.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from agent.api.services import ASSISTANT, EventStream, Services, attended
from agent.api.wire import SSE_DONE, ChatRequest, JsonObject, OutpostOptions, sse, usage_object
from agent.errors import InvalidRequest
from agent.gathering import ANSWER_TOKENS
from agent.messages import Answer, ChatMessage, CloudReply, Piece, Provisional, Question, Role, Sampling, Stage

_RAW_ONLY = (
    "tools", "tool_choice", "response_format", "logprobs", "top_logprobs", "stop", "reasoning_effort",
    "chat_template_kwargs",
)  # fmt: skip
_PIECE = re.compile(r"\s*\S+\s*|\s+")


async def respond(body: ChatRequest, request: Request, daemon: Services) -> Response:
    """The reply, whole or streamed. Raises InvalidRequest for what only raw models can do."""
    question = _question(body)
    id, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    if body.stream:
        return EventStream(_stream(id, created, question, body, daemon), daemon)
    answer = await attended(request, daemon.assistant.answer(question), daemon)
    daemon.remember_latency(answer)
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return JSONResponse(
        {
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": ASSISTANT,
            "choices": [{"index": 0, "message": message, "finish_reason": _finish(answer), "logprobs": None}],
            "usage": usage_object(answer.usage),
            "outpost": outpost_object(answer),
        }
    )


def outpost_object(answer: Answer) -> JsonObject:
    """What an answer says about itself (DESIGN: contracts)."""
    return {
        "decision": answer.decision,
        "answer_kind": answer.answer_kind,
        "confidence": answer.confidence,
        "reason": answer.reason,
        "route": answer.route,
        "language": answer.language,
        "intent": answer.intent,
        "sources": [asdict(source) for source in answer.sources],
        "action": None
        if answer.action is None
        else {"name": answer.action.name, "arguments": dict(answer.action.arguments)},
        "certificate": answer.certificate,
        "retrieval": answer.retrieval,
        "model": answer.model,
        "notes": list(answer.notes),
        "timings_ms": dict(answer.timings_ms),
        "event_id": answer.event_id,
        "cloud": None if answer.cloud is None else _cloud(answer.cloud),
    }


def _finish(answer: Answer) -> str:
    return "length" if answer.cloud is not None and answer.cloud.cut else "stop"


def _cloud(reply: CloudReply) -> JsonObject:
    return {
        "path": reply.path,
        "endpoint": reply.endpoint,
        "model": reply.model,
        "cost": reply.cost,
        "cached": reply.cached,
        "similarity": reply.similarity,
        "cut": reply.cut,
        "usage": usage_object(reply.usage),
    }


def _question(body: ChatRequest) -> Question:
    for name in _RAW_ONLY:
        if getattr(body, name) not in (None, False, ()):
            raise InvalidRequest(
                f"{name!r} does not go with the model {ASSISTANT!r}",
                remedy="Leave it out, or name an installed model (see /v1/models).",
                param=name,
            )
    last = body.messages[-1]
    if last.role != "user":
        raise InvalidRequest(f"the last message is the {last.role}'s; the assistant answers a user's", param="messages")
    if any(message.role == "tool" for message in body.messages):
        raise InvalidRequest(
            f"the model {ASSISTANT!r} calls no tools", remedy="Leave their replies out.", param="messages"
        )
    roles: dict[str, Role] = {"user": "user", "assistant": "assistant"}
    earlier = tuple(
        ChatMessage(roles[message.role], message.text) for message in body.messages[:-1] if message.role in roles
    )
    options = body.outpost or OutpostOptions()
    unheard = any(message.role in ("system", "developer") for message in body.messages)
    return Question(
        text=last.text,
        session=options.session,
        history=earlier,
        collection=options.collection,
        stream_provisional=options.provisional,
        sampling=Sampling(
            temperature=body.temperature or 0.0,
            top_k=body.top_k or 0,
            top_p=body.top_p or 1.0,
            min_p=body.min_p or 0.0,
            repetition_penalty=body.repetition_penalty or 1.0,
            seed=body.seed,
            max_tokens=body.max_completion_tokens or body.max_tokens or ANSWER_TOKENS,
        ),
        privacy="private" if options.private else "shareable",
        deadline_s=options.deadline_s,
        notes=("system messages do not change the assistant",) if unheard else (),
    )


async def _stream(
    id: str, created: int, question: Question, body: ChatRequest, daemon: Services
) -> AsyncGenerator[bytes, None]:
    def chunk(delta: JsonObject, *, finish_reason: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return sse(_chunk(id, created, choices=[choice], **more))

    begun = False
    shown = ""
    async with aclosing(daemon.assistant.stream(question)) as events:
        async for event in events:
            if not begun:  # only now: a question that cannot be read is still a plain HTTP error
                begun = True
                yield chunk({"role": "assistant", "content": ""})
            if isinstance(event, Stage):
                yield chunk({}, outpost={"stage": event.name})
            elif isinstance(event, Provisional):
                yield chunk({}, outpost={"provisional": event.text})
            elif isinstance(event, Piece):
                shown += event.text
                yield chunk({"content": event.text})
            else:
                daemon.remember_latency(event)
                for piece in _PIECE.findall(_unshown(event.text, shown)):
                    yield chunk({"content": piece})
                yield chunk({}, finish_reason=_finish(event), outpost=outpost_object(event))
                if body.stream_options and body.stream_options.include_usage:
                    yield sse(_chunk(id, created, choices=[], usage=usage_object(event.usage)))
    yield SSE_DONE


def _unshown(text: str, shown: str) -> str:
    """What of an answer's text is still to be shown: what was shown stays, also where the answer turned out another."""
    if text.startswith(shown):
        return text[len(shown) :]
    return f"\n\n{text}"


def _chunk(id: str, created: int, **more: object) -> JsonObject:
    return {"id": id, "object": "chat.completion.chunk", "created": created, "model": ASSISTANT, **more}
