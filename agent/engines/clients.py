"""Typed doors to the workers: each client names a model of the pool and speaks its payloads.

The payloads are fixed with the engine authors; nothing outside this file and the engines reads one. Importing this
file imports no numpy: the control process stays small until it first handles a vector.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from agent.engines.pool import Pool
from agent.engines.protocol import Payload
from agent.errors import WorkerCrashed
from agent.messages import (
    Alternative,
    ChatMessage,
    FinishReason,
    GenerationEnd,
    GenerationRequest,
    IntentResult,
    TextDelta,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

_SHORT_S = 10.0
_TRAIN_S = 300.0
_EXTRACT_S = 60.0


@dataclass(frozen=True, slots=True)
class TextStats:
    """What the text engine holds now; ``kv_used`` and ``kv_total`` in cells."""

    sequences_active: int
    waiting: int
    kv_used: int
    kv_total: int
    prefixes_cached: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    intents: int
    examples: int
    seconds: float


class TextClient:
    """A text model."""

    def __init__(self, pool: Pool, model: str) -> None:
        self._pool = pool
        self.model = model

    async def generate(
        self, request: GenerationRequest, *, deadline_s: float
    ) -> AsyncGenerator[TextDelta | GenerationEnd, None]:
        """Any number of deltas, then one end. Closing the generator frees the sequence at once (use
        ``contextlib.aclosing``). Raises ContextOverflow, InvalidRequest and all that `Pool.stream` raises."""
        events = self._pool.stream(self.model, "generate", _generation_payload(request), deadline_s=deadline_s)
        async with contextlib.aclosing(events):
            async for event in events:
                with _payload_errors(self.model):
                    item = _end(event.payload) if event.kind == "end" else _delta(event.payload)
                yield item

    async def tokenize(self, text: str, *, deadline_s: float = _SHORT_S) -> list[int]:
        answer = await self._pool.call(self.model, "tokenize", {"text": text}, deadline_s=deadline_s)
        with _payload_errors(self.model):
            return [int(token) for token in answer["tokens"]]

    async def stats(self, *, deadline_s: float = _SHORT_S) -> TextStats:
        answer = await self._pool.call(self.model, "stats", {}, deadline_s=deadline_s)
        with _payload_errors(self.model):
            return TextStats(**{name: int(answer[name]) for name in TextStats.__dataclass_fields__})

    async def forget(self, *, deadline_s: float = _SHORT_S) -> None:
        """Drop every cached prefix that is not in use, so that nothing of the last visitor is left. Loads nothing: a
        worker that does not run holds no cache."""
        if not self._pool.is_loaded(self.model):
            return
        await self._pool.call(self.model, "forget", {}, deadline_s=deadline_s)


class EmbeddingClient:
    """An embedding model."""

    def __init__(self, pool: Pool, model: str) -> None:
        self._pool = pool
        self.model = model

    async def embed(self, texts: Sequence[str], *, deadline_s: float) -> NDArray[float32]:
        """One L2-normalised float32 row a text, shape (len(texts), dim)."""
        return (await self.embed_counted(texts, deadline_s=deadline_s))[0]

    async def embed_counted(self, texts: Sequence[str], *, deadline_s: float) -> tuple[NDArray[float32], int]:
        """As `embed`, with the number of tokens that were read."""
        answer = await self._pool.call(self.model, "embed", {"texts": list(texts)}, deadline_s=deadline_s)
        with _payload_errors(self.model):
            vectors = await asyncio.to_thread(_rows, answer["vectors"], len(texts), int(answer["dim"]))
            return vectors, int(answer["tokens"])


class RankingClient:
    """A ranking model: how well sentences answer a question."""

    def __init__(self, pool: Pool, model: str) -> None:
        self._pool = pool
        self.model = model

    async def rank(self, question: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        """The logit that each text answers the question, in the order of the texts."""
        payload = {"question": question, "texts": list(texts)}
        answer = await self._pool.call(self.model, "rank", payload, deadline_s=deadline_s)
        with _payload_errors(self.model):
            scores = [float(score) for score in answer["scores"]]
            if len(scores) != len(texts):
                raise ValueError(f"{len(scores)} scores for {len(texts)} texts")
            return scores


class IntentClient:
    """Languages and intents. ``vectors`` are the texts' embeddings, None where there is no embedding model."""

    def __init__(self, pool: Pool, model: str) -> None:
        self._pool = pool
        self.model = model

    async def identify(self, text: str, *, deadline_s: float = _SHORT_S) -> tuple[str, float]:
        """The text's language (ISO 639-1) and its probability."""
        answer = await self._pool.call(self.model, "identify", {"text": text}, deadline_s=deadline_s)
        with _payload_errors(self.model):
            return str(answer["language"]), float(answer["probability"])

    async def train(
        self, pack: str, vectors: NDArray[float32] | None, out: str, *, deadline_s: float = _TRAIN_S
    ) -> TrainingReport:
        """Train on a pack's TOML text and write the classifier to ``out``; ``vectors`` in the order of
        ``agent.knowledge.intents.training_texts(pack)``."""
        payload = {"pack": pack, "vectors": _vector_bytes(vectors), "out": out}
        answer = await self._pool.call(self.model, "train", payload, deadline_s=deadline_s)
        with _payload_errors(self.model):
            return TrainingReport(int(answer["intents"]), int(answer["examples"]), float(answer["seconds"]))

    async def classify(
        self, texts: Sequence[str], vectors: NDArray[float32] | None = None, *, deadline_s: float = _SHORT_S
    ) -> list[IntentResult]:
        payload = {"texts": list(texts), "vectors": _vector_bytes(vectors)}
        answer = await self._pool.call(self.model, "classify", payload, deadline_s=deadline_s)
        with _payload_errors(self.model):
            return [
                IntentResult(
                    intent=result["intent"],
                    probability=float(result["probability"]),
                    in_scope_score=float(result["in_scope_score"]),
                    margin=float(result["margin"]),
                    slots=dict(result["slots"]),
                )
                for result in answer["results"]
            ]


