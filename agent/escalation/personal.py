"""Personal data, taken out of what leaves the device and put back into what comes home.

`Finder` knows what personal data looks like, `Pseudonyms` replaces it in all texts of one request by placeholders such
as ``[NAME_1]``, and the `Restoration` that is kept on the device turns placeholders in the reply into what they stood
for, in whole texts and in streamed pieces. The same value has the same placeholder throughout a request and another
one in the next: nothing links two requests.

What a text holds that only looks like a placeholder becomes one itself (TEXT), so that restoring gives back every text
as it was. Servers bend placeholders a little: escaped for Markdown or a URL, a blank for the underscore, other case, no
brackets. All these are restored; a number that was never given stays as it is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, get_args

from agent.errors import PrivacyFailed
from agent.escalation import identifiers, phrases
from agent.escalation.identifiers import Kind, Span
from agent.escalation.words import COMMON, GIVEN, NOUNS

_UNEXPECTED: Final = (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What a mistake in here can raise; every one of them keeps the request at home."""
_REMEDY: Final = "Nothing has left the device; a person has to answer."
_PASSES: Final = 4
_EDGES: Final = frozenset(" \t\n,;")


class Finder:
    """Finds personal data by patterns, check digits and the device's lists. ``phone_region`` is the ISO 3166 country of
    telephone numbers without a prefix. Immutable; `spans` is for threads, for the first number that it meets
    loads telephone metadata."""

    def __init__(self, names: Iterable[str] = (), places: Iterable[str] = (), phone_region: str = "GB") -> None:
        self._region = phone_region
        self._lists: tuple[tuple[Kind, re.Pattern[str] | None], ...] = (
            ("NAME", _any_of(names)),
            ("PLACE", _any_of(places)),
        )

    def spans(self, text: str) -> tuple[Span, ...]:
        """What is personal in a text: disjoint, in order."""
        found: list[Span] = [Span(m.start(), m.end(), "TEXT") for m in _FORM.finditer(text)]
        found += _emails(text)
        for kind in (identifiers.ibans, identifiers.cards, identifiers.identities, identifiers.addresses):
            found += kind(text)
        found += phrases.births(text)
        found += self._phones(text)
        folded = _folded(text)
        for name, listed in self._lists:
            if listed is not None:
                found += [Span(m.start(), m.end(), name) for m in listed.finditer(folded)]
        found += phrases.places(text)
        found += phrases.names(text)
        reachable = [span.start for span in found if span.kind in ("EMAIL", "PHONE", "IBAN", "BIRTH")]
        found += phrases.cards(text, reachable)
        return _disjoint(text, found)

    def _phones(self, text: str) -> Iterator[Span]:
        for match in _PHONE.finditer(text):
            before = text[max(0, match.start() - 40) : match.start()]
            if self._is_phone(match[0], bool(_PHONE_WORD.search(before)), bool(_OTHER_NUMBER.search(before))):
                yield Span(match.start(), match.end(), "PHONE")
        for match in _SPOKEN.finditer(text):
            digits = [_DIGITS.get(word.lower()) for word in re.findall(r"\w+", match[0])]
            if not all(a is not None and b is not None and b - a == 1 for a, b in pairwise(digits)):
                yield Span(match.start(), match.end(), "PHONE")

    def _is_phone(self, written: str, named: bool, other: bool) -> bool:
        digits = re.sub(r"\D", "", written)
        if not 7 <= len(digits) <= 17 or _NO_PHONE.fullmatch(written.strip()):
            return False
        if other and not named:
            return False
        international = written.lstrip("(").startswith(("+", "00"))
        national = bool(re.match(r"\(?0\s?[1-9]", written)) and len(digits) >= 9
        american = bool(_AMERICAN.fullmatch(written.strip()))
        if not (international or national or american or named):
            return False
        import phonenumbers  # late: a device that never asks does without telephone metadata

        number = re.sub(r"\(0\)", "", written)
        if number.startswith("00"):
            number = "+" + number[2:].lstrip(" ")
        try:
            parsed = phonenumbers.parse(number, "US" if american else self._region)
        except phonenumbers.NumberParseException:
            return named or international
        return phonenumbers.is_possible_number(parsed) or named or (international and 9 <= len(digits) <= 15)


