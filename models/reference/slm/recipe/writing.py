"""Writes facts down as visitor pages do: sentences, several facts in one, lists, tables, under headings."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from . import times, values
from .filler import ADVERBS, CLAUSES, EPITHETS, FILLERS, SWAPS, TAILS, WRAPS
from .frames import Frame
from .grammar import Text, Value, capitalised, expand, slots

REWORDED = 0.25  # share of statements and questions in which a word gives way to one of nearly the same meaning
SAFE_FIRST = set(  # openings that lose their capital inside a sentence
    "The A An Our We You Your Please All There On In At For "
    "To If No Only From With Visitors Children Guests Anyone Tickets It Admission Entry By Up Go Take Bags".split()
)


def reworded(text: str, rng: random.Random, others: Mapping[str, Sequence[str]]) -> str:
    """Put a word of nearly the same meaning in place of one outside of marks."""
    places = [
        match
        for match in re.finditer(r"(?<![\w{<|\[-])[a-z]{4,}(?![\w}>|\]-])", text)
        if match.group() in others and not re.search(r"[\[{<][^\]}>]*$", text[: match.start()])
    ]
    if not places:
        return text
    place = rng.choice(places)
    return text[: place.start()] + rng.choice(others[place.group()]) + text[place.end() :]


def blurred(text: str, rng: random.Random, word: str) -> str:
    """Put a word that means nothing in place of one that `word` finds, outside of marks: wording is never all known."""
    found = [match for match in re.finditer(word, text) if not re.search(r"[\[{<][^\]}>]*$", text[: match.start()])]
    if not found:
        return text
    place = rng.choice(found)
    return text[: place.start()] + values.wordish(rng) + text[place.end() :]


@dataclass
class Fact:
    frame: Frame
    values: dict[str, Value]
    text: Text = field(default_factory=Text)
    shown: set[str] = field(default_factory=set)
    place: tuple[int, int] = (0, 0)

    @property
    def family(self) -> str:
        return self.frame.name.split(".")[0] if self.frame.name.startswith("clause") else self.frame.name


class Writer:
    """Turns facts into blocks of a passage and notes on each fact what was shown of it, and where."""

    def __init__(self, rng: random.Random, split: str, others: Mapping[str, Sequence[str]]) -> None:
        self.rng = rng
        self.split = split
        self.others = others

    def statement(self, fact: Fact, heading_slots: set[str], before: Fact | None = None) -> None:
        held = self.split == "statement" and fact.frame.held_statements
        template = self.rng.choice(fact.frame.held_statements if held else fact.frame.statements)
        if self.split != "statement":
            template = self.grown(template, fact.frame)
        understood = set(heading_slots)
        for key in fact.frame.keys:
            mentioned = before is not None and any(
                fact.values[key] is value for slot, value in before.values.items() if slot in before.shown
            )
            if (key in heading_slots or mentioned) and template.count(f"{{{key}}}") == 1 and self.rng.random() < 0.6:
                template, done = re.subn(
                    rf"(?i)\bthe \{{{key}\}}", lambda m: "It" if m.group()[0] == "T" else "it", template
                )
                understood |= {key} if done else set()
        text = expand(template, fact.values, self.rng)
        fact.shown = set(text.spans) | understood
        text.text = capitalised(text.text)
        first = text.text.split(" ")[0]
        if self.rng.random() < 0.14:
            wrap = self.aside(self.rng.choice(WRAPS))
            shift = len(wrap)
            body = (
                text.text[0].lower() + text.text[1:]
                if first in SAFE_FIRST and not wrap.endswith(("! ", ". ", "? "))
                else text.text
            )
            text = Text(wrap + body, text.moved(shift))
        text.text = text.text.replace("m..", "m.") if text.text.endswith("..") else text.text
        if self.rng.random() < 0.1 and text.text.endswith(".") and not text.text.endswith(".m."):
            text.text = text.text[:-1] + self.aside(self.rng.choice(TAILS))
        fact.text = text

    def grown(self, template: str, frame: Frame) -> str:
        """Sometimes an adverb after the verb, an adjective before the subject, or a clause behind it."""
        rng = self.rng
        if self.split == "train" and rng.random() < 0.06:
            template = blurred(template, rng, r"(?<=[ ])[a-z]{4,}(?= [a-z{<])")
        if self.others and rng.random() < REWORDED:
            template = reworded(template, rng, self.others)
        if rng.random() < 0.35:
            for words, others in SWAPS.items():
                if words in template:
                    template = template.replace(words, rng.choice(others), 1)
        if rng.random() < 0.1:
            template = re.sub(
                r"^([^\[<]*?\b(?:is|are|can|may|must|will|was)) ",
                lambda m: f"{m[1]} {rng.choice(ADVERBS)} ",
                template,
                count=1,
            )
        if frame.keys and rng.random() < 0.14:
            subject = f"{{{frame.keys[0]}}}"
            if rng.random() < 0.4:
                template = re.sub(
                    rf"\b([Tt]he|[Oo]ur) {re.escape(subject)}",
                    lambda m: f"{m[1]} {rng.choice(EPITHETS)} {subject}",
                    template,
                    count=1,
                )
            elif template.startswith(f"The {subject} "):
                clause = re.sub(r"[\[\]{}<>|]", "", self.aside(rng.choice(CLAUSES)))
                template = f"The {subject}, {clause}, {template[len(f'The {subject} ') :]}"
        return template

    def item(self, fact: Fact) -> tuple[Text, Text] | None:
        """The fact as label and value, with spans in each."""
        if not fact.frame.items:
            return None
        label, _, value = self.rng.choice(fact.frame.items).partition(" :: ")
        left, right = expand(label, fact.values, self.rng), expand(value, fact.values, self.rng)
        left.text = capitalised(left.text)
        if self.rng.random() < 0.5 and not re.match(r"\S*[@.]\S", right.text):
            right.text = capitalised(right.text)
        fact.shown = set(left.spans) | set(right.spans)
        return left, right

    def heading(self, fact: Fact, venue: str) -> tuple[str, set[str]]:
        text = expand(self.rng.choice(fact.frame.headings), fact.values, self.rng)
        shown = capitalised(text.text)
        roll = self.rng.random()
        if roll < 0.25:
            shown = f"{venue} > {shown}"
        elif roll < 0.32:
            shown = venue
            text.spans = {}
        return shown, set(text.spans)

    def section(self, facts: list[Fact], venue: str, out: list[str], filler: float) -> None:
        """Write one block; the place of each fact is where its text begins in the whole passage."""
        rng = self.rng
        text, heading_slots = self.heading(facts[0], venue)
        position = sum(map(len, out))
        buffer = [f"## {text}\n"]

        def put(piece: str) -> int:
            start = position + sum(map(len, buffer))
            buffer.append(piece)
            return start

        form = rng.choice(("prose", "prose", "prose", "lines", "list", "list", "table"))
        if self.split == "statement":
            form = rng.choice(("prose", "prose", "lines"))
        rows = facts[0].frame.rows
        if form == "table" and rows:
            self.table(facts, rng.choice(rows), put)
        elif form in ("list", "table"):
            self.listing(facts, heading_slots, form, put)
        else:
            gap = " " if form == "prose" else "\n"
            first = True
            joined = False
            same = [fact for fact in facts if fact.frame is facts[0].frame]
            sentence = self.together(same) if rng.random() < 0.6 else None
            if sentence:
                start = put(sentence[0])
                for fact, offset in zip(same, sentence[1], strict=True):
                    fact.place = (start + offset, start + offset + len(fact.text.text))
                facts, first = [fact for fact in facts if fact not in same], False
            for n, fact in enumerate(facts):
                self.statement(
                    fact,
                    heading_slots if n == 0 and not sentence else set(),
                    facts[n - 1] if n and not joined else None,
                )
                if rng.random() < filler:
                    put(("" if first else gap) + self.filler())
                    first = False
                lead = "" if first else gap
                if (
                    not first
                    and not joined
                    and form == "prose"
                    and rng.random() < 0.18
                    and buffer[-1].endswith(".")
                    and not buffer[-1].endswith(".m.")
                    and fact.text.text.split(" ")[0] in SAFE_FIRST
                ):
                    buffer[-1] = buffer[-1][:-1]
                    lead = rng.choice((", and ", "; ", ", while ", ", but ", " and ", " – "))
                    fact.text.text = fact.text.text[0].lower() + fact.text.text[1:]
                    joined = True
                else:
                    joined = False
                start = put(lead + fact.text.text) + len(lead)
                fact.place = (start, start + len(fact.text.text))
                first = False
            if rng.random() < filler:
                put(gap + self.filler())
        out.extend(buffer)

    def listing(self, facts: list[Fact], heading_slots: set[str], form: str, put: Callable[[str], int]) -> None:
        rng = self.rng
        style = (
            rng.choice(("- {}: ", "* {}: ", "- **{}**: ", "{}: ", "- {} – ", "**{}:** ", "- {}, ", "+ {}: "))
            if form == "list"
            else "| {} | "
        )
        if form == "table" and rng.random() < 0.75:
            head = rng.choice(
                (
                    ("Item", "Details"),
                    ("What", "Value"),
                    ("", ""),
                    ("Topic", "Information"),
                    ("What", "When/where"),
                    ("Offer", "Details"),
                )
            )
            put(f"| {head[0]} | {head[1]} |\n|---|---|\n")
        for n, fact in enumerate(facts):
            end = "" if n == len(facts) - 1 else "\n"
            pair = self.item(fact)
            if pair is None:
                self.statement(fact, heading_slots if n == 0 else set())
                lead = "" if form == "table" else rng.choice(("- ", "* ")) if style[0] in "-*+" else ""
                start = put(lead + fact.text.text + end) + len(lead)
            else:
                left, right = pair
                if n == 0:
                    fact.shown |= heading_slots
                before, after = style.split("{}")
                tail = " |" if form == "table" else rng.choice(("", "", "."))
                spans = {name: (a + len(before), b + len(before)) for name, (a, b) in left.spans.items()}
                shift = len(before) + len(left.text) + len(after)
                spans.update(right.moved(shift))
                fact.text = Text(before + left.text + after + right.text + tail, spans)
                start = put(fact.text.text + end)
            fact.place = (start, start + len(fact.text.text))

    def table(self, facts: list[Fact], row: str, put: Callable[[str], int]) -> None:
        rng = self.rng
        cells = [cell.strip().partition("=")[::2] for cell in re.split(r"\|(?![^\[]*\])", row)]
        names = [expand(name.strip(), {}, rng).text for name, _ in cells]
        extra = [fact for fact in facts if fact.frame is not facts[0].frame]
        same = [fact for fact in facts if fact.frame is facts[0].frame]
        if rng.random() < 0.8:
            put("| " + " | ".join(names) + " |\n|" + "---|" * len(names) + "\n")
        for n, fact in enumerate(same):
            text = Text("|")
            for _, template in cells:
                cell = expand(template.strip(), fact.values, rng)
                cell.text = capitalised(cell.text) if cell.text[:1].islower() and rng.random() < 0.8 else cell.text
                text.spans.update(cell.moved(len(text.text) + 1))
                text.text += f" {cell.text} |"
            fact.text, fact.shown = text, set(text.spans)
            start = put(text.text + ("\n" if n < len(same) - 1 or extra else ""))
            fact.place = (start, start + len(text.text))
        for n, fact in enumerate(extra):
            self.statement(fact, set())
            start = put(fact.text.text + ("\n" if n < len(extra) - 1 else ""))
            fact.place = (start, start + len(fact.text.text))

    def aside(self, template: str) -> str:
        style = times.Style.make(self.rng)
        drawn = {name: values.make(name, style, self.rng) for name in sorted(slots(template))}
        text = expand(template, drawn, self.rng).text
        return f" {text}" if template.startswith(" ") else text

    def filler(self) -> str:
        return capitalised(self.aside(self.rng.choice(FILLERS)))

    def together(self, facts: list[Fact]) -> tuple[str, list[int]] | None:
        """Several facts of one frame in one sentence, and where each begins in it."""
        frame = facts[0].frame
        options = (frame.held_several or frame.several) if self.split == "statement" else frame.several
        if not options or len(facts) < 2:
            return None
        lead, _, item = self.rng.choice(options).partition(":: ")
        whole = capitalised(expand(lead, {}, self.rng).text.lstrip())
        comma = self.rng.choice((", ", ", ", "; "))
        starts = []
        for n, fact in enumerate(facts):
            fact.text = expand(item, fact.values, self.rng)
            fact.shown = set(fact.text.spans)
            if n:
                whole += (
                    (
                        self.rng.choice((" and ", " and ", ", and ", ", while "))
                        if not lead.rstrip().endswith(":")
                        else comma
                    )
                    if n == len(facts) - 1
                    else comma
                )
            if not whole:
                fact.text.text = capitalised(fact.text.text)
            starts.append(len(whole))
            whole += fact.text.text
        return whole + ".", starts
