"""Which questions are paired, what makes a pair, and what is concluded from pairs: seeded, without a daemon."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.calibrating import Evidence, Given, Progress, conclude_pairs
from agent.confidence.calibration import p_value
from agent.confidence.labelled import LabelledPair
from agent.config import Promise, Risk
from agent.errors import Unavailable
from agent.messages import Quote, Retrieval
from agent.sameness import Sameness, Told

LOADED = {"embedding": "a", "similarity": "b"}
RISK = Risk(routes={"cache": Promise(epsilon=0.1, delta=0.05)}, coverage_floor=0.5)


class Shelf:
    """Texts are embedded by their last word, at an angle; what they find is named by their first."""

    has_model = True

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        turns = [float(text.split()[-1]) for text in texts]
        return np.array([[np.cos(t), np.sin(t)] for t in turns], np.float32) if self.has_model else None

    async def retrieve(self, question: str, collection: str) -> Retrieval:
        return Retrieval((), (Quote(collection, "t", "h", question.split()[0], 1.0),), "hybrid")


async def evidence(work: AsyncGenerator[Progress | Evidence, None]) -> list[tuple[str, str, float | None, bool, str]]:
    found = []
    async for step in work:
        if isinstance(step, Evidence):
            given = step.routes["cache"]
            cosine = given.features.get("cosine")
            found.append((step.asked, given.text, cosine and round(cosine, 3), given.right, step.group))
    return found


async def test_labelled_pairs_are_seen_as_the_cache_sees_them() -> None:
    sameness = Sameness(Shelf(), lambda text: text.replace("Ada", "0.0"))
    rows = [
        LabelledPair("open at 0.0", "open when 0.5", True),
        LabelledPair("open when 0.5", "open how 1", False),
        LabelledPair("open at 0.0", "Open AT 0.0!", True),
        LabelledPair("shut at 0.0", "open at 7", False),
        LabelledPair("open by Ada", "open of Ada", True, "named"),
    ]
    found = await evidence(sameness.labelled(rows, "default"))
    assert [(a, b, cosine, same) for a, b, cosine, same, _ in found] == [
        ("open at 0.0", "open when 0.5", 0.878, True),
        ("open when 0.5", "open how 1", 0.878, False),
        ("shut at 0.0", "open at 7", None, False),  # other passages are found: never the same
        ("open by Ada", "open of Ada", 1.0, True),  # what is personal is not compared
    ]
    groups = [group for *_, group in found]
    assert groups[0] == groups[1], "pairs that share a question stand or fall together"
    assert groups[2] not in (groups[0], groups[3])
    assert groups[3] == "named"


async def test_own_questions_meet_the_likest_before_them() -> None:
    sameness = Sameness(Shelf(), str)
    told = [
        Told("open at 0.0", "We open at 9:00.", "en"),
        Told("open at 1.0", "Dogs are not allowed.", "en"),
        Told("open when 0.1", "At nine in the morning.", "en"),
        Told("open when 0.1", "At nine in the morning.", "en"),  # the same words: found without
        Told("open wann 0.1", "We open at 9:00.", "de"),
        Told("shut at 0.1", "At nine.", "en"),
        Told("open today 0.9", "Yes, dogs are allowed.", "en"),
    ]
    found = await evidence(sameness.derived(told, "default"))
    assert [(a, b, same) for a, b, _, same, _ in found] == [
        ("open at 0.0", "open at 1.0", False),
        ("open at 0.0", "open when 0.1", True),
        ("open at 1.0", "open today 0.9", False),
    ]


async def test_without_a_model_nothing_is_alike() -> None:
    shelf = Shelf()
    shelf.has_model = False
    with pytest.raises(Unavailable, match="no embedding model"):
        await evidence(Sameness(shelf, str).labelled([LabelledPair("open at 1", "open at 2", True)], "default"))


# ---------------------------------------------------------------- conclusions


def pairs(seed: int, size: int, *, slope: float = 40.0) -> list[Evidence]:
    """The likelier the same the more alike, even at .8."""
    random = np.random.default_rng(seed)
    cosines = random.uniform(0.3, 1.0, size)
    same = random.random(size) < 1 / (1 + np.exp(-slope * (cosines - 0.8)))
    return [
        Evidence(f"a {n}", f"group {n}", {"cache": Given({"cosine": float(c)}, bool(s))})
        for n, (c, s) in enumerate(zip(cosines, same, strict=True))
    ]


def test_a_similarity_is_certified_where_the_pairs_earn_it_and_coverage_has_no_floor() -> None:
    (outcome,) = conclude_pairs(pairs(1, 2000), RISK, LOADED, {"sha256": "x"})
    made = outcome.certificate
    assert made is not None
    assert (made.route, made.epsilon, made.depends_on) == ("cache", 0.1, LOADED)
    assert made.coverage < RISK.coverage_floor
    assert p_value(made.wrong, made.served, 0.1) <= 0.05
    similarity = made.measures["similarity"]
    assert similarity == made.least("cosine")
    assert 0.75 < similarity < 0.95
    assert made.serves({"cosine": similarity + 1e-6})
    assert not made.serves({"cosine": similarity - 1e-6})
    assert not made.serves({}), "other passages"


def test_labels_that_miss_differences_are_held_to_more() -> None:
    (plain,) = conclude_pairs(pairs(1, 2000), RISK, LOADED, {})
    (strict,) = conclude_pairs(pairs(1, 2000), RISK, LOADED, {}, miss=0.5)
    assert plain.certificate is not None
    assert strict.certificate is not None
    assert strict.certificate.epsilon == plain.certificate.epsilon == strict.epsilon
    assert strict.certificate.measures["similarity"] > plain.certificate.measures["similarity"]
    assert p_value(strict.certificate.wrong, strict.certificate.served, 0.05) <= 0.05
    assert strict.certificate.risk_upper <= 0.1


@pytest.mark.parametrize(("size", "slope", "reason"), [(30, 40.0, "too_few_labels"), (2000, -40.0, "no_prospect")])
def test_no_promise_without_grounds(size: int, slope: float, reason: str) -> None:
    (outcome,) = conclude_pairs(pairs(3, size, slope=slope), RISK, LOADED, {})
    assert (outcome.certificate, outcome.reason) == (None, reason)