# ---------------------------------------------------------------- what it looks like

_LABEL: Final = r"[^\W_](?:[\w-]{0,62})"
_LOCAL: Final = r"[\w.!#$%&*+=?^`|~-]{1,64}(?:'[\w.!#$%&*+=?^`|~-]{1,64}){0,2}"
_EMAIL: Final = re.compile(rf"(?<![\w.+-]){_LOCAL}\s?@\s?{_LABEL}(?:\.{_LABEL}){{1,8}}(?<![_-])", re.IGNORECASE)
_TLD: Final = (
    r"(?:com|org|net|edu|gov|info|io|eu|de|uk|us|at|ch|fr|nl|it|es|pl|be|ie|dk|se|no|fi|pt|cz|hu|ro|gr|tr|ca|au|example"
    r"|test|biz|me|app|dev|online|email)"
)
_AT: Final = r"\s*[(\[{<]\s*(?:at|ät|@|a)\s*[)\]}>]\s*"
_DOT: Final = r"(?:\s*[(\[{<]\s*(?:dot|punkt|\.)\s*[)\]}>]\s*|\s+(?:dot|punkt)\s+|\.|_dot_)"
_SAID_DOT: Final = r"(?:\s+(?:dot|punkt)\s+|\s*[(\[{<]\s*(?:dot|punkt)\s*[)\]}>]\s*|_dot_)"
_HIDDEN_EMAILS: Final = (
    re.compile(rf"(?i)(?<![\w.+-])[\w.+-]{{1,64}}{_AT}[\w-]{{1,63}}(?:{_DOT}[\w-]{{1,63}}){{0,6}}{_DOT}[a-z]{{2,}}\b"),
    re.compile(
        rf"(?i)(?<![\w.+-])[\w.+-]{{1,64}}(?:\s+(?:dot|punkt|minus|underscore|unterstrich)\s+[\w+-]{{1,64}}){{0,4}}"
        rf"(?:\s+(?:at|ät)\s+|_at_)[a-z0-9-]{{1,63}}(?:{_SAID_DOT}[a-z0-9-]{{1,63}}){{0,6}}?{_SAID_DOT}{_TLD}\b(?:{_SAID_DOT}{_TLD}\b)?"
    ),
)
_PHONE: Final = re.compile(
    r"(?<![\w.,+-])(?<![0-9]/)(?:\+|\(\+?)?\s?[0-9](?:[ \u00a0\u202f()./-]{0,3}[0-9]){5,18}(?![\w€$£%]|[.,][0-9])"
)
_PHONE_WORD: Final = re.compile(
    r"(?i)\b(?:call|ring|phone|telephone|tel|mobile|cell|text|sms|dial|whatsapp|reach\w*\s+\w+(?:\s+\w+)?\s+(?:on|at|under)"
    r"|my\s+number|number\s+is|call\s+\w+(?:\s+back)?\s+on|mobil|handy|telefon|festnetz|nummer\s+(?:ist|lautet)|meine\s+nummer"
    r"|erreich\w+|r(?:uf|ückruf)\w*|anrufen|fax|landline|mobile['’]s)\b(?:\s*(?:no|nr|number|nummer))?[^\w]{0,4}"
    r"(?:(?:is|ist|me|back|on|at|mich|sie|an|unter|tagsüber|auf|the|number|my|us|in)\b[^\w]{0,3}){0,4}$"
)
_OTHER_NUMBER: Final = re.compile(
    r"(?i)\b(?:order|invoice|ref|reference|isbn(?:-1[03])?|ean|tracking|serial|article|model|customer|version|catalogue|account"
    r"|member|ticket|flight|coordinates|gps|locker|code|bestell\w*|rechnung\w*|kunden\w*|artikel\w*|absatz|auftrag\w*"
    r"|koordinaten|sendungs\w*|serien\w*|vertrags\w*|reservierung\w*|aktenzeichen|az|sn|no|nr)\b"
    r"(?:\s*(?:number|no|nr|nummer|is|ist))?[^\w]{0,4}(?:[0-9A-Z]{1,4}[ -]){0,5}$"
)
_NO_PHONE: Final = re.compile(
    r"\d{1,2}[./-]\s?\d{1,2}[./-]\s?\d{2,4}|\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[.:]\d{2}\s?[-–]\s?\d{1,2}[.:]\d{2}"
    r"|\d{4}\s?[-/]\s?\d{4}|97[89][- ]?\d[\d -]{8,12}|\d{1,3}(?:\.\d{3})+"
)
_AMERICAN: Final = re.compile(
    r"(?:\([2-9]\d{2}\)\s?|[2-9]\d{2}[-.])[2-9]\d{2}[-. ]\d{4}|1[-. ][2-9]\d{2}[-. ]\d{3}[-. ]\d{4}"
)
_DIGITS: Final = {
    word: value
    for value, words in enumerate(
        ("zero oh o null", "one eins", "two zwei zwo", "three drei", "four vier", "five fünf", "six sechs",
         "seven sieben", "eight acht", "nine neun", "ten zehn")
    )
    for word in words.split()
}  # fmt: skip
_SAID: Final = "|".join((*_DIGITS, "double", "triple", "doppel", "hundred", "hundert", "plus"))
_SPOKEN: Final = re.compile(rf"(?i)\b(?:{_SAID})(?:[ ,.-]+(?:{_SAID})){{6,}}\b")


