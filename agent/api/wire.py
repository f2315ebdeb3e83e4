"""The wire types of the HTTP API: what clients may send, validated once (pydantic), and OpenAI's reply shapes.

Unknown fields are refused by name, so that a typo is an error and not a silent default. Fields of OpenAI's API that
change nothing here are accepted and ignored (`Ignored`); those that would change the answer and cannot be honoured are
refused by agent/api/openai.py with a 400 that names them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.messages import Usage

MAX_TOKENS = 32_768
JsonObject = dict[str, Any]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ignored(Wire):
    """Fields of OpenAI's clients that do not concern an on-device server."""

    user: str | None = None
    metadata: JsonObject | None = None
    store: bool | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


class TextPart(Wire):
    type: Literal["text"]
    text: str


class FunctionCall(Wire):
    name: str
    arguments: str


class ToolCallWire(Wire):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallWire] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class Function(Wire):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: JsonObject = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


class Tool(Wire):
    type: Literal["function"]
    function: Function


class NamedFunction(Wire):
    name: str


class ToolChoice(Wire):
    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Wire):
    name: str
    description: str | None = None
    schema_: JsonObject = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Wire):
    type: Literal["text"]


class JsonObjectFormat(Wire):
    type: Literal["json_object"]


class JsonSchemaFormat(Wire):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StreamOptions(Wire):
    include_usage: bool = False
    include_obfuscation: bool = False


class OutpostOptions(Wire):
    """Our own options, in the request's ``outpost`` object (``extra_body`` of OpenAI's client)."""

    session: str | None = Field(None, min_length=1, max_length=128, description="conversation kept on the device")
    collection: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="collection to search")
    provisional: bool = Field(False, description="stream text before the route is decided")
    private: bool = Field(False, description="the question must not leave the device")
    deadline_s: float | None = Field(None, gt=0, le=3600, description="the asker waits no longer, seconds")


class SamplingFields(Ignored):
    """What chat and plain completions share. ``top_k``, ``min_p`` and ``repetition_penalty`` are ours."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    n: int = Field(1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(SamplingFields):
    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=64)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, str | int | float | bool] | None = None
    outpost: OutpostOptions | None = None


class CompletionRequest(SamplingFields):
    prompt: str | list[str]
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None


class EmbeddingRequest(Ignored):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class DocumentWire(Wire):
    id: str = Field(min_length=1, max_length=512)
    title: str = Field("", max_length=1000)
    text: str
    metadata: dict[str, str | int | float | bool] = Field(default_factory=dict)


class DocumentsRequest(Wire):
    documents: list[DocumentWire] = Field(min_length=1, max_length=10_000)


class SearchRequest(Wire):
    query: str = Field(min_length=1, max_length=4000)
    k: int = Field(5, ge=1, le=100)
    filter: JsonObject | None = None


class ClassifyRequest(Wire):
    texts: list[str] = Field(min_length=1, max_length=256)


class TrainRequest(Wire):
    pack: str = Field(min_length=1, description="the intent pack, TOML text")


class ExplainRequest(Wire):
    question: str = Field(min_length=1)
    collection: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    session: str | None = Field(None, min_length=1, max_length=128)
    private: bool = False
    deadline_s: float | None = Field(None, gt=0, le=3600)


class FeedbackRequest(Wire):
    event_id: str = Field(min_length=1, max_length=128)
    rating: Literal["right", "wrong"]


class LabelledTextWire(Wire):
    text: str = Field(min_length=1, max_length=4000)
    intent: str | None
    group: str | None = None
    tune: bool | None = Field(None, description="to fit on or to certify on only; null: half of the groups each")


class CalibrateIntents(Wire):
    rows: list[LabelledTextWire] = Field(min_length=1, max_length=200_000)
    evidence: bool = Field(False, description="send back what every example gave")


class LabelledQuestionWire(Wire):
    question: str = Field(min_length=1, max_length=4000)
    answers: list[str]
    documents: list[str] = Field(default_factory=list)
    evidence: str = ""
    group: str | None = None
    tune: bool | None = Field(None, description="to fit on or to certify on only; null: half of the groups each")


class CalibrateAnswers(Wire):
    """With ``documents`` the rows are asked in collections made of them, without in ``collection``."""

    rows: list[LabelledQuestionWire] = Field(min_length=1, max_length=200_000)
    documents: list[DocumentWire] = Field(default_factory=list, max_length=10_000)
    collection: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    evidence: bool = Field(False, description="send back what every example gave")


class LabelledPairWire(Wire):
    a: str = Field(min_length=1, max_length=4000)
    b: str = Field(min_length=1, max_length=4000)
    same: bool
    group: str | None = None


class CalibrateCache(Wire):
    """Without ``rows`` the device's own judged questions are paired."""

    rows: list[LabelledPairWire] = Field(default_factory=list, max_length=200_000)
    collection: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    evidence: bool = Field(False, description="send back what every pair gave")


class HandoffAnswer(Wire):
    """A person's answer to a question that was handed over; ``learn`` adds it to the knowledge base."""

    text: str = Field(min_length=1, max_length=20_000)
    by: str = Field("operator", min_length=1, max_length=100, description="who answers")
    learn: bool = False


class ModelRequest(Wire):
    model: str


def sse(data: JsonObject) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


SSE_DONE = b"data: [DONE]\n\n"


def usage_object(usage: Usage) -> JsonObject:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
