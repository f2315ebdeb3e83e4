"""The natural pages that train and certify: counts, unique ids, evidence verbatim in its page, no page in two sets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.paths import shipped

SETS = {name: shipped("models", "reference", name) for name in ("natural-train", "natural-calibration")}
PER_PAGE, UNANSWERABLE = 30, 10


def records(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("questions-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("name", "pages"), [("natural-train", 188), ("natural-calibration", 77)])
def test_every_page_has_thirty_questions_of_which_ten_have_no_answer(name: str, pages: int) -> None:
    found = records(SETS[name])
    files = {path.name for path in (SETS[name] / "pages").glob("*.md")}
    assert len(files) == pages
    assert Counter(record["page"] for record in found) == dict.fromkeys(files, PER_PAGE)
    assert Counter(record["page"] for record in found if not record["answers"]) == dict.fromkeys(files, UNANSWERABLE)
    assert len({record["id"] for record in found}) == len(found)


@pytest.mark.parametrize("name", SETS)
def test_evidence_and_first_answer_stand_in_the_page(name: str) -> None:
    texts = {path.name: plain(path.read_text(encoding="utf-8")) for path in (SETS[name] / "pages").glob("*.md")}
    for record in records(SETS[name]):
        if record["answers"]:
            assert plain(record["evidence"]) in texts[record["page"]], record["id"]
            assert plain(record["answers"][0]) in plain(record["evidence"]), record["id"]
        else:
            assert record["evidence"] is None, record["id"]


def test_no_page_is_in_two_sets() -> None:
    texts = [
        plain(path.read_text(encoding="utf-8")) for folder in SETS.values() for path in (folder / "pages").glob("*.md")
    ]
    assert len(set(texts)) == len(texts)
    ids = [record["id"] for folder in SETS.values() for record in records(folder)]
    assert len(set(ids)) == len(ids)
