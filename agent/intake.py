"""What a question must be before anything is done with it: clean text of bounded length (pure functions, L2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from agent.errors import InputTooLarge, InvalidRequest
from agent.messages import ChatMessage

_KEPT_CONTROLS = frozenset("\n\t")
_BLANKS = re.compile(r"[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


def clean(text: str, max_chars: int) -> str:
    """``text`` without control and invisible format characters and lone surrogates, in NFC, blanks folded.

    Raises InputTooLarge over ``max_chars`` (before cleaning, so that the work is bounded) and InvalidRequest when
    nothing readable is left.
    """
    if len(text) > max_chars:
        raise InputTooLarge(
            f"the question has {len(text)} characters; the limit is {max_chars}", remedy="Ask a shorter one."
        )
    kept = "".join(char for char in text.replace("\r\n", "\n") if _readable(char))
    folded = _BLANK_LINES.sub("\n\n", _BLANKS.sub(" ", unicodedata.normalize("NFC", kept))).strip()
    if not any(char.isalnum() for char in folded):
        raise InvalidRequest(f"the question {text[:40]!r} holds no readable text", remedy="Ask in words.")
    return folded


def _readable(char: str) -> bool:
    """Letters, marks, numbers, punctuation, symbols and blanks; zero-width joiners stay because scripts need them."""
    if char in _KEPT_CONTROLS or char in "\u200c\u200d":
        return True
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")


def bounded(window: Sequence[ChatMessage], turns: int, max_chars: int) -> tuple[ChatMessage, ...]:
    """The newest ``turns`` question-answer pairs of a conversation, readable text only, at most ``max_chars``
    characters in all; a turn that would go over is left out with all before it."""
    kept: list[ChatMessage] = []
    left = max_chars
    for turn in reversed(window[max(0, len(window) - 2 * turns) :]):
        text = "".join(char for char in turn.content[: left + 1] if _readable(char)).strip()
        if len(turn.content) > left:
            break
        left -= len(text)
        if text:
            kept.append(ChatMessage(turn.role, text))
    return tuple(reversed(kept))
