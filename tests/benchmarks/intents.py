"""Figures of the intent classifier: python -m tests.benchmarks.intents [--embedding FOLDER] [--folds 5]

CLINC150 with all its 150 intents (train and oos_train to learn from, val and oos_val held out), with and without the
embedding; out-of-scope AUROC a second time by cross-validation over both out-of-scope sets, since 100 are few; and the
demo pack, every text held out once. Prints Markdown. Seconds are CPU seconds of this process: set
OPENBLAS_NUM_THREADS=1 to have one core's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.engines.embedding import EmbeddingEngine
from agent.engines.protocol import LoadSpec
from agent.knowledge import intent_model
from agent.knowledge.intent_model import THRESHOLD, IntentModel, train_model
from agent.knowledge.intents import IntentPack, parse_pack, training_texts
from agent.messages import IntentResult

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "reference" / "demo" / "intents.toml"
Labelled = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Clinc:
    train: Labelled
    val: Labelled
    oos_train: tuple[str, ...]
    oos_val: tuple[str, ...]

    @classmethod
    def read(cls, shared: Path) -> Clinc:
        data = json.loads((shared / "clinc150" / "data_full.dev.json").read_text(encoding="utf-8"))
        pairs = {name: tuple((text, label) for text, label in rows) for name, rows in data.items()}
        sentences = {name: tuple(text for text, _ in pairs[name]) for name in ("oos_train", "oos_val")}
        return cls(pairs["train"], pairs["val"], sentences["oos_train"], sentences["oos_val"])


def pack_text(labelled: Labelled, out_of_scope: Iterable[str]) -> str:
    """An intent pack in TOML (JSON strings are TOML strings as long as nothing beyond ASCII is escaped)."""

    def texts(items: Iterable[str]) -> str:
        return "[" + ", ".join(json.dumps(item, ensure_ascii=False) for item in items) + "]"

    by_intent: dict[str, list[str]] = {}
    for text, label in labelled:
        by_intent.setdefault(label, []).append(text)
    tables = [f"[[intents]]\nname = {json.dumps(n)}\nexamples = {texts(e)}" for n, e in sorted(by_intent.items())]
    return "\n".join([f"out_of_scope = {texts(out_of_scope)}", *tables])


class Vectors:
    """The embedding engine in this process, each text once; ``cache`` keeps the vectors between runs."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._engine = EmbeddingEngine()
        self._engine.load(LoadSpec("minilm", "", str(folder / "model.onnx"), {}))
        self._known: dict[str, np.ndarray] = {}
        self._cache = cache
        self.seconds = 0.0
        if cache and cache.is_file():
            with np.load(cache, allow_pickle=False) as stored:
                self._known = dict(zip(json.loads(stored["texts"].tobytes()), stored["vectors"], strict=True))

    def of(self, texts: Sequence[str]) -> bytes:
        started = time.process_time()
        for text in texts:
            if text not in self._known:
                self._known[text] = self._engine.embed(text)
        self.seconds += time.process_time() - started
        return np.stack([self._known[text] for text in texts]).astype("<f4").tobytes()

    def keep(self) -> None:
        if self._cache:
            texts = np.frombuffer(json.dumps(list(self._known)).encode(), np.uint8)
            np.savez(self._cache, texts=texts, vectors=np.stack(list(self._known.values())))


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """How often a text in scope has the higher score, ties counting half."""
    above = np.asarray(inside)[:, None] - np.asarray(outside)[None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def calibration_error(right: Sequence[bool], probability: Sequence[float], bins: int = 15) -> float:
    """Expected calibration error."""
    hit, p = np.asarray(right, float), np.asarray(probability)
    which = np.minimum((p * bins).astype(int), bins - 1)
    return float(
        sum(abs(hit[which == b].mean() - p[which == b].mean()) * (which == b).mean() for b in np.unique(which))
    )


@dataclass(frozen=True)
class Figures:
    accuracy: float
    auroc: float
    calibration_error: float
    kept: float
    rejected: float


def figures(results: Sequence[IntentResult], wanted: Sequence[str], outside: Sequence[IntentResult]) -> Figures:
    right = [result.intent == label for result, label in zip(results, wanted, strict=True)]
    inside_scores = [result.in_scope_score for result in results]
    outside_scores = [result.in_scope_score for result in outside]
    return Figures(
        float(np.mean(right)),
        auroc(inside_scores, outside_scores),
        calibration_error(right, [result.probability for result in results]),
        float(np.mean(np.array(inside_scores) >= THRESHOLD)),
        float(np.mean(np.array(outside_scores) < THRESHOLD)),
    )


def evaluate(model: IntentModel, data: Clinc, vectors: Vectors | None) -> Figures:
    texts = [text for text, _ in data.val]
    inside = model.classify(texts, vectors.of(texts) if vectors else None)
    outside = model.classify(data.oos_val, vectors.of(data.oos_val) if vectors else None)
    return figures(inside, [label for _, label in data.val], outside)


def leave_out(text: str, vectors: Vectors | None, folds: int) -> tuple[Figures, list[str]]:
    """Every text of a pack classified by a model that was trained without it (and calibrated without it), and the
    misses."""
    pack = parse_pack(text)
    items = [(example, intent.name) for intent in pack.intents for example in intent.examples]
    inside: list[IntentResult] = []
    outside: list[IntentResult] = []
    wanted: list[str] = []
    for fold in range(folds):
        rest = [item for number, item in enumerate(items) if number % folds != fold]
        beyond = [sentence for number, sentence in enumerate(pack.out_of_scope) if number % folds != fold]
        smaller = pack_text(rest, beyond)
        model = train_model(smaller, vectors.of(_texts(smaller)) if vectors else None, "embedding")
        held = [item for number, item in enumerate(items) if number % folds == fold]
        sentences = [sentence for number, sentence in enumerate(pack.out_of_scope) if number % folds == fold]
        held_texts = [example for example, _ in held]
        inside += model.classify(held_texts, vectors.of(held_texts) if vectors else None)
        outside += model.classify(sentences, vectors.of(sentences) if vectors and sentences else None)
        wanted += [name for _, name in held]
    captured = [f"{result.intent} {result.in_scope_score:.2f}" for result in outside if result.in_scope_score >= 0.5]
    return figures(inside, wanted, outside), captured


def _texts(text: str) -> tuple[str, ...]:
    return training_texts(parse_pack(text))


def cross_validated_auroc(data: Clinc, vectors: Vectors | None, folds: int) -> list[tuple[float, float]]:
    """AUROC of the validation split against each fold of both out-of-scope sets, the others having been trained on:
    with the embedding (nan without one) and by the text alone."""
    outside = [*data.oos_train, *data.oos_val]
    texts = [text for text, _ in data.val]
    scores = []
    for fold in range(folds):
        text = pack_text(data.train, [s for number, s in enumerate(outside) if number % folds != fold])
        model = train_model(text, vectors.of(_texts(text)) if vectors else None, "embedding")
        held = [s for number, s in enumerate(outside) if number % folds == fold]
        pair = []
        for given in (vectors, None):
            inside = model.classify(texts, given.of(texts) if given else None)
            beyond = model.classify(held, given.of(held) if given else None)
            pair.append(auroc([r.in_scope_score for r in inside], [r.in_scope_score for r in beyond]))
        scores.append((pair[0] if vectors else float("nan"), pair[1]))
    return scores


def single_text_ms(model: IntentModel, texts: Sequence[str], vectors: Vectors | None) -> tuple[float, float]:
    """Median and 95th percentile of classifying one text, milliseconds, without its embedding."""
    given = [vectors.of([text]) if vectors else None for text in texts]
    times = []
    for text, vector in zip(texts, given, strict=True):
        started = time.perf_counter()
        model.classify([text], vector)
        times.append((time.perf_counter() - started) * 1000)
    return float(np.percentile(times, 50)), float(np.percentile(times, 95))


def _row(name: str, f: Figures) -> None:
    print(
        f"| {name} | {f.accuracy:.4f} | {f.auroc:.4f} | {f.calibration_error:.4f} | {f.kept:.3f} | {f.rejected:.3f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, help="folder made by quantize.embedding; without: text alone")
    parser.add_argument("--cache", type=Path, help="file that keeps the vectors between runs")
    parser.add_argument("--folds", type=int, default=5, help="of the second AUROC estimate; 0 leaves it out")
    parser.add_argument("--buckets", type=int, default=intent_model.BUCKETS, help="hash buckets a block")
    given = parser.parse_args()
    intent_model.BUCKETS = given.buckets
    shared = Path(os.environ.get("OUTPOST_SHARED_DATA") or ROOT.parent / "shared" / "data")
    data = Clinc.read(shared)
    vectors = Vectors(given.embedding, given.cache) if given.embedding else None
    text = pack_text(data.train, data.oos_train)
    pack: IntentPack = parse_pack(text)
    texts = training_texts(pack)
    embedded = vectors.of(texts) if vectors else None
    if vectors:
        vectors.keep()
        print(f"embedding {len(texts)} texts: {vectors.seconds:.1f} s (0 where cached)")
    started = time.process_time()
    model = train_model(text, embedded, "embedding")
    trained_s = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clinc.npz"
        model.save(path)
        started = time.process_time()
        model = IntentModel.load(path)
        loaded_ms = (time.process_time() - started) * 1000
        print(
            f"{len(pack.intents)} intents, {len(texts)} texts: trained in {trained_s:.1f} CPU s, "
            f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, "
            f"file {path.stat().st_size / 1e6:.1f} MB, loaded in {loaded_ms:.0f} ms"
        )
    some = [item for item, _ in data.val[:500]]
    for name, given_vectors in (("with embedding", vectors), ("text alone", None)):
        if given_vectors or name == "text alone":
            median, high = single_text_ms(model, some, given_vectors)
            print(f"one text, {name}: median {median:.2f} ms, 95 % {high:.2f} ms")
    print("\n| | accuracy | AUROC | ECE | kept at 0.5 | rejected at 0.5 |\n|---|---|---|---|---|---|")
    if vectors:
        _row("CLINC150, with embedding", evaluate(model, data, vectors))
    _row("CLINC150, text alone (same model)", evaluate(model, data, None))
    demo = DEMO.read_text(encoding="utf-8")
    captured: list[str] = []
    if vectors:
        held, captured = leave_out(demo, vectors, 20)
        _row("demo pack, each text held out, with embedding", held)
    _row("demo pack, each text held out, text alone", leave_out(demo, None, 20)[0])
    if captured:
        print("\nout-of-scope sentences of the demo taken for an intent (with embedding):", "; ".join(captured))
    if given.folds:
        scores = cross_validated_auroc(data, vectors, given.folds)
        for name, column in (("with embedding", 0), ("text alone", 1)):
            each = [score[column] for score in scores]
            print(
                f"\nAUROC, {given.folds} folds over both out-of-scope sets, {name}: mean {np.mean(each):.4f} "
                f"({', '.join(f'{score:.4f}' for score in each)})",
                flush=True,
            )
    if vectors:
        vectors.keep()


if __name__ == "__main__":
    main()
