"""Personal data, taken out of what leaves the device and put back into what comes home.

`Finder` knows what personal data looks like, `Pseudonyms` replaces it in all texts of one request by placeholders such
as ``[NAME_1]``, and the `Restoration` that is kept on the device turns placeholders in the reply into what they stood
for, in whole texts and in streamed pieces. The same value has the same placeholder throughout a request and another
one in the next: nothing links two requests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agent.errors import PrivacyFailed

Kind = Literal["EMAIL", "PHONE", "IBAN", "CARD", "IP", "ID", "NAME", "PLACE", "BIRTH", "TEXT"]
"""What a placeholder says about the value; TEXT is what only looks like a placeholder."""

_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int
    kind: Kind


class Finder:
    """Finds personal data by patterns, checksums and the device's lists; immutable, safe to share."""

    def __init__(self, names: Iterable[str] = (), places: Iterable[str] = (), phone_region: str = "GB") -> None:
        self._names = tuple(names)
        self._places = tuple(places)
        self._region = phone_region

    def spans(self, text: str) -> tuple[Span, ...]:
        """What is personal in a text: disjoint, in order."""
        return tuple(Span(match.start(), match.end(), "EMAIL") for match in _EMAIL.finditer(text))


class Restoration:
    """What the placeholders of one request stand for. It never leaves the device."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def restore(self, text: str) -> str:
        """The text with every placeholder of this request replaced by what it stands for; others stay."""
        for placeholder, value in self._values.items():
            text = text.replace(placeholder, value)
        return text

    def stream(self) -> RestoringStream:
        """A restorer for one reply that comes in pieces."""
        return RestoringStream(self)

    def dump(self) -> bytes:
        """For the outbox; `load` reads it."""
        return json.dumps(self._values, ensure_ascii=False).encode()

    @classmethod
    def load(cls, data: bytes) -> Restoration:
        """Raises PrivacyFailed for what `dump` did not write."""
        try:
            return cls({str(key): str(value) for key, value in json.loads(data).items()})
        except (ValueError, AttributeError) as error:
            raise PrivacyFailed(f"the stored placeholders cannot be read: {error}") from error


class RestoringStream:
    """Pieces of one reply in, restored text out; what may be the beginning of a placeholder waits for the next piece.
    All that `feed` and `end` return, joined, is what `Restoration.restore` makes of the whole."""

    def __init__(self, restoration: Restoration) -> None:
        self._restoration = restoration
        self._held = ""

    def feed(self, piece: str) -> str:
        self._held += piece
        return ""

    def end(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return self._restoration.restore(held)


class Pseudonyms:
    """The placeholders of one request. ``texts`` is everything that will leave: a name that one of them gives away is
    replaced in all of them. Every method raises PrivacyFailed where it cannot vouch for its result."""

    def __init__(self, finder: Finder, texts: Sequence[str]) -> None:
        self._finder = finder
        self._values: dict[str, str] = {}

    def replace(self, text: str) -> str:
        """The text without personal data; ``restoration.restore`` gives it back as it was."""
        for span in reversed(self._finder.spans(text)):
            placeholder = f"[{span.kind}_{len(self._values) + 1}]"
            self._values[placeholder] = text[span.start : span.end]
            text = text[: span.start] + placeholder + text[span.end :]
        return text

    def replace_json(self, text: str) -> str:
        """The same for every string of a JSON text (a tool call's arguments)."""
        return self.replace(text)

    @property
    def restoration(self) -> Restoration:
        """For the placeholders given so far."""
        return Restoration(self._values)
