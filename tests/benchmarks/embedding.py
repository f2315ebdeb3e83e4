"""What int8 costs and brings: cosine of its vectors to float32's, and time a text, interleaved in one process.

    python tests/benchmarks/embedding.py SRC

SRC holds model.safetensors, tokenizer.json and config.json of all-MiniLM-L6-v2. Texts: the XQuAD paragraphs and 300 of
their questions. One thread.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from agent.engines.embedding import EmbeddingEngine
from agent.engines.protocol import LoadSpec
from quantize import embedding as conversion

DATA = Path(os.environ.get("OUTPOST_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
QUESTIONS = 300


def main() -> None:
    source = Path(sys.argv[1])
    articles = json.loads((DATA / "xquad" / "xquad.en.dev.json").read_text("utf-8"))["data"]
    paragraphs = [p["context"] for a in articles for p in a["paragraphs"]]
    questions = [q["question"] for a in articles for p in a["paragraphs"] for q in p["qas"]][:QUESTIONS]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "int8"
        conversion.build(source, small)
        plain = Path(folder) / "fp32"
        plain.mkdir()
        graph = conversion.encoder(load_file(source / "model.safetensors"), conversion.Shape(), quantize_words=False)
        (plain / "model.onnx").write_bytes(graph.SerializeToString())
        shutil.copy(source / "tokenizer.json", plain)
        for name, file in (("fp32", plain), ("int8", small)):
            print(f"{name}: {(file / 'model.onnx').stat().st_size:,} bytes")
        engines = {"fp32": _engine(plain), "int8": _engine(small)}
        for kind, texts in (("paragraphs", paragraphs), ("questions", questions)):
            _compare(kind, texts, engines)


def _compare(kind: str, texts: list[str], engines: dict[str, EmbeddingEngine]) -> None:
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in engines}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for text in texts:
        best = dict.fromkeys(engines, float("inf"))
        for _ in range(5):
            for name, engine in engines.items():
                started = time.perf_counter()
                engine.embed(text)
                best[name] = min(best[name], time.perf_counter() - started)
        for name, engine in engines.items():
            vectors[name].append(engine.embed(text))
            times[name].append(best[name] * 1000)
    cosines = (np.array(vectors["int8"]) * np.array(vectors["fp32"])).sum(axis=1)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(
        f"{kind} ({len(texts)}): cosine mean {cosines.mean():.4f}, least {cosines.min():.4f};"
        f" fp32 {medians['fp32']:.2f} ms, int8 {medians['int8']:.2f} ms, {medians['fp32'] / medians['int8']:.2f}x"
    )


def _engine(folder: Path) -> EmbeddingEngine:
    engine = EmbeddingEngine()
    engine.load(LoadSpec("embedding", "", str(folder / "model.onnx"), {}))
    return engine


if __name__ == "__main__":
    main()
