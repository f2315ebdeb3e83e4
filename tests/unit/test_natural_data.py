"""The natural evaluation set (tests/data/natural) is complete and consistent."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data" / "natural"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DATA / "pages").glob("*.md"))}
QUESTIONS = [json.loads(line) for line in (DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
ANSWERABLE = [question for question in QUESTIONS if question["answers"]]


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def units(page: str) -> list[str]:
    """Table rows, list items and sentences of a page."""
    found: list[str] = []
    for line in page.splitlines():
        found += [line] if line.startswith(("|", "#")) else re.split(r"(?<=[.!?])\s+(?=[A-Z*(])", line)
    return [squeeze(unit) for unit in found if unit.strip()]


def test_counts():
    assert len(PAGES) == 6
    assert len(QUESTIONS) == 120
    assert len(QUESTIONS) - len(ANSWERABLE) == 30
    assert Counter(question["page"] for question in QUESTIONS) == dict.fromkeys(PAGES, 20)
    assert Counter(question["page"] for question in ANSWERABLE) == dict.fromkeys(PAGES, 15)


def test_ids_and_questions_are_unique():
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS)
    assert len({question["question"].lower() for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_of_the_stated_size_and_has_headings(name):
    page = PAGES[name]
    assert 500 <= len(page.split()) <= 900
    assert len(re.findall(r"^# ", page, re.MULTILINE)) == 1
    assert len(re.findall(r"^## ", page, re.MULTILINE)) >= 3
    assert re.search(r"^### ", page, re.MULTILINE)
    assert re.search(r"^\|", page, re.MULTILINE)
    assert re.search(r"^(- |\d+\. )", page, re.MULTILINE)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["id"])
def test_fields(question):
    assert list(question) == ["id", "page", "question", "answers", "evidence"]
    assert question["question"].strip()
    assert all(answer.strip() for answer in question["answers"])
    assert (question["evidence"] is None) == (not question["answers"])


@pytest.mark.parametrize("question", ANSWERABLE, ids=lambda question: question["id"])
def test_evidence_and_first_answer_are_in_the_page(question):
    page = squeeze(PAGES[question["page"]])
    evidence, answer = squeeze(question["evidence"]), squeeze(question["answers"][0])
    assert evidence in page
    assert answer in page
    assert answer in evidence


@pytest.mark.parametrize("question", ANSWERABLE, ids=lambda question: question["id"])
def test_no_answer_matches_text_outside_the_evidence(question):
    evidence = squeeze(question["evidence"]).lower()
    for answer in question["answers"]:
        for unit in map(str.lower, units(PAGES[question["page"]])):
            if squeeze(answer).lower() in unit:
                assert unit in evidence or evidence in unit, answer
