"""Fit the quote ranker on natural-dev and natural-train, the provisional confidence on these and natural-calibration.

    python models/reference/natural-dev/fit.py --embedding FOLDER [--slm FILE.gguf] [--write]

FOLDER holds model.onnx and tokenizer.json of all-MiniLM-L6-v2 (int8). Everything is measured in
FOLDS groups of pages: the ranker that scores a page has not seen it, and neither has the confidence; figures are given
for each set. ``--write`` then fits on all pages and writes agent/knowledge/quote_model.json and the quote models of
agent/confidence/provisional.json (the others stay).

Ranker: a conditional logit over the sentences found for a question (the log-probability of picking one that is the
evidence), pulled towards hand-set weights for the features that few questions show (PRIOR).
Confidence: a logistic regression over the features of agent/confidence/signals.py on the first quote of each question,
right or not. Besides the unanswerable questions, every answerable one is asked once more with its evidence taken out of
the sentences (with REMOVED_WEIGHT): a near miss of the kind that matters.
With the ranking model (models/reference/ranker) figures and confidence come from natural-dev and natural-calibration,
because it has been trained on the other set. The quotes' own weights are not fitted on natural-calibration.
With ``--slm`` the language model answers from the three best quotes of every such question, as the assistant has it do;
its answers give the models "generated" and "quote_judged_with_generated". Refusals and agreement are features of the
latter.
Both are plain gradient descent in numpy, without chance: the same data give the same files.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

import natural  # noqa: E402  (the loading and judging code of the benchmark)

from agent import prompts  # noqa: E402
from agent.confidence import signals  # noqa: E402
from agent.engines.protocol import LoadSpec  # noqa: E402
from agent.engines.text import TextEngine  # noqa: E402
from agent.knowledge import quotes, words  # noqa: E402
from agent.knowledge.chunks import StoredSentence  # noqa: E402
from agent.knowledge.features import FEATURES, Table, understand  # noqa: E402
from agent.knowledge.features import features as sentence_features  # noqa: E402
from agent.messages import Alternative, Quote, Retrieval, Sampling, TokenLogprob  # noqa: E402

REFERENCE = ROOT / "models" / "reference"
SETS = {
    REFERENCE / "natural-dev": "questions*.jsonl",
    REFERENCE / "natural-train": "questions*.jsonl",
    REFERENCE / "natural-calibration": "questions-[ab].jsonl",
}
"""Folders and what of them is used: the other questions of natural-calibration certify, and do nothing else."""
FOLDS = 8
RANKER = ROOT / "models" / "reference" / "ranker"
UNSEEN = "models/reference/natural-dev and natural-calibration (a, b)"
FITTED_ON = "models/reference/natural-dev, natural-train and natural-calibration (a, b)"
QUOTE_MODEL = ROOT / "agent" / "knowledge" / "quote_model.json"
CONFIDENCE = ROOT / "agent" / "confidence" / "provisional.json"

RANKED = [name for name in FEATURES if name != "keyword"]
RANKED_BY_KEYWORD = [name for name in RANKED if name not in ("plain", "headed", "neighbour", "following", "soft")]
# "foreign" is strong by hand: these pages are one document each, and only where a collection holds many does a sentence
# under another thing's heading (the café's hours for the venue's) compete with the right one.
PRIOR = {"foreign": -18.0, "moment": 1.5, "opens_list": -2.0, "day": 1.5, "month": 1.5, "kind": 1.0, "yesno": 0.5}
COST = 0.03
RANKER_RIDGE = 0.02
CONFIDENCE_RIDGE = 0.02
REMOVED_WEIGHT, REMOVED_WEIGHT_WHEN_JUDGED = 0.5, 0.2
"""Of a question whose evidence was taken out. The ranking model needs less of them: it was trained on such ones."""
SEEN_WEIGHT = 0.25
"""Of a natural-train question in the confidence: there are 4.5 times as many, and on average they are harder."""
CONFIDENT_BY = """score lead keyword agreement similarity gap heading_match kind_match question_words ranker.raw
ranker.headed ranker.following ranker.covered ranker.soft_covered ranker.weakest ranker.absent ranker.kind
ranker.no_kind ranker.yesno ranker.condition_met ranker.condition_missed ranker.sentences ranker.now
ranker.exists_absent ranker.exists_uncovered ranker.names_person ranker.kind_covered""".split()
CONFIDENT_WHEN_JUDGED = """score lead keyword agreement similarity question_words ranker.judged ranker.judged_lead
ranker.raw ranker.covered ranker.weakest ranker.absent ranker.no_kind ranker.kind_covered ranker.following
ranker.yesno ranker.now ranker.names_person ranker.condition_missed ranker.exists_uncovered""".split()
CONFIDENT_BY_KEYWORD = """score lead keyword ranker.covered question_words ranker.yesno ranker.now ranker.names_person
ranker.condition_missed ranker.exists_uncovered""".split()

CONFIDENT_GENERATED = """first_margin min_logprob low_logprob median_logprob tokens span span_rank numbers
retrieval_score retrieval_lead retrieval_similarity ranking_agreement question_words""".split()
ANSWER_TOKENS = 96
AGREEMENT_PRIOR = {"generated_refused": 0.0, "generated_within": 0.4, "generated_overlap": 0.2}
"""What a language model's opinion is worth while none has been measured: some, but it never decides alone. Once
measured beside the ranking model, the same worth is taken where that is missing: there it counts less than it could."""

LEAST_RIGHT = 20
"""Right answers that a language model must give before its confidence is fitted."""

Weights = dict[str, float]
Array = np.ndarray


@dataclass(frozen=True)
class Example:
    """A question with its sentences, as the ranker sees them; ``removed``: without its evidence."""

    asked: natural.Asked
    ordered: list[StoredSentence]
    table: Table
    evidence: Array
    removed: bool = False

    @property
    def page(self) -> str:
        return self.asked.item.page

    @property
    def seen(self) -> bool:
        """By the ranking model, in its training."""
        return self.within("natural-train")

    @property
    def ranks(self) -> bool:
        """Whether the quotes' own weights are fitted on it."""
        return not self.within("natural-calibration")

    def within(self, name: str) -> bool:
        return (REFERENCE / name / "pages" / f"{Path(self.page).stem}.md").is_file()


