"""OpenAI's endpoints: /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings.

Model ``outpost`` is the assistant with its whole pipeline (agent/api/chat.py); every installed model answers raw under
its own name. What a request asks for is either honoured or refused with a 400 that names the field: never ignored.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from agent.api import chat, tools
from agent.api.services import ASSISTANT, EventStream, Services, attended, services
from agent.api.wire import (
    SSE_DONE,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    JsonObject,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    SamplingFields,
    sse,
    usage_object,
)
from agent.errors import InvalidRequest
from agent.messages import (
    ChatMessage,
    GenerationEnd,
    GenerationRequest,
    Sampling,
    TextDelta,
    TokenLogprob,
    ToolCall,
    Usage,
)

router = APIRouter(prefix="/v1")
Daemon = Annotated[Services, Depends(services)]

_ANY_JSON_OBJECT = '{"type":"object"}'
_DEFAULT_TEMPERATURE = 1.0
"""OpenAI's own default, for raw models; the assistant itself is greedy."""


@router.get("/models")
async def models(daemon: Daemon) -> JsonObject:
    own = {"id": ASSISTANT, "object": "model", "created": daemon.started_at, "owned_by": "outpost"}
    served = [
        {
            "id": model.name,
            "object": "model",
            "created": daemon.started_at,
            "owned_by": "reference" if model.reference else "installed",
        }
        for model in daemon.models()
    ]
    return {"object": "list", "data": [own, *served]}


@router.get("/models/{name}")
async def model(name: str, daemon: Daemon) -> JsonObject:
    listing = await models(daemon)
    for entry in listing["data"]:
        if entry["id"] == name:
            return dict(entry)
    raise daemon.unknown_model(name)


@router.post("/chat/completions")
async def chat_completions(body: ChatRequest, request: Request, daemon: Daemon) -> Response:
    _refuse_unsupported(body)
    if body.model == ASSISTANT:
        return await chat.respond(body, request, daemon)
    if body.outpost is not None:
        raise InvalidRequest(
            f"'outpost' options go with the model {ASSISTANT!r}, not with {body.model!r}", param="outpost"
        )
    client = daemon.text(body.model)
    wanted = tools.plan(body)
    generation = GenerationRequest(
        sampling=_chat_sampling(body, daemon, wanted.schema),
        messages=tuple(_message(message) for message in wanted.messages(body.messages)),
        tools=wanted.for_template,
        template_variables=body.chat_template_kwargs or {},
    )
    reply = _Reply(f"chatcmpl-{uuid.uuid4().hex}", "chat.completion", body.model)
    events = client.generate(generation, deadline_s=daemon.config.server.request_timeout_s)
    if body.stream:
        chunks = _stream_calls(reply, wanted, events, body, daemon) if wanted.offers_calls else None
        return EventStream(chunks or _stream_chat(reply, events, body, daemon), daemon)
    collected = await attended(request, _collect(events, daemon), daemon)
    message = await wanted.read(collected.text, collected.end.finish_reason)
    choice: JsonObject = {"index": 0, "message": message.wire(), "finish_reason": message.finish_reason}
    choice["logprobs"] = _chat_logprobs(collected.tokens) if body.logprobs else None
    return JSONResponse(reply.body([choice], end=collected.end))


@router.post("/completions")
async def completions(body: CompletionRequest, request: Request, daemon: Daemon) -> Response:
    _refuse_unsupported(body)
    prompt = body.prompt if isinstance(body.prompt, str) else _single(body.prompt, "prompt")
    for name, value in (("echo", body.echo), ("suffix", body.suffix), ("best_of", body.best_of not in (None, 1))):
        if value:
            raise InvalidRequest(f"{name!r} is not supported", remedy="Leave it out.", param=name)
    if body.model == ASSISTANT:
        raise InvalidRequest(
            f"the model {ASSISTANT!r} answers chats only",
            remedy="Use /v1/chat/completions, or name an installed model.",
            param="model",
        )
    client = daemon.text(body.model)
    sampling = _sampling(body, daemon, body.max_tokens, body.logprobs, None)
    events = client.generate(
        GenerationRequest(sampling, prompt=prompt), deadline_s=daemon.config.server.request_timeout_s
    )
    reply = _Reply(f"cmpl-{uuid.uuid4().hex}", "text_completion", body.model)
    if body.stream:
        return EventStream(_stream_completion(reply, events, body, daemon), daemon)
    collected = await attended(request, _collect(events, daemon), daemon)
    choice = {
        "index": 0,
        "text": collected.text,
        "finish_reason": collected.end.finish_reason,
        "logprobs": _completion_logprobs(collected.tokens) if body.logprobs is not None else None,
    }
    return JSONResponse(reply.body([choice], end=collected.end))