def _emails(text: str) -> Iterator[Span]:
    for match in _EMAIL.finditer(text):
        yield Span(match.start(), match.end(), "EMAIL")
    for pattern in _HIDDEN_EMAILS:
        for match in pattern.finditer(text):
            yield Span(match.start(), match.end(), "EMAIL")


def _folded(text: str) -> str:
    """Lower case without accents, one character for one: places in it are places in the text."""
    return "".join((unicodedata.normalize("NFD", char)[0].lower() or char)[0] for char in text)


def _any_of(entries: Iterable[str]) -> re.Pattern[str] | None:
    patterns = sorted({r"\W{1,3}".join(map(re.escape, _folded(e).split())) for e in entries if e.strip()}, key=len)
    return re.compile(rf"(?<!\w)(?:{'|'.join(reversed(patterns))})(?!\w)") if patterns else None


def _disjoint(text: str, found: Iterable[Span]) -> tuple[Span, ...]:
    """The spans without overlaps: what an earlier one covers is cut out of a later one, what is left of that stays."""
    taken: list[Span] = []
    free = bytearray(b"\1") * len(text)
    for span in found:
        start = free.find(1, span.start, span.end)
        while start >= 0:
            stop = free.find(0, start, span.end)
            stop = span.end if stop < 0 else stop
            begin, end = start, stop
            while begin < end and text[begin] in _EDGES:
                begin += 1
            while end > begin and text[end - 1] in _EDGES:
                end -= 1
            if any(char.isalnum() for char in text[begin:end]):
                taken.append(Span(begin, end, span.kind))
                free[begin:end] = bytes(end - begin)
            start = free.find(1, stop, span.end)
    return tuple(sorted(taken, key=lambda span: span.start))


# ---------------------------------------------------------------- restoring

_KINDS: Final = get_args(Kind)
_STYLES: Final = (
    ("[", "_", "]"), ("[", "\\_", "]"), ("\\[", "\\_", "\\]"), ("\\[", "_", "\\]"), ("[", " ", "]"),
    ("%5b", "_", "%5d"), ("", "_", ""), ("", "\\_", ""),
)  # fmt: skip
_HEADS: Final = tuple(
    (f"{opening}{kind}{joint}".lower(), closing) for opening, joint, closing in _STYLES for kind in _KINDS
)
_MOST_DIGITS: Final = 4
_FORM: Final = re.compile(
    "|".join(
        rf"{re.escape(opening)}(?:{'|'.join(_KINDS)}){re.escape(joint)}[0-9]{{1,{_MOST_DIGITS}}}{re.escape(closing)}"
        if opening
        else rf"(?<![\w\[\\])(?:{'|'.join(_KINDS)}){re.escape(joint)}[0-9]{{1,{_MOST_DIGITS}}}(?!\w)"
        for opening, joint, closing in _STYLES
    ),
    re.IGNORECASE,
)
_PARTS: Final = re.compile(rf"({'|'.join(_KINDS)})\W*_?\W*([0-9]+)", re.IGNORECASE)
_LONGEST: Final = max(len(head) + len(closing) for head, closing in _HEADS) + _MOST_DIGITS


