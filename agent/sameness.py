"""Whether two questions are the same, by the similarity that a kept answer of the cloud is found by (L2).

    labelled pairs, or the device's own judged questions, each with the likest before it
        -> similarity of each pair, taken as the cache takes it -> Calibrating.pairs -> the certificate ``cache``

The similarity is the cosine of the questions' embeddings, after pseudonymisation: what is personal never makes two
questions alike. The cache looks only among answers that rest on the same passage (agent/escalation/cache.py), so a pair
whose questions find different passages has no similarity and is never served; pairs of the same words need none.

Pairs of the device's own questions are called the same where the cloud's two answers say the same in both directions.
That errs: at most the share MISS of different pairs is called the same, so such a calibration tests for
epsilon * (1 - MISS) (a pair is called different with a probability of at least risk * (1 - MISS)).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from agent.calibrating import Evidence, Given, Progress
from agent.confidence.agreement import MISS, alike
from agent.confidence.labelled import LabelledPair
from agent.errors import Unavailable
from agent.escalation.cache import scope_of, words
from agent.messages import Retrieval

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

__all__ = ["MISS", "Library", "Sameness", "Told"]
_TEXTS: Final = 64


class Library(Protocol):
    """Where questions are embedded and searched for (agent/library.py)."""

    async def embed(self, texts: Sequence[str]) -> NDArray[float32] | None: ...

    async def retrieve(self, question: str, collection: str) -> Retrieval: ...


@dataclass(frozen=True, slots=True)
class Told:
    """A question that the cloud has answered."""

    question: str
    answer: str
    language: str


@dataclass(frozen=True, slots=True)
class _Seen:
    vector: NDArray[float32]
    scope: str


class Sameness:
    """See the module. ``bare`` pseudonymises a question; it blocks, and raises PrivacyFailed."""

    def __init__(self, library: Library, bare: Callable[[str], str]) -> None:
        self._library = library
        self._bare = bare

    async def embed(self, texts: Sequence[str]) -> NDArray[float32] | None:
        """One row a question, None without an embedding model. Raises PrivacyFailed, and what the worker raises."""
        return await self._library.embed(await asyncio.to_thread(lambda: [self._bare(text) for text in texts]))

    async def labelled(
        self, rows: Sequence[LabelledPair], collection: str
    ) -> AsyncGenerator[Progress | Evidence, None]:
        """Pairs that a person has labelled, asked in ``collection``. Raises Unavailable without an embedding model."""
        rows = [row for row in rows if words(row.a) != words(row.b)]
        questions = dict.fromkeys(question for row in rows for question in (row.a, row.b))
        seen: dict[str, _Seen] = {}
        async for progress in self._look(tuple(questions), collection, seen):
            yield progress
        groups = _groups([(row.a, row.b) for row in rows])
        for row, group in zip(rows, groups, strict=True):
            yield _evidence(row.a, row.b, row.same, row.group or group, seen)

    async def derived(self, told: Sequence[Told], collection: str) -> AsyncGenerator[Progress | Evidence, None]:
        """Each question with the likest of those before it that the cache would look among, as it would have met them.
        Raises as `labelled`."""
        seen: dict[str, _Seen] = {}
        async for progress in self._look(tuple(dict.fromkeys(one.question for one in told)), collection, seen):
            yield progress
        pairs = await asyncio.to_thread(_met, told, seen)
        groups = _groups([(before.question, one.question) for before, one, _ in pairs])
        for (before, one, same), group in zip(pairs, groups, strict=True):
            yield _evidence(before.question, one.question, same, group, seen)

    async def _look(
        self, questions: Sequence[str], collection: str, seen: dict[str, _Seen]
    ) -> AsyncGenerator[Progress, None]:
        """Fill ``seen``."""
        for at in range(0, len(questions), _TEXTS):
            part = questions[at : at + _TEXTS]
            vectors = await self.embed(part)
            if vectors is None:
                raise Unavailable("there is no embedding model to tell how alike questions are", remedy="Install one.")
            for done, (question, vector) in enumerate(zip(part, vectors, strict=True), start=at):
                yield Progress("asking", done, len(questions))
                found = await self._library.retrieve(question, collection)
                seen[question] = _Seen(vector, scope_of(found.quotes))


def _met(told: Sequence[Told], seen: dict[str, _Seen]) -> list[tuple[Told, Told, bool]]:
    """Each question with the likest before it of the same language and scope, and whether the answers say the same.
    What has the same words as one before is left out: it is found without."""
    import numpy as np

    vectors = np.stack([seen[one.question].vector for one in told])
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    places: dict[tuple[str, str], list[int]] = {}
    known: set[tuple[str, str, str]] = set()
    pairs = []
    for place, one in enumerate(told):
        scope = (one.language, seen[one.question].scope)
        if (*scope, words(one.question)) in known:
            continue
        if before := places.get(scope):
            likest = told[before[int((vectors[before] @ vectors[place]).argmax())]]
            same = alike(likest.answer, one.answer) and alike(one.answer, likest.answer)
            pairs.append((likest, one, same))
        places.setdefault(scope, []).append(place)
        known.add((*scope, words(one.question)))
    return pairs


def _evidence(a: str, b: str, same: bool, group: str, seen: dict[str, _Seen]) -> Evidence:
    one, other = seen[a], seen[b]
    features = {"cosine": _cosine(one, other)} if one.scope == other.scope else {}
    return Evidence(a, group, {"cache": Given(features, same, b)})


def _cosine(one: _Seen, other: _Seen) -> float:
    import numpy as np

    size = float(np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
    return float(one.vector @ other.vector) / size if size else 0.0


def _groups(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Pairs that share a question, directly or through others, belong together; a group's name is one of them."""
    root: dict[str, str] = {}

    def find(question: str) -> str:
        while (above := root.setdefault(question, question)) != question:
            root[question] = root[above]
            question = above
        return question

    for a, b in pairs:
        root[find(a)] = find(b)
    return [find(a) for a, _ in pairs]
