"""What visitors say: expands the templates of phrases.txt; a share of them is held out of training by name.

Words in, words out: text is written as it is spoken, in small letters without punctuation.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()
TOKEN = re.compile(r"\{\w+\}|[()|]|[^\s{}()|]+")
END = ""  # of a walk over pairs of words


def number(value: int) -> str:
    """0 to 9999 in words."""
    if value < 20:
        return ONES[value]
    if value < 100:
        return TENS[value // 10] + (f" {ONES[value % 10]}" if value % 10 else "")
    size, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    rest = value % size
    joint = " and " if 0 < rest < 100 else " "
    return f"{ONES[value // size]} {name}" + (f"{joint}{number(rest)}" if rest else "")


def _time(rng: random.Random) -> str:
    hour = ONES[rng.randint(1, 12)]
    form = rng.randrange(8)
    if form == 0:
        return f"{hour} o'clock"
    if form == 1:
        return f"half past {hour}"
    if form == 2:
        return f"quarter {rng.choice(('past', 'to'))} {hour}"
    if form == 3:
        return f"{number(rng.choice((5, 10, 20, 25)))} {rng.choice(('past', 'to'))} {hour}"
    if form == 4:
        return f"{hour} {rng.choice(('am', 'pm', 'in the morning', 'in the evening'))}"
    if form == 5:
        minute = rng.randrange(1, 60)
        return f"{hour} {'oh ' if minute < 10 else ''}{number(minute)}"
    if form == 6:
        return f"{hour} {rng.choice(('fifteen', 'thirty', 'forty five'))} {rng.choice(('am', 'pm'))}"
    return rng.choice(("noon", "midnight", hour, f"{hour} {rng.choice(('fifteen', 'thirty', 'forty five'))}"))


def _price(rng: random.Random) -> str:
    amount = rng.choice((rng.randint(1, 20), rng.randint(1, 99), rng.randint(100, 250)))
    unit = rng.choice(("pounds", "euros", "dollars"))
    if amount == 1:
        unit = unit[:-1]
    form = rng.randrange(4)
    if form == 0:
        return f"{number(amount)} {unit}"
    if form == 1:
        return f"{number(amount)} {unit} {number(rng.randrange(5, 100, 5))}"
    if form == 2:
        return f"{number(rng.randrange(5, 100, 5))} {rng.choice(('pence', 'cents'))}"
    return f"{number(amount % 20 + 1)} {number(rng.randrange(15, 100, 5))}"


def _number(rng: random.Random) -> str:
    return number(rng.choice((rng.randrange(21), rng.randrange(100), rng.randrange(100), rng.randrange(1000))))


def _digits(rng: random.Random) -> str:
    zero = rng.choice(("zero", "oh"))
    return " ".join(ONES[d] if d else zero for d in (rng.randrange(10) for _ in range(rng.randint(2, 6))))


def _ordinal(rng: random.Random) -> str:
    day = rng.randint(1, 31)
    return (
        ORDINALS[day - 1]
        if day <= 20
        else "thirtieth"
        if day == 30
        else f"{number(day - day % 10)} {ORDINALS[day % 10 - 1]}"
    )


MADE = {"time": _time, "price": _price, "number": _number, "digits": _digits, "ordinal": _ordinal}


@dataclass(frozen=True)
class Template:
    section: str
    text: str
    held: bool


@dataclass
class Grammar:
    """Templates, the lists that fill them, and pairs of words that occur in known phrases."""

    slots: dict[str, list[str]] = field(default_factory=dict)
    templates: list[Template] = field(default_factory=list)
    follows: dict[str, list[str]] = field(default_factory=dict)

    def known(self) -> list[Template]:
        return [template for template in self.templates if not template.held]

    def held(self) -> list[Template]:
        return [template for template in self.templates if template.held]

    def expand(self, text: str, rng: random.Random) -> str:
        """One phrase of a template. Raises KeyError for a slot that does not exist."""
        tokens = TOKEN.findall(text)
        words, end = self._sequence(tokens, 0, rng)
        if end != len(tokens):
            raise ValueError(f"stray mark in template {text!r}")
        text = re.sub(r"\ban? (?=[aeio]|um)", "an ", " ".join(words))
        return re.sub(r"\ban (?=[^aeiou]|us|uni|one|eu)", "a ", text)

    def _sequence(self, tokens: list[str], at: int, rng: random.Random) -> tuple[list[str], int]:
        words: list[str] = []
        while at < len(tokens) and tokens[at] not in "|)":
            token = tokens[at]
            at += 1
            if token == "(":
                choices = []
                while True:
                    choice, at = self._sequence(tokens, at, rng)
                    choices.append(choice)
                    if at >= len(tokens):
                        raise ValueError("a choice without its end")
                    at += 1
                    if tokens[at - 1] == ")":
                        break
                words += rng.choice(choices)
            elif token.startswith("{"):
                words += self.fill(token[1:-1], rng)
            else:
                words.append(token)
        return words, at

    def fill(self, slot: str, rng: random.Random) -> list[str]:
        if slot in MADE:
            return MADE[slot](rng).split()
        choice = rng.choice(self.slots[slot])
        return self.expand(choice, rng).split() if "{" in choice else choice.split()

    def phrase(self, rng: random.Random, held: bool = False) -> str:
        """A phrase of a known or a held-out template; small sections more often than their size would have it."""
        templates = self.held() if held else self.known()
        sizes = Counter(template.section for template in templates)
        section = rng.choices(list(sizes), [size**0.5 for size in sizes.values()])[0]
        return self.expand(rng.choice([t for t in templates if t.section == section]).text, rng)

    def walk(self, rng: random.Random, longest: int = 11) -> str:
        """A random walk over pairs of words of known phrases: keeps the model from learning the templates by heart."""
        if not self.follows:
            source = random.Random(5)
            for template in self.known():
                for _ in range(12):
                    words = self.expand(template.text, source).split()
                    for word, after in zip([END, *words], [*words, END], strict=True):
                        self.follows.setdefault(word, []).append(after)
        words: list[str] = []
        word = rng.choice(self.follows[END])
        while word != END and len(words) < longest:
            words.append(word)
            word = rng.choice(self.follows[word])
        return " ".join(words)

    def words(self, count: int = 60) -> set[str]:
        """The words of the known phrases."""
        rng = random.Random(7)
        return {w for template in self.known() for _ in range(count) for w in self.expand(template.text, rng).split()}


@cache
def load() -> Grammar:
    grammar = Grammar()
    section = ""
    for raw in (Path(__file__).parent / "phrases.txt").read_text("utf-8").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        slot = re.fullmatch(r"(\w+): (.*)", line)
        if line.startswith("["):
            section = line.strip("[]")
        elif slot:
            grammar.slots[slot[1]] = [choice.strip() for choice in slot[2].split("|")]
        else:
            grammar.templates.append(Template(section, line.lstrip("~ "), line.startswith("~")))
    return grammar


def spoken(text: str) -> str:
    """The text as a synthesiser should get it: `nine am` is not `I am`."""
    numbers = "|".join((*ONES[1:], *TENS[2:]))
    return re.sub(rf"\b({numbers}) ([ap])m\b", r"\1 \2 m", text)
