"""Anything as a query, a filter or a document: an answer or a typed error, never another exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import InvalidRequest
from agent.knowledge import filters, vectors
from agent.knowledge.markdown import chunks_of
from agent.knowledge.store import Store
from agent.messages import Document
from tests.simulators.embedder import WordEmbedder

WORDS = WordEmbedder()
SMALL = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
PIECES = ["\0", "\ud800", " ", *"\"'()*^:-+{},ſİ", "AND", "OR", "NOT", "NEAR", "soup"]
SYNTAX = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
COMPARISONS = st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte", "in", "like"])
FILTERS = st.dictionaries(
    st.sampled_from(["year", "lang", "open", "x'y", ""]),
    JSON | st.dictionaries(COMPARISONS, JSON, max_size=2),
    max_size=4,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(Store(tmp_path_factory.mktemp("fuzz") / "knowledge.db")) as opened:
        opened.use_model("words")
        for number in range(5):
            metadata = {"year": 2020 + number, "lang": "en", "open": number % 2 == 0}
            put(opened, Document(f"d{number}", "Cafe", f"Soup number {number} is hot.", metadata))
        yield opened


def put(store: Store, document: Document) -> None:
    chunks = chunks_of(document.title, document.text)
    rows = [vectors.of_chunk(chunk, WORDS.vectors(vectors.texts_of(chunk))) for chunk in chunks]
    store.put("default", document, chunks, rows)


@SMALL
@given(query=st.text(max_size=60) | SYNTAX)
def test_queries(store: Store, query: str) -> None:
    hybrid = store.search("default", query, WORDS.vectors([query])[0], 3)
    assert len(hybrid.passages) == 3
    store.search("default", query, None, 3)


@SMALL
@given(data=FILTERS | JSON)
def test_filters(store: Store, data: object) -> None:
    try:
        where = filters.parse(data)
    except InvalidRequest:
        return
    everything = {p.document for p in store.search("default", "soup", None, 9).passages}
    found = {p.document for p in store.search("default", "soup", None, 9, where).passages}
    assert found <= everything
    assert found == {p.document for p in store.search("default", "soup", WORDS.vectors(["soup"])[0], 9, where).passages}


@SMALL
@given(
    id=st.text(max_size=20),
    title=st.text(max_size=20),
    text=st.text(max_size=300),
    metadata=st.dictionaries(st.text(max_size=5), SCALARS, max_size=3),
)
def test_documents_come_back_as_they_went_in(
    store: Store, id: str, title: str, text: str, metadata: dict[str, str]
) -> None:
    document = Document(f"fuzz {id}", title, text, metadata)
    try:
        put(store, document)
    except InvalidRequest:
        return
    assert store.document("default", document.id) == document
    assert store.delete("default", document.id)