@dataclass(frozen=True)
class Outcome:
    example: Example
    text: str
    features: Weights
    right: bool
    retrieval: Retrieval | None = None


def examples(asked: Sequence[natural.Asked]) -> list[Example]:
    found = [_example(one) for one in asked]
    for one in asked:
        if one.item.answers:
            kept = tuple(s for s in one.found.sentences if not natural.holds_evidence(one.item, s.sentence.text))
            found.append(replace(_example(replace(one, found=replace(one.found, sentences=kept))), removed=True))
    return found


def loaded(embedder: natural.DirectEmbedder | None) -> list[natural.Asked]:
    return [one for folder, files in SETS.items() for one in asyncio.run(natural.load(folder, embedder, files))]


def _example(asked: natural.Asked) -> Example:
    given = asked.found
    ordered = sorted(given.sentences, key=lambda s: (s.document, s.chunk, s.position))
    table = sentence_features(understand(asked.item.question), ordered, given.vector, given.word_vectors)
    held = [bool(asked.item.answers) and natural.holds_evidence(asked.item, s.sentence.text) for s in ordered]
    return Example(asked, ordered, table, np.array(held, dtype=float))


# ---------------------------------------------------------------- ranker


def fit_ranker(training: Sequence[Example], names: Sequence[str]) -> Weights:
    usable = [example for example in training if example.ranks and len(example.evidence) and example.evidence.any()]
    columns = [FEATURES.index(name) for name in names]
    rows = np.vstack([example.table.values[:, columns] for example in usable])
    held = np.concatenate([example.evidence for example in usable])
    sizes = [len(example.evidence) for example in usable]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    group = np.repeat(np.arange(len(usable)), sizes)
    spread = rows.std(axis=0) + 1e-3
    scaled = (rows - rows.mean(axis=0)) / spread
    prior = np.array([PRIOR.get(name, 0.0) for name in names]) * spread

    def slope(weights: Array) -> Array:
        scores = scaled @ weights
        powers = np.exp(scores - np.maximum.reduceat(scores, starts)[group])
        shares = powers / np.add.reduceat(powers, starts)[group]
        picked = np.add.reduceat(shares * held, starts) + 1e-12
        return scaled.T @ (shares - shares * held / picked[group]) / len(usable) + 2 * RANKER_RIDGE * (weights - prior)

    weights = _descend(slope, prior, 200) / spread
    return {name: round(float(weight), 4) for name, weight in zip(names, weights, strict=True)}


