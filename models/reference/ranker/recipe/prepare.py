"""Write the candidates that `train.py` learns from: each question's best sentences by the linear ranker.

    python models/reference/ranker/recipe/prepare.py --embedding FOLDER --out FOLDER

FOLDER of the embedding holds model.onnx and tokenizer.json of all-MiniLM-L6-v2 (int8). The linear ranker is fitted on
natural-train alone, so natural-dev (dev.jsonl) stays unseen. One JSON object a line: page, question, the answer's words
("" where the page does not tell), and candidates as [text, score, whether it is evidence]; the evidence is there even
where the ranker did not find it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[4]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks"), str(ROOT / "models" / "reference" / "natural-dev")]

import fit  # noqa: E402
import natural  # noqa: E402

from agent.knowledge.chunks import with_heading  # noqa: E402
from agent.knowledge.features import FEATURES  # noqa: E402


def write(path: Path, examples: Sequence[fit.Example], weights: fit.Weights, top: int) -> None:
    by_feature = np.array([weights.get(name, 0.0) for name in FEATURES])
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            scores = example.table.values @ by_feature
            best = list(np.argsort(-scores)[:top])
            best += [at for at in np.flatnonzero(example.evidence) if at not in best]
            candidates = [
                [
                    with_heading(example.ordered[at].heading, example.ordered[at].sentence.search),
                    round(float(scores[at]), 4),
                    int(example.evidence[at]),
                ]
                for at in best
            ]
            item = example.asked.item
            record = {
                "page": example.page,
                "question": item.question,
                "answer": item.answers[0] if item.answers else "",
                "candidates": candidates,
            }
            file.write(json.dumps(record) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    embedder = natural.DirectEmbedder(options.embedding)
    dev, training = (
        [example for example in fit.examples(asyncio.run(natural.load(folder, embedder))) if not example.removed]
        for folder in (fit.REFERENCE / "natural-dev", fit.REFERENCE / "natural-train")
    )
    weights = fit.fit_ranker(training, fit.RANKED)
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "train.jsonl", training, weights, 14)
    write(options.out / "dev.jsonl", dev, weights, 10)


if __name__ == "__main__":
    main()
