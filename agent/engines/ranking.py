"""The ranking engine: how well each of some sentences answers a question, inside a worker.

Question and sentence are read apart by one encoder and compared token by token (late interaction, after ColBERT,
Khattab and Zaharia 2020); `models/reference/ranker/recipe/train.py` has the same arithmetic in torch and says what each
signal is for. ``load`` wants ``tokenizer.json`` and ``judge.npz`` (the learned weights of the comparison) beside the
entry file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.engines.embedding import TextEncoder
from agent.engines.protocol import LoadSpec, Payload, SequentialEngine
from agent.errors import BadModel, InvalidRequest

Array = NDArray[np.float32]

QUESTION_TOKENS, TEXT_TOKENS = 40, 96
MISSED_BELOW, MISSED_STEEPNESS = 0.45, 12.0
"""A question's token whose nearest token has a lower cosine counts as missed, softly."""
_POINTS = math.log(8)
_SHAPES = {
    "importance": (384,),
    "pointer": (384, 384),
    "plain.weight": (1, 4),
    "plain.bias": (1,),
    "first.weight": (16, 4),
    "first.bias": (16,),
    "second.weight": (1, 16),
    "second.bias": (1,),
}


@dataclass(frozen=True, slots=True)
class Judge:
    """The learned comparison of two texts' token states."""

    weights: dict[str, Array]

    @classmethod
    def load(cls, path: Path) -> Judge:
        """Raises BadModel."""
        try:
            with np.load(path, allow_pickle=False) as file:
                weights = {name: file[name].astype(np.float32) for name in _SHAPES}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise BadModel(f"cannot load {path}: {error}", remedy="Verify the model's files.") from error
        for name, shape in _SHAPES.items():
            if weights[name].shape != shape or not np.isfinite(weights[name]).all():
                raise BadModel(f"{path}: {name} has the shape {weights[name].shape} or holds no numbers")
        return cls(weights)

    def __call__(self, question: Array, text: Array) -> float:
        """The logit that the text answers the question; states of their tokens, (tokens, 384), markers included."""
        w = self.weights
        mean_q, mean_t = question.mean(axis=0), text.mean(axis=0)
        unit_q, unit_t = mean_q / _norm(mean_q), mean_t / _norm(mean_t)
        inner = question[1:-1] if len(question) > 2 else question
        near = (inner / _norm(inner)) @ (text / _norm(text)).T
        best = near.max(axis=1)
        share = inner @ w["importance"]
        share = np.exp(share - share.max())
        share /= share.sum()
        missed = 1.0 / (1.0 + np.exp(-(MISSED_BELOW - best) * MISSED_STEEPNESS))
        points = text @ (w["pointer"].T @ unit_q)
        top = points.max()
        pointed = float(top + np.log(np.exp(points - top).sum())) - _POINTS
        cosine = float(unit_q @ unit_t)
        found = np.array([cosine, share @ best, share @ missed, pointed], dtype=np.float32)
        inside = np.tanh(w["first.weight"] @ found + w["first.bias"])
        logit = w["plain.weight"] @ found + w["plain.bias"] + w["second.weight"] @ inside + w["second.bias"]
        return float(logit[0])


class RankingEngine(SequentialEngine):
    """The one operation is ``rank``: {question, texts} -> {scores}, a logit a text in the order of the texts."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder: TextEncoder
        self._judge: Judge

    def load(self, spec: LoadSpec) -> Payload:
        """Raises BadModel."""
        entry = Path(spec.entry)
        self._encoder = TextEncoder(entry, threads=int(spec.options.get("threads") or 1), max_tokens=TEXT_TOKENS)
        self._judge = Judge.load(entry.parent / "judge.npz")
        self.smoke_test()
        return {}

    def smoke_test(self) -> None:
        self.rank("smoke test", ["one short text"])

    def rank(self, question: str, texts: list[str]) -> list[float]:
        """Raises BadModel where the model gives a score that is not finite."""
        asked = self._states(question, QUESTION_TOKENS)
        scores = [self._judge(asked, self._states(text, TEXT_TOKENS)) for text in texts]
        if not all(map(math.isfinite, scores)):
            raise BadModel("the ranking model gives a score that is not finite", remedy="Verify its files.")
        return scores

    def handle(self, op: str, payload: Payload) -> Payload:
        """Raises InvalidRequest for another operation or texts that are none."""
        if op != "rank":
            raise InvalidRequest(f"the ranking engine has no operation {op!r}", remedy="It knows 'rank'.")
        question: Any = payload.get("question")
        texts: Any = payload.get("texts")
        if not isinstance(question, str) or not isinstance(texts, (list, tuple)):
            raise InvalidRequest("'question' must be a string and 'texts' a list of strings", param="texts")
        if not all(isinstance(text, str) for text in texts):
            raise InvalidRequest("'texts' must be a list of strings", param="texts")
        return {"scores": self.rank(question, list(texts))}

    def _states(self, text: str, limit: int) -> Array:
        tokens = self._encoder.tokens(text)
        return self._encoder.states(tokens if len(tokens) <= limit else [*tokens[: limit - 1], tokens[-1]])


def _norm(x: Array) -> Array:
    length: Array = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.maximum(length, 1e-9)
