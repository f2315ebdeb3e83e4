"""Retrieval on real text with the real embedding worker: the 120 XQuAD paragraphs and their 632 questions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from agent import config
from agent.engines.clients import EmbeddingClient
from agent.engines.pool import ModelSpec, Pool
from agent.engines.protocol import LoadSpec
from agent.knowledge.knowledge import Knowledge
from agent.messages import Document

Article = tuple[str, str, tuple[str, ...]]


@pytest.fixture(scope="module")
def paragraphs(shared_data: Path) -> list[Article]:
    """Title, text and questions of every paragraph."""
    articles = json.loads((shared_data / "xquad" / "xquad.en.dev.json").read_text("utf-8"))["data"]
    return [
        (article["title"].replace("_", " "), paragraph["context"], tuple(q["question"] for q in paragraph["qas"]))
        for article in articles
        for paragraph in article["paragraphs"]
    ]


async def recalls(knowledge: Knowledge, paragraphs: list[Article], mode: str) -> tuple[float, float]:
    """recall@1 and recall@5 of the paragraph that a question was written for."""
    first = fifth = asked = 0
    for number, (_, _, questions) in enumerate(paragraphs):
        for question in questions:
            found = await knowledge.search("xquad", question, 8)
            assert found.mode == mode
            documents = list(dict.fromkeys(passage.document for passage in found.passages))
            asked += 1
            first += documents[:1] == [str(number)]
            fifth += str(number) in documents[:5]
    assert asked == 632
    return first / asked, fifth / asked


async def fill(knowledge: Knowledge, paragraphs: list[Article]) -> None:
    for number, (title, text, _) in enumerate(paragraphs):
        await knowledge.add("xquad", Document(str(number), title, text))


async def test_hybrid_search_finds_the_paragraph(
    tmp_path: Path, paragraphs: list[Article], embedding_model: Path
) -> None:
    files = [embedding_model / "model.onnx", embedding_model / "tokenizer.json"]
    load = LoadSpec(
        model="minilm",
        engine="agent.engines.embedding:EmbeddingEngine",
        entry=str(files[0]),
        files={str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    )
    async with Pool(config.Pool(memory_mb=512)) as pool:
        pool.register(ModelSpec(load, "embedding", 100 << 20))
        async with Knowledge(tmp_path / "knowledge.db", EmbeddingClient(pool, "minilm"), "minilm") as knowledge:
            await fill(knowledge, paragraphs)
            first, fifth = await recalls(knowledge, paragraphs, "hybrid")
    assert first >= 0.94
    assert fifth >= 0.995


async def test_keywords_alone_are_a_usable_fallback(tmp_path: Path, paragraphs: list[Article]) -> None:
    async with Knowledge(tmp_path / "knowledge.db", None) as knowledge:
        await fill(knowledge, paragraphs)
        first, fifth = await recalls(knowledge, paragraphs, "keyword")
    assert first >= 0.93
    assert fifth >= 0.99