class DocumentClient:
    """The parser of documents that strangers wrote."""

    def __init__(self, pool: Pool, model: str) -> None:
        self._pool = pool
        self.model = model

    async def extract(self, name: str, data: bytes, *, deadline_s: float = _EXTRACT_S) -> tuple[str, str]:
        """Title and Markdown text of a file; ``name`` decides the format. Raises InvalidDocument."""
        answer = await self._pool.call(self.model, "extract", {"name": name, "data": data}, deadline_s=deadline_s)
        with _payload_errors(self.model):
            return str(answer["title"]), str(answer["text"])


def _generation_payload(request: GenerationRequest) -> Payload:
    payload: dict[str, Any] = {
        "tools": request.tools,
        "template_variables": dict(request.template_variables),
        "sampling": asdict(request.sampling),
    }
    if request.prompt is not None:
        payload["prompt"] = request.prompt
    else:
        payload["messages"] = [_message(message) for message in request.messages]
    return payload


def _message(message: ChatMessage) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_calls:
        turn["tool_calls"] = [asdict(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _delta(payload: Payload) -> TextDelta:
    return TextDelta(
        str(payload["text"]),
        tuple(
            TokenLogprob(token, logprob, raw, tuple(Alternative(*alternative) for alternative in top))
            for token, logprob, raw, top in payload.get("logprobs") or ()
        ),
    )


def _end(payload: Payload) -> GenerationEnd:
    reason = payload["finish_reason"]
    if reason not in get_args(FinishReason):
        raise ValueError(f"finish_reason {reason!r}")
    return GenerationEnd(
        reason,
        Usage(int(payload["prompt_tokens"]), int(payload["completion_tokens"]), int(payload["cached_tokens"])),
        float(payload["first_token_ms"]),
        float(payload["total_ms"]),
    )


def _vector_bytes(vectors: NDArray[float32] | None) -> bytes | None:
    return None if vectors is None else vectors.astype("<f4", copy=False).tobytes()


def _rows(data: bytes, count: int, dim: int) -> NDArray[float32]:
    """In a thread, for the first one brings numpy."""
    import numpy

    return numpy.frombuffer(data, dtype="<f4").reshape(count, dim)


@contextlib.contextmanager
def _payload_errors(model: str) -> Iterator[None]:
    """Turns what reading a malformed payload raises into WorkerCrashed: its sender is not what it should be."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkerCrashed(
            f"the worker of model {model!r} answered in an unknown form ({type(error).__name__}: {error})",
            remedy="Unload the model; if this stays, the installation mixes versions.",
        ) from error