def _descend(slope, start: Array, steps: int) -> Array:  # type: ignore[no-untyped-def]
    """Adam with a falling rate; both problems are convex."""
    weights, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step in range(1, steps + 1):
        gradient = slope(weights)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient * gradient
        move = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
        weights = weights - 0.1 * (1 - step / (steps + 1)) * move
    return weights


def outcome(example: Example, weights: Weights, judge: natural.DirectRanker | None = None) -> Outcome:
    ranker = quotes.QuoteModel(weights, weights, COST)
    item = example.asked.item
    given = example.asked.found
    embedded = given.vector is not None
    if not example.ordered:  # a search by keywords may find nothing
        return Outcome(example, "", {}, False)
    wanted = understand(item.question)
    weighed = quotes.scored(wanted, example.ordered, example.table, ranker, embedded=embedded)
    judged = None
    if judge is not None:
        judged = asyncio.run(judge.rank(words.correct(item.question), weighed.texts, deadline_s=5.0))
    chosen = quotes.chosen(weighed, judged)
    retrieval = Retrieval(given.passages, chosen, given.mode)
    right = not example.removed and bool(item.answers) and natural.is_right(item, chosen[0].text)
    return Outcome(example, chosen[0].text, signals.quote(item.question, retrieval), right, retrieval)


# ---------------------------------------------------------------- confidence


def fit_confidence(
    training: Sequence[Outcome], names: Sequence[str], removed: float = REMOVED_WEIGHT
) -> tuple[float, Weights]:
    training = [one for one in training if one.features]
    rows = np.array([[one.features.get(name, 0.0) for name in names] for one in training])
    right = np.array([float(one.right) for one in training])
    share = np.array([removed if one.example.removed else 1.0 for one in training])
    share *= np.array([SEEN_WEIGHT if one.example.seen else 1.0 for one in training])
    share /= share.mean()
    middle, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    scaled = np.column_stack([(rows - middle) / spread, np.ones(len(rows))])
    ridge = np.array([2 * CONFIDENCE_RIDGE] * len(names) + [0.0])

    def slope(weights: Array) -> Array:
        sure = 1.0 / (1.0 + np.exp(-scaled @ weights))
        return scaled.T @ ((sure - right) * share) / len(rows) + ridge * weights

    fitted = _descend(slope, np.zeros(len(names) + 1), 500)
    weights = fitted[:-1] / spread
    bias = float(fitted[-1] - weights @ middle)
    return round(bias, 4), {name: round(float(weight), 4) for name, weight in zip(names, weights, strict=True)}


def confidence(one: Outcome, model: tuple[float, Weights]) -> float:
    if not one.features:
        return 0.0
    total = model[0] + sum(weight * one.features.get(name, 0.0) for name, weight in model[1].items())
    return float(1.0 / (1.0 + np.exp(-total)))


def auroc(scores: Array, right: Array) -> float:
    ranks = np.argsort(np.argsort(scores))
    positive, negative = right.sum(), (1 - right).sum()
    return float((ranks[right > 0].sum() - positive * (positive - 1) / 2) / (positive * negative))


def folds(pages: set[str]) -> list[set[str]]:
    """Pages in groups, a page of every set about equally often."""
    ordered = sorted(pages)
    return [set(ordered[start::FOLDS]) for start in range(FOLDS)]


