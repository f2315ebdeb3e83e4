"""Hybrid search in a large index: time a search, and recall@10 of the bit index against comparing every vector.

Times are the best of --repeat a question: on the wall, and of this thread's CPU, which a busy machine disturbs less.

    python tests/benchmarks/knowledge.py [--chunks 100000] [--questions 100] [--repeat 5] [--database FILE]

The index holds the 120 XQuAD paragraphs and synthetic ones: 3 to 6 sentences drawn from XQuAD and CLINC150, each with a
fifth of its words swapped against words drawn from all of the text. Their vectors are noisy copies of real ones: a
sentence's is its original's plus noise (cosine .8), a pair's and a paragraph's are the sums of their sentences' plus
noise (.9), so that every question meets hundreds of near misses. The questions are XQuAD's, with their real embeddings.
Needs OUTPOST_EMBEDDING_MODEL (a folder made by quantize.embedding) and the third-party test data. A database that
exists is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from agent.engines.embedding import EmbeddingEngine
from agent.engines.protocol import LoadSpec
from agent.knowledge import store, vectors
from agent.knowledge.chunks import Chunk, Sentence
from agent.knowledge.markdown import chunks_of
from agent.messages import Document

DATA = Path(os.environ.get("OUTPOST_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
CHUNKS_IN_DOCUMENT = 25


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--database", type=Path)
    given = parser.parse_args()
    engine = EmbeddingEngine()
    folder = Path(os.environ["OUTPOST_EMBEDDING_MODEL"])
    engine.load(LoadSpec("embedding", "", str(folder / "model.onnx"), {}))
    with tempfile.TemporaryDirectory() as scratch:
        path = given.database or Path(scratch) / "knowledge.db"
        if not path.exists():
            started = time.perf_counter()
            fill(path, engine, given.chunks)
            print(f"filled in {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
        measure(path, engine, given.questions, given.repeat)


def measure(path: Path, engine: EmbeddingEngine, count: int, repeat: int) -> None:
    fast, exact = store.Store(path, read_only=True), store.Store(path, read_only=True, exact_vectors=10**9)
    (size,) = fast.collections()
    questions = random.Random(1).sample(xquad_questions(), count)
    times: dict[str, list[tuple[float, float]]] = {"hybrid": [], "exact": [], "keyword": []}
    recalls, firsts = [], []
    for question in questions:
        vector = engine.embed(question)
        results = {}
        runs = {"hybrid": (fast, vector), "keyword": (fast, None), "exact": (exact, vector)}
        for name, (index, given) in runs.items():
            taken = []
            for _ in range(1 if name == "exact" else repeat):
                started, worked = time.perf_counter(), time.thread_time()
                found = index.search("bench", question, given, 10)
                taken.append((1000 * (time.perf_counter() - started), 1000 * (time.thread_time() - worked)))
            times[name].append((min(wall for wall, _ in taken), min(cpu for _, cpu in taken)))
            results[name] = [(p.document, p.chunk) for p in found.passages]
        recalls.append(len(set(results["hybrid"]) & set(results["exact"])) / len(results["exact"]))
        firsts.append(results["hybrid"][0] == results["exact"][0])
    print(f"{size.chunks} chunks, {count} questions")
    for name, taken in times.items():
        for at, clock in enumerate(("wall", "CPU")):
            ordered = sorted(pair[at] for pair in taken)
            worst = ordered[int(len(ordered) * 0.95)]
            print(f"{name:8} {clock:4} median {statistics.median(ordered):6.1f} ms, 95 % {worst:6.1f} ms")
    print(f"recall@10 against exact {statistics.mean(recalls):.4f}, same first {statistics.mean(firsts):.3f}")


def fill(path: Path, engine: EmbeddingEngine, wanted: int) -> None:
    rng, noise = random.Random(0), np.random.default_rng(0)
    index = store.Store(path)
    index.use_model("bench")
    for number, (title, text) in enumerate(xquad_paragraphs()):
        chunks = chunks_of(title, text)
        embedded = [
            vectors.of_chunk(chunk, np.array([engine.embed(text) for text in vectors.texts_of(chunk)]))
            for chunk in chunks
        ]
        index.put("bench", Document(f"xquad/{number}", title, text), chunks, embedded)
    sentences = base_sentences()
    base = np.array([engine.embed(sentence) for sentence in sentences])
    pool = [word for sentence in sentences for word in sentence.split()]
    for document in range(wanted // CHUNKS_IN_DOCUMENT):
        chunks, embedded = [], []
        for _ in range(CHUNKS_IN_DOCUMENT):
            picked = [rng.randrange(len(sentences)) for _ in range(rng.randint(3, 6))]
            words = [[rng.choice(pool) if rng.random() < 0.2 else w for w in sentences[n].split()] for n in picked]
            texts = [" ".join(sentence) for sentence in words]
            chunks.append(Chunk(f"Document {document}", " ".join(texts), tuple(Sentence(t, t) for t in texts)))
            alone = noisy(base[picked], 0.8, noise)
            embedded.append(
                vectors.ChunkVectors(
                    vectors.to_int8(noisy(alone.sum(axis=0, keepdims=True), 0.9, noise)),
                    vectors.to_int8(noisy(alone[:-1] + alone[1:], 0.9, noise)),
                    vectors.to_int8(alone),
                    vectors.to_int8(noisy(alone, 0.9, noise)),
                )
            )
        text = "\n\n".join(chunk.text for chunk in chunks)
        index.put("bench", Document(f"made/{document}", f"Document {document}", text), chunks, embedded)
    index.close()


def noisy(rows: np.ndarray, cosine: float, noise: np.random.Generator) -> np.ndarray:
    """The rows' directions with noise that leaves about this cosine to the original."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    away = noise.standard_normal(unit.shape)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return (cosine * unit + np.sqrt(1 - cosine**2) * away).astype(np.float32)


def base_sentences() -> list[str]:
    found = [sentence for _, text in xquad_paragraphs() for sentence in re.split(r"(?<=[.!?])\s+", text)]
    clinc = json.loads((DATA / "clinc150" / "data_full.dev.json").read_text("utf-8"))
    texts = [row[0] for rows in clinc.values() for row in rows]
    return found + random.Random(0).sample(texts, min(3000, len(texts)))


def xquad_paragraphs() -> list[tuple[str, str]]:
    articles = json.loads((DATA / "xquad" / "xquad.en.dev.json").read_text("utf-8"))["data"]
    return [(a["title"].replace("_", " "), p["context"]) for a in articles for p in a["paragraphs"]]


def xquad_questions() -> list[str]:
    articles = json.loads((DATA / "xquad" / "xquad.en.dev.json").read_text("utf-8"))["data"]
    return [q["question"] for a in articles for p in a["paragraphs"] for q in p["qas"]]


if __name__ == "__main__":
    main()
