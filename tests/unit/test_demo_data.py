"""Format of the shipped data: the demo venue (documents, intent pack, questions) and the natural-dev questions.

Only the files are read: no engine, index or classifier is involved.
"""

import json
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).parents[2] / "models" / "reference"
DEMO = REFERENCE / "demo"
DEV = REFERENCE / "natural-dev"

DOCUMENTS = sorted((DEMO / "documents").glob("*.md"))
PAGES = sorted((DEV / "pages").glob("*.md"))
PACK = tomllib.loads((DEMO / "intents.toml").read_text(encoding="utf-8"))
ASKED = tomllib.loads((DEMO / "questions.toml").read_text(encoding="utf-8"))
QUESTIONS, ESCALATED = ASKED["questions"], ASKED["escalated"]
DEV_QUESTIONS = [
    json.loads(line)
    for file in sorted(DEV.glob("questions*.jsonl"))
    for line in file.read_text(encoding="utf-8").splitlines()
]

OUTCOMES = ("response", "action", "handoff")
EXPECTATIONS = {"quote", "action", "generated", "handoff", "any"}


def same(text: str) -> str:
    """What two sentences have in common that differ only in case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.lower()))


def by_name(value: Any) -> str:
    return value["name"] if isinstance(value, dict) else value.stem


# Pages


def test_counts_of_pages() -> None:
    assert len(DOCUMENTS) == 12
    assert len(PAGES) == 28


@pytest.mark.parametrize("path", DOCUMENTS + PAGES, ids=by_name)
def test_page_starts_with_its_only_h1(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.startswith("# ") for line in lines) == 1


@pytest.mark.parametrize("path", DOCUMENTS, ids=by_name)
def test_document_has_the_length_of_a_web_page(path: Path) -> None:
    assert 250 <= len(path.read_text(encoding="utf-8").split()) <= 500


@pytest.mark.parametrize("path", PAGES, ids=by_name)
def test_dev_page_has_the_length_of_a_web_page(path: Path) -> None:
    assert 400 <= len(path.read_text(encoding="utf-8").split()) <= 1000


@pytest.mark.parametrize("path", DOCUMENTS + PAGES, ids=by_name)
def test_contacts_are_fictional(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert all(host == "example.org" for host in re.findall(r"@([\w.-]*\w)", text))
    # 01632 960000-960999 is set aside for drama: nobody can be called by it.
    assert all(re.fullmatch(r"01632 960 ?\d{3}", number) for number in re.findall(r"\b0\d{3,4}[ \d]{6,8}\d\b", text))


@pytest.mark.parametrize("path", DOCUMENTS + PAGES, ids=by_name)
def test_table_rows_have_the_columns_of_their_header(path: Path) -> None:
    width = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        width = (width or line.count("|")) if line.startswith("|") else 0
        assert line.count("|") == width, line


# Intent pack


def test_pack_header() -> None:
    assert set(PACK) == {"name", "version", "language", "out_of_scope", "intents"}
    assert (PACK["version"], PACK["language"]) == (1, "en")
    assert len(PACK["out_of_scope"]) >= 30


def test_intent_names_are_distinct() -> None:
    names = [intent["name"] for intent in PACK["intents"]]
    assert len(names) == len(set(names)) >= 10
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)


@pytest.mark.parametrize("intent", PACK["intents"], ids=by_name)
def test_intent_has_examples_and_exactly_one_outcome(intent: dict[str, Any]) -> None:
    assert set(intent) <= {"name", "examples", "slots", *OUTCOMES}
    assert 12 <= len(intent["examples"]) <= 30
    outcomes = [intent[key] for key in OUTCOMES if key in intent]
    assert len(outcomes) == 1
    assert outcomes[0]  # no empty text, and handoff is never false
    assert intent.get("handoff", True) is True


@pytest.mark.parametrize("intent", PACK["intents"], ids=by_name)
def test_slots_compile_match_and_are_known(intent: dict[str, Any]) -> None:
    slots = {slot["name"]: re.compile(slot["pattern"]) for slot in intent.get("slots", [])}
    assert len(slots) == len(intent.get("slots", []))
    for pattern in slots.values():
        assert pattern.groups == 1
        assert any(pattern.search(example) for example in intent["examples"])
    assert set(re.findall(r"\{(\w+)\}", intent.get("response", ""))) <= set(slots)


@pytest.mark.parametrize(
    ("slot", "sentence", "value"),
    [
        ("floor", "Please print me a map of floor 2", "2"),
        ("floor", "a plan of LEVEL 0", "0"),
        ("floor", "a map, please", None),
        ("floor", "floor 12", None),
        ("language", "could you speak German?", "German"),
        ("language", "the screen is in German, I want English", "English"),
        ("language", "Français, please", "Français"),
    ],
)
def test_slot_value(slot: str, sentence: str, value: str | None) -> None:
    patterns = {entry["name"]: entry["pattern"] for intent in PACK["intents"] for entry in intent.get("slots", [])}
    match = re.search(patterns[slot], sentence)
    assert (match and match[1]) == value


def test_no_sentence_belongs_to_two_classes() -> None:
    sentences = [example for intent in PACK["intents"] for example in intent["examples"]] + PACK["out_of_scope"]
    assert [key for key, count in Counter(map(same, sentences)).items() if count > 1] == []


# Demo questions


def test_demo_questions() -> None:
    assert len(QUESTIONS) == 10
    assert all(set(question) == {"text", "expect"} for question in QUESTIONS)
    assert {question["expect"] for question in QUESTIONS} <= EXPECTATIONS
    assert {"quote", "action", "handoff"} <= {question["expect"] for question in QUESTIONS}


def test_one_question_for_each_path_to_the_cloud() -> None:
    assert [set(question) for question in ESCALATED] == [{"text", "path"}] * 2
    assert [question["path"] for question in ESCALATED] == ["https", "mqtt"]
    beyond = (DEMO / "stand-in" / "beyond-the-museum.md").read_text(encoding="utf-8")
    pages = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for word in ("World Cup", "rowing boats"):
        assert word in beyond
        assert word not in pages


def test_demo_questions_are_not_training_sentences() -> None:
    known = {same(sentence) for intent in PACK["intents"] for sentence in intent["examples"]}
    known |= {same(sentence) for sentence in PACK["out_of_scope"]}
    assert [question["text"] for question in [*QUESTIONS, *ESCALATED] if same(question["text"]) in known] == []


# natural-dev


def test_dev_counts() -> None:
    assert len(DEV_QUESTIONS) == 8 * 25 + 20 * 30
    assert len({row["id"] for row in DEV_QUESTIONS}) == len(DEV_QUESTIONS)
    a_page = Counter((row["page"], bool(row["answers"])) for row in DEV_QUESTIONS)
    assert {page for page, _ in a_page} == {path.name for path in PAGES}
    shares = Counter((a_page[path.name, True], a_page[path.name, False]) for path in PAGES)
    assert shares == {(17, 8): 8, (20, 10): 20}


@pytest.mark.parametrize("row", DEV_QUESTIONS, ids=lambda row: row["id"])
def test_dev_question(row: dict[str, Any]) -> None:
    assert set(row) == {"id", "page", "question", "answers", "evidence"}
    assert row["question"] == row["question"].strip() != ""
    if not row["answers"]:
        assert row["evidence"] is None
        return
    page = (DEV / "pages" / row["page"]).read_text(encoding="utf-8")
    assert "\n" not in row["evidence"]
    assert row["evidence"] in page
    assert row["answers"][0] in row["evidence"]
    assert all(answer == answer.strip() != "" for answer in row["answers"])
    assert len(set(row["answers"])) == len(row["answers"])
