"""Questions about visitor pages, asked of the real index: how many are answered right by a quote.

    python tests/benchmarks/natural.py --embedding FOLDER [--ranker models/reference/ranker] [--keywords] [--show]
    python tests/benchmarks/natural.py --embedding FOLDER --xquad ../shared/data/xquad/xquad.en.dev.json

Every page is a collection of its own, as a device holds the documents of its own venue. FOLDER holds model.onnx and
tokenizer.json. An answer counts as right where the quote holds one of the acceptable answers (a bare yes or no never
counts) and, where the data names the evidence, overlaps it. Served are quotes with a confidence of at least
``--threshold``. models/reference/natural-dev/fit.py trains on the same loading code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.confidence import provisional, signals
from agent.engines.embedding import EmbeddingEngine
from agent.engines.protocol import LoadSpec
from agent.engines.ranking import RankingEngine
from agent.knowledge import quotes, words
from agent.knowledge.knowledge import Knowledge
from agent.knowledge.retrieval import Gathered, Retriever
from agent.messages import Document, Retrieval

ROOT = Path(__file__).resolve().parents[2]
Vector = np.ndarray


@dataclass(frozen=True)
class Item:
    """A question about one page; no answers: the page does not hold one."""

    id: str
    page: str
    question: str
    answers: tuple[str, ...]
    evidence: str


@dataclass(frozen=True)
class Asked:
    """A question and what the index gave for it."""

    item: Item
    found: Gathered

    async def retrieval(self, ranker: DirectRanker | None = None) -> Retrieval:
        """Raises what the models raise: a benchmark without its model would be another one."""
        found = self.found
        if not found.sentences:
            return Retrieval(found.passages, (), found.mode)
        weighed = quotes.weigh(self.item.question, found.sentences, found.vector, found.word_vectors)
        judged = None
        if ranker is not None and weighed.embedded:
            judged = await ranker.rank(words.correct(self.item.question), weighed.texts, deadline_s=5.0)
        return Retrieval(found.passages, quotes.chosen(weighed, judged), found.mode)


class DirectEmbedder:
    """The embedding engine in this process, each text once."""

    def __init__(self, folder: Path) -> None:
        self._engine = EmbeddingEngine()
        self._engine.load(LoadSpec("minilm", "", str(folder / "model.onnx"), {}))
        self._known: dict[str, Vector] = {}

    async def embed(self, texts: Sequence[str], *, deadline_s: float) -> Vector:
        for text in texts:
            if text not in self._known:
                self._known[text] = self._engine.embed(text)
        return np.stack([self._known[text] for text in texts])


class DirectRanker:
    """The ranking engine in this process."""

    def __init__(self, folder: Path) -> None:
        self._engine = RankingEngine()
        self._engine.load(LoadSpec("ranker", "", str(folder / "model.onnx"), {}))

    async def rank(self, question: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        return self._engine.rank(question, list(texts))


def _items(folder: Path, files: str) -> list[Item]:
    lines = [line for file in sorted(folder.glob(files)) for line in file.read_text("utf-8").splitlines()]
    return [_item(json.loads(line)) for line in lines if line.strip()]


def _page(folder: Path, name: str) -> Document:
    text = (folder / "pages" / f"{Path(name).stem}.md").read_text(encoding="utf-8")
    heading = re.search(r"^# (.*)", text, re.MULTILINE)
    return Document(name, heading[1].strip() if heading else Path(name).stem, text)


async def load(folder: Path, embedder: DirectEmbedder | None, files: str = "questions*.jsonl") -> list[Asked]:
    """Every question of a data folder (pages/*.md, ``files``) with what the index found for it."""
    items = _items(folder, files)
    with tempfile.TemporaryDirectory() as state:
        async with Knowledge(Path(state) / "index.sqlite", embedder, "bench") as knowledge:
            for page in sorted({item.page for item in items}):
                await knowledge.add(_collection(page), _page(folder, page))
            retriever = Retriever(knowledge, embedder)
            found = [Asked(item, await retriever.gather(item.question, _collection(item.page))) for item in items]
    return found


async def load_xquad(source: str, embedder: DirectEmbedder | None) -> list[Asked]:
    """The Wikipedia paragraphs of XQuAD as one collection and their questions; evidence is not marked."""
    articles = json.loads(source)["data"]
    with tempfile.TemporaryDirectory() as state:
        async with Knowledge(Path(state) / "index.sqlite", embedder, "bench") as knowledge:
            retriever = Retriever(knowledge, embedder)
            items = []
            for article in articles:
                for number, paragraph in enumerate(article["paragraphs"]):
                    name = f"{article['title']}-{number}"
                    await knowledge.add("xquad", Document(name, article["title"], paragraph["context"]))
                    items += [
                        Item(qa["id"], name, qa["question"], tuple(answer["text"] for answer in qa["answers"]), "")
                        for qa in paragraph["qas"]
                    ]
            return [Asked(item, await retriever.gather(item.question, "xquad")) for item in items]


def _collection(page: str) -> str:
    return Path(page).stem


def _item(record: Mapping[str, object]) -> Item:
    page = record.get("page") or record.get("documents")
    if isinstance(page, list):
        page = page[0]
    answers = record["answers"]
    assert isinstance(answers, list)
    return Item(
        str(record.get("id", "")), str(page), str(record["question"]), tuple(map(str, answers)),
        str(record.get("evidence") or ""),
    )  # fmt: skip


# ---------------------------------------------------------------- judging


def plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def is_right(item: Item, text: str) -> bool:
    """Whether a served text answers the question."""
    served = f" {plain(text)} "
    accepted = [plain(answer) for answer in item.answers if plain(answer) not in ("yes", "no", "")]
    return any(f" {answer} " in served for answer in accepted) and (
        not item.evidence or any(holds_evidence(item, line) for line in text.split("\n")) or _overlaps(item, text)
    )


def is_right_answer(item: Item, text: str) -> bool:
    """Whether a generated answer, which may be a single word, is one of the acceptable ones."""
    given = plain(text)
    accepted = [plain(answer) for answer in item.answers if plain(answer) not in ("yes", "no", "")]
    return any(
        f" {answer} " in f" {given} " or (f" {given} " in f" {answer} " and len(given) * 2 >= len(answer))
        for answer in accepted
        if given
    )


def holds_evidence(item: Item, text: str) -> bool:
    """Whether a sentence is (part of) the evidence, or holds it."""
    evidence, words_ = plain(item.evidence), plain(text)
    return bool(evidence) and (evidence in words_ or (len(words_) > 5 and words_ in evidence))


def _overlaps(item: Item, text: str) -> bool:
    return any(holds_evidence(item, part) for part in re.split(r"(?<=[.!?:])\s+|\n", text))


@dataclass(frozen=True)
class Figures:
    """Shares of a run: of the answerable questions ``ranked`` have the right quote first and ``right`` have it served;
    ``wrong`` of all that is served (answers to unanswerable questions included), ``wrong_answerable`` without those;
    ``refused`` of the unanswerable."""

    ranked: float
    right: float
    wrong: float
    wrong_answerable: float
    refused: float


def figures(outcomes: Sequence[tuple[Item, str, float]], threshold: float) -> Figures:
    """From (item, best quote, confidence)."""
    answerable = [(is_right(item, text), score >= threshold) for item, text, score in outcomes if item.answers]
    other = [score >= threshold for item, _, score in outcomes if not item.answers]
    served = sum(s for _, s in answerable) + sum(other)
    wrong = sum(s and not r for r, s in answerable)
    return Figures(
        ranked=np.mean([r for r, _ in answerable]).item(),
        right=np.mean([r and s for r, s in answerable]).item(),
        wrong=(wrong + sum(other)) / max(1, served),
        wrong_answerable=wrong / max(1, sum(s for _, s in answerable)),
        refused=1.0 - np.mean(other).item() if other else 1.0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--ranker", type=Path, help="folder of the ranking model: models/reference/ranker")
    parser.add_argument("--data", type=Path, default=ROOT / "tests" / "data" / "natural")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--keywords", action="store_true", help="without embeddings")
    parser.add_argument("--show", action="store_true", help="print every question that went wrong (never on test data)")
    parser.add_argument("--xquad", type=Path, help="ask the questions of this file instead")
    options = parser.parse_args()
    embedder = None if options.keywords else DirectEmbedder(options.embedding)
    ranker = DirectRanker(options.ranker) if options.ranker else None
    asked = asyncio.run(
        load_xquad(options.xquad.read_text(encoding="utf-8"), embedder)
        if options.xquad
        else load(options.data, embedder)
    )
    outcomes, times = [], []
    for one in asked:
        started = time.perf_counter()
        found = asyncio.run(one.retrieval(ranker))
        times.append(time.perf_counter() - started)
        best = found.quotes[0].text if found.quotes else ""
        sure = provisional.confidence("quote", signals.quote(one.item.question, found)) if found.quotes else 0.0
        outcomes.append((one.item, best, sure))
        if options.show and (
            is_right(one.item, best) != bool(one.item.answers) or (sure >= 0.5) != bool(one.item.answers)
        ):
            print(f"{sure:.2f} {one.item.id} {one.item.question!r} -> {best!r}")
    holding = [
        any(holds_evidence(one.item, stored.sentence.text) for stored in one.found.sentences)
        for one in asked
        if one.item.evidence
    ]
    if holding:
        print(f"evidence among the sentences found: {np.mean(holding):.3f}")
    sentences = np.mean([len(one.found.sentences) for one in asked])
    print(
        f"{len(asked)} questions, {sentences:.0f} sentences each, quotes in {1000 * np.median(times):.1f} ms (median)"
    )
    for threshold in sorted({0.3, 0.4, 0.5, 0.6, 0.7, options.threshold}):
        print(f"threshold {threshold:.2f}: {figures(outcomes, threshold)}")


if __name__ == "__main__":
    main()