def cross_validated(
    everything: Sequence[Example], ranked: Sequence[str], judge: natural.DirectRanker | None = None
) -> tuple[list[Outcome], list[Outcome]]:
    """Every outcome by a ranker that has not seen its page, and those of all sets but natural-train once more with a
    ranking model, which has seen that."""
    outcomes, judged = [], []
    for left_out in folds({example.page for example in everything}):
        weights = fit_ranker([example for example in everything if example.page not in left_out], ranked)
        held = [example for example in everything if example.page in left_out]
        outcomes += [outcome(example, weights) for example in held]
        if judge is not None:
            judged += [outcome(example, weights, judge) for example in held if not example.seen]
    return outcomes, judged


def report(outcomes: Sequence[Outcome], confident: Sequence[str], removed: float = REMOVED_WEIGHT) -> None:
    """Print how the confidence judges outcomes of pages that it has not seen, for each set."""
    asked: list[tuple[Outcome, float]] = []
    for left_out in folds({one.example.page for one in outcomes}):
        model = fit_confidence([one for one in outcomes if one.example.page not in left_out], confident, removed)
        held = [one for one in outcomes if one.example.page in left_out and not one.example.removed]
        asked += [(one, confidence(one, model)) for one in held]
    for folder in SETS:
        names = {page.stem for page in (folder / "pages").glob("*.md")}
        ours = [(one, sure) for one, sure in asked if Path(one.example.page).stem in names]
        if not ours:
            continue
        right = np.array([float(one.right) for one, _ in ours])
        area = auroc(np.array([sure for _, sure in ours]), right)
        print(f"  {folder.name}: AUROC of right against wrong or unanswerable: {area:.3f}")
        judged = [(one.example.asked.item, one.text, sure) for one, sure in ours]
        for threshold in (0.3, 0.4, 0.5, 0.6, 0.7):
            print(f"    served at {threshold}: {natural.figures(judged, threshold)}")


# ---------------------------------------------------------------- the language model


class DirectText:
    """The text engine in this process, one question after the other."""

    def __init__(self, file: Path) -> None:
        self._engine = TextEngine()
        self._engine.load(LoadSpec(file.stem, "", str(file), {}, {"threads": 1}))

    def answer(self, question: str, best: Sequence[Quote]) -> tuple[str, list[TokenLogprob]]:
        messages = [{"role": m.role, "content": m.content} for m in prompts.grounded(question, best)]
        sampling = Sampling(max_tokens=ANSWER_TOKENS, logprobs=2)
        self._engine.submit(1, "generate", {"messages": messages, "sampling": asdict(sampling)})
        text, tokens = "", []
        while self._engine.busy:
            for event in self._engine.step():
                if event.kind == "error":
                    raise SystemExit(f"the language model failed: {event.payload}")
                text += str(event.payload.get("text", ""))
                tokens += [_token(*one) for one in event.payload.get("logprobs", ())]
        return text.strip(), tokens


def _token(token: str, logprob: float, raw: bytes, top: Sequence[tuple[str, float, bytes]]) -> TokenLogprob:
    return TokenLogprob(token, logprob, raw, tuple(Alternative(*one) for one in top))


