"""Labelled examples for calibration, and whether an answer is right by them (pure).

An answer counts as right by rules that err on the strict side: it holds one of the acceptable answers word for word (a
bare yes or no never counts), and a quote overlaps the evidence where the data names it. What counts as wrong but is
right makes a certificate serve less than it could; the other way round it would promise too much.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINES = re.compile(r"(?<=[.!?:])\s+|\n")
_BARE = ("yes", "no", "")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """An utterance and its intent, None where it is out of scope. ``tune``: for fitting or for certifying only; None
    leaves it to the calibration."""

    text: str
    intent: str | None
    group: str | None = None
    tune: bool | None = None


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question about ``documents`` (ids). ``answers`` are the acceptable ones, none where the documents do not hold
    one; ``evidence`` is the sentence, list item or table row that answers, verbatim; ``tune`` as in `LabelledText`."""

    question: str
    answers: tuple[str, ...]
    documents: tuple[str, ...] = ()
    evidence: str = ""
    group: str | None = None
    tune: bool | None = None


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two questions, and whether they are the same: whether an answer to ``a`` answers ``b``."""

    a: str
    b: str
    same: bool
    group: str | None = None


def quote_is_right(asked: LabelledQuestion, text: str) -> bool:
    """Whether a quote answers the question."""
    served = f" {plain(text)} "
    if not any(f" {answer} " in served for answer in _accepted(asked)):
        return False
    return not asked.evidence or any(_holds(asked.evidence, part) for part in [*text.split("\n"), *_LINES.split(text)])


def answer_is_right(asked: LabelledQuestion, text: str) -> bool:
    """Whether a generated answer, which may be a single word, is one of the acceptable ones: it holds it, or is at
    least half of it."""
    given = plain(text)
    return bool(given) and any(
        f" {answer} " in f" {given} " or (f" {given} " in f" {answer} " and len(given) * 2 >= len(answer))
        for answer in _accepted(asked)
    )


def plain(text: str) -> str:
    """Words and numbers in lower case, one blank apart."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _accepted(asked: LabelledQuestion) -> Sequence[str]:
    return [answer for answer in map(plain, asked.answers) if answer not in _BARE]


def _holds(evidence: str, text: str) -> bool:
    wanted, words = plain(evidence), plain(text)
    return wanted in words or (len(words) > 5 and words in wanted)
