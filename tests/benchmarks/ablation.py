"""What each signal of a generated answer is worth: the reference SLM on its own held-out questions, with and without.

    OPENBLAS_NUM_THREADS=1 python -m tests.benchmarks.ablation --embedding FOLDER [--count 600] [--seed 1]

A third of the questions each in wording that the SLM was trained on, in unseen questions, and about unseen statements
(models/reference/slm/recipe), two a passage, on values never drawn in training. The blocks of a passage are stored in
the real index, each a document, and ordered by the best quote from each of them, whose numbers they carry; the SLM
answers from them by the prompt and the engine of the assistant. An answer is right where it equals the expected one,
letter case and white space aside; an answer to an unanswerable question is wrong; a refusal is never served.

In every one of --splits shufflings two fifths of the passages fit the score (logistic, then isotonic), two fifths
certify it, and the rest, which neither has seen, is reported. A signal is left out by fitting without it. Shufflings
share their questions: what lies within their spread is chance.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from agent import prompts
from agent.confidence import calibration, measures, provisional, signals
from agent.knowledge.knowledge import Knowledge
from agent.knowledge.retrieval import Retriever
from agent.messages import Document, Quote, Retrieval
from tests.benchmarks.natural import ROOT, DirectEmbedder

SLM = ROOT / "models" / "reference" / "slm"
FILE = SLM / "outpost-reference-slm.Q8_0.gguf"
WORDINGS = ("known", "question", "statement")
QUESTIONS = 2
SEED = 700_000  # added to --seed; training draws from seeds below 100,000
PARTS = (0.4, 0.8)
DELTA = 0.05
SURE = 0.3

REFUSAL = "refusal"
SINGLE: dict[str, tuple[str, ...]] = {
    "first token (margin, log-probability)": ("first_margin", "first_logprob"),
    "lowest, 10 %, median log-probability": ("min_logprob", "low_logprob", "median_logprob"),
    "length": ("tokens",),
    "span check": ("span", "span_rank"),
    "number check": ("numbers",),
    "retrieval score and gap": ("retrieval_score", "retrieval_lead"),
    "similarity": ("retrieval_similarity",),
    "agreement of the rankings": ("ranking_agreement",),
    "length of the question": ("question_words",),
    "refusal": ("refused",),
}
ALL = tuple(feature for features in SINGLE.values() for feature in features)
LOGPROBS = tuple(feature for feature in ALL if feature.endswith("_logprob") or feature == "first_margin")
RETRIEVAL = tuple(feature for feature in ALL if feature.startswith(("retrieval_", "ranking_")))
SEVERAL = {
    "all log-probabilities": LOGPROBS,
    "span and number check": ("span", "span_rank", "numbers"),
    "everything of retrieval": RETRIEVAL,
}
Floats = np.ndarray


@dataclass(frozen=True)
class Asked:
    """A question about a passage's blocks; ``answer`` is None where they do not hold one."""

    wording: str
    passage: str
    blocks: tuple[Quote, ...]
    question: str
    answer: str | None


@dataclass(frozen=True)
class Answered:
    asked: Asked
    features: Mapping[str, float]
    refused: bool
    right: bool


@dataclass(frozen=True)
class Row:
    """What a set of signals gave, an entry a shuffling. Of ``tested`` questions ``served`` and ``right`` count by
    epsilon; ``sure`` is the share of right ones among the surest SURE of all questions. AURC and E-AURC are over all
    questions, as `outpost calibrate` reports them (a refusal is a question not answered right, at confidence 0); AUROC
    is among the given answers."""

    name: str
    tested: Floats
    served: Mapping[float, Floats]
    right: Mapping[float, Floats]
    sure: Floats
    aurc: Floats
    e_aurc: Floats
    auroc: Floats


# ---------------------------------------------------------------- questions and answers


