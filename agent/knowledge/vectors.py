"""Which texts of a chunk are embedded, and how their vectors are stored: pure functions on numpy arrays.

A chunk gives one vector for itself, one for every pair of neighbouring sentences (both found by search), and two for
every sentence, alone and with its heading (compared by the quotes). Vectors are int8 with a scale of their own that is
not kept: cosines do not need it. numpy is imported late: the control process does without it until the first vector.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

from agent.errors import BadModel
from agent.knowledge.chunks import Chunk, with_heading

if TYPE_CHECKING:
    from numpy import float32, int8
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[float32]
    Codes: TypeAlias = NDArray[int8]


class Kind(IntEnum):
    """What a stored vector stands for; the numbers are in the database."""

    PARAGRAPH = 0
    PAIR = 1
    SENTENCE = 2
    HEADED = 3


@dataclass(frozen=True, slots=True)
class ChunkVectors:
    """The int8 vectors of one chunk, a row each: ``pairs`` has one row where there is one sentence."""

    paragraph: Codes
    pairs: Codes
    sentences: Codes
    headed: Codes

    def rows(self) -> list[tuple[Kind, int, Codes]]:
        """Every vector with its kind and position."""
        parts = (
            (Kind.PARAGRAPH, self.paragraph),
            (Kind.PAIR, self.pairs),
            (Kind.SENTENCE, self.sentences),
            (Kind.HEADED, self.headed),
        )
        return [(kind, position, row) for kind, matrix in parts for position, row in enumerate(matrix)]


def texts_of(chunk: Chunk) -> list[str]:
    """The texts to embed for a chunk, each once; `of_chunk` takes their vectors in this order."""
    return list(dict.fromkeys(text for texts in _parts(chunk) for text in texts))


def of_chunk(chunk: Chunk, vectors: Floats) -> ChunkVectors:
    """The chunk's vectors from those of its `texts_of`. Raises BadModel where they are unusable."""
    texts = texts_of(chunk)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise BadModel(f"the embedding model gave vectors of shape {vectors.shape} for {len(texts)} texts")
    codes = to_int8(vectors)
    row = {text: number for number, text in enumerate(texts)}
    paragraph, pairs, sentences, headed = (codes[[row[text] for text in part]] for part in _parts(chunk))
    return ChunkVectors(paragraph, pairs, sentences, headed)


def to_int8(vectors: Floats) -> Codes:
    """Codes of -127..127 along each row's own largest number. Raises BadModel for NaN, infinity and zero rows, which
    sqlite-vec would take without a word."""
    import numpy as np

    largest = np.abs(vectors).max(axis=-1, keepdims=True) if vectors.size else np.ones((0, 1), np.float32)
    if not (np.isfinite(largest).all() and (largest > 0).all()):
        raise BadModel("the embedding model gave a vector that is not finite or zero", remedy="Verify its files.")
    return np.rint(vectors * (127 / largest)).astype(np.int8)


def query_codes(vector: Floats) -> Codes:
    """`to_int8` of one vector. Raises BadModel."""
    if vector.ndim != 1:
        raise BadModel(f"the question's embedding has the shape {vector.shape}")
    codes: Codes = to_int8(vector[None])[0]
    return codes


def unit_of(vector: Floats) -> Floats:
    import numpy as np

    unit: Floats = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def to_unit(blobs: Sequence[bytes], dim: int) -> Floats:
    """Stored vectors as float32 rows of length 1."""
    import numpy as np

    codes = np.frombuffer(b"".join(blobs), dtype=np.int8).reshape(-1, dim).astype(np.float32)
    unit: Floats = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    return unit


def _parts(chunk: Chunk) -> tuple[list[str], list[str], list[str], list[str]]:
    """Texts of the paragraph, the pairs, the sentences and the sentences with heading."""
    alone = [sentence.search for sentence in chunk.sentences]
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(alone)] or alone
    headed = [with_heading(chunk.heading, text) for text in alone]
    return [with_heading(chunk.heading, chunk.search)], pairs, alone, headed
