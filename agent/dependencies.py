"""What a route's score depends on, each by its SHA-256, as it is loaded now: certificates are bound to it (L2).

    score       the meaning of the features (certificate.SCORE_VERSION)
    intents     the intent pack in use and assistant.min_confidence, from which on a text is taken for one of them: they
                decide which questions reach the documents, too
    embedding   the embedding model's files
    ranker      the ranking model's files, retrieval the settings and weights that choose quotes
    similarity  how the cache tells how alike questions are (_SIMILARITY)
    text        the SLM's files (a quantization is other files), prompt what it is asked, with its sampling

A part that is not there counts as ``none``, which differs from every certificate that was made with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache

from agent import prompts
from agent.confidence.certificate import SCORE_VERSION
from agent.config import Assistant as AssistantConfig
from agent.config import RouteName
from agent.errors import StorageFailed
from agent.gathering import ANSWER_TOKENS
from agent.knowledge import retrieval
from agent.knowledge.intents import IntentPack
from agent.messages import InstalledModel, ModelFile, Quote

_SIMILARITY = "1"
"""Raised by whoever changes what agent/sameness.py takes the similarity of."""
Model = Callable[[], InstalledModel | None]
NONE = "none"


class Dependencies:
    """Called with a route: what it depends on now. The arguments look the parts up at every call."""

    def __init__(
        self,
        *,
        pack: Callable[[], IntentPack | None],
        embedding: Model,
        ranker: Model,
        text: Model,
        min_confidence: float = AssistantConfig().min_confidence,
    ) -> None:
        self._pack = pack
        self._min_confidence = min_confidence
        self._embedding = embedding
        self._ranker = ranker
        self._text = text

    def __call__(self, route: RouteName) -> Mapping[str, str]:
        if route == "cache":
            return {
                "similarity": _digest(_SIMILARITY),
                "embedding": identity(self._embedding()),
                "ranker": identity(self._ranker()),
                "retrieval": _retrieval(),
            }
        pack = self._pack()
        found = {
            "score": _digest(SCORE_VERSION),
            "intents": _digest(f"{pack.sha256} {self._min_confidence:g}") if pack is not None else NONE,
            "embedding": identity(self._embedding()),
        }
        if route == "intent":
            return found
        return found | {
            "ranker": identity(self._ranker()),
            "retrieval": _retrieval(),
            "text": identity(self._text()),
            "prompt": _prompt(),
        }


def identity(model: InstalledModel | None) -> str:
    """The hash of a model's files."""
    if model is None:
        return NONE
    return _files(model.files)


@lru_cache(maxsize=16)
def _files(files: tuple[ModelFile, ...]) -> str:
    """Kept, for every answer asks for it."""
    return _digest(json.dumps(sorted([file.path, file.sha256] for file in files)))


@lru_cache(maxsize=1)
def _prompt() -> str:
    """Of an example as the SLM gets it, so that every change of the wording or of the form shows."""
    quotes = [Quote(f"d{n}", "Title", f"Title > Heading {n}", f"# Text {n}", 1.0) for n in range(prompts.PASSAGES + 1)]
    messages = prompts.grounded("What is asked?", quotes)
    return _digest(json.dumps([ANSWER_TOKENS, [[message.role, message.content] for message in messages]]))


@lru_cache(maxsize=1)
def _retrieval() -> str:
    """Raises StorageFailed where the weights cannot be read."""
    try:
        return _digest(f"{retrieval.PASSAGES}\n{retrieval.WEIGHTS.read_text(encoding='utf-8')}")
    except OSError as error:
        raise StorageFailed(f"{retrieval.WEIGHTS} cannot be read: {error.strerror}", remedy="Install again.") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
