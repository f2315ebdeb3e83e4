"""The knowledge index through its asyncio door: incremental ingest, an embedding model that comes and goes, cancelling,
and kill -9 while documents are stored."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import DeadlineExceeded, InputTooLarge, InvalidDocument, InvalidRequest, NotFound
from agent.knowledge.knowledge import Knowledge
from agent.knowledge.store import Store
from agent.messages import Document
from tests.simulators.embedder import WordEmbedder

ROOT = Path(__file__).resolve().parents[2]
CAFE = Document("cafe", "Cafe", "The cafe serves soup and bread. Coffee costs two pounds.", {"floor": 1})
PARKING = Document("parking", "Parking", "Cars park behind the station. A ticket costs four pounds a day.")


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
async def knowledge(tmp_path: Path, embedder: WordEmbedder) -> AsyncIterator[Knowledge]:
    async with Knowledge(tmp_path / "state" / "knowledge.db", embedder, "words") as opened:
        yield opened


async def test_add_search_delete(knowledge: Knowledge) -> None:
    added = await knowledge.add("default", CAFE)
    assert (added.outcome, added.chunks, added.embedded) == ("added", 1, True)
    await knowledge.add("default", PARKING)
    found = await knowledge.search("default", "hot coffee", 5)
    assert (found.mode, found.passages[0].document) == ("hybrid", "cafe")
    found = await knowledge.search("default", "pounds", 5, {"floor": {"lte": 1}})
    assert [passage.document for passage in found.passages] == ["cafe"]
    assert await knowledge.delete("default", "cafe")
    assert not await knowledge.delete("default", "cafe")
    assert [document.id for document in await knowledge.documents("default")] == ["parking"]
    assert (await knowledge.document("default", "parking")).text == PARKING.text
    with pytest.raises(NotFound, match="cafe"):
        await knowledge.document("default", "cafe")
    with pytest.raises(NotFound, match="elsewhere"):
        await knowledge.search("elsewhere", "soup")


async def test_unchanged_documents_cost_no_embedding(knowledge: Knowledge, embedder: WordEmbedder) -> None:
    await knowledge.add("default", CAFE)
    asked = embedder.asked
    again = await knowledge.add("default", CAFE)
    assert (again.outcome, again.embedded) == ("unchanged", True)
    assert embedder.asked == asked
    changed = await knowledge.add("default", Document("cafe", "Cafe", "Closed today.", {"floor": 1}))
    assert changed.outcome == "replaced"
    assert embedder.asked > asked


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (Document("a", "t", ""), InvalidDocument),
        (Document("a", "t", " \n\t\0 "), InvalidDocument),
        (Document("a", "t", "word " * 1_000_001), InputTooLarge),
        (Document("", "t", "text"), InvalidRequest),
    ],
    ids=["empty", "blank", "too long", "no id"],
)
async def test_documents_that_cannot_be_stored(
    knowledge: Knowledge, document: Document, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await knowledge.add("default", document)
    assert await knowledge.collections() == ()


async def test_filters_are_checked(knowledge: Knowledge) -> None:
    await knowledge.add("default", CAFE)
    for bad in ([], {"floor": None}, {"floor": {"near": 2}}, {"floor": {"in": []}}, {"floor": {"lt": True}}):
        with pytest.raises(InvalidRequest, match="filter"):
            await knowledge.search("default", "soup", 5, bad)


async def test_keywords_answer_while_the_embedding_model_is_away(knowledge: Knowledge, embedder: WordEmbedder) -> None:
    await knowledge.add("default", CAFE)
    embedder.down = True
    added = await knowledge.add("default", PARKING)
    assert (added.outcome, added.embedded) == ("added", False)
    assert (await knowledge.search("default", "ticket for cars")).mode == "keyword"
    assert knowledge.problem is not None
    assert "crashed" in knowledge.problem
    assert not await knowledge.embed_missing()
    embedder.down = False
    keeping = asyncio.create_task(knowledge.keep_embedded(), name="keep embedded")

    async with asyncio.timeout(10):
        while (await knowledge.search("default", "ticket for cars")).mode != "hybrid":
            pass
    assert knowledge.problem is None
    added = await knowledge.add("default", CAFE)
    assert added.outcome == "unchanged"
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


async def test_without_an_embedding_model(tmp_path: Path) -> None:
    async with Knowledge(tmp_path / "knowledge.db", None) as knowledge:
        assert not (await knowledge.add("default", CAFE)).embedded
        found = await knowledge.search("default", "soup")
        assert (found.mode, found.passages[0].document) == ("keyword", "cafe")
        assert knowledge.problem
    async with Knowledge(tmp_path / "knowledge.db", WordEmbedder(), "words") as knowledge:
        assert await knowledge.embed_missing()
        assert (await knowledge.search("default", "soup")).mode == "hybrid"


async def test_another_embedding_model_means_embedding_again(tmp_path: Path) -> None:
    async with Knowledge(tmp_path / "knowledge.db", WordEmbedder(), "words") as knowledge:
        await knowledge.add("default", CAFE)
    async with Knowledge(tmp_path / "knowledge.db", WordEmbedder(128), "words of 128") as knowledge:
        assert (await knowledge.search("default", "soup")).mode == "keyword"
        assert await knowledge.embed_missing()
        assert (await knowledge.search("default", "soup")).mode == "hybrid"


async def test_searches_run_while_documents_are_stored(knowledge: Knowledge) -> None:
    await knowledge.add("default", CAFE)

    async def store() -> None:
        for number in range(40):
            await knowledge.add("default", Document(f"d{number}", "Menu", f"Dish {number} is soup. " * 30))

    storing = asyncio.create_task(store(), name="store")
    searches = 0
    while not storing.done():
        found = await asyncio.gather(*(knowledge.search("default", "coffee") for _ in range(4)))
        assert all(f.passages[0].document == "cafe" for f in found)
        searches += len(found)
    await storing
    assert searches >= 8
    assert len(await knowledge.documents("default")) == 41


async def test_a_search_that_nobody_waits_for_is_interrupted(tmp_path: Path, embedder: WordEmbedder) -> None:
    """The statement would run for minutes; its reader serves the next search at once."""
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < 0"
    async with Knowledge(tmp_path / "knowledge.db", embedder, "words", readers=1, search_s=0.2) as knowledge:
        await knowledge.add("default", CAFE)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
            await knowledge._read(lambda store: store._rows(endless))
        cancelled = asyncio.create_task(knowledge._read(lambda store: store._rows(endless)), name="endless")
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        async with asyncio.timeout(10):
            while not (await knowledge.documents("default")):
                pass
        assert time.monotonic() - started < 10


# ---------------------------------------------------------------- kill -9

INGEST = """
import asyncio, sys
from pathlib import Path
from agent.knowledge.knowledge import Knowledge
from agent.messages import Document
from tests.simulators.embedder import WordEmbedder

