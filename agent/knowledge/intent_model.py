"""The intent classifier: features, training, calibration and the .npz file. numpy only; runs in the intents worker.

Two linear heads (multinomial logistic regression) stand side by side: one on hashed TF-IDF of words and characters,
one on the sentence embedding. With an embedding their logits are mixed; without one the first answers alone, with a
calibration of its own. All that turns logits into numbers which people rely on (temperature, in-scope score) is fitted
on logits of texts that the heads had not seen, by cross-validation inside the pack.

The in-scope score is a logistic combination of a few features that are standardised on the pack's own examples. Its
weights start from a prior that was fitted on CLINC150 (see _PRIOR) and move as far as the pack's out_of_scope sentences
carry them, so that a pack with none still rejects, and a pack with many rejects what its author meant.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadModel, InvalidDocument, InvalidRequest, StorageFailed, StorageFull
from agent.knowledge.intents import MAX_TEXT_CHARS, IntentPack, find_slots, parse_pack, training_texts
from agent.messages import IntentResult

Floats = NDArray[np.float32]
Rows = NDArray[np.float64]
Labels = NDArray[np.int64]

FORMAT: Final = 1
BUCKETS: Final = 1024
"""Hash buckets of words and, again, of character n-grams. Twice as many cost four times the training and gain under
0.5 % of accuracy on CLINC150 (tests/benchmarks/figures/intents.md)."""
EMBEDDING_SHARE: Final = 0.7
_ROUNDS: Final = 40
THRESHOLD: Final = 0.5
"""From which in-scope score on a text counts as one of the intents; the score is fitted for this border."""
MAX_FILE_BYTES: Final = 512 * 1024 * 1024
_RETRAIN: Final = "Train the pack again: outpost intents train PACK"
_RIDGE_TEXT: Final = 0.1
_RIDGE_EMBEDDING: Final = 0.2
_LIKELY: Final = 3
_SWEEPS: Final = 150
_UNKNOWN_COUNT: Final = 5
_OUTSIDE_WEIGHT: Final = 1.5
"""A question taken for an intent is worse than an intent taken for a question, which the documents or a person get."""
_PRIOR_STRENGTH: Final = 1.0
_FEATURES: Final = 5
_PRIORS: Final = {
    # (with an embedding, with out-of-scope sentences): weights of the features of `scope_features`, and the constant
    (True, True): (1.5, 0.5, 0.2, 0.15, 0.75, 4.2),
    (True, False): (1.8, 0.5, 0.0, 0.25, 0.25, 4.0),
    (False, True): (1.9, 0.4, 0.85, 0.0, 0.0, 3.4),
    (False, False): (2.5, 0.5, 0.0, 0.0, 0.0, 3.4),
}
"""Fitted on packs of 8 to 40 intents with 8 to 20 examples each, drawn from CLINC150's training split, against its
out-of-scope training sentences and sentences of the intents that were left out."""
_WORDS = re.compile(r"\w+")


# ---------------------------------------------------------------- features of a text


@dataclass(frozen=True, slots=True)
class Sparse:
    """Rows of a sparse matrix: row i holds ``values[starts[i]:starts[i+1]]`` at the columns of the same slice."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Floats

    def dense(self) -> Floats:
        rows = len(self.starts) - 1
        out = np.zeros((rows, 2 * BUCKETS), np.float32)
        np.add.at(out, (np.repeat(np.arange(rows), np.diff(self.starts)), self.columns), self.values)
        return out

    def times(self, weights: Floats) -> Floats:
        """This matrix times a dense one, row by row: a text has some hundred entries."""
        out = np.empty((len(self.starts) - 1, weights.shape[1]), np.float32)
        for row, (start, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            out[row] = self.values[start:end] @ weights[self.columns[start:end]]
        return out


def _grams(text: str) -> tuple[list[str], list[str]]:
    """Words with pairs of neighbours, and character n-grams (2 to 5) inside of words with their borders."""
    words = _WORDS.findall(text[:MAX_TEXT_CHARS].casefold())
    framed = ["^", *words, "$"]
    pairs = [f"{left} {right}" for left, right in itertools.pairwise(framed)]
    chars = []
    for word in words:
        padded = f" {word} "
        for size in range(2, 6):
            chars += [padded[i : i + size] for i in range(len(padded) - size + 1)]
    return words + pairs, chars


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How rare a gram is: ``hashes`` (sorted) with their ``idf``; a gram that training never saw is the rarest.

    Grams are known by a 32-bit hash only; a collision among some ten thousand merely blurs one weight.
    """

    hashes: NDArray[np.uint32]
    idf: Floats
    unseen: float

    @classmethod
    def of(cls, texts: Sequence[str]) -> Vocabulary:
        seen = [np.unique(np.concatenate([hashes for hashes, _ in _hashed(text)])) for text in texts]
        hashes, counts = np.unique(np.concatenate(seen), return_counts=True)
        idf = np.log((1 + len(texts)) / (1 + counts)) + 1
        return cls(hashes, idf.astype(np.float32), float(np.log(1 + len(texts)) + 1))

    def features(self, texts: Sequence[str]) -> Sparse:
        lengths, columns, values = [0], [np.zeros(0, np.int64)], [np.zeros(0)]
        for text in texts:
            for block, (hashes, counts) in enumerate(_hashed(text)):
                if len(hashes):
                    at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
                    idf = np.where(self.hashes[at] == hashes, self.idf[at], self.unseen)
                    weight = (1 + np.log(counts)) * idf
                    weight *= np.sqrt(0.5) / np.linalg.norm(weight)
                    # Fibonacci hashing spreads the CRC; another of its bits is the sign, so that collisions cancel.
                    spread = (hashes.astype(np.uint64) * np.uint64(2654435761)) >> np.uint64(7)
                    columns.append((spread % np.uint64(BUCKETS)).astype(np.int64) + block * BUCKETS)
                    values.append(np.where(hashes & np.uint32(1 << 16), weight, -weight))
                lengths[-1] += len(hashes)
            lengths.append(0)
        return Sparse(np.cumsum([0, *lengths[:-1]]), np.concatenate(columns), np.concatenate(values).astype(np.float32))


def _hashed(text: str) -> tuple[tuple[NDArray[np.uint32], NDArray[np.float64]], ...]:
    """For words and for characters: the hashes of the grams in a text and how often each stands there."""
    blocks = []
    for prefix, grams in zip((b"w", b"c"), _grams(text), strict=True):
        codes = np.array([zlib.crc32(gram.encode("utf-8", "replace"), prefix[0]) for gram in grams], np.uint32)
        hashes, counts = np.unique(codes, return_counts=True)
        blocks.append((hashes, counts.astype(np.float64)))
    return tuple(blocks)


# ---------------------------------------------------------------- fitting


def fit_logistic(blocks: Sequence[Floats], labels: Sequence[Labels], classes: int, ridge: float) -> Floats:
    """Weights (features x classes) of multinomial logistic regression with an L2 penalty; the same on every run. The
    rows come in blocks, so that cross-validation leaves one out without copying the others.

    Accelerated majorise-minimise: the Hessian is bounded by half the Gram matrix (Boehning), which is inverted once, so
    that every round costs two matrix products. With fewer rows than features the rows are rotated into the space that
    they span, which changes nothing but the cost.
    """
    features = blocks[0].shape[1]
    if sum(map(len, blocks)) >= features:
        return _descend(blocks, labels, classes, ridge)
    rows = np.concatenate(blocks)
    values, vectors = np.linalg.eigh(rows.astype(np.float64) @ rows.T.astype(np.float64))
    keep = values > 1e-7 * values[-1]
    scale = np.sqrt(values[keep])
    spanned = (vectors[:, keep] * scale).astype(np.float32)
    back = rows.T @ (vectors[:, keep] / scale).astype(np.float32)
    return np.asarray(back @ _descend([spanned], [np.concatenate(labels)], classes, ridge), np.float32)


def _descend(blocks: Sequence[Floats], labels: Sequence[Labels], classes: int, ridge: float) -> Floats:
    bound = sum((0.5 * (rows.T @ rows) for rows in blocks), np.zeros((), np.float32))
    bound[np.diag_indices(len(bound))] += ridge
    step = np.linalg.inv(bound).astype(np.float32)
    weights = np.zeros((len(bound), classes), np.float32)
    ahead, momentum = weights, 1.0
    for _ in range(_ROUNDS):
        gradient = np.float32(ridge) * ahead
        for rows, wanted in zip(blocks, labels, strict=True):
            gap = softmax(rows @ ahead)
            gap[np.arange(len(rows)), wanted] -= 1
            gradient += rows.T @ gap
        moved = ahead - step @ gradient
        if float(np.vdot(ahead - moved, moved - weights)) > 0:
            momentum = 1.0  # overshot: start to gather speed again
        faster = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = moved + np.float32((momentum - 1) / faster) * (moved - weights)
        weights, momentum = moved, float(faster)
    return weights


def softmax(logits: Floats) -> Floats:
    out: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    out /= out.sum(axis=1, keepdims=True)
    return out


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """What to divide logits by so that their softmax is least surprised by the labels (0.05 to 5).

    The labels count as wrong once in n + 2 times (rule of succession), else a pack whose every example is classified
    right when held out would promise certainty.
    """
    here = np.arange(len(labels))
    others = 1 / ((len(labels) + 2) * (logits.shape[1] - 1))
    right = 1 - (logits.shape[1] - 1) * others

    def surprise(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -float(((right - others) * scaled[here, labels] + others * scaled.sum(axis=1)).mean())

    grid = np.geomspace(0.05, 5.0, 61)
    return float(grid[int(np.argmin([surprise(float(t)) for t in grid]))])


@dataclass(frozen=True, slots=True)
class Scope:
    """The in-scope score: standardise features by ``mean`` and ``spread``, then a logistic with ``weights`` (the last
    one is the constant)."""

    mean: Rows
    spread: Rows
    weights: Rows

    def score(self, features: Rows) -> Rows:
        z = self._standard(features) @ self.weights
        return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))))

    def _standard(self, features: Rows) -> Rows:
        z = np.clip((features - self.mean) / self.spread, -8, 8)
        return np.hstack([z, np.ones((len(z), 1))])

    @classmethod
    def fit(cls, inside: Rows, outside: Rows, unknown: Rows, prior: Rows) -> Scope:
        """Weights between ``prior`` and what best parts the two sets, however many texts they hold (_OUTSIDE_WEIGHT:
        how the second counts against the first); with few texts outside the prior prevails. Always outside is the text
        of which nothing is known."""
        spread = np.maximum(inside.std(axis=0), 1e-3)
        scope = cls(inside.mean(axis=0), spread, prior)
        outside = np.vstack([outside, np.repeat(unknown[None], _UNKNOWN_COUNT, axis=0)])
        rows = np.vstack([scope._standard(inside), scope._standard(outside)])
        labels = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        size = min(len(inside), len(outside))
        importance = np.r_[
            np.full(len(inside), size / len(inside)), np.full(len(outside), _OUTSIDE_WEIGHT * size / len(outside))
        ]
        weights = prior.copy()
        steps = 0.25 * importance @ rows**2 + _PRIOR_STRENGTH  # bounds of the curvature, so that no step overshoots
        for _ in range(_SWEEPS):
            for number in range(len(weights)):
                p = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
                gradient = rows[:, number] @ (importance * (p - labels)) + _PRIOR_STRENGTH * (weights - prior)[number]
                weights[number] -= gradient / steps[number]
                if number < len(weights) - 1:  # every feature speaks for the text being in scope
                    weights[number] = max(weights[number], 0.0)
        return cls(scope.mean, scope.spread, weights)


# ---------------------------------------------------------------- the model


@dataclass(frozen=True, slots=True)
class Head:
    """Calibration of one way to answer: with the embedding, or by the text alone."""

    temperature: float
    scope: Scope


@dataclass(frozen=True, slots=True)
class Examples:
    """The training texts' embeddings in eight bits, row by row with a scale, sorted by class (the out-of-scope
    sentences last); ``borders[c]:borders[c + 1]`` are the rows of class c."""

    rows: NDArray[np.int8]
    scales: Floats
    borders: NDArray[np.int64]

    def nearest(self, vector: Floats, label: int) -> float:
        """The highest cosine to an example of a class."""
        part = slice(int(self.borders[label]), int(self.borders[label + 1]))
        if part.start == part.stop:
            return 0.0
        return float(((self.rows[part].astype(np.float32) @ vector) * self.scales[part]).max())


def scope_features(logits: Floats, temperature: float, intents: int, nearest: Rows) -> Rows:
    """What the in-scope score is made of, one row a text: the energy (log-sum-exp) of the intents' calibrated logits,
    the margin between the best two, the best intent's lead over the out-of-scope class, the highest cosine to an
    example of the likeliest intents, and how far that is above the highest to an out-of-scope sentence. ``nearest``
    holds these two cosines."""
    scaled = logits.astype(np.float64) / temperature
    inside = scaled[:, :intents]
    top = np.sort(inside, axis=1)[:, -2:]
    energy = top[:, 1] + np.log(np.exp(inside - top[:, 1:]).sum(axis=1))
    lead = top[:, 1] - scaled[:, intents] if scaled.shape[1] > intents else np.zeros(len(scaled))
    return np.column_stack([energy, top[:, 1] - top[:, 0], lead, nearest[:, 0], nearest[:, 0] - nearest[:, 1]])


@dataclass(frozen=True, slots=True)
class IntentModel:
    """A trained pack. ``embedding`` names the embedding model of the vectors it was trained on, or is "none"; then
    ``embedding_weights``, ``examples`` and ``full`` are None."""

    pack: IntentPack
    pack_text: str
    embedding: str
    vocabulary: Vocabulary
    text_weights: Floats
    text: Head
    embedding_weights: Floats | None = None
    examples: Examples | None = None
    full: Head | None = None

    def classify(self, texts: Sequence[str], vectors: bytes | None) -> list[IntentResult]:
        """One result a text. ``vectors`` are their embeddings (float32, little-endian, row by row); without them, or
        where training had none, the text alone decides. Raises InvalidRequest for vectors of another size."""
        if not texts:
            return []
        intents = len(self.pack.intents)
        logits = self.vocabulary.features(texts).times(self.text_weights)
        nearest = np.zeros((len(texts), 2))
        head = self.text
        if vectors is not None and self.embedding_weights is not None and self.examples and self.full:
            embedded = read_vectors(vectors, len(texts), len(self.embedding_weights))
            logits = mix(embedded @ self.embedding_weights, logits)
            head = self.full
            for row, vector in enumerate(embedded):
                likely = np.argsort(-logits[row, :intents])[:_LIKELY]
                nearest[row, 0] = max(self.examples.nearest(vector, int(label)) for label in likely)
                nearest[row, 1] = self.examples.nearest(vector, intents)
        probability = softmax(logits[:, :intents] / np.float32(head.temperature))
        features = scope_features(logits, head.temperature, intents, nearest)
        scores = head.scope.score(features)
        best = probability.argmax(axis=1)
        results = []
        for row, text in enumerate(texts):
            intent = self.pack.intents[int(best[row])]
            results.append(
                IntentResult(
                    intent=intent.name,
                    probability=float(probability[row, best[row]]),
                    in_scope_score=float(scores[row]),
                    margin=float(features[row, 1]),
                    slots=find_slots(intent, text),
                )
            )
        return results

    def save(self, path: Path) -> None:
        """Write the file in one move: a reader sees the old one or the new one. Raises StorageFull, StorageFailed."""
        meta = {
            "format": FORMAT,
            "pack_sha256": self.pack.sha256,
            "embedding": self.embedding,
            "classes": [intent.name for intent in self.pack.intents],
            "unseen": self.vocabulary.unseen,
            "threshold": THRESHOLD,
            "heads": {name: _head_to_json(head) for name, head in (("text", self.text), ("full", self.full)) if head},
        }
        arrays: dict[str, NDArray[Any]] = {
            "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
            "pack": np.frombuffer(self.pack_text.encode(), np.uint8),
            "hashes": self.vocabulary.hashes,
            "idf": self.vocabulary.idf,
            "text_weights": self.text_weights,
        }
        if self.embedding_weights is not None and self.examples is not None:
            arrays |= {
                "embedding_weights": self.embedding_weights,
                "example_rows": self.examples.rows,
                "example_scales": self.examples.scales,
                "example_borders": self.examples.borders,
            }
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes the names for allow_pickle
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            kind = StorageFull if error.errno == errno.ENOSPC else StorageFailed
            raise kind(
                f"cannot write the trained pack {path}: {error.strerror}", remedy="Check the folder and its free space."
            ) from error

    @classmethod
    def load(cls, path: Path) -> IntentModel:
        """Raises BadModel where the file is missing, damaged, or not what `save` writes."""
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_FILE_BYTES:
                raise BadModel(f"{path} unpacks to {size} bytes, over the limit of {MAX_FILE_BYTES}", remedy=_RETRAIN)
            with np.load(path, allow_pickle=False) as archive:
                return _unpack({name: archive[name] for name in archive.files})
        except OSError as error:
            raise BadModel(
                f"cannot read the trained pack {path}: {error.strerror or error}", remedy=_RETRAIN
            ) from error
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, InvalidDocument) as error:
            raise BadModel(f"{path} is not a trained intent pack: {error}", remedy=_RETRAIN) from error


def _head_to_json(head: Head) -> dict[str, Any]:
    scope = head.scope
    return {
        "temperature": head.temperature,
        "mean": scope.mean.tolist(),
        "spread": scope.spread.tolist(),
        "weights": scope.weights.tolist(),
    }


def _head(data: Mapping[str, Any]) -> Head:
    temperature = float(data["temperature"])
    mean, spread, weights = (np.array(data[name], np.float64) for name in ("mean", "spread", "weights"))
    shapes = (mean.shape, spread.shape, weights.shape)
    if shapes != ((_FEATURES,), (_FEATURES,), (_FEATURES + 1,)):
        raise ValueError(f"a calibration has the shapes {shapes}")
    if not (np.isfinite([temperature, *mean, *spread, *weights]).all() and temperature > 0 and spread.min() > 0):
        raise ValueError("a calibration holds values that are not finite or not positive")
    return Head(temperature, Scope(mean, spread, weights))


def _array(arrays: Mapping[str, NDArray[Any]], name: str, kind: type, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """A checked array: its type, its shape (None: any length) and that all is finite. Raises ValueError, KeyError."""
    array = arrays[name]
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if array.dtype != np.dtype(kind) or not fits:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def _unpack(arrays: Mapping[str, NDArray[Any]]) -> IntentModel:
    meta = json.loads(_array(arrays, "meta", np.uint8, (None,)).tobytes())
    if meta["format"] != FORMAT:
        raise ValueError(f"its format is {meta['format']!r}, and this version reads {FORMAT}")
    pack_text = _array(arrays, "pack", np.uint8, (None,)).tobytes().decode()
    pack = parse_pack(pack_text, "the pack inside")
    names = [intent.name for intent in pack.intents]
    if meta["pack_sha256"] != pack.sha256 or meta["classes"] != names:
        raise ValueError("the pack inside is not the one it was trained on")
    classes = len(names) + bool(pack.out_of_scope)
    hashes = _array(arrays, "hashes", np.uint32, (None,))
    vocabulary = Vocabulary(hashes, _array(arrays, "idf", np.float32, (len(hashes),)), float(meta["unseen"]))
    if not len(hashes) or not np.isfinite(vocabulary.unseen) or (hashes[1:] <= hashes[:-1]).any():
        raise ValueError("its vocabulary is out of order")
    weights = _array(arrays, "text_weights", np.float32, (2 * BUCKETS, classes))
    head = _head(meta["heads"]["text"])
    if meta["embedding"] == "none":
        return IntentModel(pack, pack_text, "none", vocabulary, weights, head)
    embedding_weights = _array(arrays, "embedding_weights", np.float32, (None, classes))
    count = len(training_texts(pack))
    borders = _array(arrays, "example_borders", np.int64, (len(names) + 2,))
    if borders[0] != 0 or borders[-1] != count or (np.diff(borders) < 0).any():
        raise ValueError(f"example_borders does not part {count} examples")
    examples = Examples(
        _array(arrays, "example_rows", np.int8, (count, len(embedding_weights))),
        _array(arrays, "example_scales", np.float32, (count,)),
        borders,
    )
    full = _head(meta["heads"]["full"])
    return IntentModel(
        pack, pack_text, str(meta["embedding"]), vocabulary, weights, head, embedding_weights, examples, full
    )


def mix(embedded: Floats, text: Floats) -> Floats:
    return np.asarray(EMBEDDING_SHARE * embedded + (1 - EMBEDDING_SHARE) * text, np.float32)


def read_vectors(data: bytes, rows: int, dim: int | None = None) -> Floats:
    """Raises InvalidRequest."""
    if rows == 0 or len(data) % (4 * rows) or len(data) == 0 or dim not in (None, len(data) // (4 * rows)):
        raise InvalidRequest(
            f"{len(data)} bytes of vectors do not fit {rows} text(s)" + (f" of {dim} dimensions" if dim else ""),
            remedy="Embed the same texts with the embedding model that the pack was trained with.",
        )
    vectors = np.frombuffer(data, "<f4").reshape(rows, -1)
    if not np.isfinite(vectors).all():
        raise InvalidRequest("the vectors hold values that are not finite", remedy="Check the embedding model.")
    return vectors


# ---------------------------------------------------------------- training


@dataclass(frozen=True, slots=True)
class Report:
    intents: int
    examples: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """Logits of every training text by heads that had not seen it, and its nearest examples among those they had."""

    text: Floats
    full: Floats | None
    nearest: Rows


def train_model(pack_text: str, vectors: bytes | None, embedding: str) -> IntentModel:
    """Learn a pack. Raises InvalidDocument for the pack, InvalidRequest for the vectors."""
    pack = parse_pack(pack_text)
    texts = training_texts(pack)
    intents = len(pack.intents)
    sizes = [len(intent.examples) for intent in pack.intents] + ([len(pack.out_of_scope)] if pack.out_of_scope else [])
    labels = np.repeat(np.arange(len(sizes)), sizes)
    embedded = None if vectors is None else read_vectors(vectors, len(texts))
    vocabulary = Vocabulary.of(texts)
    fold = folds(labels)
    order = np.argsort(fold, kind="stable")
    rows, wanted = vocabulary.features([texts[number] for number in order]).dense(), labels[order]
    held = hold_out(rows, None if embedded is None else embedded[order], wanted, fold[order], intents)
    text_head = calibrate(held.text, wanted, intents, None)
    text_weights = fit_logistic([rows], [wanted], len(sizes), _RIDGE_TEXT)
    if embedded is None or held.full is None:
        return IntentModel(pack, pack_text, "none", vocabulary, text_weights, text_head)
    scales = np.maximum(np.abs(embedded).max(axis=1), 1e-9) / 127
    borders = np.cumsum([0, *sizes, *([0] if len(sizes) == intents else [])])
    return IntentModel(
        pack,
        pack_text,
        embedding,
        vocabulary,
        text_weights,
        text_head,
        fit_logistic([embedded], [labels], len(sizes), _RIDGE_EMBEDDING),
        Examples(np.round(embedded / scales[:, None]).astype(np.int8), scales.astype(np.float32), borders),
        calibrate(held.full, wanted, intents, held.nearest),
    )


def train(pack_text: str, vectors: bytes | None, embedding: str, out: Path) -> Report:
    """`train_model` and `IntentModel.save`, timed."""
    started = time.perf_counter()
    model = train_model(pack_text, vectors, embedding)
    model.save(out)
    return Report(len(model.pack.intents), len(training_texts(model.pack)), time.perf_counter() - started)


def folds(labels: Labels) -> Labels:
    """Which fold each text is in, every class spread over all of them: as good as leaving one out in small packs, three
    folds in large ones."""
    count = 20 if len(labels) < 600 else 5 if len(labels) < 6000 else 3
    order = np.argsort(labels, kind="stable")
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % count
    return fold


def hold_out(text: Floats, embedded: Floats | None, labels: Labels, fold: Labels, intents: int) -> Held:
    """Fit every head once a fold on the others. The rows are sorted by fold."""
    classes = int(labels.max()) + 1
    cuts = np.flatnonzero(np.diff(fold)) + 1
    wanted = np.split(labels, cuts)
    logits = _cross_fit(np.split(text, cuts), wanted, classes, _RIDGE_TEXT)
    if embedded is None:
        return Held(logits, None, np.zeros((len(labels), 2)))
    full = mix(_cross_fit(np.split(embedded, cuts), wanted, classes, _RIDGE_EMBEDDING), logits)
    return Held(logits, full, _nearest_elsewhere(embedded, labels, fold, full[:, :intents]))


def _cross_fit(blocks: Sequence[Floats], labels: Sequence[Labels], classes: int, ridge: float) -> Floats:
    out = []
    for held in range(len(blocks)):
        rest = [number for number in range(len(blocks)) if number != held]
        weights = fit_logistic([blocks[n] for n in rest], [labels[n] for n in rest], classes, ridge)
        out.append(blocks[held] @ weights)
    return np.concatenate(out)


def _nearest_elsewhere(embedded: Floats, labels: Labels, fold: Labels, logits: Floats) -> Rows:
    """For every text the highest cosine to an example of its likeliest intents, and to an out-of-scope sentence, among
    the texts of other folds."""
    intents = logits.shape[1]
    order = np.argsort(labels, kind="stable")
    present, borders = np.unique(labels[order], return_index=True)
    out = np.zeros((len(labels), 2))
    for start in range(0, len(labels), 512):
        part = slice(start, start + 512)
        cosines = embedded[part] @ embedded[order].T
        cosines[fold[part, None] == fold[order]] = -1
        best = np.full((len(cosines), intents + 1), -1.0)
        best[:, present] = np.maximum.reduceat(cosines, borders, axis=1)
        likely = np.argsort(-logits[part], axis=1)[:, :_LIKELY]
        out[part, 0] = np.take_along_axis(best, likely, axis=1).max(axis=1)
        out[part, 1] = best[:, intents] if len(present) > intents else 0.0
    return out


def calibrate(logits: Floats, labels: Labels, intents: int, nearest: Rows | None) -> Head:
    """The temperature and the in-scope score for logits of held-out texts; ``nearest`` None: no embedding."""
    inside = labels < intents
    temperature = fit_temperature(logits[inside, :intents], labels[inside])
    cosines = np.zeros((len(logits), 2)) if nearest is None else nearest
    features = scope_features(logits, temperature, intents, cosines)
    prior = np.array(_PRIORS[nearest is not None, not inside.all()])
    unknown = scope_features(np.zeros_like(logits[:1]), temperature, intents, np.zeros((1, 2)))[0]
    return Head(temperature, Scope.fit(features[inside], features[~inside], unknown, prior))
