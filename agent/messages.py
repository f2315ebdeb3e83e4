"""The data that crosses modules: questions, answers, passages, evidence, generation requests and models.

Everything here is frozen. The HTTP API has wire types of its own (agent/api) and translates; workers speak msgpack
(agent/engines/protocol.py) and translate as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
ModelKind = Literal["slm", "vlm", "embedding", "ranker", "speech", "classifier", "detector", "intents", "documents"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]
DecisionKind = Literal["local", "action", "ask_back", "refused", "escalated", "deferred", "handoff"]
Privacy = Literal["shareable", "private"]
"""Whether a question may leave the device (pseudonymised), or must not whatever the policy is."""
AnswerKind = Literal["quote", "generated", "action", "cloud", "person"]

REFUSAL = "I don't know."
"""What an SLM is asked to say when the passages do not hold the answer; never served as an answer."""


class Note(str):
    """A sentence in English about the device, with a stable code and its values for who says it in another language."""

    __slots__ = ("code", "values")
    code: str
    values: Mapping[str, str]

    def __new__(cls, text: str, code: str, **values: str) -> Note:
        note = super().__new__(cls, text)
        note.code, note.values = code, values
        return note


# ---------------------------------------------------------------- models


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, ``path`` relative to the model's folder; ``sha256`` in lower-case hex."""

    path: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model on this device. ``entry`` is the file that the engine opens; ``reference`` marks the small models that
    were trained for tests and demos and must never be taken for a catalogue model."""

    name: str
    kind: ModelKind
    folder: Path
    files: tuple[ModelFile, ...]
    entry: str
    license: str = ""
    context: int | None = None
    memory_bytes: int | None = None
    reference: bool = False
    description: str = ""

    @property
    def entry_path(self) -> Path:
        return self.folder / self.entry


# ---------------------------------------------------------------- generation


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn. ``tool_calls`` and ``tool_call_id`` are OpenAI's, the calls' arguments as JSON text."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. ``temperature`` 0 is greedy. ``logprobs``: None for none, else how many alternatives a
    token (0..20). ``json_schema`` is JSON text of a schema that the output must satisfy; ``seed`` None draws one."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    json_schema: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Either ``messages`` (rendered in the worker by the model's chat template) or a raw ``prompt``.

    ``tools`` is JSON text of OpenAI's tools array, handed to the template. ``template_variables`` reach the template as
    they are (for example enable_thinking).
    """

    sampling: Sampling
    messages: tuple[ChatMessage, ...] = ()
    prompt: str | None = None
    tools: str | None = None
    template_variables: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alternative:
    token: str
    logprob: float
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token under the model's own distribution (before temperature); ``top`` best first."""

    token: str
    logprob: float
    raw: bytes
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text (whole UTF-8 characters, stop strings never shown) and the tokens that were decided for it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class GenerationEnd:
    """The last event of every generation. Times in milliseconds since the worker took the request."""

    finish_reason: FinishReason
    usage: Usage
    first_token_ms: float = 0.0
    total_ms: float = 0.0


# ---------------------------------------------------------------- knowledge


