"""How much personal data is found in tests/data/personal, and how much else is taken with it.

    python tests/benchmarks/personal.py [--file tuning|held_out|afterwards] [--errors]

Recalled: every letter and digit of a labelled span is covered. Precise: of a span that was found, at least 80 % of the
letters and digits are labelled (a neighbouring word taken too makes it wrong). Kinds are not compared: a telephone
number that is kept back as an identity number is kept back.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agent.escalation.personal import Finder, Pseudonyms  # noqa: E402

DATA = ROOT / "tests" / "data" / "personal"
_MARK = re.compile(r"⟦([A-Z]+):(.*?)⟧", re.DOTALL)


@dataclass(frozen=True)
class Example:
    text: str
    language: str
    spans: tuple[tuple[int, int, str], ...]


@dataclass
class Score:
    labelled: Counter[str] = field(default_factory=Counter)
    recalled: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    precise: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.recalled.total() / self.labelled.total()

    @property
    def precision(self) -> float:
        return self.precise.total() / self.found.total()

    def __add__(self, other: Score) -> Score:
        return Score(
            self.labelled + other.labelled,
            self.recalled + other.recalled,
            self.found + other.found,
            self.precise + other.precise,
            self.errors + other.errors,
        )


def examples(name: str) -> Iterator[Example]:
    for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        text, spans, position = "", [], 0
        for mark in _MARK.finditer(entry["marked"]):
            text += entry["marked"][position : mark.start()]
            spans.append((len(text), len(text) + len(mark[2]), mark[1]))
            text, position = text + mark[2], mark.end()
        yield Example(text + entry["marked"][position:], entry["language"], tuple(spans))


def finders() -> dict[str, Finder]:
    """One a language: they differ in the region of telephone numbers."""
    device = json.loads((DATA / "device.json").read_text(encoding="utf-8"))
    return {
        language: Finder(device["names"], device["places"], region) for language, region in device["regions"].items()
    }


def score(name: str) -> Score:
    result, by_language = Score(), finders()
    for example in examples(name):
        found = Pseudonyms(by_language[example.language], [example.text]).spans(example.text)
        taken = {place for span in found for place in range(span.start, span.end)}
        labelled = {place for start, end, _ in example.spans for place in range(start, end)}
        for start, end, kind in example.spans:
            result.labelled[kind] += 1
            missed = [place for place in range(start, end) if example.text[place].isalnum() and place not in taken]
            result.recalled[kind] += not missed
            if missed:
                result.errors.append(f"missed {kind} {example.text[start:end]!r} in {example.text!r}")
        for span in found:
            result.found[span.kind] += 1
            letters = [place for place in range(span.start, span.end) if example.text[place].isalnum()]
            right = sum(place in labelled for place in letters) >= 0.8 * len(letters)
            result.precise[span.kind] += right
            if not right:
                result.errors.append(f"wrongly {span.kind} {example.text[span.start : span.end]!r} in {example.text!r}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", choices=("tuning", "held_out", "afterwards"), action="append")
    parser.add_argument("--errors", action="store_true", help="print every span that is missed or wrong")
    arguments = parser.parse_args()
    for name in arguments.file or ("tuning", "held_out", "afterwards"):
        result = score(name)
        print(
            f"{name}: {result.labelled.total()} spans, recall {result.recall:.4f}, "
            f"{result.found.total()} found, precision {result.precision:.4f}"
        )
        for kind in sorted(result.labelled | result.found):
            print(
                f"  {kind:6} {result.recalled[kind]:4} of {result.labelled[kind]:4} recalled,"
                f" {result.precise[kind]:4} of {result.found[kind]:4} found are right"
            )
        for error in result.errors if arguments.errors else ():
            print(f"  {error}")


if __name__ == "__main__":
    main()
