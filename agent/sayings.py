"""What the device says where a person must answer and the venue has set no text of its own: by reason and language."""

from __future__ import annotations

_UNSURE = {
    "en": "I can't answer that for certain. Please ask a member of staff.",
    "de": "Das kann ich nicht sicher beantworten. Bitte wenden Sie sich an das Personal.",
}
_ASKED_FOR = {
    "en": "Please speak to a member of staff, who will help you.",
    "de": "Bitte wenden Sie sich an das Personal, dort hilft man Ihnen.",
}


def handoff(reason: str, language: str) -> str:
    """In English where the language has none.

    >>> handoff("person_requested", "de")
    'Bitte wenden Sie sich an das Personal, dort hilft man Ihnen.'
    """
    texts = _ASKED_FOR if reason == "person_requested" else _UNSURE
    return texts.get(language, texts["en"])