class Restoration:
    """What the placeholders of one request stand for. It never leaves the device."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __len__(self) -> int:
        return len(self._values)

    def restore(self, text: str) -> str:
        """The text with every placeholder of this request replaced by what it stands for; others stay."""
        return _FORM.sub(self.value, text)

    def value(self, form: re.Match[str]) -> str:
        """What one placeholder stands for, itself where it is none of this request."""
        parts = _PARTS.search(form[0])
        return self._values.get(f"[{parts[1].upper()}_{parts[2]}]", form[0]) if parts else form[0]

    def stream(self) -> RestoringStream:
        """A restorer for one reply that comes in pieces."""
        return RestoringStream(self)

    def dump(self) -> bytes:
        """For the outbox; `load` reads it."""
        return json.dumps(self._values, ensure_ascii=False).encode("utf-8", "surrogatepass")

    @classmethod
    def load(cls, data: bytes) -> Restoration:
        """Raises PrivacyFailed for what `dump` did not write."""
        try:
            found = json.loads(data.decode("utf-8", "surrogatepass"))
            if not all(isinstance(text, str) for pair in found.items() for text in pair):
                raise ValueError("not all of it is text")
            return cls(found)
        except (ValueError, AttributeError, RecursionError) as error:
            raise PrivacyFailed(f"the stored placeholders cannot be read: {error}") from error


class RestoringStream:
    """Pieces of one reply in, restored text out; what may be the beginning of a placeholder waits for the next piece.
    All that `feed` and `end` return, joined, is what `Restoration.restore` makes of the whole."""

    def __init__(self, restoration: Restoration) -> None:
        self._restoration = restoration
        self._text = ""
        self._done = 0
        """So much of ``_text`` has gone out; one character of it is kept, as it decides what may begin behind it."""

    def feed(self, piece: str) -> str:
        """What is certain now; "" while a placeholder may be in the making."""
        self._text += piece
        return self._take(last=False)

    def end(self) -> str:
        """What was held back."""
        return self._take(last=True)

    def _take(self, *, last: bool) -> str:
        text, position, out = self._text, self._done, []
        end = len(text) if last else self._certain(text, position)
        for form in _FORM.finditer(text, position):
            if form.end() > end:
                break
            out += [text[position : form.start()], self._restoration.value(form)]
            position = form.end()
        out.append(text[position:end])
        keep = max(0, end - 1)
        self._text, self._done = text[keep:], end - keep
        return "".join(out)

    @staticmethod
    def _certain(text: str, position: int) -> int:
        """The first place from which on the text may be an unfinished placeholder."""
        covered = position
        for form in _FORM.finditer(text, position):
            if form.end() < len(text) or text.endswith(("]", "d", "D")):
                covered = form.end()
        for start in range(max(covered, len(text) - _LONGEST), len(text)):
            if _unfinished(text[start:].lower()):
                return start
        return len(text)


def _unfinished(tail: str) -> bool:
    for head, closing in _HEADS:
        if head.startswith(tail):
            return True
        if tail.startswith(head):
            rest = tail[len(head) :]
            digits = len(rest) - len(rest.lstrip("0123456789"))
            if digits <= _MOST_DIGITS and (digits or not rest) and closing.startswith(rest[digits:]):
                return closing == "" or rest[digits:] != closing
    return False


# ---------------------------------------------------------------- replacing


class Pseudonyms:
    """The placeholders of one request. ``texts`` and ``json_texts`` are everything that will leave: a name that one of
    them gives away is replaced in all of them. Methods raise PrivacyFailed where they cannot vouch for the result."""

    def __init__(self, finder: Finder, texts: Sequence[str], json_texts: Sequence[str] = ()) -> None:
        self._finder = finder
        self._placeholders: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._known: dict[str, Kind] = {}
        self._found: dict[str, tuple[Span, ...]] = {}
        try:
            for text in (*texts, *(string for json_text in json_texts for string in _strings(json_text))):
                self._learn(text)
            self._pattern = _known_pattern(self._known)
        except _UNEXPECTED as error:
            raise _failed(error) from error

    def replace(self, text: str) -> str:
        """The text without personal data; ``restoration.restore`` gives it back as it was."""
        try:
            return self._replaced(text)
        except _UNEXPECTED as error:
            raise _failed(error) from error

    def replace_json(self, text: str) -> str:
        """The same for all strings, keys and numbers of a JSON text (a tool call's arguments), whose escapes would hide
        something from `replace`; what is no JSON is taken as plain text."""
        try:
            value = json.loads(text)
        except ValueError:
            return self.replace(text)
        except RecursionError as error:
            raise _failed(error) from error
        try:
            return json.dumps(self._replaced_value(value), ensure_ascii=False)
        except _UNEXPECTED as error:
            raise _failed(error) from error

    @property
    def restoration(self) -> Restoration:
        """For the placeholders given so far."""
        return Restoration({placeholder: value for (_, value), placeholder in self._placeholders.items()})

    def _learn(self, text: str) -> None:
        self._found[text] = self._finder.spans(text)
        for span in self._found[text]:
            value = text[span.start : span.end]
            self._known.setdefault(value, span.kind)
            if span.kind == "NAME":
                for word in re.findall(r"[^\W\d_]{3,}(?:['’-][^\W\d_]+)*", value):
                    plain = word.lower()
                    if word[0].isupper() and (plain in GIVEN or plain not in COMMON | NOUNS | phrases.TITLES):
                        self._known.setdefault(word, "NAME")

    def _replaced(self, text: str) -> str:
        spans = self.spans(text)
        for _ in range(_PASSES):
            if not spans:
                return text
            pieces, position = [], 0
            for span in spans:
                pieces += [text[position : span.start], self._placeholder(span.kind, text[span.start : span.end])]
                position = span.end
            text = "".join([*pieces, text[position:]])
            masked = _GIVEN_FORM.sub(lambda form: "\0" * len(form[0]), text)
            spans = self.spans(masked)
        if spans:
            raise PrivacyFailed("personal data was left in a text after it had been replaced", remedy=_REMEDY)
        return text

    def spans(self, text: str) -> tuple[Span, ...]:
        """What `replace` would take out of a text."""
        known = self._found.get(text)
        found = list(self._finder.spans(text) if known is None else known)
        if self._pattern is not None:
            found += [Span(m.start(), m.end(), self._known[m[0]]) for m in self._pattern.finditer(text)]
        return _disjoint(text, found)

    def _placeholder(self, kind: Kind, value: str) -> str:
        given = self._placeholders.get((kind, value))
        if given is None:
            self._counts[kind] = number = self._counts.get(kind, 0) + 1
            if number >= 10**_MOST_DIGITS:
                raise PrivacyFailed("there is more personal data in a request than placeholders", remedy=_REMEDY)
            given = self._placeholders[kind, value] = f"[{kind}_{number}]"
        return given

    def _replaced_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._replaced(value)
        if isinstance(value, list):
            return [self._replaced_value(item) for item in value]
        if isinstance(value, dict):
            return {self._replaced(key): self._replaced_value(item) for key, item in value.items()}
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            written = json.dumps(value)
            replaced = self._replaced(written)
            return value if replaced == written else replaced
        return value


def _strings(text: str) -> Iterator[str]:
    """Every string in a JSON text, keys too; a text that is none as it is."""
    try:
        waiting = [json.loads(text)]
    except ValueError:
        waiting = [text]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]


_GIVEN_FORM: Final = re.compile(rf"\[(?:{'|'.join(_KINDS)})_[0-9]{{1,{_MOST_DIGITS}}}\]")


def _known_pattern(known: Mapping[str, Kind]) -> re.Pattern[str] | None:
    values = sorted(known, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, values))})(?!\w)") if values else None


def _failed(error: BaseException) -> PrivacyFailed:
    return PrivacyFailed(f"personal data could not be looked for ({type(error).__name__})", remedy=_REMEDY)