def generated(outcomes: Sequence[Outcome], slm: DirectText) -> tuple[list[Outcome], list[Outcome]]:
    """The quotes' outcomes with what the language model says to them, and its own answers (refusals left out)."""
    joined, answers = [], []
    for one in outcomes:
        item = one.example.asked.item
        if one.retrieval is None:
            continue
        text, tokens = slm.answer(item.question, one.retrieval.quotes[: prompts.PASSAGES])
        refused = prompts.is_refusal(text)
        more = signals.agreement(one.text, text, refused=refused)
        joined.append(replace(one, features=one.features | more))
        features = signals.generated(item.question, text, tokens, one.retrieval, refused=refused)
        right = not one.example.removed and natural.is_right_answer(item, text)
        if not refused:
            answers.append(Outcome(one.example, text, features, right))
    asked = [one for one in joined if not one.example.removed]
    own = [one for one in answers if not one.example.removed]
    known = [one for one in asked if one.example.asked.item.answers]
    print(f"the language model: {sum(one.right for one in own)} of {len(known)} answerable questions right, ", end="")
    print(f"{len(asked) - len(own)} of {len(asked)} refused, {sum(not one.right for one in own)} answered wrong")
    return joined, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--slm", type=Path, help="GGUF of the language model that answers beside the quotes")
    parser.add_argument("--write", action="store_true", help="write the models, fitted on all pages")
    options = parser.parse_args()
    embedder = natural.DirectEmbedder(options.embedding)
    print("with embeddings:")
    hybrid = examples(loaded(embedder))
    outcomes, judged = cross_validated(hybrid, RANKED, natural.DirectRanker(RANKER))
    report(outcomes, CONFIDENT_BY)
    print("with the ranking model:")
    report(judged, CONFIDENT_WHEN_JUDGED, REMOVED_WEIGHT_WHEN_JUDGED)
    joined, answers = generated(judged, DirectText(options.slm)) if options.slm else ([], [])
    if options.slm:
        print("with the ranking model and the language model's opinion:")
        report(joined, [*CONFIDENT_WHEN_JUDGED, *AGREEMENT_PRIOR], REMOVED_WEIGHT_WHEN_JUDGED)
    print("by keywords alone:")
    by_keyword = examples(loaded(None))
    keyword_outcomes, _ = cross_validated(by_keyword, RANKED_BY_KEYWORD)
    report(keyword_outcomes, CONFIDENT_BY_KEYWORD)
    if options.write:
        _write_ranker(fit_ranker(hybrid, RANKED), fit_ranker(by_keyword, RANKED_BY_KEYWORD))
        bias, weights = fit_confidence(outcomes, CONFIDENT_BY)
        _write_confidence("quote", (bias, weights))
        bias_judged, weights_judged = fit_confidence(judged, CONFIDENT_WHEN_JUDGED, REMOVED_WEIGHT_WHEN_JUDGED)
        _write_confidence("quote_judged", (bias_judged, weights_judged), UNSEEN)
        opinion, source = AGREEMENT_PRIOR, "what the language model adds by prior"
        if options.slm:
            names = [*CONFIDENT_WHEN_JUDGED, *AGREEMENT_PRIOR]
            together = fit_confidence(joined, names, REMOVED_WEIGHT_WHEN_JUDGED)
            opinion, source = {name: together[1][name] for name in AGREEMENT_PRIOR}, f"with {options.slm.stem}"
            _write_confidence("quote_judged_with_generated", together, f"{UNSEEN} {source}")
            if sum(one.right for one in answers) >= LEAST_RIGHT:
                own = fit_confidence(answers, CONFIDENT_GENERATED, REMOVED_WEIGHT_WHEN_JUDGED)
                _write_confidence("generated", own, f"{UNSEEN} {source}")
            else:
                print(f"fewer than {LEAST_RIGHT} right answers: the model of generated answers stays as it is")
        else:
            _write_confidence(
                "quote_judged_with_generated", (bias_judged, weights_judged | opinion), f"{UNSEEN}, {source}"
            )
        _write_confidence("quote_with_generated", (bias, weights | opinion), f"{FITTED_ON}, {source}")
        _write_confidence("quote_keyword", fit_confidence(keyword_outcomes, CONFIDENT_BY_KEYWORD))


def _write_ranker(weights: Weights, keyword_weights: Weights) -> None:
    data = {"cost": COST, "weights": weights, "keyword_weights": keyword_weights}
    QUOTE_MODEL.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _write_confidence(name: str, model: tuple[float, Weights], source: str = FITTED_ON) -> None:
    data = json.loads(CONFIDENCE.read_text(encoding="utf-8"))
    data["models"][name] = {"fitted_on": source, "bias": model[0], "weights": model[1]}
    CONFIDENCE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
