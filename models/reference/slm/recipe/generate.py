"""Makes passages with questions: the training data of the reference SLM, and its held-out examinations.

An `Example` is what the model will meet: blocks of a heading and text, then questions, each with the answer's verbatim
place in the passage or none. Everything follows from one seed. `split` chooses the wording: `train` and, without
its noise, `known`; `question` (held-out questions about known statements); `statement` (held-out statements asked about
in known ways).

    python -m recipe.generate --split train --count 3        prints some
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import clauses, frames, times, values
from .filler import CHAT, POLITE, TURNS
from .frames import Frame
from .grammar import Text, Value, capitalised, expand
from .writing import REWORDED, Fact, Writer, blurred, reworded

REFUSAL = "I don't know."
CLAUSES = 0.24  # share of facts about arbitrary things, against what the frames know of venues


@dataclass
class Link:
    """Words of a question that name something, and where the passage names it too (None: nowhere)."""

    asked: tuple[int, int]
    said: tuple[int, int] | None


@dataclass
class Question:
    text: str
    answer: str
    span: tuple[int, int] | None  # where the passage holds the answer
    links: list[Link] = field(default_factory=list)


@dataclass
class Example:
    passage: str
    questions: list[Question]


def prompt(passage: str, question: str) -> str:
    """The user message, as the assistant sends it."""
    return f"{passage}\n\nQuestion: {question}"


def conflict(a: str, b: str) -> bool:
    return a != b and any(a in group and b in group for group in frames.conflicts())


def content(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9äöü]{3,}", text.lower())) - {"the", "and", "for", "with"}


class Generator:
    """Draws examples; `level` (0..1) sets how much a passage holds. `others`: words of nearly the same meaning, which
    take the place of some in training; examinations are given none."""

    def __init__(
        self, seed: int, split: str = "train", level: float = 1.0, others: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.others = others or {}
        self.rng = random.Random(seed)
        self.split = split
        self.level = level
        self.frames = frames.load()
        self.writer = Writer(self.rng, split, self.others)

    # -- facts -----------------------------------------------------------------------------------------------------

    def frame(self) -> Frame:
        return clauses.clause(self.rng) if self.rng.random() < CLAUSES else self.rng.choice(self.frames)

    def fact(self, frame: Frame, style: times.Style, known: dict[str, Value], share: float = 0.3) -> Fact:
        """Draw the slots; sometimes the fact is about a thing that the passage already speaks of."""
        drawn = {}
        for slot, kind in frame.kinds.items():
            drawn[slot] = (
                known[kind]
                if kind in known and slot in frame.keys and self.rng.random() < share
                else values.make(kind, style, self.rng)
            )
        return Fact(frame, drawn)

    def facts(self, count: int, style: times.Style) -> list[Fact]:
        made: list[Fact] = []
        known: dict[str, Value] = {}
        while len(made) < count:
            sibling = made and self.rng.random() < 0.45
            frame = self.rng.choice(made).frame if sibling else self.frame()
            if any(
                conflict(frame.name if not frame.name.startswith("clause") else "clause", fact.family) for fact in made
            ):
                continue
            if sibling and not frame.keys:
                continue
            fact = self.fact(frame, style, {} if sibling else known)
            if sibling and len(frame.keys) > 1 and self.rng.random() < 0.4:  # the same thing on other days, say
                twin = next(other for other in made if other.frame is frame)
                fact.values[frame.keys[0]] = twin.values[frame.keys[0]]
            made.append(fact)
            known.update({frame.kinds[key]: fact.values[key] for key in frame.keys})
        return made

    # -- questions -------------------------------------------------------------------------------------------------

    def pool(self, frame: Frame, name: str) -> list[str]:
        if self.split == "question":
            return frame.held_questions.get(name, [])
        return frame.questions.get(name, [])

    def worded(self, template: str, drawn: dict[str, Value], seed: int) -> Text:
        if self.others and self.rng.random() < REWORDED:
            template = reworded(template, self.rng, self.others)
        return expand(template, drawn, random.Random(seed), question=True)

    def noisy(self, question: str) -> str:
        rng = self.rng
        question = capitalised(question)
        if self.split != "question" and rng.random() < 0.3:
            question = turned(question, rng)
        if self.split == "train" and rng.random() < 0.06:
            question = blurred(question, rng, r"(?<=[a-z] )[a-z]{3,}(?= (?:the|a|an|my|to|of|for|in|at)\b)")
        if rng.random() < 0.08:
            question = rng.choice(POLITE) + question[0].lower() + question[1:]
        if rng.random() < 0.35:
            question = question.rstrip("?.")
        roll = rng.random()
        if roll < 0.35:
            question = question.lower()
        elif roll < 0.38:
            question = question.upper()
        if rng.random() < 0.06 and len(question) > 12:
            at = rng.randrange(3, len(question) - 2)
            if question[at].isalpha() and question[at + 1].isalpha():
                question = question[:at] + rng.choice(
                    (
                        question[at + 1] + question[at] + question[at + 2 :],
                        question[at + 1 :],
                        question[at] + question[at:],
                    )
                )
        return question

    def answerable(self, facts: list[Fact], passage: str) -> Question | None:
        fact = self.rng.choice(facts)
        if self.split == "statement" and not fact.frame.held_statements:
            return None
        names = [name for name in fact.frame.questions if name in fact.text.spans and self.pool(fact.frame, name)]
        if not names:
            return None
        name = self.rng.choice(names)
        template, seed = self.rng.choice(self.pool(fact.frame, name)), self.rng.getrandbits(32)
        text = self.worded(template, fact.values, seed)
        if not set(text.spans) <= fact.shown or name in text.spans:
            return None
        start, end = (fact.place[0] + at for at in fact.text.spans[name])
        answer = passage[start:end]
        for other in facts:
            if other is fact or other.family != fact.family:
                continue
            if other.frame is not fact.frame:
                return None
            about = [slot for slot in text.spans if slot in other.values]
            if (
                all(self.overlap(text, slot, fact, other) for slot in about)
                and name in other.text.spans
                and other.text.value(name) != fact.text.value(name)
            ):
                return None
        noisy = self.noisy(text.text)
        links = []
        for slot in text.spans:
            asked = located(text.value(slot), noisy)
            if asked and slot in fact.text.spans:
                a, b = fact.text.spans[slot]
                links.append(Link(asked, (fact.place[0] + a, fact.place[0] + b)))
        return Question(noisy, answer, (start, end), links)

    def overlap(self, text: Text, slot: str, fact: Fact, other: Fact) -> bool:
        """Could the question's words for this slot mean the other fact too?"""
        if fact.frame.kinds[slot] == "days":
            said = set(other.values[slot].forms["days"].split())
            asked = {
                day
                for day in said | set(fact.values[slot].forms["days"].split())
                if day.lower() in text.value(slot).lower()
            }
            return slot not in other.shown or bool((asked or set(fact.values[slot].forms["days"].split())) & said)
        words = content(other.values[slot].forms.get("all", other.values[slot].text))
        return slot not in other.shown or bool(content(text.value(slot)) & words)

    def refused(self, facts: list[Fact], passage: str, style: times.Style) -> Question | None:
        rng = self.rng
        roll = rng.random()
        if roll < 0.06:
            return Question(self.noisy(rng.choice(CHAT)), REFUSAL, None)
        if roll < 0.44:
            return self.twisted(rng.choice(facts), passage, style)
        text = self.missing(rng.choice(facts), facts) if roll < 0.66 else self.foreign(facts, passage, style)
        return Question(self.noisy(text), REFUSAL, None) if text else None

    def twisted(self, fact: Fact, passage: str, style: times.Style) -> Question | None:
        """A question that would be answered, asked about something or some day that the passage does not name."""
        names = [name for name in fact.frame.questions if name in fact.text.spans and self.pool(fact.frame, name)]
        keys = [key for key in fact.frame.keys if key in fact.shown]
        if not names or not keys:
            return None
        template, key = self.rng.choice(self.pool(fact.frame, self.rng.choice(names))), self.rng.choice(keys)
        kind = fact.frame.kinds[key]
        new = values.make(kind, style, self.rng)
        if kind == "days":
            covered = set(new.forms["days"].split())
            if (
                any(day.lower() in passage.lower() for day in covered)
                or re.search(r"daily|every day|all week|seven days|every", passage, re.I)
                or any(
                    "days" in k and set(f.values[k].forms["days"].split()) & covered
                    for f in [fact]
                    for k in f.values
                    if fact.frame.kinds[k] == "days"
                )
            ):
                return None
            if (
                re.search(r"weekday|weekend|mon|tue|wed|thu|fri|sat|sun", passage, re.I)
                and self.days_said(passage) & covered
            ):
                return None
        elif content(new.forms.get("all", new.text)) & content(passage):
            return None
        text = self.worded(template, {**fact.values, key: new}, self.rng.getrandbits(32))
        if key not in text.spans or not set(text.spans) <= fact.shown or set(names) & set(text.spans) - {key}:
            return None
        noisy = self.noisy(text.text)
        asked = located(text.value(key), noisy)
        return Question(noisy, REFUSAL, None, [Link(asked, None)] if asked else [])

    def days_said(self, passage: str) -> set[str]:
        """Every day that any phrase of the passage covers."""
        low = passage.lower()
        return {
            day
            for phrase, days in times.DAYS.items()
            if phrase.lower() in low or values_label(phrase).lower() in low
            for day in days
        }

    def missing(self, fact: Fact, facts: list[Fact]) -> str | None:
        """A question about something that the passage speaks of, for a detail that it does not give."""
        present = set().union(*(f.text.spans.keys() | f.shown for f in facts if f.family == fact.family))
        known = (
            present
            | {part for whole, parts in fact.frame.parts.items() if whole in present for part in parts}
            | {whole for whole, parts in fact.frame.parts.items() if set(parts) & present}
        )
        names = [name for name in fact.frame.questions if name not in known and self.pool(fact.frame, name)]
        if not names:
            return None
        text = self.worded(
            self.rng.choice(self.pool(fact.frame, self.rng.choice(names))), fact.values, self.rng.getrandbits(32)
        )
        return text.text if set(text.spans) <= fact.shown else None

    def foreign(self, facts: list[Fact], passage: str, style: times.Style) -> str | None:
        """A question of another frame; half of them about a thing that the passage speaks of."""
        frame = self.frame()
        family = "clause" if frame.name.startswith("clause") else frame.name
        if any(family == fact.family or conflict(family, fact.family) for fact in facts):
            return None
        known = {
            fact.frame.kinds[key]: fact.values[key] for fact in facts for key in fact.frame.keys if key in fact.shown
        }
        fact = self.fact(frame, style, known, share=0.75)
        names = [name for name in frame.questions if self.pool(frame, name)]
        if not names:
            return None
        return self.worded(
            self.rng.choice(self.pool(frame, self.rng.choice(names))), fact.values, self.rng.getrandbits(32)
        ).text

    # -- examples --------------------------------------------------------------------------------------------------

    def example(self, questions: int = 5) -> Example:
        rng = self.rng
        style = times.Style.make(rng)
        venue = values.venue(rng)
        snippets = rng.random() < 0.6
        if snippets:
            count = rng.choice((1, 1, 2, 2, 3, 3, 3)) if self.level > 0.3 else rng.choice((1, 1, 2))
            facts = self.facts(count, style)
            groups = [[fact] for fact in facts]
            if rng.random() < 0.3 * self.level and facts[0].frame.keys and facts[0].frame.several:
                more = [self.fact(facts[0].frame, style, {}) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
                facts += more
                groups[0] += more
            filler = 0.08
        else:
            facts = self.facts(max(2, round(rng.choice((2, 3, 3, 4, 4, 5, 6, 7, 8, 10)) * self.level)), style)
            if rng.random() < 0.6:
                facts.sort(key=lambda fact: fact.frame.name)
            groups, filler = [], 0.25 * self.level
            while facts[sum(map(len, groups)) :]:
                size = rng.choice((1, 2, 3, 4, 5)) if len(groups) < 2 else len(facts)
                groups.append(facts[sum(map(len, groups)) :][:size])
        rng.shuffle(groups)
        out: list[str] = []
        for n, group in enumerate(groups):
            if n:
                out.append("\n\n")
            self.writer.section(group, venue, out, filler)
        passage = "".join(out)
        asked: list[Question] = []
        for _ in range(questions * 8):
            if len(asked) >= questions:
                break
            question = self.refused(facts, passage, style) if rng.random() < 0.3 else self.answerable(facts, passage)
            if question and question.text.lower() not in {q.text.lower() for q in asked}:
                asked.append(question)
        return Example(passage, asked)


def turned(question: str, rng: random.Random) -> str:
    """The question in other words, where one of the turns fits."""
    for pattern, forms in TURNS:
        if found := re.match(pattern, question):
            return rng.choice(forms).format(found[1])
    return question


def located(words: str, text: str) -> tuple[int, int] | None:
    start = text.lower().find(words.lower())
    return (start, start + len(words)) if start >= 0 else None


def values_label(phrase: str) -> str:
    for lead in ("on ", "every ", "from ", "at the ", "at ", "in the ", "in "):
        phrase = phrase.removeprefix(lead)
    return phrase


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="train", choices=("train", "known", "question", "statement"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5)
    options = parser.parse_args()
    generator = Generator(options.seed, options.split)
    for _ in range(options.count):
        example = generator.example()
        print(example.passage, "\n")
        for question in example.questions:
            print(f"Question: {question.text}\n  -> {question.answer}")
        print("-" * 100)


if __name__ == "__main__":
    main()
