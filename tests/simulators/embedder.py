"""An embedder that needs no model: words hashed into fixed directions, so that texts with the same words are near.

It keeps the contract of the embedding worker (unit vectors, a row a text, Unavailable where it is down) and counts what
it was asked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from agent.errors import WorkerCrashed


class WordEmbedder:
    def __init__(self, dim: int = 64) -> None:
        self.dim = dim
        self.asked = 0
        self.down = False

    async def embed(self, texts: Sequence[str], *, deadline_s: float) -> np.ndarray:
        if self.down:
            raise WorkerCrashed("the embedding worker crashed")
        return self.vectors(texts)

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += len(texts)
        return np.array([self._vector(text) for text in texts], dtype=np.float32)

    def _vector(self, text: str) -> np.ndarray:
        total = np.full(self.dim, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
            total += np.random.default_rng(seed).standard_normal(self.dim)
        return total / np.linalg.norm(total)
