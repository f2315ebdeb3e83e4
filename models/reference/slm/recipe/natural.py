"""Training examples from pages that were written without the generator: `models/reference/natural-train`.

As a device does, a question is put to the few sentences of its page that are nearest to it. The answer stands in one of
them, or the sentence that holds it has been left out and the model has to say so. Numbers are drawn anew where the
question has none, so that what stands in the passage must be read, not remembered.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .generate import REFUSAL, Example, Question
from .meaning import Encoder
from .writing import REWORDED, reworded

FOLDER = Path(__file__).parents[2] / "natural-train"
Part = tuple[str, str]  # heading path, text
NEAR = 12


def sentences(markdown: str) -> list[Part]:
    """(heading path, sentence, list item or table row) of a page; a row stands under its table's head."""
    path: list[str] = []
    out: list[Part] = []
    header = ""
    for line in markdown.splitlines():
        line = line.strip()
        if line.startswith("#"):
            depth = len(line) - len(line.lstrip("#"))
            path = [*path[: depth - 1], line.lstrip("# ")]
            header = ""
        elif line.startswith("|"):
            if not header:
                header = line
            elif not re.fullmatch(r"[|:\-\s]+", line):
                out.append((" > ".join(path[-2:]), f"{header}\n|{'---|' * (header.count('|') - 1)}\n{line}"))
        elif line:
            header = ""
            pieces = [line] if re.match(r"[-*+] |\d+\. ", line) else re.split(r"(?<=[.!?])\s+(?=[A-Z“\"(])", line)
            out += [(" > ".join(path[-2:]), piece) for piece in pieces]
    return out


@dataclass(frozen=True)
class Asked:
    text: str
    answer: str  # empty: the page does not tell
    part: int  # the part of the page that holds the answer, -1 if none
    near: tuple[int, ...]  # parts of the page, nearest to the question first


@dataclass(frozen=True)
class Page:
    parts: list[Part]
    questions: list[Asked]


def load(embedding: Path, folder: Path = FOLDER, most: int | None = None) -> list[Page]:
    """Pages (at most ``most``) with their questions; questions whose answer lies in no single part are left out."""
    encoder = Encoder(embedding)
    asked: dict[str, list[dict[str, object]]] = {}
    for file in sorted(folder.glob("questions*.jsonl")):
        for line in file.read_text("utf-8").splitlines():
            entry = json.loads(line)
            asked.setdefault(entry["page"], []).append(entry)
    pages = []
    for name, entries in sorted(asked.items())[:most]:
        parts = sentences((folder / "pages" / name).read_text("utf-8"))
        vectors = np.stack([encoder(text) + encoder(f"{heading}: {text}") for heading, text in parts])
        questions = []
        for entry in entries:
            text, answers = str(entry["question"]), entry["answers"]
            part = -1
            if answers:
                assert isinstance(answers, list)
                held = [
                    n for n, (_, own) in enumerate(parts) if entry["evidence"] in own or own in str(entry["evidence"])
                ]
                part = next((n for n in held if answers[0] in parts[n][1]), -1)
                if part < 0:
                    continue
            near = tuple(int(n) for n in np.argsort(-(vectors @ encoder(text)))[:NEAR])
            questions.append(Asked(text, str(answers[0]) if answers else "", part, near))
        pages.append(Page(parts, questions))
    return pages


class Natural:
    """Draws examples: three or so parts of a page, shown as blocks, and the questions that they answer or do not."""

    def __init__(self, pages: list[Page], seed: int, others: Mapping[str, Sequence[str]]) -> None:
        self.pages = pages
        self.others = others
        self.rng = random.Random(seed)

    def example(self, questions: int = 5) -> Example:
        rng = self.rng
        page = rng.choice(self.pages)
        first = rng.choice(page.questions)
        near = [n for n in first.near if n != first.part]
        chosen = near[: rng.choice((1, 2, 2, 3))] if rng.random() < 0.7 else rng.sample(near, min(2, len(near)))
        if first.part >= 0 and rng.random() < 0.85:
            chosen.append(first.part)
        rng.shuffle(chosen)
        others = [one for one in page.questions if one is not first and one.part in chosen]
        rest = [
            one
            for one in page.questions
            if one is not first and one.part not in chosen and set(one.near[:4]) & set(chosen)
        ]
        rng.shuffle(others)
        rng.shuffle(rest)
        asked = [first, *others[: questions - 2], *rest[: 1 + (rng.random() < 0.5)]]
        passage, starts = "", {}
        for n in chosen:
            heading, text = page.parts[n]
            passage += ("\n\n" if passage else "") + f"## {heading}\n"
            starts[n] = len(passage)
            passage += text
        if not any(re.search(r"\d", one.text) for one in asked):
            passage = re.sub(r"\d", lambda m: str(rng.randrange(10)) if rng.random() < 0.5 else m[0], passage)
        out = []
        for one in asked:
            answer, span = REFUSAL, None
            if one.part in starts:
                start = starts[one.part] + page.parts[one.part][1].index(one.answer)
                span = (start, start + len(one.answer))
                answer = passage[span[0] : span[1]]
            text = one.text.lower() if rng.random() < 0.3 else one.text
            text = reworded(text, rng, self.others) if rng.random() < REWORDED else text
            out.append(Question(text.rstrip("?") if rng.random() < 0.3 else text, answer, span))
        return Example(passage, out)