def module(name: str, path: Path) -> ModuleType:
    """A Python file, or a package by its ``__init__.py``, of a folder that is no package."""
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
    assert spec
    assert spec.loader
    sys.modules[name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


async def questions(count: int, seed: int, embedder: DirectEmbedder | None) -> list[Asked]:
    """``count`` questions, a third of each wording, with blocks as the index orders them for it."""
    module("slm_recipe", SLM / "recipe" / "__init__.py")
    generate = importlib.import_module("slm_recipe.generate")
    found: list[Asked] = []
    with tempfile.TemporaryDirectory() as state:
        async with Knowledge(Path(state) / "index.sqlite", embedder, "ablation") as knowledge:
            retriever = Retriever(knowledge, embedder)
            for number, wording in enumerate(WORDINGS):
                generator = generate.Generator(SEED + 1000 * number + seed, wording)
                wanted = count * (number + 1) // len(WORDINGS)
                while len(found) < wanted:
                    example = generator.example(QUESTIONS)
                    passage = f"passage-{len(found)}"
                    blocks = [_block(place, text) for place, text in enumerate(example.passage.split("\n\n"))]
                    for block, text in zip(blocks, example.passage.split("\n\n"), strict=True):
                        await knowledge.add(passage, Document(block.document, block.title, text))
                    for asked in example.questions[: wanted - len(found)]:
                        quotes = (await retriever.retrieve(asked.text, passage)).quotes
                        answer = asked.answer if asked.span else None
                        found.append(Asked(wording, passage, _ordered(blocks, quotes), asked.text, answer))
    return found


def _block(place: int, text: str) -> Quote:
    heading, _, body = text.removeprefix("## ").partition("\n")
    return Quote(f"block-{place}", heading, heading, body, 0.0)


def _ordered(blocks: Sequence[Quote], quotes: Sequence[Quote]) -> tuple[Quote, ...]:
    """The blocks, best quote first, with the numbers of their best quotes; those without one come last."""
    best: dict[str, Quote] = {}
    for quote in quotes:
        best.setdefault(quote.document, quote)
    worst = min((quote.score for quote in quotes), default=0.0) - 1.0
    known = {block.document: block for block in blocks}
    ordered = [
        replace(best[name], title=known[name].title, heading=known[name].heading, text=known[name].text)
        for name in best
    ]
    return (*ordered, *(replace(block, score=worst) for block in blocks if block.document not in best))


def answers(asked: Sequence[Asked], mode: Literal["hybrid", "keyword"]) -> list[Answered]:
    fitting = module("natural_fit", ROOT / "models" / "reference" / "natural-dev" / "fit.py")
    slm: Any = fitting.DirectText(FILE)
    found = []
    for one in asked:
        text, tokens = slm.answer(one.question, one.blocks)
        refused = prompts.is_refusal(text)
        retrieval = Retrieval((), one.blocks, mode)
        features = signals.generated(one.question, text, tokens, retrieval, refused=refused)
        right = not refused and one.answer is not None and _plain(text) == _plain(one.answer)
        found.append(Answered(one, features, refused, right))
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


# ---------------------------------------------------------------- with and without


def measured(
    name: str, used: Sequence[str], answered: Sequence[Answered], splits: int, seed: int, epsilons: Sequence[float]
) -> Row:
    """Fit, certify and report by the features ``used``."""
    model = provisional.models()["generated"]
    prior = calibration.Prior(model.bias, {one: model.weights.get(one, 0.0) for one in used if one != "refused"})
    heeds = "refused" in used
    samples = [
        calibration.Sample({} if one.refused and heeds else one.features, one.right, one.asked.passage)
        for one in answered
    ]
    passages = sorted({sample.group for sample in samples})
    served: dict[float, list[int]] = {epsilon: [] for epsilon in epsilons}
    right: dict[float, list[int]] = {epsilon: [] for epsilon in epsilons}
    figures: list[tuple[float, ...]] = []
    tested: list[int] = []
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(len(passages))
        first, second = (round(len(passages) * part) for part in PARTS)
        parts = [{passages[place] for place in chosen} for chosen in (order[:first], order[first:second])]
        tune, certifying = ([s for s in samples if s.group in part] for part in parts)
        rest = [place for place, s in enumerate(samples) if s.group not in parts[0] | parts[1]]
        tuned = calibration.fit(tune, prior)
        if tuned is None:
            raise SystemExit("too few right or wrong answers to fit: raise --count")
        score = tuned.score
        confidence = np.array([score(samples[p].features) if samples[p].features else 0.0 for p in rest])
        good = np.array([samples[p].right for p in rest], bool)
        given = np.array([not answered[p].refused for p in rest], bool)
        for epsilon in epsilons:
            threshold = calibration.certify(tuned, certifying, epsilon, DELTA).threshold
            reached = confidence >= threshold if threshold is not None else np.zeros(len(rest), bool)
            served[epsilon].append(int(reached.sum()))
            right[epsilon].append(int((reached & good).sum()))
        tested.append(len(rest))
        every = measures.measures(confidence, good)
        sure = 1.0 - measures.risk_by_coverage(confidence, good)[round(SURE * len(rest)) - 1]
        figures.append((sure, every["aurc"], every["e_aurc"], measures.auroc(confidence[given], good[given])))
    columns = np.array(figures).T
    return Row(name, np.array(tested), _arrays(served), _arrays(right), *columns)


def _arrays(counts: Mapping[float, Sequence[int]]) -> dict[float, Floats]:
    return {epsilon: np.array(values) for epsilon, values in counts.items()}


def choices() -> dict[str, tuple[str, ...]]:
    """The features of every row of the table by its name."""
    shipped = (*provisional.models()["generated"].weights, "refused")
    rows = {"**all signals**": ALL, "those of the shipped model": tuple(dict.fromkeys(shipped))}
    for name, left_out in (SINGLE | SEVERAL).items():
        rows[f"without {name}"] = tuple(feature for feature in ALL if feature not in left_out)
    rows["log-probabilities alone"] = (*LOGPROBS, "refused")
    rows["the lowest log-probability alone"] = ("min_logprob", "refused")
    rows["retrieval alone"] = (*RETRIEVAL, "refused")
    return rows


# ---------------------------------------------------------------- the table


def table(rows: Sequence[Row], epsilons: Sequence[float]) -> str:
    """Markdown; what is served is counted over all shufflings together, the other figures are their means."""
    promises = "".join(f" {epsilon:g}: right of served | served | escalated | serves in |" for epsilon in epsilons)
    lines = [
        f"| signals |{promises} right of the surest {SURE:.0%} | AURC | E-AURC | AUROC of answers | AURC is worse |",
        "|---|" + "---|" * (4 * len(epsilons) + 5),
    ]
    for row in rows:
        cells = []
        for epsilon in epsilons:
            served, right = int(row.served[epsilon].sum()), int(row.right[epsilon].sum())
            share = served / int(row.tested.sum())
            cells += [f"{right / served:.3f}" if served else "-", f"{share:.3f}", f"{1 - share:.3f}"]
            cells.append(f"{int((row.served[epsilon] > 0).sum())} of {len(row.tested)}")
        cells += [f"{np.mean(values):.3f}" for values in (row.sure, row.aurc, row.e_aurc, row.auroc)]
        worse = int((row.aurc > rows[0].aurc).sum())
        cells.append("" if row is rows[0] else f"{worse} of {len(row.aurc)}")
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(answered: Sequence[Answered]) -> str:
    lines = ["| wording | questions | unanswerable | right | wrong | refused |", "|---|---|---|---|---|---|"]
    for wording in (*WORDINGS, "together"):
        ours = [one for one in answered if wording in (one.asked.wording, "together")]
        refused, right = sum(one.refused for one in ours), sum(one.right for one in ours)
        missing = sum(one.asked.answer is None for one in ours)
        lines.append(f"| {wording} | {len(ours)} | {missing} | {right} | {len(ours) - right - refused} | {refused} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, help="folder of the embedding model; without it keywords alone")
    parser.add_argument("--count", type=int, default=600, help="questions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--splits", type=int, default=20, help="shufflings of the passages")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.10, 0.05])
    given = parser.parse_args()
    started = time.process_time()
    embedder = DirectEmbedder(given.embedding) if given.embedding else None
    asked = asyncio.run(questions(given.count, given.seed, embedder))
    indexed = time.process_time()
    answered = answers(asked, "hybrid" if embedder else "keyword")
    spoken = time.process_time()
    passages = len({one.passage for one in asked})
    commit = subprocess.run(
        ["git", "log", "-1", "--format=%h", "--", str(FILE)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"{len(asked)} questions on {passages} passages, seed {given.seed}, {given.splits} shufflings; ", end="")
    print(f"SLM {hashlib.sha256(FILE.read_bytes()).hexdigest()[:12]} of commit {commit}\n")
    print(summary(answered), "\n", flush=True)
    rows = [measured(name, used, answered, given.splits, given.seed, given.epsilon) for name, used in choices().items()]
    print(table(rows, given.epsilon), "\n")
    seconds = {"index": indexed - started, "answers": spoken - indexed, "tables": time.process_time() - spoken}
    print(json.dumps({"cpu_s": {name: round(value, 1) for name, value in seconds.items()}}))


if __name__ == "__main__":
    main()