@router.post("/embeddings")
async def embeddings(body: EmbeddingRequest, request: Request, daemon: Daemon) -> Response:
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or any(not text for text in texts):
        raise InvalidRequest("'input' holds an empty text", remedy="Leave empty texts out.", param="input")
    if len(texts) > 2048:
        raise InvalidRequest(f"'input' holds {len(texts)} texts; the limit is 2048", param="input")
    client = daemon.embedding(body.model)
    work = client.embed_counted(texts, deadline_s=daemon.config.server.request_timeout_s)
    vectors, tokens = await attended(request, work, daemon)
    if body.dimensions is not None and body.dimensions != vectors.shape[1]:
        raise InvalidRequest(
            f"dimensions = {body.dimensions}, but {body.model!r} gives {vectors.shape[1]}",
            remedy="Leave it out.",
            param="dimensions",
        )
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()
            if body.encoding_format == "base64"
            else [float(value) for value in vector],
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": body.model, "data": data, "usage": usage})


# ---------------------------------------------------------------- requests


def _refuse_unsupported(body: SamplingFields) -> None:
    """Raises InvalidRequest for what would change the answer and is not built."""
    if body.n != 1:
        raise InvalidRequest(f"n = {body.n} is not supported", remedy="Ask once for each answer (n = 1).", param="n")
    for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
        if getattr(body, name):
            raise InvalidRequest(
                f"{name} = {getattr(body, name)!r} is not supported",
                remedy="Leave it out; repetition_penalty is there.",
                param=name,
            )
    if isinstance(body, ChatRequest):
        if body.model != ASSISTANT and body.reasoning_effort is not None:
            raise InvalidRequest(
                f"reasoning_effort = {body.reasoning_effort!r} is not supported",
                remedy="Use chat_template_kwargs, as the model's own template names it.",
                param="reasoning_effort",
            )
        if body.modalities not in (None, ["text"]):
            raise InvalidRequest(f"modalities = {body.modalities!r} is not supported", param="modalities")
        if body.top_logprobs is not None and not body.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs = true", param="top_logprobs")
    if len(body.stops) > 16 or any(not stop or len(stop) > 256 for stop in body.stops):
        raise InvalidRequest("'stop' takes at most 16 texts of 1 to 256 characters", param="stop")
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream = true", param="stream_options")


def _chat_sampling(body: ChatRequest, daemon: Services, forced_schema: str | None) -> Sampling:
    schema = forced_schema
    if isinstance(body.response_format, JsonObjectFormat | JsonSchemaFormat):
        if schema is not None:
            raise InvalidRequest("response_format and a forced tool call exclude each other", param="response_format")
        schema = _ANY_JSON_OBJECT
        if isinstance(body.response_format, JsonSchemaFormat):
            schema = json.dumps(body.response_format.json_schema.schema_)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _sampling(body, daemon, body.max_completion_tokens or body.max_tokens, logprobs, schema)


def _sampling(
    body: SamplingFields, daemon: Services, max_tokens: int | None, logprobs: int | None, schema: str | None
) -> Sampling:
    return Sampling(
        temperature=_DEFAULT_TEMPERATURE if body.temperature is None else body.temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        seed=body.seed,
        max_tokens=max_tokens or daemon.config.text.max_tokens,
        stop=body.stops,
        logprobs=logprobs,
        json_schema=schema,
    )


def _message(message: Message) -> ChatMessage:
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    role = "system" if message.role == "developer" else message.role
    return ChatMessage(role, message.text, message.name, calls, message.tool_call_id)


def _single(prompts: list[str], name: str) -> str:
    if len(prompts) != 1:
        raise InvalidRequest(f"{name!r} holds {len(prompts)} texts", remedy="Send one a request.", param=name)
    return prompts[0]


# ---------------------------------------------------------------- replies


@dataclass(frozen=True, slots=True)
class _Reply:
    id: str
    object: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, choices: list[JsonObject], *, end: GenerationEnd | None = None, chunk: bool = False) -> JsonObject:
        """``end`` adds the usage, and the milliseconds that the engine took."""
        kind = f"{self.object}.chunk" if chunk and self.object == "chat.completion" else self.object
        body = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        if end is None:
            return body
        timings = {"first_token": round(end.first_token_ms, 2), "generate": round(end.total_ms, 2)}
        return {**body, "usage": usage_object(end.usage), "outpost": {"timings_ms": timings}}


