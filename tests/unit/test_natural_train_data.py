"""The natural training pages: counts, unique ids, evidence verbatim in its page."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from agent.paths import shipped

FOLDER = shipped("models", "reference", "natural-train")
RECORDS = [
    json.loads(line)
    for file in sorted(FOLDER.glob("questions-*.jsonl"))
    for line in file.read_text(encoding="utf-8").splitlines()
]


def plain(text: str) -> str:
    return " ".join(text.split())


def test_there_are_30_pages_of_30_questions() -> None:
    pages = {path.name for path in (FOLDER / "pages").glob("*.md")}
    assert len(pages) == 30
    assert Counter(record["page"] for record in RECORDS) == dict.fromkeys(pages, 30)
    assert sum(not record["answers"] for record in RECORDS) == 300
    assert len({record["id"] for record in RECORDS}) == len(RECORDS)


@pytest.mark.parametrize("page", sorted({record["page"] for record in RECORDS}))
def test_evidence_and_first_answer_stand_in_the_page(page: str) -> None:
    text = plain((FOLDER / "pages" / page).read_text(encoding="utf-8"))
    for record in RECORDS:
        if record["page"] == page and record["answers"]:
            assert plain(record["evidence"]) in text, record["id"]
            assert plain(record["answers"][0]) in plain(record["evidence"]), record["id"]
        elif record["page"] == page:
            assert record["evidence"] is None, record["id"]
