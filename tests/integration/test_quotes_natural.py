"""Quotes through the real index and the real embedding model, on the pages that they were fitted on.

The figures on pages that nobody tuned on are made by hand with tests/benchmarks/natural.py.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import NotFound, Unavailable
from agent.knowledge.ingest import extract
from agent.knowledge.knowledge import Knowledge
from agent.knowledge.retrieval import Retriever
from agent.messages import Document
from agent.paths import shipped

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import natural

from agent.confidence import provisional, signals

DEV = shipped("models", "reference", "natural-dev")
QUESTIONS = "questions.jsonl"  # eight pages of 28: enough to see that something broke
DEMO = sorted(shipped("models", "reference", "demo", "documents").glob("*.md"))


class Gone:
    """An embedding model that cannot be had."""

    async def embed(self, texts, *, deadline_s):
        raise Unavailable("the embedding model is not installed")


@pytest.fixture(scope="module")
def embedder(embedding_model):
    return natural.DirectEmbedder(embedding_model)


@pytest.fixture(scope="module")
def ranker():
    return natural.DirectRanker(shipped("models", "reference", "ranker"))


async def measured(embedder, ranker=None):
    """What is quoted at a least confidence of one half."""
    outcomes = []
    for one in await natural.load(DEV, embedder, QUESTIONS):
        found = await one.retrieval(ranker)
        sure = provisional.confidence("quote", signals.quote(one.item.question, found))
        outcomes.append((one.item, found.quotes[0].text, sure))
    return natural.figures(outcomes, 0.5)


async def test_natural_questions_are_quoted_right(embedder):
    figures = await measured(embedder)
    assert figures.ranked >= 0.86
    assert figures.right >= 0.58
    assert figures.wrong <= 0.13
    assert figures.refused >= 0.82


async def test_the_ranking_model_tells_near_misses_from_answers(embedder, ranker):
    figures = await measured(embedder, ranker)
    assert figures.ranked >= 0.86
    assert figures.right >= 0.67
    assert figures.wrong <= 0.1
    assert figures.refused >= 0.88


async def test_a_ranking_model_that_fails_takes_nothing_away(embedder, ranker, tmp_path):
    class Failing:
        async def rank(self, question, texts, *, deadline_s):
            raise Unavailable("the ranking model does not fit into memory")

    async with Knowledge(tmp_path / "index.sqlite", embedder, "minilm") as knowledge:
        await knowledge.add("default", Document("a", "Mill", "# Mill\n\nChildren pay half. Dogs may not come in."))
        question = "What do children pay?"
        without = await Retriever(knowledge, embedder).retrieve(question, "default")
        unheard = await Retriever(knowledge, embedder, Failing()).retrieve(question, "default")
        assert "ranking model" in unheard.notes[0]
        assert replace(unheard, notes=()) == without
        assert "judged" not in without.quotes[0].signals
        judged = await Retriever(knowledge, embedder, ranker).retrieve(question, "default")
        assert judged.quotes[0].text.startswith("Children pay half.")
        assert judged == await Retriever(knowledge, embedder, ranker).retrieve(question, "default")
        wanted = await ranker.rank(question, ["Mill: Children pay half."], deadline_s=5.0)
        assert judged.quotes[0].signals["judged"] == pytest.approx(wanted[0], abs=1e-6)


async def test_without_embeddings_the_ranking_model_is_not_asked(tmp_path):
    class NeverAsked:
        async def rank(self, question, texts, *, deadline_s):
            raise AssertionError("asked")

    async with Knowledge(tmp_path / "index.sqlite", None, "") as knowledge:
        await knowledge.add("default", Document("a", "Mill", "# Mill\n\nChildren pay half."))
        found = await Retriever(knowledge, None, NeverAsked()).retrieve("What do children pay?", "default")
        assert found.mode == "keyword"
        assert found.quotes[0].text == "Children pay half."


async def test_the_demo_venue_is_quoted_verbatim(embedder, tmp_path):
    texts = {page.name: page.read_text(encoding="utf-8") for page in DEMO}
    async with Knowledge(tmp_path / "index.sqlite", embedder, "minilm") as knowledge:
        for name, text in texts.items():
            await knowledge.add("default", Document(name, *extract(name, text.encode())))
        retriever = Retriever(knowledge, embedder)
        for question, expected in [
            ("What does an adult ticket cost if I buy it online?", "£13.00"),
            ("Do I need a password for the wifi?", "password"),
            ("What is the height limit in the car park?", "2.0 metres"),
            ("How late are you open on a Thursday in summer?", "Thursday until 21:00"),
        ]:
            found = await retriever.retrieve(question, "default")
            assert found.mode == "hybrid"
            assert expected in found.quotes[0].text, question
            for quote in found.quotes:
                flat = " ".join(texts[quote.document].split())
                assert all(" ".join(line.split()) in flat for line in quote.text.split("\n"))
        with pytest.raises(NotFound):
            await retriever.retrieve("When?", "nowhere")


async def test_without_the_model_keywords_answer_and_say_so(tmp_path):
    async with Knowledge(tmp_path / "index.sqlite", Gone(), "minilm") as knowledge:
        await knowledge.add("default", Document("a", "Mill", "# Mill\n\n- Children: half price\n- Dogs: not allowed\n"))
        for retriever in (Retriever(knowledge, Gone()), Retriever(knowledge, None)):
            found = await retriever.retrieve("What do kids pay?", "default")
            assert found.mode == "keyword"
            assert found.quotes[0].text == "Children: half price"
            assert found.quotes[0].similarity is None