async def main():
    async with Knowledge(Path(sys.argv[1]), WordEmbedder(256), "words") as knowledge:
        print("ready", flush=True)
        for number in range(int(sys.argv[2]), 10**6):
            for version in range(2):
                parts = [f"# Part {part}\\nThe soup d{number} is of version {version}." for part in range(4)]
                text = "\\n\\n".join(parts)
                await knowledge.add("default", Document(f"d{number}", "Menu", text))
                print(number, version, flush=True)

asyncio.run(main())
"""


def kill_while_ingesting(path: Path, after_s: float, first: int) -> tuple[int, int] | None:
    """Start an ingesting process, kill -9 it a while after it is ready; returns what it acknowledged last."""
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, str(path), str(first)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.kill()
    lines = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait(20)
    if not lines:
        return None
    number, version = lines[-1].split()
    return int(number), int(version)


def check_after_kill(path: Path, last: tuple[int, int] | None) -> int:
    """Everything acknowledged is there, nothing is torn; returns the last document's number, to go on with."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with closing(Store(path)) as store:
        stored = {d.id: d for c in store.collections() for d in store.documents(c.name, limit=10**6)}
        if last:
            number, version = last
            assert {f"d{n}" for n in range(number + 1)} <= stored.keys()
            assert f"version {version}" in store.document("default", f"d{number}").text or version == 0
            assert all("version 1" in store.document("default", f"d{n}").text for n in range(number))
        words = WordEmbedder(256)
        for document in stored.values():
            assert document.embedded
            assert document.chunks == 4
        for number in list(range(len(stored)))[-3:]:
            query = f"soup d{number}"
            found = store.search("default", query, words.vectors([query])[0], 4)
            assert found.mode == "hybrid"
            assert {passage.document for passage in found.passages} == {f"d{number}"}
        rows = {kind: store._rows("SELECT count(*) FROM vectors WHERE kind = ?", kind)[0][0] for kind in range(4)}
        chunks = store._rows("SELECT count(*) FROM chunks")[0][0]
        assert set(rows.values()) == {chunks} == {4 * len(stored)}
        if stored:
            assert store._rows("SELECT count(*) FROM keywords_1")[0][0] == chunks
            assert store._rows("SELECT count(*) FROM bits_rowids")[0][0] == 2 * chunks
    return max(len(stored) - 1, 0)


def test_kill_9_while_ingesting(tmp_path: Path) -> None:
    """A small share of tests/benchmarks/kill_ingest.py."""
    moments = random.Random(7)
    path = tmp_path / "knowledge.db"
    following = 0
    for _ in range(5):
        last = kill_while_ingesting(path, moments.uniform(0.0, 0.4), following)
        following = check_after_kill(path, last)
    assert following > 5
