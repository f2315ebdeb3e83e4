"""The values in a sentence, made comparable whatever their wording (pure): "half past nine in the evening" and 21:30,
"three quarters of an hour" and 45 minutes, "12 July" and "July 12th", £12.50 and "12.50 pounds".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["time", "clock", "minutes", "days", "number", "weekday", "month", "code"]

_UNITS: Final = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split(),
        range(20),
        strict=True,
    )
)
_TENS: Final = dict(
    zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True)
)
_ORDINALS: Final = dict(
    zip("first second third fourth fifth sixth seventh eighth ninth tenth".split(), range(1, 11), strict=True)
)
_WEEKDAYS: Final = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTHS: Final = "january february march april may june july august september october november december".split()
_SPELLED: Final = {**_UNITS, **_TENS}
_NUMBER_WORD: Final = "|".join(sorted(_SPELLED, key=len, reverse=True))
_HALF_DAY: Final = r"(?:\s*(a\.?m\b\.?|p\.?m\b\.?|o'clock|in the (?:morning|afternoon|evening)|at night))"


@dataclass(frozen=True, slots=True)
class Value:
    """``time`` in minutes since midnight, ``clock`` the same of which nobody says whether it is before or after noon;
    ``minutes`` and ``days`` are durations; ``code`` is any text that must be met letter by letter."""

    kind: Kind
    amount: float | str

    def meets(self, other: Value) -> bool:
        """Whether both may be the same."""
        if {self.kind, other.kind} <= {"time", "clock"} and self.kind != other.kind:
            return float(self.amount) % 720 == float(other.amount) % 720
        return self == other


def extract(text: str) -> frozenset[Value]:
    """Every value of a text.

    >>> sorted(value.amount for value in extract("from half past nine in the evening, 12.50 pounds"))
    [12.5, 1290]
    """
    found: set[Value] = set()

    def take(pattern: re.Pattern[str], read: Callable[[re.Match[str]], Value | None], text: str) -> str:
        def one(match: re.Match[str]) -> str:
            value = read(match)
            if value is None:
                return match[0]
            found.add(value)
            return " ; "

        return pattern.sub(one, text)

    text = text.lower().replace("’", "'")
    for pattern, read in _READERS:
        text = take(pattern, read, text)
    return frozenset(found)


def _clock(hours: float, minutes: float, half_day: str | None, *, exact: bool = False) -> Value | None:
    if not (0 <= hours <= 24 and 0 <= minutes < 60):
        return None
    day = (half_day or "").replace(".", "").strip()
    if day in ("pm", "in the afternoon", "in the evening", "at night"):
        return Value("time", (hours % 12 + 12) * 60 + minutes)
    if day in ("am", "in the morning"):
        return Value("time", hours % 12 * 60 + minutes)
    return Value("time" if exact or hours > 12 or hours == 0 else "clock", hours * 60 + minutes)


def _spoken_clock(match: re.Match[str]) -> Value | None:
    """half past nine, quarter to eight"""
    part, side, hour, day = match[1], match[2], match[3], match[4]
    hours = _SPELLED[hour] if hour in _SPELLED else int(hour)
    minutes = 30 if part == "half" else 15
    if side == "to":
        hours, minutes = hours - 1, 60 - minutes
    return _clock(hours, minutes, day)


def _duration(amount: float, unit: str) -> Value:
    if unit.startswith(("week", "day")):
        return Value("days", amount * (7 if unit.startswith("week") else 1))
    return Value("minutes", amount * (60 if unit.startswith("h") else 1))


def _amount(text: str) -> float:
    if text in _SPELLED:
        return _SPELLED[text]
    tens, _, units = text.replace("-", " ").partition(" ")
    if tens in _TENS and units in _UNITS:
        return _TENS[tens] + _UNITS[units]
    if re.fullmatch(r"\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?", text):
        return float(text.replace(",", "").replace(" ", ""))
    return float(text.replace(",", "."))


_DIGITS: Final = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?"
_ANY: Final = rf"(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(list(_UNITS)[1:10])})|{_NUMBER_WORD}|{_DIGITS})"
_READERS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Value | None]], ...]] = (
    (re.compile(r"\S+@[\w.-]+\w|\bwww\.[\w.-]+\w|https?://\S+\w"), lambda m: Value("code", m[0])),
    (re.compile(r"(?<![\d.,])\+?\d[\d ()/-]{5,}\d(?![\d.,:])"), lambda m: _telephone(m[0])),
    (
        re.compile(rf"\b(half|quarter) (past|to) ({_NUMBER_WORD}|\d{{1,2}})\b{_HALF_DAY}?"),
        _spoken_clock,
    ),
    (re.compile(rf"\b(\d{{1,2}})[:.](\d{{2}}){_HALF_DAY}"), lambda m: _clock(int(m[1]), int(m[2]), m[3])),
    (re.compile(r"\b(\d{1,2}):(\d{2})\b"), lambda m: _clock(int(m[1]), int(m[2]), None, exact=True)),
    (
        re.compile(rf"\b({_NUMBER_WORD}|\d{{1,2}}){_HALF_DAY}"),
        lambda m: _clock(_amount(m[1]), 0, m[2]),
    ),
    (re.compile(r"\b(?:noon|midday)\b"), lambda m: Value("time", 720)),
    (re.compile(r"\bmidnight\b"), lambda m: Value("time", 0)),
    (re.compile(r"\bthree[- ]quarters of an hour\b"), lambda m: Value("minutes", 45)),
    (re.compile(r"\b(?:a )?quarter of an hour\b"), lambda m: Value("minutes", 15)),
    (re.compile(r"\b(?:an hour and a half|one and a half hours)\b"), lambda m: Value("minutes", 90)),
    (re.compile(r"\bhalf an hour\b|\bhalf hour\b"), lambda m: Value("minutes", 30)),
    (
        re.compile(rf"\b({_ANY})[- ]?(hours?|h|minutes?|mins?|weeks?|days?)\b"),
        lambda m: _duration(_amount(m[1]), m[2]),
    ),
    (re.compile(rf"\b({_NUMBER_WORD}) and a half\b"), lambda m: Value("number", _SPELLED[m[1]] + 0.5)),
    (re.compile(r"\bhalf price\b"), lambda m: Value("number", 50)),
    (re.compile(r"\b(\d+)(?:st|nd|rd|th)\b"), lambda m: Value("number", int(m[1]))),
    (re.compile(rf"\b({'|'.join(_ORDINALS)})\b"), lambda m: Value("number", _ORDINALS[m[1]])),
    (re.compile(rf"\b({'|'.join(_WEEKDAYS)})s?\b"), lambda m: Value("weekday", m[1])),
    (
        re.compile(rf"\b({'|'.join(m for m in _MONTHS if m not in ('may', 'march'))})\b|(?<=\d )(may|march)\b"),
        lambda m: Value("month", m[1] or m[2]),
    ),
    (re.compile(r"\b(?=[a-z]*\d)(?=\d*[a-z])[a-z\d]{2,}\b(?<!\dkg)(?<!\dm)(?<!\dkm)"), lambda m: Value("code", m[0])),
    (
        re.compile(rf"\b(?:one)(?=[- ](?:euro|pound|dollar|franc)s?\b)|(?<!\w)(?:{_DIGITS})"),
        lambda m: Value("number", _amount(m[0])),
    ),
    (
        re.compile(rf"\b(?!one\b)(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(list(_UNITS)[1:10])})|{_NUMBER_WORD})\b"),
        lambda m: Value("number", _amount(m[0])),
    ),
)


def _telephone(text: str) -> Value | None:
    digits = re.sub(r"\D", "", text)
    return Value("code", digits) if len(digits) >= 7 else None
