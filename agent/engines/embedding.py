"""The embedding engine: an ONNX encoder that turns texts into L2-normalised vectors, inside a worker.

Texts are embedded one at a time: with int8 models the result depends on what else is in the batch (cosine down to
.9875), so index and query must be computed alike. That also makes a text the natural step: requests take turns, text by
text, and a visitor's question waits for one text of a running ingest and not for all of it.

``load`` wants ``tokenizer.json`` beside the entry file. Options: ``threads`` (default 1: short texts gain nothing from
more), ``max_tokens`` (256; the rest of a longer text is ignored).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.engines.protocol import EngineEvent, LoadSpec, Payload, error_event
from agent.errors import BadModel, InvalidRequest

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

Vector = NDArray[np.float32]

MAX_TOKENS = 256
_CHARS_PER_TOKEN = 32
"""No text needs more characters to fill its tokens; the rest is cut before the tokenizer has to read it."""


@dataclass(slots=True)
class _Request:
    texts: tuple[str, ...]
    vectors: list[Vector] = field(default_factory=list)
    tokens: int = 0


class TextEncoder:
    """A BERT-like ONNX model with its tokenizer: from a text to the states of its tokens. Raises BadModel."""

    def __init__(self, entry: Path, *, threads: int = 1, max_tokens: int = MAX_TOKENS) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = _open_tokenizer(entry.parent / "tokenizer.json", max_tokens)
        self._session = _open_session(entry, threads=threads)
        self._inputs = frozenset(node.name for node in self._session.get_inputs())
        unknown = self._inputs - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown or "input_ids" not in self._inputs:
            raise BadModel(f"{entry} is not a text encoder: it takes {sorted(self._inputs)}")

    def tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text[: self.max_tokens * _CHARS_PER_TOKEN]).ids
        return ids

    def states(self, tokens: list[int]) -> Vector:
        """float32 (tokens, dim). Raises BadModel where the model gives anything else."""
        ids = np.array([tokens], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        try:
            hidden = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        except Exception as error:  # onnxruntime's errors share no base below Exception
            raise BadModel(f"the embedding model failed: {error}", remedy="Verify its files.") from error
        if hidden.ndim != 3 or hidden.shape[:2] != ids.shape:
            raise BadModel(f"the embedding model gives an output of shape {hidden.shape} for {ids.shape[1]} tokens")
        states: Vector = hidden[0].astype(np.float32)
        return states


class EmbeddingEngine:
    """See the module; an `agent.engines.protocol.Engine` with the one operation ``embed``."""

    def __init__(self) -> None:
        self._encoder: TextEncoder
        self._dim = 0
        self._requests: OrderedDict[int, _Request] = OrderedDict()

    def load(self, spec: LoadSpec) -> Payload:
        """Returns ``dim`` and ``max_tokens``. Raises BadModel."""
        self._encoder = TextEncoder(
            Path(spec.entry),
            threads=int(spec.options.get("threads") or 1),
            max_tokens=int(spec.options.get("max_tokens") or MAX_TOKENS),
        )
        self.smoke_test()
        return {"dim": self._dim, "max_tokens": self._encoder.max_tokens}

    def smoke_test(self) -> None:
        """Embeds one short text, which also finds the model's dimension."""
        self._dim = len(self.embed("smoke test"))

    def embed(self, text: str) -> Vector:
        """The L2-normalised mean of the text's token vectors. Raises BadModel where the model gives none that is
        finite: flipped bytes in an ONNX file load silently, and a NaN would poison the index silently too."""
        return self._vector(self._encoder.tokens(text))

    def _vector(self, tokens: list[int]) -> Vector:
        mean: Vector = self._encoder.states(tokens).mean(axis=0)
        length = float(np.linalg.norm(mean))
        if not np.isfinite(length) or length == 0:
            raise BadModel("the embedding model gives a vector that is not finite or zero", remedy="Verify its files.")
        return mean / length

    def submit(self, id: int, op: str, payload: Payload) -> None:
        """Raises InvalidRequest for another operation than ``embed`` and for texts that are not a list of strings."""
        if op != "embed":
            raise InvalidRequest(f"the embedding engine has no operation {op!r}", remedy="It knows 'embed'.")
        texts: Any = payload.get("texts")
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise InvalidRequest("'texts' must be a list of strings", param="texts")
        self._requests[id] = _Request(tuple(texts))

    def cancel(self, id: int) -> None:
        self._requests.pop(id, None)

    def step(self) -> Iterable[EngineEvent]:
        """Embeds the next text of the request whose turn it is."""
        id, request = self._requests.popitem(last=False)
        try:
            if len(request.vectors) < len(request.texts):
                tokens = self._encoder.tokens(request.texts[len(request.vectors)])
                request.vectors.append(self._vector(tokens))
                request.tokens += len(tokens)
        except Exception as error:  # the worker's boundary: any failure is this request's error
            return [error_event(id, error)]
        if len(request.vectors) < len(request.texts):
            self._requests[id] = request
            return []
        raw = b"".join(vector.astype("<f4").tobytes() for vector in request.vectors)
        return [EngineEvent("end", id, {"dim": self._dim, "vectors": raw, "tokens": request.tokens})]

    @property
    def busy(self) -> bool:
        return bool(self._requests)


def _open_session(path: Path, *, threads: int) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning costs 3.5x the CPU for the same latency; the arena keeps the largest text's memory for ever.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        # The fused skip + layer norm kernel is scalar: without it a text takes a quarter less.
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
        )
    except Exception as error:  # onnxruntime's errors share no base below Exception
        raise BadModel(f"cannot load {path}: {error}", remedy="Verify the model's files.") from error


def _open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise BadModel(f"cannot load {path}: {error}", remedy="Verify the model's files.") from error
    tokenizer.no_padding()  # the published file pads every text to 128 tokens
    tokenizer.enable_truncation(max_tokens)
    return tokenizer