@dataclass(frozen=True, slots=True)
class Document:
    """What a caller stores: plain or Markdown text under an id that is unique in its collection; search filters compare
    the ``metadata`` values."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk that search found. ``score`` is the fused rank score; the ranks (0 = best, None = not found by that
    retriever) and ``similarity`` (cosine of the embedding, None without one) are evidence."""

    document: str
    chunk: int
    title: str
    heading: str
    text: str
    score: float
    similarity: float | None = None
    rank_vector: int | None = None
    rank_pair: int | None = None
    rank_keyword: int | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """One to three adjacent sentences (or one list item or table row with its header) verbatim from a document.

    ``similarity``: mean cosine of the question with the sentence alone and with its heading (None without embeddings);
    ``gap``: to the best sentence elsewhere; ``keyword``: share of the question's content words found in sentence or
    heading, weighted by rarity (0..1); ``heading_match``: the same for the heading alone; ``agreement``: vector and
    keyword rankings name the same sentence; ``kind_match``: the sentence holds the kind of value that the question asks
    for (a time, a price, a place, a number), None when the question asks for no such kind. ``signals``: further named
    evidence of the ranker (agent/knowledge/quotes.py documents each), that only confidence reads.
    """

    document: str
    title: str
    heading: str
    text: str
    score: float
    similarity: float | None = None
    gap: float = 0.0
    keyword: float = 0.0
    heading_match: float = 0.0
    agreement: bool = False
    kind_match: bool | None = None
    signals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Passages (best first) and quote candidates (best first) for one question; ``mode`` says what was searched,
    ``notes`` what was missing."""

    passages: tuple[Passage, ...]
    quotes: tuple[Quote, ...]
    mode: Literal["hybrid", "keyword"]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IntentResult:
    """``intent`` is the best in-scope intent; ``in_scope_score`` says how much the text is in scope at all (higher is
    more, roughly a probability); ``margin`` to the second intent's logit; ``slots`` by pattern."""

    intent: str
    probability: float
    in_scope_score: float
    margin: float = 0.0
    slots: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------- question and answer


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks. ``history`` holds earlier turns that the client sent; with ``session`` the device keeps its
    own bounded window instead. ``stream_provisional``: the client accepts text before the route is decided.
    ``deadline_s``: the asker waits no longer, seconds; what the cloud has not answered by then is deferred. ``notes``
    go into the answer's: what of the request could not be heeded."""

    text: str
    session: str | None = None
    history: tuple[ChatMessage, ...] = ()
    collection: str | None = None
    stream_provisional: bool = False
    sampling: Sampling | None = None
    notes: tuple[str, ...] = ()
    privacy: Privacy = "shareable"
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    document: str
    title: str
    heading: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Action:
    """A tool the device is asked to run: the intent's action name with its slots."""

    name: str
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about one question's candidate answers before the route is decided; features are named numbers
    (agent/confidence/signals.py documents each)."""

    route: Literal["intent", "quote", "generated", "none"]
    features: Mapping[str, float]
    confidence: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the answer comes from, and the stable ``reason`` code for it."""

    kind: DecisionKind
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the person gets, and everything that the ``outpost`` object of the API says about it. ``confidence`` is the
    device's own, also where somebody else answered: it says how sure the device was. ``certificate`` is the id of the
    one whose promise covers this answer; ``cloud`` is the reply that an escalated answer came from."""

    event_id: str
    text: str
    decision: DecisionKind
    reason: str
    answer_kind: AnswerKind | None = None
    confidence: float = 0.0
    route: str = "none"
    language: str = "en"
    intent: str | None = None
    sources: tuple[Source, ...] = ()
    action: Action | None = None
    certificate: str | None = None
    retrieval: Literal["hybrid", "keyword", "none"] = "none"
    notes: tuple[str, ...] = ()
    model: str | None = None
    usage: Usage = Usage()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    cloud: CloudReply | None = None


# ---------------------------------------------------------------- escalation

CLOUD_CUT = "cloud_cut"
"""The reason code of an answer that the cloud did not end: it had no more tokens (escalation.max_tokens)."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question that the device will not answer by itself, as it was asked and with what was found for it; what of it
    may leave the device is decided by agent/escalation/request.py. ``wait_s``: the asker waits no longer than this for
    the cloud, seconds; None leaves it to escalation.total_s."""

    event_id: str
    text: str
    session: str | None = None
    passages: tuple[Quote, ...] = ()
    history: tuple[ChatMessage, ...] = ()
    language: str = "en"
    collection: str = "default"
    wait_s: float | None = None
    privacy: Privacy = "shareable"


@dataclass(frozen=True, slots=True)
class Deferred:
    """The question is stored and will be answered later under ``event_id``; ``reason`` is a stable code."""

    event_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CloudRequest:
    """What leaves the device, already minimised and pseudonymised (agent/escalation/request.py). ``key`` is the
    idempotency key: the same question has the same key on every try and path. ``expires_at`` in Unix seconds."""

    key: str
    event_id: str
    messages: tuple[ChatMessage, ...]
    max_tokens: int
    expires_at: float
    language: str = "en"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What would leave the device: ``payload`` byte for byte as it would be sent, but for the key, which every event
    has of its own; ``endpoint`` as in CloudReply."""

    path: Literal["https", "mqtt"]
    endpoint: str
    payload: str


@dataclass(frozen=True, slots=True)
class CloudDelta:
    """A piece of the cloud's answer, as it comes."""

    text: str


@dataclass(frozen=True, slots=True)
class CloudReply:
    """The cloud's whole answer, once; ``path`` is the way it came, ``endpoint`` who gave it, ``cost`` in the money of
    the price table; ``cached``: it was given to the same question before and is given again; ``lost``: earlier tries
    that were sent and brought no usage, which the cloud may have billed, too; ``cut``: it ends where the tokens did;
    ``similarity``: of a cached one, to the question that it was given to, None where the words are the same."""

    key: str
    text: str
    path: Literal["https", "mqtt"]
    endpoint: str
    model: str
    usage: Usage = Usage()
    cost: float = 0.0
    cached: bool = False
    lost: int = 0
    cut: bool = False
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Provisional:
    """Text shown before the route is decided, only to clients that asked for it."""

    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of the answer itself as it comes, after the route is decided; it is never taken back."""

    text: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Progress for a waiting person: ``understanding``, ``searching``, ``reading``, ``asking`` (the cloud)."""

    name: str


AnswerEvent = Stage | Provisional | Piece | Answer
"""What `Assistant.stream` yields: any number of stages, provisional texts and pieces, then exactly one Answer. The text
of an Answer begins with the pieces before it, except where their end never came: then it stands for itself."""
