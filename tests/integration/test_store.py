"""The knowledge index on disk, through `Store`: replacing, deleting, searching, filtering, migrating, a full disk."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest

from agent.database import migrate
from agent.errors import BadModel, InputTooLarge, InvalidDocument, InvalidRequest, NotFound, StorageFailed, StorageFull
from agent.knowledge import filters, schema, vectors
from agent.knowledge.markdown import chunks_of
from agent.knowledge.store import Store
from agent.messages import Document
from tests.simulators.disk import small_disk
from tests.simulators.embedder import WordEmbedder

WORDS = WordEmbedder()
OPENING = Document("opening", "Opening hours", "The museum opens at nine. It closes at six. On Monday it stays closed.")
CAFE = Document("cafe", "Cafe", "The cafe serves soup and bread. Coffee costs two pounds. Dogs may sit on the terrace.")
PARKING = Document("parking", "Parking", "Cars park behind the station. A ticket costs four pounds a day.")
TABLES = ("documents", "metadata", "chunks", "sentences", "vectors", "bits_rowids", "keywords_1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "knowledge.db")) as opened:
        opened.use_model("words")
        yield opened


def put(store: Store, document: Document, collection: str = "default", *, embed: bool = True) -> str:
    chunks = chunks_of(document.title, document.text)
    made = [vectors.of_chunk(chunk, WORDS.vectors(vectors.texts_of(chunk))) for chunk in chunks] if embed else None
    return store.put(collection, document, chunks, made)


def search(store: Store, query: str, where: object = None, k: int = 5, collection: str = "default") -> list[str]:
    found = store.search(collection, query, WORDS.vectors([query])[0], k, filters.parse(where))
    return [passage.document for passage in found.passages]


def counts(path: Path) -> dict[str, int]:
    """Rows of every table, as another program sees them."""
    with closing(schema.connect(path, read_only=True)) as db:
        return {table: db.execute(f"SELECT count(*) FROM {table}").get for table in TABLES}


def test_search_finds_and_explains(store: Store) -> None:
    for document in (OPENING, CAFE, PARKING):
        assert put(store, document) == "added"
    question = "Is the museum closed on Monday, or does it open at nine?"
    found = store.search("default", question, WORDS.vectors([question])[0])
    best = found.passages[0]
    assert found.mode == "hybrid"
    assert (best.document, best.chunk, best.title, best.heading) == ("opening", 0, "Opening hours", "Opening hours")
    assert best.text == OPENING.text
    assert (best.rank_vector, best.rank_pair, best.rank_keyword) == (0, 0, 0)
    assert best.score == pytest.approx(1.0)
    assert best.similarity is not None
    assert 0 < best.similarity < 1


def test_sentences_come_back_with_their_vectors(store: Store) -> None:
    put(store, CAFE)
    passages = store.search("default", "coffee").passages
    sentences = store.sentences("default", passages)
    assert [s.sentence.text for s in sentences] == [
        "The cafe serves soup and bread.",
        "Coffee costs two pounds.",
        "Dogs may sit on the terrace.",
    ]
    wanted = WORDS.vectors([sentences[1].sentence.search])[0]
    assert sentences[1].vector is not None
    assert sentences[1].heading_vector is not None
    assert float(sentences[1].vector @ wanted) > 0.999
    assert float(sentences[1].heading_vector @ wanted) < 0.999
    assert sentences[1].pair_vector is not None
    together = WORDS.vectors([f"{sentences[1].sentence.search} {sentences[2].sentence.search}"])[0]
    assert float(sentences[1].pair_vector @ together) > 0.999
    assert sentences[2].pair_vector is None


def test_without_a_query_vector_keywords_answer(store: Store) -> None:
    put(store, CAFE)
    put(store, PARKING)
    found = store.search("default", "Where can I park my car?", None)
    assert found.mode == "keyword"
    assert found.passages[0].document == "parking"
    assert found.passages[0].similarity is None
    assert found.passages[0].rank_vector is None


def test_one_document_without_vectors_makes_its_collection_keyword_only(store: Store) -> None:
    put(store, CAFE)
    put(store, PARKING, embed=False)
    put(store, CAFE, "other")
    vector = WORDS.vectors(["coffee"])[0]
    assert store.search("default", "coffee", vector).mode == "keyword"
    assert store.search("other", "coffee", vector).mode == "hybrid"
    (waiting,) = store.stale(10)
    rows = [vectors.of_chunk(chunk, WORDS.vectors(vectors.texts_of(chunk))) for chunk in waiting.chunks]
    assert store.put_vectors(waiting, rows)
    assert not store.put_vectors(waiting, rows)
    assert store.search("default", "coffee", vector).mode == "hybrid"
    assert search(store, "ticket for cars") == ["parking", "cafe"]


def test_unchanged_content_is_left_alone(store: Store) -> None:
    chunks = chunks_of(CAFE.title, CAFE.text)
    assert store.needs("default", CAFE, chunks) == "all"
    assert put(store, CAFE, embed=False) == "added"
    assert store.needs("default", CAFE, chunks) == "vectors"
    assert put(store, CAFE, embed=False) == "unchanged"
    assert put(store, CAFE) == "embedded"
    assert store.needs("default", CAFE, chunks) == "nothing"
    assert put(store, CAFE) == "unchanged"
    (before,) = store.documents("default")
    relabelled = Document(CAFE.id, CAFE.title, CAFE.text, {"floor": 2})
    assert put(store, relabelled) == "replaced"
    (after,) = store.documents("default")
    assert after.stored_at >= before.stored_at
    assert after.metadata == {"floor": 2}


def test_delete_and_ingest_again_leave_no_orphans(store: Store, tmp_path: Path) -> None:
    put(store, CAFE)
    put(store, OPENING)
    once = counts(store.path)
    for text in ("Soup is sold out.", CAFE.text):
        put(store, Document("cafe", "Cafe", text, {"a": 1}))
    assert store.delete("default", "cafe")
    assert not store.delete("default", "cafe")
    put(store, CAFE)
    assert counts(store.path) == once
    store.delete("default", "cafe")
    store.delete("default", "opening")
    assert counts(store.path) == dict.fromkeys(TABLES, 0)


def test_the_bit_index_is_made_anew_when_it_is_mostly_holes(tmp_path: Path) -> None:
    """Five collections hold 80 blocks of 1024 for 200 vectors, which counts as mostly holes."""
    names = [f"c{number}" for number in range(5)]
    with closing(Store(tmp_path / "knowledge.db", exact_vectors=0)) as store:
        store.use_model("words")
        for version in range(14):
            for name in names:
                for dish in range(20 if version == 0 else 4):
                    put(store, Document(f"menu {dish}", "Menu", f"Dish {dish} of {name} is soup {version}."), name)
        held = counts(store.path)
        assert held["bits_rowids"] == 2 * 20 * len(names) == held["vectors"] // 2
        for name in names:
            assert search(store, f"Dish 3 of {name} is soup 13", collection=name)[0] == "menu 3"


def test_collections_are_apart(store: Store) -> None:
    put(store, CAFE, "one")
    put(store, PARKING, "two")
    put(store, Document("cafe", "Cafe", "Only cake today."), "two")
    assert search(store, "coffee", collection="one") == ["cafe"]
    assert sorted(search(store, "coffee", collection="two")) == ["cafe", "parking"]
    assert [(c.name, c.documents, c.embedded) for c in store.collections()] == [("one", 1, 1), ("two", 2, 2)]
    assert store.document("one", "cafe") == CAFE
    assert store.delete_collection("two")
    assert not store.delete_collection("two")
    assert search(store, "coffee", collection="one") == ["cafe"]
    with pytest.raises(NotFound, match="two"):
        search(store, "coffee", collection="two")


def test_documents_are_listed_in_pages(store: Store) -> None:
    for number in range(7):
        put(store, Document(f"d{number}", "", f"text {number}"))
    first = store.documents("default", limit=4)
    rest = store.documents("default", after=first[-1].id, limit=4)
    assert [d.id for d in (*first, *rest)] == [f"d{number}" for number in range(7)]


FILTERS = [
    ({"year": 2025}, {"b"}),
    ({"year": {"gte": 2025}}, {"b", "c"}),
    ({"year": {"gt": 2024, "lt": 2026}}, {"b"}),
    ({"year": {"in": [2024, 2026]}}, {"a", "c"}),
    ({"year": {"ne": 2024}}, {"b", "c"}),
    ({"lang": "en", "year": {"lte": 2025}}, {"a", "b"}),
    ({"lang": {"gt": "de"}}, {"a", "b"}),
    ({"open": True}, {"a"}),
    ({"open": {"in": [False]}}, {"c"}),
    ({"year": "2025"}, set()),
    ({"open": 1}, set()),
    ({"missing": {"ne": 1}}, set()),
    ({'we"ird.$key': 1.5}, {"c"}),
    (None, {"a", "b", "c", "d"}),
    ({}, {"a", "b", "c", "d"}),
]


@pytest.mark.parametrize(("where", "wanted"), FILTERS, ids=[str(where) for where, _ in FILTERS])
@pytest.mark.parametrize("exact_vectors", [20_000, 0], ids=["exact", "bits"])
def test_filters(tmp_path: Path, where: object, wanted: set[str], exact_vectors: int) -> None:
    with closing(Store(tmp_path / "knowledge.db", exact_vectors=exact_vectors)) as store:
        store.use_model("words")
        for id, metadata in {
            "a": {"year": 2024, "lang": "en", "open": True},
            "b": {"year": 2025, "lang": "en"},
            "c": {"year": 2026, "lang": "de", "open": False, 'we"ird.$key': 1.5},
            "d": {},
        }.items():
            put(store, Document(id, id, f"The soup of {id} is hot.", metadata))
        assert set(search(store, "hot soup", where)) == wanted
        found = store.search("default", "hot soup", None, 5, filters.parse(where))
        assert {passage.document for passage in found.passages} == wanted


def test_the_bit_index_finds_what_comparing_all_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("bdfgklmnprst"), 3)) + "a" for _ in range(400)]
    path = tmp_path / "knowledge.db"
    with closing(Store(path)) as store:
        store.use_model("words")
        for number in range(60):
            text = "\n\n".join(
                f"# {i}\n" + ". ".join(" ".join(rng.choice(names, 6)) for _ in range(3)) for i in range(20)
            )
            put(store, Document(f"d{number}", "", text))
    same = 0.0
    with closing(Store(path, exact_vectors=0)) as fast, closing(Store(path)) as exact:
        for _ in range(20):
            query = " ".join(rng.choice(names, 6))
            vector = WORDS.vectors([query])[0]
            one, other = (
                [(p.document, p.chunk) for p in s.search("default", query, vector, 10).passages] for s in (fast, exact)
            )
            same += len(set(one) & set(other)) / 10
    assert same / 20 >= 0.9


@pytest.mark.parametrize(
    "query",
    [
        '"', "'", "soup AND", "NEAR(soup bread", "soup*", "heading:soup", "-soup", "(((", "^soup", "soup OR OR",
        "a:b:c", "{heading body}:soup", "\0", "soup\0bread", "'; DROP TABLE documents; --", "%_", "🦊", "\ud800", "",
        "   ", "soup " * 5000, "the of and", "ＮＥＡＲ", "x" * 100_000,
    ],
)  # fmt: skip
def test_any_text_may_be_a_query(store: Store, query: str) -> None:
    put(store, CAFE)
    found = store.search("default", query, None)
    assert {passage.document for passage in found.passages} <= {"cafe"}
    assert ("soup" in query.lower().replace("*", " ").split()) <= bool(found.passages)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_vectors_that_are_not_finite_are_refused(store: Store, bad: float) -> None:
    put(store, CAFE)
    before = counts(store.path)
    (chunk,) = chunks_of(PARKING.title, PARKING.text)
    rows = WORDS.vectors(vectors.texts_of(chunk))
    rows[1, 3] = bad
    with pytest.raises(BadModel, match="not finite"):
        store.put("default", PARKING, [chunk], [vectors.of_chunk(chunk, rows)])
    query = WORDS.vectors(["coffee"])[0]
    query[0] = bad
    with pytest.raises(BadModel, match="not finite"):
        store.search("default", "coffee", query)
    assert counts(store.path) == before


def test_vectors_of_another_dimension_are_refused(store: Store) -> None:
    put(store, CAFE)
    before = counts(store.path)
    wide = WordEmbedder(128)
    (chunk,) = chunks_of(PARKING.title, PARKING.text)
    with pytest.raises(BadModel, match=r"128.*64"):
        store.put("default", PARKING, [chunk], [vectors.of_chunk(chunk, wide.vectors(vectors.texts_of(chunk)))])
    with pytest.raises(BadModel, match=r"128.*64"):
        store.search("default", "coffee", wide.vectors(["coffee"])[0])
    with pytest.raises(BadModel, match="shape"):
        vectors.of_chunk(chunk, wide.vectors(["one text"]))
    assert counts(store.path) == before


def test_another_embedding_model_drops_the_vectors(store: Store) -> None:
    put(store, CAFE)
    put(store, PARKING)
    assert not store.use_model("words")
    assert store.use_model("wider")
    wide = WordEmbedder(104)
    vector = wide.vectors(["coffee"])[0]
    assert store.search("default", "coffee", vector).mode == "keyword"
    while waiting := store.stale(10):
        for stale in waiting:
            store.put_vectors(stale, [vectors.of_chunk(c, wide.vectors(vectors.texts_of(c))) for c in stale.chunks])
    found = store.search("default", "coffee", vector)
    assert found.mode == "hybrid"
    assert found.passages[0].document == "cafe"


def test_vectors_of_a_version_that_was_replaced_are_not_stored(store: Store) -> None:
    put(store, CAFE, embed=False)
    (waiting,) = store.stale()
    put(store, Document("cafe", "Cafe", "New text."), embed=False)
    rows = [vectors.of_chunk(c, WORDS.vectors(vectors.texts_of(c))) for c in waiting.chunks]
    assert not store.put_vectors(waiting, rows)
    assert store.stale()[0].hash != waiting.hash


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (Document("", "t", "x"), InvalidRequest),
        (Document("a\0b", "t", "x"), InvalidRequest),
        (Document("x" * 513, "t", "x"), InvalidRequest),
        (Document("a", "t", "x", {"k": float("nan")}), InvalidRequest),
        (Document("a", "t", "x", {"k": 2**63}), InvalidRequest),
        (Document("a", "t", "x", {"k": None}), InvalidRequest),  # type: ignore[dict-item]
        (Document("a", "t", "half \ud83e of a pair"), InvalidDocument),
        (Document("a", "t", "\n\n".join(f"# h{n}\nx" for n in range(10_001))), InputTooLarge),
    ],
    ids=["no id", "nul", "long id", "nan", "big", "null", "surrogate", "chunks"],
)
def test_documents_that_cannot_be_stored(store: Store, document: Document, error: type[Exception]) -> None:
    with pytest.raises(error):
        put(store, document, embed=False)
    assert store.collections() == ()


@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "-a", "ä", "x" * 64])
def test_collection_names(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest, match="collection"):
        put(store, CAFE, name)


@pytest.mark.parametrize("k", [0, -1, 101, 10**9])
def test_k_has_limits(store: Store, k: int) -> None:
    put(store, CAFE)
    with pytest.raises(InvalidRequest, match="k is"):
        store.search("default", "soup", None, k)


# ---------------------------------------------------------------- the file


def test_an_index_of_the_first_schema_is_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.db"
    with closing(apsw.Connection(str(path))) as db:
        migrate(db, path, schema.MIGRATIONS, to=1)
        db.execute("INSERT INTO collections VALUES (1, 'default')")
        db.execute(
            "CREATE VIRTUAL TABLE keywords_1 USING fts5 (heading, body, content='', contentless_delete=1,"
            " tokenize='porter unicode61 remove_diacritics 2')"
        )
        db.execute("INSERT INTO documents VALUES (1, 1, 'cafe', 'Cafe', 'Soup is hot.', x'00', 0)")
        db.execute("INSERT INTO chunks VALUES (1, 1, 0, 'Cafe', 'Soup is hot.')")
        db.execute("INSERT INTO sentences VALUES (1, 0, 'sentence', '', 'Soup is hot.', 'Soup is hot.')")
        db.execute("INSERT INTO keywords_1 (rowid, heading, body) VALUES (1, 'Cafe', 'Soup is hot.')")
    with closing(Store(path)) as store:
        store.use_model("words")
        vector = WORDS.vectors(["hot soup"])[0]
        assert store.search("default", "hot soup", vector).mode == "keyword"
        (waiting,) = store.stale()
        store.put_vectors(waiting, [vectors.of_chunk(c, WORDS.vectors(vectors.texts_of(c))) for c in waiting.chunks])
        found = store.search("default", "hot soup", vector)
        assert (found.mode, found.passages[0].text) == ("hybrid", "Soup is hot.")
    with closing(apsw.Connection(str(path))) as db:
        assert db.execute("PRAGMA user_version").get == len(schema.MIGRATIONS)


def test_an_index_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageFailed, match=r"schema 99.*newer"):
        Store(path)


@pytest.mark.parametrize("damage", ["not a database", "torn page"])
def test_a_damaged_index_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "knowledge.db"
    if damage == "not a database":
        path.write_bytes(b"x" * 8192)
    else:
        with closing(Store(path)) as store:
            for number in range(200):
                put(store, Document(f"d{number}", "", "Some soup. " * 30))
        data = bytearray(path.read_bytes())
        for at in range(4096, len(data), 4096):
            data[at : at + 64] = b"\xff" * 64
        path.write_bytes(data)
    with pytest.raises(StorageFailed, match=r"damaged.*ingest"):
        look_at(path)


def look_at(path: Path) -> None:
    with closing(Store(path)) as store:
        search(store, "soup")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="folder"):
        Store(tmp_path / "missing" / "knowledge.db")


def fill_up(store: Store) -> int:
    for number in range(10_000):
        try:
            put(store, Document(f"d{number}", f"Title {number}", f"The soup of day {number} is hot. " * 40))
        except StorageFull:
            return number
    raise AssertionError("the disk never filled up")


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as folder:
        with closing(Store(folder / "knowledge.db")) as store:
            store.use_model("words")
            stored = fill_up(store)
            assert stored > 3
            assert len(store.documents("default", limit=10_000)) == stored
            assert search(store, "soup of day 1")
        with closing(Store(folder / "knowledge.db", read_only=True)) as store:
            assert len(store.documents("default", limit=10_000)) == stored


def test_a_full_database_can_be_emptied_again(tmp_path: Path) -> None:
    """The same without a mount: SQLite's own limit of pages gives the same error."""
    with closing(Store(tmp_path / "knowledge.db")) as store:
        store.use_model("words")
        store._db.execute("PRAGMA max_page_count = 400")
        stored = fill_up(store)
        assert len(store.documents("default", limit=10_000)) == stored
        assert store.delete("default", "d0")
        assert put(store, CAFE) == "added"


