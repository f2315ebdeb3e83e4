"""Tokens: the chat format, the tokenizer, and packed rows for training.

A prompt is `<|user|>` + passage blocks + question + `<|assistant|>`; the answer follows and ends with `<|end|>`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .generate import Example, Generator, Link, Question
from .natural import Natural

SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
PAD, USER, ASSISTANT, END = range(4)
TEMPLATE = (
    "{%- set turns = messages | selectattr('role', 'equalto', 'user') | list -%}"
    "<|user|>{{ turns[-1]['content'] | trim }}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
ROW = 320
NATURAL = 0.25  # share of examples from natural pages, once the others have reached full difficulty
ZIPF = 150_000  # how often the most frequent English words stand in the tokenizer's text, times a hundred
ANSWERS = 512  # answer tokens supervised per batch, at most


def train_tokenizer(size: int, seed: int, english: Sequence[str] = (), texts: int = 12000) -> Tokenizer:
    """Byte-level BPE on the generator's text and, in Zipf's proportions, on words of English, most frequent first."""
    generator = Generator(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def corpus() -> list[str]:
        out = []
        for _ in range(texts):
            example = generator.example()
            out.append(example.passage)
            out += [f"Question: {q.text}" for q in example.questions] + [f" {q.answer}" for q in example.questions]
        for rank, word in enumerate(english):
            out += [f" {word}"] * (1 + ZIPF // (rank + 100))
            out += [f" {word.capitalize()}"] * (ZIPF // (rank + 100) // 4)
        return out

    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


@dataclass
class Row:
    """One training row under construction."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segment: list[int] = field(default_factory=list)  # which passage
    branch: list[int] = field(default_factory=list)  # which question; 0 is the passage
    targets: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # (position that predicts, token, position to look at)
    firsts: list[int] = field(default_factory=list)  # indices into targets where an answer begins
    links: list[tuple[int, int]] = field(default_factory=list)  # (position in a question, position that it names)
    binds: set[tuple[int, int]] = field(default_factory=set)  # (position in a passage, what it belongs to, before it)


class Packer:
    """Turns examples into rows of fixed length."""

    def __init__(self, tokenizer: Tokenizer, generator: Generator, natural: Natural | None = None) -> None:
        self.tokenizer, self.generator, self.natural = tokenizer, generator, natural
        self.rng = random.Random(generator.rng.random())
        self.waiting: list[Row] = []

    def add(self, row: Row, example: Example) -> bool:
        """Append an example to a row, with as many of its questions as fit."""
        head = self.tokenizer.encode(example.passage + "\n\nQuestion:")
        tokens = [USER, *head.ids]
        offsets = [(-1, -1), *head.offsets]
        base, number = len(row.tokens), (row.segment[-1] + 1 if row.segment else 1)
        if base + len(tokens) + 40 > ROW or not example.questions:
            return False
        row.tokens += tokens
        row.positions += range(len(tokens))
        row.segment += [number] * len(tokens)
        row.branch += [0] * len(tokens)
        for branch, question in enumerate(example.questions, 1):
            self.ask(row, question, offsets, base, number, branch)
        return True

    def ask(
        self, row: Row, question: Question, offsets: list[tuple[int, int]], base: int, number: int, branch: int
    ) -> None:
        words = self.tokenizer.encode(" " + question.text)
        asked = words.ids
        answer = self.tokenizer.encode(" " + question.answer)
        tokens = [*asked, ASSISTANT, *answer.ids, END]
        if len(row.tokens) + len(tokens) - 1 > ROW:
            return
        start = len(row.tokens)
        row.firsts.append(len(row.targets))
        for link in question.links:
            if question.span and link.said and not question.span[0] <= link.said[0] < question.span[1]:
                ends = (position_of(offsets, question.span[0]), position_of(offsets, link.said[1] - 1))
                row.binds.add((base + max(ends), base + min(ends)))
            for n, (left, right) in enumerate(words.offsets):
                if left < link.asked[1] + 1 and right > link.asked[0] + 1:
                    row.links.append((start + n, base + (self.match(link, left, offsets) if link.said else 0)))
        for n, token in enumerate([*answer.ids, END]):
            look = base
            if question.span and token != END:
                char = question.span[0] + max(answer.offsets[n][0] - 1, 0)
                if answer.offsets[n][0] == 0:  # the leading space: look at it, or at the first character
                    char = max(char - 1, 0) if offsets_has(offsets, char - 1, char) else char
                look = base + position_of(offsets, char)
            row.targets.append((start + len(asked) + n, token, look if token != END else -1))
        tokens = tokens[:-1]  # the last token predicts nothing
        row.tokens += tokens
        row.positions += range(len(offsets), len(offsets) + len(tokens))
        row.segment += [number] * len(tokens)
        row.branch += [branch] * len(tokens)

    def match(self, link: Link, left: int, offsets: list[tuple[int, int]]) -> int:
        """The passage's token for a token of the question's words: the same one, or the last where wording differs."""
        assert link.said
        if link.said[1] - link.said[0] == link.asked[1] - link.asked[0]:
            return position_of(offsets, link.said[0] + max(left - 1 - link.asked[0], 0))
        return position_of(offsets, link.said[1] - 1)

    def row(self) -> Row:
        row, misses = Row(), 0
        while misses < 4 and len(row.tokens) < ROW - 70:
            written = self.natural and self.rng.random() < NATURAL * self.generator.level
            source = self.natural if self.natural and written else self.generator
            if not self.add(row, source.example(self.rng.choice((5, 6, 7)))):
                misses += 1
        return row

    def batch(self, rows: int) -> dict[str, np.ndarray]:
        made = [self.row() for _ in range(rows)]
        tokens = np.full((rows, ROW), PAD, np.int64)
        positions = np.zeros((rows, ROW), np.int64)
        segment, branch = np.zeros((rows, ROW), np.int32), np.zeros((rows, ROW), np.int32)
        targets, firsts, links, binds = [], [], [], []
        for n, row in enumerate(made):
            size = len(row.tokens)
            tokens[n, :size], positions[n, :size], segment[n, :size], branch[n, :size] = (
                row.tokens,
                row.positions,
                row.segment,
                row.branch,
            )
            links += [(n, *link) for link in row.links]
            binds += [(n, *bind) for bind in sorted(row.binds)]
            firsts += [len(targets) + first for first in row.firsts]
            targets += [(n, *target) for target in row.targets]
        return {
            "tokens": tokens,
            "positions": positions,
            "segment": segment,
            "branch": branch,
            "targets": np.array(targets),
            "firsts": np.array(firsts),
            "links": np.array(links).reshape(-1, 3),
            "binds": np.array(binds).reshape(-1, 3),
        }


def offsets_has(offsets: list[tuple[int, int]], start: int, end: int) -> bool:
    """Is the character before the answer inside the token that starts there (a leading space)?"""
    return any(a == start and b >= end for a, b in offsets)


def position_of(offsets: list[tuple[int, int]], char: int) -> int:
    for n, (a, b) in enumerate(offsets):
        if a <= char < b:
            return n
    return 0