@dataclass(frozen=True, slots=True)
class _Collected:
    text: str
    tokens: tuple[TokenLogprob, ...]
    end: GenerationEnd


Events = AsyncGenerator[TextDelta | GenerationEnd, None]


async def _collect(events: Events, daemon: Services) -> _Collected:
    pieces: list[str] = []
    tokens: list[TokenLogprob] = []
    end = GenerationEnd("stop", Usage())
    async with aclosing(events) as open_events:
        async for event in open_events:
            if isinstance(event, GenerationEnd):
                end = event
            else:
                pieces.append(event.text)
                tokens.extend(event.logprobs)
    daemon.count_tokens(end.usage)
    return _Collected("".join(pieces), tuple(tokens), end)


async def _stream_chat(
    reply: _Reply, events: Events, body: ChatRequest, daemon: Services
) -> AsyncGenerator[bytes, None]:
    end = GenerationEnd("stop", Usage())
    begun = False
    async with aclosing(events) as open_events:
        async for event in open_events:
            if not begun:  # only now: an error before the first token is still a plain HTTP error
                begun = True
                yield sse(_delta(reply, {"role": "assistant", "content": ""}))
            if isinstance(event, GenerationEnd):
                end = event
            elif event.text or event.logprobs:
                logprobs = _chat_logprobs(event.logprobs) if body.logprobs else None
                yield sse(_delta(reply, {"content": event.text}, logprobs=logprobs))
    daemon.count_tokens(end.usage)
    yield sse(_delta(reply, {}, finish_reason=end.finish_reason))
    if body.stream_options and body.stream_options.include_usage:
        yield sse(reply.body([], end=end, chunk=True))
    yield SSE_DONE


async def _stream_calls(
    reply: _Reply, wanted: tools.Plan, events: Events, body: ChatRequest, daemon: Services
) -> AsyncGenerator[bytes, None]:
    """Whether it is a call is known at the end only, so the whole comes in one piece: the first delta tells."""
    collected = await _collect(events, daemon)
    message = await wanted.read(collected.text, collected.end.finish_reason)
    logprobs = _chat_logprobs(collected.tokens) if body.logprobs else None
    yield sse(_delta(reply, message.delta(), logprobs=logprobs))
    yield sse(_delta(reply, {}, finish_reason=message.finish_reason))
    if body.stream_options and body.stream_options.include_usage:
        yield sse(reply.body([], end=collected.end, chunk=True))
    yield SSE_DONE


async def _stream_completion(
    reply: _Reply, events: Events, body: CompletionRequest, daemon: Services
) -> AsyncGenerator[bytes, None]:
    end = GenerationEnd("stop", Usage())
    told = 0
    async with aclosing(events) as open_events:
        async for event in open_events:
            if isinstance(event, GenerationEnd):
                end = event
                continue
            logprobs = _completion_logprobs(event.logprobs, told) if body.logprobs is not None else None
            told += sum(len(token.token) for token in event.logprobs)
            choice = {"index": 0, "text": event.text, "finish_reason": None, "logprobs": logprobs}
            yield sse(reply.body([choice], chunk=True))
    daemon.count_tokens(end.usage)
    last = {"index": 0, "text": "", "finish_reason": end.finish_reason, "logprobs": None}
    yield sse(reply.body([last], chunk=True))
    if body.stream_options and body.stream_options.include_usage:
        yield sse(reply.body([], end=end, chunk=True))
    yield SSE_DONE


def _delta(
    reply: _Reply, delta: JsonObject, *, finish_reason: str | None = None, logprobs: JsonObject | None = None
) -> JsonObject:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return reply.body([choice], chunk=True)


def _chat_logprobs(tokens: tuple[TokenLogprob, ...]) -> JsonObject:
    def entry(token: str, logprob: float, raw: bytes) -> dict[str, Any]:
        return {"token": token, "logprob": logprob, "bytes": list(raw)}

    content = [
        {
            **entry(token.token, token.logprob, token.raw),
            "top_logprobs": [entry(other.token, other.logprob, other.raw) for other in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _completion_logprobs(tokens: tuple[TokenLogprob, ...], position: int = 0) -> JsonObject:
    """``position``: how many characters of the answer went before."""
    offsets = []
    for token in tokens:
        offsets.append(position)
        position += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{other.token: other.logprob for other in token.top} for token in tokens],
        "text_offset": offsets,
    }