# ---------------------------------------------------------------- several at once


def test_readers_see_whole_documents_while_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.db"
    writer = Store(path)
    writer.use_model("words")
    versions = [
        Document("page", "Page", "\n\n".join(f"# Part {n}\nThe soup of version {v} is hot." for n in range(20)))
        for v in range(2)
    ]
    put(writer, versions[0])
    done = threading.Event()
    seen: set[str] = set()
    problems: list[str] = []

    def read() -> None:
        with closing(Store(path, read_only=True)) as reader:
            while not done.is_set():
                found = reader.search("default", "hot soup", WORDS.vectors(["hot soup"])[0], 20)
                texts = {passage.text.split("version ")[1] for passage in found.passages}
                seen.update(texts)
                if len(found.passages) != 20 or len(texts) != 1:
                    problems.append(f"{len(found.passages)} passages of {texts}")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    turn = 0
    while (len(seen) < 2 or turn < 20) and time.monotonic() < deadline:
        turn += 1
        put(writer, versions[turn % 2])
    done.set()
    for thread in threads:
        thread.join(20)
    writer.close()
    assert not problems
    assert len(seen) == 2


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "knowledge.db"
    holder = (
        "import sys, apsw; db = apsw.Connection(sys.argv[1]); db.execute('BEGIN EXCLUSIVE'); print('held', flush=True);"
        "sys.stdin.read()"
    )
    with closing(Store(path)) as store:
        store._db.set_busy_timeout(50)
        process = subprocess.Popen(
            [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(StorageFailed, match="in use by another process"):
                store.use_model("words")
        finally:
            process.communicate("", timeout=20)
        assert not store.use_model("words")
